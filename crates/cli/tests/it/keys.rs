//! `steadfast keygen` and `steadfast id`.

use std::fs;
use std::os::unix::fs::MetadataExt;

use steadfast::Fingerprint;

use crate::common::{Home, Run};

#[test]
fn a_key_is_made_once_and_shown() {
    let home = Home::empty();
    home.run(&["id"]).failed(1, &["identity", "`steadfast keygen`"]);
    let made = home.run(&["keygen", "--json"]).ended(0).object();
    let path = home.file("identity");
    assert_eq!(made["identity"], path.to_str().unwrap());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let shown = home.run(&["id"]).ended(0);
    assert_eq!(shown.out, format!("{}\n", home.key()));
    assert_eq!(made["key"], home.key().to_string());
    assert_eq!(home.run(&["id", "--json"]).ended(0).object(), made);
}

#[test]
fn a_key_is_replaced_only_by_force() {
    let home = Home::new();
    let first = home.key();
    let refused = home.run(&["--json", "keygen"]).failed(1, &["is there already", "--force"]);
    assert_eq!(refused.object()["exit"], 1);
    assert_eq!(home.key(), first);
    home.run(&["keygen", "--force"]).ended(0);
    assert_ne!(home.key(), first);
    assert_eq!(
        fs::read_dir(home.file("")).unwrap().count(),
        2,
        "something was left beside key and configuration"
    );
}

#[test]
fn the_key_file_can_be_named() {
    let home = Home::empty();
    let path = home.path().join("deep/key");
    let text = path.to_str().unwrap();
    home.run(&["--identity", text, "keygen"]).ended(0);
    assert!(!home.file("identity").exists());
    let before = home.run(&["--identity", text, "id"]).ended(0).out;
    let after = home.run(&["id", "--identity", text]).ended(0).out;
    let variable = Run::of(home.command(&["id"]).env("STEADFAST_IDENTITY", text)).ended(0).out;
    assert!(before.trim().parse::<Fingerprint>().is_ok(), "{before}");
    assert_eq!((&before, &before), (&after, &variable));
}
