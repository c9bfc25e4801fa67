//! Whom this endpoint trusts, now.

use crate::lock;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Mutex;
use steadfast_net::TrustFile;
use steadfast_net::trust::TrustError;
use steadfast_wire::Fingerprint;

/// Keys given by the program, and those of a file that may change.
#[derive(Debug)]
pub(crate) struct Trusted {
    peers: Mutex<Peers>,
}

#[derive(Debug)]
struct Peers {
    given: HashSet<Fingerprint>,
    file: Option<TrustFile>,
    listed: HashSet<Fingerprint>,
}

impl Trusted {
    pub(crate) fn new(given: HashSet<Fingerprint>, file: Option<TrustFile>) -> Self {
        let listed = listed(file.as_ref());
        Self { peers: Mutex::new(Peers { given, file, listed }) }
    }

    pub(crate) fn contains(&self, key: &Fingerprint) -> bool {
        let peers = lock(&self.peers);
        peers.given.contains(key) || peers.listed.contains(key)
    }

    /// The program named a key: it is trusted as long as the endpoint lives, or until it is removed from the file.
    pub(crate) fn give(&self, key: Fingerprint) {
        lock(&self.peers).given.insert(key);
    }

    pub(crate) fn find(&self, name: &str) -> Option<Fingerprint> {
        lock(&self.peers).file.as_ref().and_then(|file| file.find_by_name(name))
    }

    pub(crate) fn path(&self) -> Option<PathBuf> {
        lock(&self.peers).file.as_ref().map(|file| file.path().to_path_buf())
    }

    /// Reads the file again; blocks on the disk. Returns the keys that are trusted no more. After an error everything
    /// is as it was.
    pub(crate) fn reload(&self) -> Result<Vec<Fingerprint>, TrustError> {
        // Read outside of the lock, which handshakes wait for.
        let Some(mut file) = lock(&self.peers).file.clone() else { return Ok(Vec::new()) };
        file.reload()?;
        let mut peers = lock(&self.peers);
        let listed = listed(Some(&file));
        let gone: Vec<_> = peers.listed.difference(&listed).copied().collect();
        for key in &gone {
            peers.given.remove(key);
        }
        peers.listed = listed;
        peers.file = Some(file);
        Ok(gone)
    }
}

fn listed(file: Option<&TrustFile>) -> HashSet<Fingerprint> {
    file.into_iter().flat_map(TrustFile::peers).map(|(key, _)| key).collect()
}
