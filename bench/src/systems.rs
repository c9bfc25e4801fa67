//! The systems that are measured, and how a client and a server of each find together.

mod aggligator;
pub(crate) mod calls;
pub(crate) mod endpoint;
mod grpc;
pub(crate) mod lanes;
pub(crate) mod mptcp;
mod noq;
mod quic;
pub(crate) mod stream;
pub(crate) mod tls;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use steadfast::{Endpoint, Identity, MultiSocket};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::child::{Child, Console, tell};
use crate::systems::lanes::Lanes;

/// How long finding together may take.
const LIMIT: Duration = Duration::from_secs(20);

/// The congestion control of every TCP connection of every system; Steadfast asks for it by itself.
pub(crate) const CONGESTION: &str = "cubic";

/// A system that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum System {
    Steadfast,
    /// Plain TCP, a connection for each lane.
    Tcp,
    /// One plain TCP connection for all lanes, of which the first goes ahead where bytes wait in the application.
    TcpOne,
    /// The kernel's Multipath TCP, a connection for each lane.
    Mptcp,
    /// QUIC with its multipath extension.
    Noq,
    /// Links of TCP made one connection, for each lane.
    Aggligator,
    /// TLS 1.3 over one TCP connection: tokio and rustls.
    TcpTls,
}

impl System {
    /// A condition of every benchmark between hosts.
    pub(crate) const ENCRYPTION: &str =
        "steadfast, noq: TLS 1.3 on every path; tcp, tcp_one, mptcp, aggligator: none";
    /// Another one.
    pub(crate) const SETTINGS: &str = "steadfast: one conversation, its defaults; tcp: requests and bulk on a \
        connection each, over the first network; tcp_one: both on one, requests ahead of bulk that the application has \
        not written; mptcp: as tcp, kernel path manager, default scheduler, a subflow over each network; noq 1.4.0: one \
        connection, a stream for each with priority to requests, with two networks both paths available, kept alive each \
        50 ms, given up after 200 ms or 3 probe timeouts and opened again; aggligator 0.9.12: as tcp with a link over each network, \
        defaults beside bulk, otherwise acknowledgements due within 50 ms or 2 round trips";

    /// Its name in the results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Steadfast => "steadfast",
            Self::Tcp => "tcp",
            Self::TcpOne => "tcp_one",
            Self::Mptcp => "mptcp",
            Self::Noq => "noq",
            Self::Aggligator => "aggligator",
            Self::TcpTls => "tcp_tls",
        }
    }

    /// What keeps it from being measured here.
    pub(crate) fn obstacle(self) -> Option<String> {
        (self == Self::Mptcp).then(mptcp::obstacle).flatten()
    }
}

/// The client's keys, for the server to trust.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Keys {
    pub(crate) keys: Vec<String>,
}

/// Where two processes meet, and what they have between them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ground {
    /// The server's addresses, one on each network; on the loopback there are none.
    pub(crate) addresses: Vec<IpAddr>,
    /// How many conversations at once; Steadfast needs but one.
    pub(crate) lanes: u8,
}

impl Ground {
    /// One conversation on the loopback.
    pub(crate) const LOOPBACK: Self = Self { addresses: Vec::new(), lanes: 1 };

    fn is_loopback(&self) -> bool {
        self.addresses.is_empty()
    }

    fn first(&self) -> IpAddr {
        self.addresses.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

/// To the server: whom to trust, and where to listen.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listen {
    pub(crate) keys: Vec<String>,
    pub(crate) ground: Ground,
}

/// Where the server listens.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listening {
    /// An address, or what Steadfast calls a contact.
    pub(crate) contact: String,
    /// DER, where TLS needs one.
    pub(crate) certificate: Vec<u8>,
}

/// To the client: connect.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Connect {
    pub(crate) contact: String,
    pub(crate) certificate: Vec<u8>,
    pub(crate) ground: Ground,
}

/// The client has its conversation.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Connected;

/// What client and server have between them.
#[derive(Debug)]
pub(crate) enum Conversation {
    /// The endpoint lives as long as this does.
    Steadfast(Endpoint, MultiSocket),
    Tls(Box<TlsStream<TcpStream>>),
    Lanes(Lanes),
}

/// The conductor's part: lets a client and a server find together.
pub(crate) fn introduce(client: &mut Child, server: &mut Child, ground: Ground) -> anyhow::Result<()> {
    let Keys { keys } = client.expect("making keys", LIMIT)?;
    server.order(&Listen { keys, ground: ground.clone() })?;
    let Listening { contact, certificate } = server.expect("listening", LIMIT)?;
    client.order(&Connect { contact, certificate, ground })?;
    client.expect::<Connected>("connecting", LIMIT).map(drop)
}

/// The client's part.
pub(crate) async fn client(system: System, console: &mut Console) -> anyhow::Result<Conversation> {
    let identity = Identity::generate()?;
    tell(&Keys { keys: vec![identity.fingerprint().to_string()] });
    let Connect { contact, certificate, ground } = console.hear().await?;
    let conversation = match system {
        System::Steadfast => {
            let endpoint = endpoint::builder(identity, ground.is_loopback()).bind().await?;
            let socket = endpoint.connect(contact).await?;
            Conversation::Steadfast(endpoint, socket)
        }
        System::Tcp | System::TcpOne | System::Mptcp => {
            Conversation::Lanes(stream::client(system, contact.parse()?, ground.lanes).await?)
        }
        System::Noq => Conversation::Lanes(noq::client(contact.parse()?, certificate, &ground).await?),
        System::Aggligator => Conversation::Lanes(aggligator::client(contact.parse()?, &ground).await?),
        System::TcpTls => {
            let stream = stream::connect(contact.parse()?, false).await?;
            Conversation::Tls(Box::new(tls::connect(stream, certificate).await?.into()))
        }
    };
    tell(&Connected);
    Ok(conversation)
}

/// The server's part: takes one conversation.
pub(crate) async fn server(system: System, console: &mut Console) -> anyhow::Result<Conversation> {
    let Listen { keys, ground } = console.hear().await?;
    match system {
        System::Steadfast => {
            let endpoint = endpoint::server(&keys, ground.is_loopback()).await?;
            tell(&Listening { contact: endpoint.contact(), certificate: Vec::new() });
            let socket = endpoint.accept().await.context("the endpoint was closed")?;
            Ok(Conversation::Steadfast(endpoint, socket))
        }
        System::Tcp | System::TcpOne | System::Mptcp => {
            Ok(Conversation::Lanes(stream::server(system, &ground).await?))
        }
        System::Noq => Ok(Conversation::Lanes(noq::server(&ground).await?)),
        System::Aggligator => Ok(Conversation::Lanes(aggligator::server(&ground).await?)),
        System::TcpTls => {
            let listener = stream::listen(SocketAddr::new(ground.first(), 0), false)?;
            let acceptor = tls::Acceptor::new()?;
            let contact = listener.local_addr()?.to_string();
            tell(&Listening { contact, certificate: acceptor.certificate() });
            let stream = stream::accept(&listener).await?;
            Ok(Conversation::Tls(Box::new(acceptor.accept(stream).await?.into())))
        }
    }
}
