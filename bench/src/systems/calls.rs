//! Systems that make calls, on the loopback: how a client and a server of each find together, and what they answer.
//!
//! Every server answers with the first [`SHORT`] bytes of the request, as soon as it has all of it.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use steadfast::homa::Homa;
use steadfast::rpc::{CallOptions, Request, Rpc};
use steadfast::{Bytes, Identity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::{Connect, Connected, Keys, Listen, Listening, endpoint, grpc, quic, stream, tls};
use crate::child::{Console, tell};

/// Bytes of an answer at most.
pub(crate) const SHORT: usize = 100;
/// Homa's port.
const PORT: u16 = 99;
/// Bytes of packets that the kernel may hold for a socket, if it allows as many: what Steadfast asks for.
pub(super) const BUFFER: usize = 8 << 20;
/// Any port of the loopback.
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A system that makes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Callers {
    /// Homa over sealed UDP.
    Homa,
    /// Homa in the clear.
    HomaPlain,
    /// Datagrams, and nothing else.
    Udp,
    /// gRPC over TLS.
    Tonic,
    TonicPlain,
    /// A length and a message, over one connection.
    Tcp,
    Quinn,
    /// With packets as long as the loopback takes them.
    QuinnLong,
}

impl Callers {
    /// Its name in the results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Homa => "homa",
            Self::HomaPlain => "homa_plain",
            Self::Udp => "udp",
            Self::Tonic => "tonic",
            Self::TonicPlain => "tonic_plain",
            Self::Tcp => "tcp",
            Self::Quinn => "quinn",
            Self::QuinnLong => "quinn_long",
        }
    }
}

/// What a server answers.
pub(crate) fn answer(mut request: Bytes) -> Bytes {
    request.truncate(SHORT);
    request
}

/// A client that has found its server.
pub(crate) enum Client {
    Homa(Rpc),
    Grpc(grpc::Client),
    Quic(quic::Client),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

/// Makes calls, many at once.
#[derive(Clone)]
pub(crate) enum Caller {
    Homa(Rpc),
    Grpc(grpc::Client),
    Quic(quic::Client),
}

impl Client {
    /// What makes calls; none where there are but bytes.
    pub(crate) fn caller(&self) -> Option<Caller> {
        match self {
            Self::Homa(rpc) => Some(Caller::Homa(rpc.clone())),
            Self::Grpc(client) => Some(Caller::Grpc(client.clone())),
            Self::Quic(client) => Some(Caller::Quic(client.clone())),
            Self::Udp(_) | Self::Tcp(_) => None,
        }
    }
}

impl Caller {
    /// Makes a call and waits for its answer.
    pub(crate) async fn call(&mut self, body: Bytes) -> anyhow::Result<()> {
        let expected = body.len().min(SHORT);
        let answer = match self {
            Self::Homa(rpc) => rpc.call(body, CallOptions::default()).await?.into_bytes().await?,
            Self::Grpc(client) => client.call(body).await?,
            Self::Quic(client) => client.call(body).await?,
        };
        anyhow::ensure!(answer.len() == expected, "an answer of {} bytes", answer.len());
        Ok(())
    }
}

/// The client's part.
pub(crate) async fn client(system: Callers, console: &mut Console) -> anyhow::Result<Client> {
    let identity = Identity::generate()?;
    tell(&Keys { keys: vec![identity.fingerprint().to_string()] });
    let Connect { contact, certificate, .. } = console.hear().await?;
    let client = match system {
        Callers::Homa => {
            let endpoint = endpoint::builder(identity, true).bind().await?;
            let homa = endpoint.homa()?;
            let rpc = Rpc::over_homa(&homa.connect(contact).await?, PORT);
            // What it was made of lives as long as this does.
            Client::Homa(rpc)
        }
        Callers::HomaPlain => {
            let homa = Homa::plain(ANY)?;
            let rpc = Rpc::over_homa(&homa.peer(contact.parse()?)?, PORT);
            Client::Homa(rpc)
        }
        Callers::Udp => {
            let socket = udp().await?;
            socket.connect(contact).await?;
            Client::Udp(socket)
        }
        Callers::Tonic | Callers::TonicPlain => {
            Client::Grpc(grpc::Client::connect(contact.parse()?, certificate).await?)
        }
        Callers::Tcp => Client::Tcp(stream::connect(contact.parse()?, false).await?),
        Callers::Quinn | Callers::QuinnLong => {
            let packets = packets_of(system);
            Client::Quic(quic::Client::connect(contact.parse()?, certificate, packets).await?)
        }
    };
    tell(&Connected);
    Ok(client)
}

fn packets_of(system: Callers) -> quic::Packets {
    if system == Callers::QuinnLong { quic::Packets::Long } else { quic::Packets::Usual }
}

/// The server's part: answers for ever.
pub(crate) async fn serve(system: Callers, console: &mut Console) -> anyhow::Result<()> {
    let Listen { keys, .. } = console.hear().await?;
    match system {
        Callers::Homa => {
            let endpoint = endpoint::server(&keys, true).await?;
            let _serving = endpoint.homa()?.serve(PORT, handle)?;
            listening(endpoint.contact(), Vec::new());
            console.hear::<()>().await
        }
        Callers::HomaPlain => {
            let homa = Homa::plain(ANY)?;
            let _serving = homa.serve(PORT, handle)?;
            listening(homa.local_addr().to_string(), Vec::new());
            console.hear::<()>().await
        }
        Callers::Udp => {
            let socket = udp().await?;
            listening(socket.local_addr()?.to_string(), Vec::new());
            let mut datagram = [0; 2048];
            loop {
                let (length, from) = socket.recv_from(&mut datagram).await?;
                socket.send_to(&datagram[..length], from).await?;
            }
        }
        Callers::Tonic => {
            let (listener, acceptor) = (stream::listen(ANY, false)?, tls::Acceptor::new()?);
            listening(listener.local_addr()?.to_string(), acceptor.certificate());
            grpc::serve(acceptor.accept(stream::accept(&listener).await?).await?).await
        }
        Callers::TonicPlain => {
            let listener = stream::listen(ANY, false)?;
            listening(listener.local_addr()?.to_string(), Vec::new());
            grpc::serve(stream::accept(&listener).await?).await
        }
        Callers::Tcp => {
            let listener = stream::listen(ANY, false)?;
            listening(listener.local_addr()?.to_string(), Vec::new());
            serve_tcp(stream::accept(&listener).await?).await
        }
        Callers::Quinn | Callers::QuinnLong => {
            let (endpoint, certificate) = quic::listen(packets_of(system))?;
            listening(endpoint.local_addr()?.to_string(), certificate);
            quic::serve(endpoint).await
        }
    }
}

/// With room for all that is open.
async fn udp() -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind(ANY).await?;
    SockRef::from(&socket).set_recv_buffer_size(BUFFER)?;
    Ok(socket)
}

fn listening(contact: String, certificate: Vec<u8>) {
    tell(&Listening { contact, certificate });
}

async fn handle(request: Request) -> Result<Bytes, String> {
    let body = request.into_body().into_bytes().await.map_err(|error| error.to_string())?;
    Ok(answer(body))
}

/// Messages begin with their length, 4 bytes of it included.
async fn serve_tcp(mut stream: TcpStream) -> anyhow::Result<()> {
    let mut message = Vec::new();
    loop {
        let length = stream.read_u32().await.context("the client is gone")? as usize;
        message.resize(length - 4, 0);
        stream.read_exact(&mut message).await?;
        stream.write_all(&message[..SHORT]).await?;
    }
}
