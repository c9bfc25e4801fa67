//! Links of TCP made one connection: aggligator, a connection for each lane, a link over each network.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use aggligator::Cfg;
use aggligator::alc::Stream;
use aggligator::cfg::LinkPing;
use aggligator::io::{IoBox, StreamBox};
use aggligator::transport::{
    AcceptorBuilder, BoxControl, ConnectingTransport, ConnectorBuilder, LinkTag, LinkTagBox,
};
use aggligator_transport_tcp::{TcpAcceptor, TcpConnector, TcpLinkFilter, TcpLinkTag};
use anyhow::{Context, bail};
use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::lanes::{Lane, Lanes};
use super::{Ground, Listening, stream};
use crate::child::tell;

/// How long links over all networks may take.
const LINKS: Duration = Duration::from_secs(10);

/// With two networks and nothing but small messages it is to notice at once that a link fails; with bulk these limits
/// would take links for dead that are only full.
fn settings(ground: &Ground) -> Cfg {
    if ground.addresses.len() < 2 || ground.lanes > 1 {
        return Cfg::default();
    }
    Cfg {
        link_ack_timeout_min: Duration::from_millis(50),
        link_ack_timeout_roundtrip_factor: NonZeroU32::MIN.saturating_add(1),
        link_ping: LinkPing::WhenIdle(Duration::from_millis(250)),
        link_ping_timeout: Duration::from_secs(2),
        link_retest_interval: Duration::from_secs(1),
        ..Cfg::default()
    }
}

/// A client's lanes.
pub(super) async fn client(to: SocketAddr, ground: &Ground) -> anyhow::Result<Lanes> {
    let (mut lanes, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..ground.lanes {
        let mut builder = ConnectorBuilder::new(settings(ground));
        builder.set_reconnect_delay(Duration::from_secs(1));
        let mut connector = builder.build();
        let hosts = ground.addresses.iter().map(ToString::to_string);
        let mut transport = TcpConnector::new(hosts, to.port()).await?;
        // Routes lead to the right interface, one for each of the server's addresses.
        transport.set_multi_interface(false);
        transport.set_link_filter(TcpLinkFilter::None);
        let transport = connector.add(Cubic(transport));
        let channel = connector.channel().context("a connector without a connection")?.await?;
        await_links(&connector.control(), ground.addresses.len()).await?;
        lanes.push(lane(channel.into_stream()));
        kept.push((connector, transport));
    }
    Lanes::announced(lanes, kept).await
}

/// A server's lanes.
pub(super) async fn server(ground: &Ground) -> anyhow::Result<Lanes> {
    let listener = stream::listen((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0).into(), false)?;
    let contact = SocketAddr::new(ground.first(), listener.local_addr()?.port()).to_string();
    let acceptor = AcceptorBuilder::new(settings(ground)).build();
    // What is accepted has the congestion control of its listener.
    let transport = acceptor.add(TcpAcceptor::from_listeners([listener])?);
    tell(&Listening { contact, certificate: Vec::new() });
    let (mut lanes, mut controls) = (Vec::new(), Vec::new());
    for _ in 0..ground.lanes {
        let (channel, control) = acceptor.accept().await?;
        lanes.push(lane(channel.into_stream()));
        controls.push(control);
    }
    Lanes::sorted(lanes, (acceptor, transport, controls)).await
}

fn lane(stream: Stream) -> Lane {
    Lane::of(stream)
}

async fn await_links(control: &BoxControl, links: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + LINKS;
    while control.links().iter().filter(|link| link.is_working()).count() < links {
        if Instant::now() > deadline {
            bail!("no link over each network within {LINKS:?}");
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Its own transport, but with the congestion control that all systems have.
struct Cubic(TcpConnector);

#[async_trait]
impl ConnectingTransport for Cubic {
    fn name(&self) -> &str {
        self.0.name()
    }

    async fn link_tags(&self, tags: watch::Sender<HashSet<LinkTagBox>>) -> io::Result<()> {
        self.0.link_tags(tags).await
    }

    async fn connect(&self, tag: &dyn LinkTag) -> io::Result<StreamBox> {
        let tag: Option<&TcpLinkTag> = tag.as_any().downcast_ref();
        let to = tag.ok_or_else(|| io::Error::other("not a link over TCP"))?.remote;
        let (input, output) = stream::connect(to, false).await?.into_split();
        Ok(IoBox::new(input, output).into())
    }
}
