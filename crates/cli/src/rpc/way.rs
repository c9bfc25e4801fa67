//! From arguments to a transport and a peer of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use anyhow::Context as _;
use steadfast::homa::{Homa, HomaConfig, HomaError, Peer};
use steadfast::{Endpoint, MultiSocket};
use tokio::net::lookup_host;

use super::Carrier;
use crate::context::{Connecting, Context};
use crate::exit::{Exit, Failure};
use crate::output::clean;

/// Where to listen: `IP` or `IP:PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listen {
    pub(super) ip: IpAddr,
    pub(super) port: Option<u16>,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let whole =
            text.parse().map(|address: SocketAddr| Self { ip: address.ip(), port: Some(address.port()) });
        let alone = || text.trim_matches(['[', ']']).parse().map(|ip| Self { ip, port: None });
        whole
            .or_else(|_| alone())
            .map_err(|_| "an address is IP or IP:PORT, as in 127.0.0.1:4000 or [::1]:4000".into())
    }
}

/// A peer that can be called, with what it needs to stay so.
pub(super) struct Way {
    pub(super) homa: Homa,
    pub(super) peer: Peer,
    endpoint: Option<Endpoint>,
}

impl Way {
    /// Opens a transport and finds the peer.
    pub(super) async fn open(
        carrier: Carrier,
        host: &str,
        connecting: &Connecting,
        context: &Context,
    ) -> anyhow::Result<Self> {
        match carrier {
            Carrier::Udp => Self::sealed(host, connecting, context).await,
            Carrier::Plain => Self::plain(resolve_port(host).await?),
            Carrier::Raw => {
                let ip = resolve(host).await?;
                let homa = opened(Homa::raw(unspecified(ip)))?;
                let peer = homa.peer(SocketAddr::new(ip, 0))?;
                Ok(Self { homa, peer, endpoint: None })
            }
        }
    }

    /// Within this host.
    pub(super) fn plain(to: SocketAddr) -> anyhow::Result<Self> {
        if !to.ip().is_loopback() {
            let message = format!(
                "cannot call {to} in the clear: only loopback addresses may be; use `--carrier udp` with the line that the \
                 other side prints, or `--carrier raw`"
            );
            return Err(Failure::usage(message).into());
        }
        let homa = opened(Homa::plain(SocketAddr::new(to.ip(), 0)))?;
        let peer = homa.peer(to)?;
        Ok(Self { homa, peer, endpoint: None })
    }

    async fn sealed(host: &str, connecting: &Connecting, context: &Context) -> anyhow::Result<Self> {
        // A conversation first: it says what is wrong with keys and addresses.
        let (endpoint, conversation): (Endpoint, MultiSocket) = context.connect(host, connecting).await?;
        let config = HomaConfig::default().connect_limit(connecting.connect_limit);
        let homa = opened(endpoint.homa_with(config))?;
        let target = context.target(&context.config()?, host)?;
        let found = homa.connect(target).await;
        drop(conversation);
        let peer = found.map_err(|error| match error {
            HomaError::Connect(error) => anyhow::Error::from(error),
            HomaError::NotOffered { .. } => {
                let message = format!(
                    "cannot call {}: it runs, but offers no Homa; run `steadfast rpc serve` there, and use the line that it \
                     prints",
                    clean(host)
                );
                Failure::new(Exit::Failed, message).into()
            }
            other => other.into(),
        })?;
        Ok(Self { homa, peer, endpoint: Some(endpoint) })
    }

    /// Says farewell.
    pub(super) async fn close(self) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.close("the calls are over").await;
        }
    }
}

/// A transport of `rpc serve`.
pub(super) fn opened(homa: Result<Homa, HomaError>) -> anyhow::Result<Homa> {
    homa.map_err(|error| Failure::new(Exit::Failed, error.to_string()).into())
}

fn unspecified(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// An address without a port.
async fn resolve(host: &str) -> anyhow::Result<IpAddr> {
    if let Ok(ip) = host.trim_matches(['[', ']']).parse() {
        return Ok(ip);
    }
    if host.parse::<SocketAddr>().is_ok() {
        let message = "IP protocol 146 has no such ports: name the address alone, and the port with `--port`";
        return Err(Failure::usage(message).into());
    }
    Ok(look_up(format!("{host}:0"), host).await?.ip())
}

/// An address with a port.
async fn resolve_port(host: &str) -> anyhow::Result<SocketAddr> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    if !host.contains(':') || host.parse::<IpAddr>().is_ok() {
        let message = format!(
            "there is no UDP port in `{}`: write HOST:PORT, as `steadfast rpc serve --carrier plain` prints it",
            clean(host)
        );
        return Err(Failure::usage(message).into());
    }
    look_up(host.into(), host).await
}

async fn look_up(text: String, host: &str) -> anyhow::Result<SocketAddr> {
    let unknown =
        || format!("cannot find the address of {}; check its name, or write the address", clean(host));
    let found = lookup_host(text).await.with_context(unknown).map(|mut all| all.next());
    match found {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(Failure::new(Exit::Unreachable, unknown()).into()),
        Err(error) => Err(Failure::new(Exit::Unreachable, format!("{error:#}")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_at() {
        let of = |text: &str| text.parse::<Listen>().map(|listen| (listen.ip.to_string(), listen.port));
        assert_eq!(of("127.0.0.1"), Ok(("127.0.0.1".into(), None)));
        assert_eq!(of("[::1]:7"), Ok(("::1".into(), Some(7))));
        assert_eq!(of("::1"), Ok(("::1".into(), None)));
        assert!(of("here").is_err());
    }
}
