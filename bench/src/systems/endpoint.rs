//! Endpoints of Steadfast for measurements.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context;
use steadfast::{Builder, Endpoint, Identity, NetworkClass, Override, ScoutConfig};

/// An endpoint apart from the user's files: on the loopback alone, or on the networks of its host, none of which counts
/// as metered.
pub(crate) fn builder(identity: Identity, loopback: bool) -> Builder {
    let ignore = |interface: &str, ignore| Override {
        interface: interface.into(),
        ignore: Some(ignore),
        ..Override::default()
    };
    let overrides = if loopback {
        vec![ignore("*", true), ignore("lo", false)]
    } else {
        let class = Some(NetworkClass::Ethernet);
        vec![Override { interface: "*".into(), class, ..Override::default() }, ignore("lo", true)]
    };
    let scout = ScoutConfig { nmcli: None, overrides, ..ScoutConfig::default() };
    let builder = Endpoint::builder().identity(identity).scout(scout);
    if loopback { builder.addresses([IpAddr::V4(Ipv4Addr::LOCALHOST)]) } else { builder }
}

/// An endpoint that trusts these keys.
pub(crate) async fn server(keys: &[String], loopback: bool) -> anyhow::Result<Endpoint> {
    let mut builder = builder(Identity::generate()?, loopback);
    for key in keys {
        builder = builder.trust(key.parse().context("a key makes no sense")?);
    }
    Ok(builder.bind().await?)
}
