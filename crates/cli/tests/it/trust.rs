//! `steadfast trust`.

use serde_json::json;
use steadfast::Identity;

use crate::common::Home;

fn key() -> String {
    Identity::generate().unwrap().fingerprint().to_string()
}

#[test]
fn peers_come_and_go() {
    let home = Home::new();
    let (boat, shed) = (key(), key());
    let empty = home.run(&["trust", "list"]).ended(0).out;
    assert!(empty.contains("steadfast trust add"), "{empty}");
    let added = home.run(&["trust", "add", &boat, "boat", "--json"]).ended(0).object();
    assert_eq!(added, json!({ "key": boat, "name": "boat", "changed": true }));
    let again = home.run(&["--json", "trust", "add", &boat]).ended(0).object();
    assert_eq!(again, json!({ "key": boat, "name": "boat", "changed": false }));
    home.run(&["trust", "add", &format!("{shed}@10.0.0.1,boat.example:99")]).ended(0);

    let list = home.run(&["trust", "list"]).ended(0).out;
    let lines: Vec<_> = list.lines().collect();
    let expected = [format!("{:52}  NAME", "KEY"), format!("{boat}  boat"), format!("{shed}  -")];
    assert_eq!(lines, expected, "{list}");
    let objects = home.run(&["trust", "list", "--json"]).ended(0).objects();
    assert_eq!(objects.len(), 1);
    assert_eq!(
        objects[0]["trusted"],
        json!([{ "key": boat, "name": "boat" }, { "key": shed, "name": null }])
    );

    home.run(&["trust", "remove", "boat"]).ended(0);
    home.run(&["trust", "remove", &shed]).ended(0);
    home.run(&["trust", "remove", "boat"]).failed(1, &["`boat`", "trust list"]);
    assert_eq!(home.run(&["trust", "list", "--json"]).object()["trusted"], json!([]));
}

#[test]
fn what_cannot_be_trusted() {
    let home = Home::new();
    let (boat, other) = (key(), key());
    home.run(&["trust", "add", "short"]).failed(2, &["`short`", "steadfast id"]);
    home.run(&["trust", "add", "10.0.0.1"]).failed(2, &["10.0.0.1"]);
    home.run(&["trust", "add", "x@10.0.0.1"]).failed(2, &["x@10.0.0.1"]);
    let own = home.key().to_string();
    home.run(&["trust", "add", &own]).failed(2, &[&own, "itself"]);
    home.run(&["trust", "add", &boat, "boat"]).ended(0);
    home.run(&["trust", "add", &other, "boat"]).failed(1, &[&boat, &other, "choose another"]);
    home.run(&["trust", "add", &other, "two words"]).failed(1, &["one word"]);
    home.write("trusted", "nonsense\n");
    home.run(&["trust", "list"]).failed(1, &["trusted, line 1"]);
}
