//! A store on the system's own disk.

use crate::records::{ME, digest, opened, refs, sent};
use rustix::fs::Uid;
use rustix::process::geteuid;
use rustix::thread::set_thread_uid;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use steadfast_store::{Store, StoreError};
use steadfast_wire::Fingerprint;

/// A user without rights.
const NOBODY: u32 = 65_534;

/// A directory that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Somebody who was killed, or is in another PID namespace, may have had the same number.
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("steadfast-store-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Self(path),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{error}"),
            }
        }
    }

    fn store(&self) -> PathBuf {
        self.0.join("deep/store")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn segments(store: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = all.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    all.sort();
    all
}

#[test]
fn it_is_there_again_and_for_its_user_alone() {
    let place = Place::new();
    let all = [opened(1), sent(1, 1, 5000)];
    let mut store = Store::open(&place.store(), ME).unwrap();
    store.append(refs(&all)).unwrap();
    drop(store);
    for generation in 2..5 {
        let store = Store::open(&place.store(), ME).unwrap();
        assert_eq!(store.digest().records().collect::<Vec<_>>(), digest(&all));
        assert_eq!(store.generation(), generation);
    }
    assert_eq!(segments(&place.store()).len(), 1);
    for entry in fs::read_dir(place.store()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().mode() & 0o777, 0o600, "{entry:?}");
    }
    assert_eq!(fs::metadata(place.store()).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_second_one_is_refused_while_the_first_lives() {
    let place = Place::new();
    let first = Store::open(&place.store(), ME).unwrap();
    let error = Store::open(&place.store(), ME).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    drop(first);
    Store::open(&place.store(), ME).unwrap();
}

#[test]
fn what_cannot_be_is_said_with_what_would_help() {
    let place = Place::new();
    Store::open(&place.store(), ME).unwrap().append(refs(&[opened(1)])).unwrap();
    let error = Store::open(&place.store(), Fingerprint([8; 32])).unwrap_err();
    assert!(matches!(error, StoreError::Identity { .. }), "{error}");
    assert!(error.to_string().contains("use that one, or another directory"), "{error}");

    let segment = segments(&place.store()).remove(0);
    let whole = fs::read(&segment).unwrap();
    let mut other = whole.clone();
    other[11] = 9;
    fs::write(&segment, other).unwrap();
    let error = Store::open(&place.store(), ME).unwrap_err();
    assert!(matches!(error, StoreError::Version { found: 9, .. }), "{error}");

    fs::write(&segment, b"").unwrap();
    let error = Store::open(&place.store(), ME).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");

    fs::write(&segment, whole).unwrap();
    Store::open(&place.store(), ME).unwrap();

    let file = place.0.join("file");
    fs::write(&file, b"no directory").unwrap();
    let error = Store::open(&file, ME).unwrap_err().to_string();
    assert!(error.contains("name another one"), "{error}");
}

#[test]
fn a_directory_that_cannot_be_written_is_said_to_be_that() {
    let place = Place::new();
    drop(Store::open(&place.store(), ME).unwrap());
    let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    allow(place.store().parent().unwrap(), 0o755);
    allow(&place.store(), 0o555);
    let store = place.store();
    let open = move || {
        // Root may write everywhere.
        if geteuid().is_root() {
            set_thread_uid(Uid::from_raw(NOBODY)).unwrap();
        }
        Store::open(&store, ME).unwrap_err().to_string()
    };
    let error = std::thread::spawn(open).join().unwrap();
    allow(&place.store(), 0o700);
    assert!(error.contains("let this user write there"), "{error}");
}
