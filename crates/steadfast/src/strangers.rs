//! Peers whose key is not trusted, for a program that asks somebody about them.

use crate::lock;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;
use steadfast_wire::Fingerprint;
use tokio::sync::Notify;

/// How many keys wait to be asked about; further ones are refused all the same, and not told.
const WAITING: usize = 16;

/// A peer that proved a key which is not trusted, and was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stranger {
    /// Its key.
    pub key: Fingerprint,
    /// Where it connected from.
    pub address: SocketAddr,
}

/// Those who were refused and not told of yet, each key once.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    waiting: Mutex<VecDeque<Stranger>>,
    pub(crate) changed: Notify,
}

impl Strangers {
    pub(crate) fn note(&self, key: Fingerprint, address: SocketAddr) {
        let mut waiting = lock(&self.waiting);
        if waiting.len() < WAITING && !waiting.iter().any(|known| known.key == key) {
            waiting.push_back(Stranger { key, address });
            drop(waiting);
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn take(&self) -> Option<Stranger> {
        lock(&self.waiting).pop_front()
    }
}
