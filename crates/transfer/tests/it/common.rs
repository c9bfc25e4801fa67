//! Pairs of endpoints, directories, and guards.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use steadfast::{Builder, Endpoint, Identity, Labels, MultiSocket, ScoutConfig};
use steadfast_transfer::{Monitor, Plan, Progress, ReceiveFailure, Receiver, SendFailure, Sender, Store};

/// Nothing that works takes this long, on however slow a machine.
const GUARD: Duration = Duration::from_secs(60);

/// Awaits what must happen.
pub(crate) async fn soon<R>(what: &str, future: impl Future<Output = R>) -> R {
    match tokio::time::timeout(GUARD, future).await {
        Ok(result) => result,
        Err(tokio::time::error::Elapsed { .. }) => panic!("{what}: did not happen within {GUARD:?}"),
    }
}

pub(crate) fn local() -> Builder {
    let scout = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
    Endpoint::builder().scout(scout).addresses([IpAddr::V4(Ipv4Addr::LOCALHOST)])
}

/// Two endpoints that trust each other.
pub(crate) async fn pair() -> (Endpoint, Endpoint) {
    let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (a_key, b_key) = (a.fingerprint(), b.fingerprint());
    let a = local().identity(a).trust(b_key).bind().await.unwrap();
    let b = local().identity(b).trust(a_key).bind().await.unwrap();
    (a, b)
}

/// A conversation between two endpoints.
pub(crate) async fn meet(a: &Endpoint, b: &Endpoint) -> (MultiSocket, MultiSocket) {
    let at_a = soon("connect", a.connect(b.contact())).await.unwrap();
    let at_b = soon("accept", b.accept()).await.unwrap();
    (at_a, at_b)
}

/// A directory of this test's own, with one to send from and one to receive into.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("steadfast-transfer-it-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("from")).unwrap();
        fs::create_dir_all(path.join("to")).unwrap();
        Self(path)
    }

    pub(crate) fn from(&self, path: &str) -> PathBuf {
        self.0.join("from").join(path)
    }

    pub(crate) fn to(&self, path: &str) -> PathBuf {
        self.0.join("to").join(path)
    }

    /// Writes a file that is to be sent, with content that is not the same everywhere.
    pub(crate) fn put(&self, path: &str, length: usize) -> PathBuf {
        let path = self.from(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content(length)).unwrap();
        path
    }

    pub(crate) fn plan(&self, names: &[&str]) -> Plan {
        let paths: Vec<_> = names.iter().map(|name| self.from(name)).collect();
        Plan::new(&paths).unwrap()
    }

    pub(crate) fn store(&self, overwrite: bool) -> Store {
        Store::open(&self.to(""), overwrite).unwrap()
    }

    /// All below the directory to receive into: mode, time and content by path.
    pub(crate) fn received(&self) -> BTreeMap<Vec<u8>, Kept> {
        let mut all = tree(&self.to(""));
        all.retain(|path, _| !path.starts_with(b".steadfast-partial"));
        all
    }

    pub(crate) fn partial_bytes(&self) -> u64 {
        let Ok(hidden) = fs::read_dir(self.to(".steadfast-partial")) else { return 0 };
        hidden.map(|entry| entry.unwrap().metadata().unwrap().len()).max().unwrap_or(0)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _left_behind = fs::remove_dir_all(&self.0);
    }
}

/// What is compared of a file; a directory has no content.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) mode: u32,
    pub(crate) modified: (i64, i64),
    pub(crate) content: Option<Vec<u8>>,
}

pub(crate) fn tree(top: &Path) -> BTreeMap<Vec<u8>, Kept> {
    fn visit(directory: &Path, top: &Path, found: &mut BTreeMap<Vec<u8>, Kept>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = metadata.is_file().then(|| fs::read(&path).unwrap());
            let kept = Kept {
                mode: metadata.mode() & 0o7777,
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                content,
            };
            found.insert(path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec(), kept);
            if metadata.is_dir() {
                visit(&path, top, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    visit(top, top, &mut found);
    found
}

pub(crate) fn content(length: usize) -> Vec<u8> {
    let mut random = length as u64 | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        bytes.extend_from_slice(&random.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// How a transfer ended on both sides.
pub(crate) struct Ended {
    pub(crate) sent: Result<(), SendFailure>,
    pub(crate) received: Result<u64, ReceiveFailure>,
    pub(crate) sender: Progress,
    pub(crate) receiver: Progress,
}

impl Ended {
    /// What failed, as both sides tell it.
    pub(crate) fn failures(&self) -> Vec<(String, String)> {
        let told = |progress: &Progress| -> Vec<_> {
            let mut all: Vec<_> = progress
                .failures
                .iter()
                .map(|(path, words)| (steadfast_transfer::printable(path), words.clone()))
                .collect();
            all.sort();
            all
        };
        let (sender, receiver) = (told(&self.sender), told(&self.receiver));
        let paths = |all: &[(String, String)]| all.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
        assert_eq!(paths(&sender), paths(&receiver), "{sender:?} {receiver:?}");
        receiver
    }
}

/// Sends a plan into a store over one conversation.
pub(crate) async fn transfer(plan: Plan, store: Store) -> Ended {
    let (a, b) = pair().await;
    let (at_a, at_b) = meet(&a, &b).await;
    let sender = Sender::new(plan, Labels::background());
    let receiver = Receiver::new(store);
    both(&sender, at_a, &receiver, at_b).await
}

pub(crate) async fn both(
    sender: &Sender,
    at_a: MultiSocket,
    receiver: &Receiver,
    at_b: MultiSocket,
) -> Ended {
    let (from, to) = (Monitor::default(), Arc::new(Monitor::default()));
    let receiving = async {
        let request = receiver.greet(at_b).await.unwrap();
        receiver.receive(request, Arc::clone(&to)).await
    };
    let both = async { tokio::join!(sender.send(&at_a, &from), receiving) };
    let (sent, received) = soon("transfer", both).await;
    Ended { sent, received, sender: from.progress(), receiver: to.progress() }
}
