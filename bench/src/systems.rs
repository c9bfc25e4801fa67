//! The systems that are measured, and how a client and a server of each find together.

pub(crate) mod endpoint;
pub(crate) mod stream;
pub(crate) mod tls;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use steadfast::{Endpoint, Identity, MultiSocket};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsStream;

use crate::child::{Child, Console, tell};

/// How long finding together may take.
const LIMIT: Duration = Duration::from_secs(20);

/// The congestion control of every TCP connection of every system; Steadfast asks for it by itself.
pub(crate) const CONGESTION: &str = "cubic";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum System {
    Steadfast,
    /// One plain TCP connection.
    Tcp,
    /// One plain connection of the kernel's Multipath TCP.
    Mptcp,
    /// TLS 1.3 over one TCP connection: tokio and rustls.
    TcpTls,
}

impl System {
    /// Its name in the results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Steadfast => "steadfast",
            Self::Tcp => "tcp",
            Self::Mptcp => "mptcp",
            Self::TcpTls => "tcp_tls",
        }
    }
}

/// The client's keys, for the server to trust.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Keys {
    pub(crate) keys: Vec<String>,
}

/// To the server: whom to trust, and on which address to listen; on the loopback if there is none.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listen {
    pub(crate) keys: Vec<String>,
    pub(crate) address: Option<IpAddr>,
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
    /// Whether both are on the same host.
    pub(crate) loopback: bool,
}

/// The client has its conversation.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Connected;

/// One conversation of any system.
#[derive(Debug)]
pub(crate) enum Conversation {
    /// The endpoint lives as long as this does.
    Steadfast(Endpoint, MultiSocket),
    /// A server keeps listening: further subflows are taken only as long as it does.
    Plain(TcpStream, Option<TcpListener>),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The conductor's part: lets a client and a server find together.
pub(crate) fn introduce(
    client: &mut Child,
    server: &mut Child,
    address: Option<IpAddr>,
) -> anyhow::Result<()> {
    let Keys { keys } = client.expect("making keys", LIMIT)?;
    server.order(&Listen { keys, address })?;
    let Listening { contact, certificate } = server.expect("listening", LIMIT)?;
    client.order(&Connect { contact, certificate, loopback: address.is_none() })?;
    client.expect::<Connected>("connecting", LIMIT).map(drop)
}

/// The client's part.
pub(crate) async fn client(system: System, console: &mut Console) -> anyhow::Result<Conversation> {
    let identity = Identity::generate()?;
    tell(&Keys { keys: vec![identity.fingerprint().to_string()] });
    let Connect { contact, certificate, loopback } = console.hear().await?;
    let conversation = match system {
        System::Steadfast => {
            let endpoint = endpoint::builder(identity, loopback).bind().await?;
            let socket = endpoint.connect(contact).await?;
            Conversation::Steadfast(endpoint, socket)
        }
        System::Tcp | System::Mptcp => {
            let stream = stream::connect(contact.parse()?, system == System::Mptcp).await?;
            Conversation::Plain(stream, None)
        }
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
    let Listen { keys, address } = console.hear().await?;
    let loopback = address.is_none();
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    if system == System::Steadfast {
        let endpoint = endpoint::server(&keys, loopback).await?;
        tell(&Listening { contact: endpoint.contact(), certificate: Vec::new() });
        let socket = endpoint.accept().await.context("the endpoint was closed")?;
        return Ok(Conversation::Steadfast(endpoint, socket));
    }
    let multipath = system == System::Mptcp;
    // A further subflow is taken only where its own address is listened on.
    let listened = if multipath { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { address };
    let listener = stream::listen(SocketAddr::new(listened, 0), multipath)?;
    let contact = SocketAddr::new(address, listener.local_addr()?.port()).to_string();
    let acceptor = tls::Acceptor::new()?;
    tell(&Listening { contact, certificate: acceptor.certificate() });
    let stream = stream::accept(&listener).await?;
    Ok(match system {
        System::TcpTls => Conversation::Tls(Box::new(acceptor.accept(stream).await?.into())),
        _ => Conversation::Plain(stream, Some(listener)),
    })
}
