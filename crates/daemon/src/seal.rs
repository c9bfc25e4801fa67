//! Signatures below events that leave the host, and whose of those that come are believed.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use steadfast_backplane::{Event, Fingerprint, Signature};
use steadfast_net::identity::{Identity, verify};
use steadfast_net::trust::TrustError;
use steadfast_net::{TrustFile, TrustWatcher};

/// How long it is until a directory that went away is watched again.
const PAUSE: Duration = Duration::from_secs(1);

/// What is to be thought of an event that a broker brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It says that it is ours.
    Own,
    /// A host that is trusted signed it.
    Verified,
    /// Nobody vouches for it.
    Unsigned,
    /// It has a signature in the name of a host that is trusted, and that host did not make it.
    Forged,
}

/// This host's key, and the hosts that it trusts now.
pub(crate) struct Seal {
    identity: Identity,
    path: PathBuf,
    trusted: RwLock<HashSet<Fingerprint>>,
}

impl Seal {
    /// Reads whom this host trusts.
    pub(crate) fn new(identity: Identity, path: PathBuf) -> Result<Self, TrustError> {
        let trusted = RwLock::new(read(&path)?);
        Ok(Self { identity, path, trusted })
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The event as it leaves the host.
    pub(crate) fn sign(&self, event: &Event) -> Event {
        let signature = Signature(self.identity.sign(&event.signed_bytes()));
        Event { signature: Some(signature), ..event.clone() }
    }

    pub(crate) fn judge(&self, event: &Event) -> Judgement {
        let origin = event.id.origin;
        if origin == self.identity.fingerprint() {
            return Judgement::Own;
        }
        let trusted = self.trusted.read().unwrap_or_else(PoisonError::into_inner).contains(&origin);
        match event.signature.filter(|_| trusted) {
            None => Judgement::Unsigned,
            Some(signature) if verify(&origin, &event.signed_bytes(), &signature.0) => Judgement::Verified,
            Some(_) => Judgement::Forged,
        }
    }

    /// Follows the file of trusted hosts, for as long as the daemon runs.
    pub(crate) async fn watch(&self) {
        loop {
            if let Ok(mut watcher) = TrustWatcher::new(&self.path) {
                loop {
                    self.reload().await;
                    if watcher.changed().await.is_err() {
                        break;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn reload(&self) {
        let path = self.path.clone();
        match tokio::task::spawn_blocking(move || read(&path)).await {
            Ok(Ok(trusted)) => *self.trusted.write().unwrap_or_else(PoisonError::into_inner) = trusted,
            Ok(Err(error)) => tracing::error!(%error, "whom this host trusts stays as it was"),
            Err(_) => {}
        }
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seal({})", self.identity.fingerprint())
    }
}

fn read(path: &std::path::Path) -> Result<HashSet<Fingerprint>, TrustError> {
    Ok(TrustFile::open(path)?.peers().map(|(key, _)| key).collect())
}
