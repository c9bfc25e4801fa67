//! Events between two hosts without a broker: their daemons converse, one hop, and pass nothing on.
//!
//! An event is confirmed when it is in the other's journal. Either side may open the conversation, and both do if they happen to do
//! it at once: then both are used, and the one that has the turn sends.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use steadfast::{BindError, DEFAULT_PORT, Endpoint, Fingerprint, Target};
use steadfast_backplane::Incarnation;
use steadfast_net::address::Host;
use steadfast_net::{ScoutConfig, TrustFile};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use crate::seal::Seal;
use crate::ways::Way;
use peer::Peer;

mod conversation;
mod peer;
mod settings;

pub use settings::{EXCHANGE_PORT, ExchangeSettings};

/// Why events are not exchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// It does not name a host.
    #[error("cannot exchange events with `{0}`: {1}")]
    Address(String, String),
    /// Its key is not known.
    #[error(
        "cannot exchange events with `{0}`: no trusted host has that name; name its key with `steadfast trust add KEY {0}`, or write \
         KEY@ADDRESS"
    )]
    Unknown(String),
    /// It is this host.
    #[error(
        "cannot exchange events with `{0}`: that is this host itself; remove it from `hosts` of [daemon.exchange]"
    )]
    Itself(String),
    /// It stands there twice.
    #[error("cannot exchange events with `{0}`: another entry of `hosts` is the same host; remove one")]
    Twice(String),
    /// There are more ways out of the host than can be.
    #[error("cannot exchange events with `{0}`: too many other hosts")]
    TooMany(String),
    /// The endpoint is not there.
    #[error("cannot exchange events: {0}; another `port` may be named in [daemon.exchange]")]
    Bind(#[from] BindError),
}

/// A host to exchange events with, found in the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    written: String,
    key: Fingerprint,
    target: Target,
    /// The settings name its key.
    given: bool,
}

impl Found {
    /// How its way is called.
    pub(crate) fn way(&self) -> String {
        format!("host {}", self.key)
    }
}

/// Finds the hosts that the settings name.
pub(crate) fn find(
    settings: &ExchangeSettings,
    own: &Fingerprint,
    trusted: &TrustFile,
) -> Result<Vec<Found>, ExchangeError> {
    let mut all: Vec<Found> = Vec::new();
    for written in &settings.hosts.0 {
        let parsed = written.trim().parse::<Target>();
        let mut target =
            parsed.map_err(|error| ExchangeError::Address(written.clone(), error.to_string()))?;
        let named = || {
            target.addresses.iter().find_map(|address| match &address.host {
                Host::Name(name) => trusted.find_by_name(name),
                Host::Ip(address) => trusted.find_by_name(&address.to_string()),
                _ => None,
            })
        };
        let key = target.fingerprint.or_else(named).ok_or_else(|| ExchangeError::Unknown(written.clone()))?;
        if key == *own {
            return Err(ExchangeError::Itself(written.clone()));
        }
        if all.iter().any(|other| other.key == key) {
            return Err(ExchangeError::Twice(written.clone()));
        }
        let given = target.fingerprint.is_some();
        target.fingerprint = Some(key);
        for address in &mut target.addresses {
            // Where programs listen no daemon does.
            if address.port == DEFAULT_PORT {
                address.port = EXCHANGE_PORT;
            }
        }
        all.push(Found { written: written.clone(), key, target, given });
    }
    Ok(all)
}

/// The conversations with other hosts.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) endpoint: Endpoint,
    peers: Vec<Arc<Peer>>,
    seal: Arc<Seal>,
    run: Incarnation,
}

impl Exchange {
    /// Listens. `ways` are those of the hosts, in the same order.
    pub(crate) async fn bind(
        settings: &ExchangeSettings,
        found: Vec<Found>,
        ways: Vec<Way>,
        seal: Arc<Seal>,
        run: Incarnation,
        (trusted, scout): (PathBuf, ScoutConfig),
    ) -> Result<Self, ExchangeError> {
        let builder = Endpoint::builder()
            .identity(seal.identity().clone())
            .trust_file(trusted)
            // It is that itself.
            .daemon(None)
            .scout(scout)
            .addresses(settings.addresses.iter().copied())
            .port(settings.port.0);
        let given = found.iter().filter(|found| found.given);
        let endpoint = given.fold(builder, |builder, found| builder.trust(found.key)).bind().await?;
        let peer = |(found, way): (Found, Way)| {
            Arc::new(Peer {
                key: found.key,
                target: found.target,
                way,
                turn: tokio::sync::Mutex::default(),
                goes_out: Box::new(settings.out.filter()),
                comes_in: Box::new(settings.incoming.filter()),
                conversations: Mutex::default(),
                room: Semaphore::new(peer::ROOM),
                changed: Notify::new(),
            })
        };
        let peers = found.into_iter().zip(ways).map(peer).collect();
        Ok(Self { endpoint, peers, seal, run })
    }

    /// Exchanges for as long as the daemon runs.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        for peer in &self.peers {
            let (endpoint, seal) = (self.endpoint.clone(), Arc::clone(&self.seal));
            tasks.spawn(Arc::clone(peer).keep(endpoint, seal, self.run));
        }
        loop {
            let socket = tokio::select! {
                accepted = self.endpoint.accept() => match accepted {
                    Some(socket) => socket,
                    None => return,
                },
                Some(_) = tasks.join_next() => continue,
            };
            let Some(peer) = self.peers.iter().find(|peer| peer.key == socket.peer()) else {
                tracing::debug!(peer = %socket.peer(), "trusted, but events are not exchanged with it");
                socket.abort();
                continue;
            };
            let (peer, seal, run) = (Arc::clone(peer), Arc::clone(&self.seal), self.run);
            tasks.spawn(async move { peer.serve(&seal, run, socket, false).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast::Identity;

    #[test]
    fn hosts_are_found_by_what_names_them() {
        let keys = [(); 3].map(|()| Identity::generate().unwrap().fingerprint());
        let [own, boat, shore] = keys;
        let place = std::env::temp_dir().join(format!("steadfast-exchange-{own}"));
        let mut trusted = TrustFile::open(&place).unwrap();
        trusted.add(boat, Some("boat")).unwrap();
        let find = |hosts: &[String]| {
            let hosts = settings::Hosts(hosts.to_vec());
            find(&ExchangeSettings { hosts, ..ExchangeSettings::default() }, &own, &trusted)
        };
        let found = find(&["boat".into(), format!("{shore}@10.0.0.1,10.0.0.2:7463,10.0.0.3:99")]).unwrap();
        assert_eq!((found[0].key, found[0].given, found[1].key, found[1].given), (boat, false, shore, true));
        let ports = |found: &Found| found.target.addresses.iter().map(|at| at.port).collect::<Vec<_>>();
        assert_eq!((ports(&found[0]), ports(&found[1])), (vec![7465], vec![7465, 7465, 99]));
        for (hosts, words) in [
            (vec!["nobody".into()], "`steadfast trust add KEY nobody`"),
            (vec![format!("{own}@10.0.0.1")], "this host itself"),
            (vec![format!("{boat}@10.0.0.1"), "boat".into()], "remove one"),
            (vec!["a@b@c".into()], "cannot exchange events with `a@b@c`"),
        ] {
            let refused = find(&hosts).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
        std::fs::remove_file(&place).unwrap();
    }
}
