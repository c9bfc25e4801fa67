use super::*;
use crate::private_file::testing::Directory;
use std::os::unix::fs::PermissionsExt;

fn key(byte: u8) -> Fingerprint {
    Fingerprint([byte; 32])
}

#[test]
fn edits_keep_comments() {
    let directory = Directory::new();
    let path = directory.path().join("trusted");
    fs::write(&path, format!("# ours\n\n{} boat # at sea\n{}\n", key(1), key(2))).unwrap();
    let mut trusted = TrustFile::open(&path).unwrap();
    assert!(trusted.add(key(3), Some("shore")).unwrap());
    assert!(!trusted.add(key(3), None).unwrap());
    assert!(trusted.add(key(1), Some("ship")).unwrap());
    assert!(trusted.remove(&key(2)).unwrap());
    assert!(!trusted.remove(&key(2)).unwrap());
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, format!("# ours\n\n{} ship # at sea\n{} shore\n", key(1), key(3)));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(trusted.name_of(&key(1)), Some("ship"));
    assert_eq!(trusted.find_by_name("shore"), Some(key(3)));
    assert_eq!(trusted.peers().count(), 2);
    assert!(!trusted.contains(&key(2)));
}

#[test]
fn faults_name_file_and_line() {
    let directory = Directory::new();
    let path = directory.path().join("trusted");
    for (line, part) in [
        ("nonsense".to_string(), "52"),
        (format!("{} one two", key(1)), "one word"),
        ("0".repeat(52), "letters a to z"),
    ] {
        fs::write(&path, format!("# first\n{line}\n")).unwrap();
        let error = TrustFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("trusted, line 2") && error.contains(part), "{error}");
    }
}

#[test]
fn a_failed_reload_keeps_the_list() {
    let directory = Directory::new();
    let path = directory.path().join("trusted");
    let mut trusted = TrustFile::open(&path).unwrap();
    trusted.add(key(1), None).unwrap();
    fs::write(&path, "nonsense\n").unwrap();
    assert!(trusted.reload().is_err());
    assert!(trusted.contains(&key(1)));
}

#[test]
fn names_are_words_and_unique() {
    let directory = Directory::new();
    let mut trusted = TrustFile::open(&directory.path().join("trusted")).unwrap();
    for name in ["", "two words", "a#b", "a@b", "a,b", "line\n", &"x".repeat(65)] {
        assert!(matches!(trusted.add(key(1), Some(name)), Err(TrustError::Name(_))), "{name:?}");
    }
    trusted.add(key(1), Some("boat")).unwrap();
    assert!(matches!(trusted.add(key(2), Some("boat")), Err(TrustError::NameTaken { .. })));
}

#[test]
fn a_file_that_others_may_change_is_refused() {
    let directory = Directory::new();
    let path = directory.path().join("trusted");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    assert!(matches!(TrustFile::open(&path), Err(TrustError::Exposed { .. })));
}

#[test]
fn concurrent_writers_lose_nothing() {
    let directory = Directory::new();
    let path = directory.path().join("trusted");
    std::thread::scope(|scope| {
        for writer in 0..8u8 {
            let path = &path;
            scope.spawn(move || {
                let mut trusted = TrustFile::open(path).unwrap();
                for number in 0..5 {
                    trusted.add(key(writer * 5 + number), None).unwrap();
                }
            });
        }
    });
    assert_eq!(TrustFile::open(&path).unwrap().peers().count(), 40);
}

#[test]
fn a_link_is_followed_by_edits() {
    let directory = Directory::new();
    let real = directory.path().join("real");
    let link = directory.path().join("trusted");
    fs::write(&real, "").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    TrustFile::open(&link).unwrap().add(key(1), None).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(TrustFile::open(&real).unwrap().contains(&key(1)));
}
