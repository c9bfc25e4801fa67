//! Edits of the trusted peers are noticed.

use crate::common::{Directory, guarded};
use std::fs;
use std::io::Write;
use std::path::Path;
use steadfast_net::{TrustFile, TrustWatcher};
use steadfast_wire::Fingerprint;

/// Waits until the file says what is wanted; one edit may be told more than once.
async fn until(watcher: &mut TrustWatcher, path: &Path, wanted: impl Fn(&TrustFile) -> bool) {
    guarded(async {
        loop {
            watcher.changed().await.unwrap();
            if wanted(&TrustFile::open(path).unwrap()) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn every_kind_of_edit_is_noticed() {
    let directory = Directory::new();
    let path = directory.path().join("not/yet/there/trusted");
    let (one, other) = (Fingerprint([1; 32]), Fingerprint([2; 32]));
    let mut watcher = TrustWatcher::new(&path).unwrap();
    let mut trusted = TrustFile::open(&path).unwrap();

    trusted.add(one, Some("boat")).unwrap();
    until(&mut watcher, &path, |file| file.contains(&one)).await;

    writeln!(fs::OpenOptions::new().append(true).open(&path).unwrap(), "{other}").unwrap();
    until(&mut watcher, &path, |file| file.contains(&other)).await;

    let copy = path.with_file_name("copy");
    fs::write(&copy, format!("{one}\n")).unwrap();
    fs::rename(&copy, &path).unwrap();
    until(&mut watcher, &path, |file| !file.contains(&other)).await;

    trusted.remove(&one).unwrap();
    until(&mut watcher, &path, |file| !file.contains(&one)).await;

    trusted.add(one, None).unwrap();
    until(&mut watcher, &path, |file| file.contains(&one)).await;
    fs::remove_file(&path).unwrap();
    until(&mut watcher, &path, |file| !file.contains(&one)).await;

    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    let gone = async { while watcher.changed().await.is_ok() {} };
    guarded(gone).await;
}
