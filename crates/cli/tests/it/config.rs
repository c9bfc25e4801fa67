//! The configuration file, and what it says that commands heed.

use serde_json::json;

use crate::common::{Home, Run};

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let home = Home::new();
    home.write("config.toml", "port = 1\n\n[network.wlan0]\n");
    let parts =
        ["config.toml, line 3", "`network`", "`hosts`, `networks`, `never-connect`, `port`, `tunnel`"];
    let run = home.run(&["networks", "--json"]).failed(2, &parts);
    assert_eq!(run.objects().len(), 1);
    assert_eq!(run.object()["exit"], 2);
    assert!(run.object()["error"].as_str().unwrap().contains("line 3"), "{run:?}");
    home.write("config.toml", "[hosts]\nboat = 'nokey@10.0.0.1'\n");
    home.run(&["ping", "boat"]).failed(2, &["line 2", "nokey@10.0.0.1"]);
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    let home = Home::empty();
    let missing = home.path().join("none.toml");
    let text = missing.to_str().unwrap();
    home.run(&["networks"]).ended(0);
    home.run(&["--config", text, "networks"]).failed(2, &[text, "--config"]);
    home.run(&["networks", "--config", text]).failed(2, &[text]);
    Run::of(home.command(&["networks"]).env("STEADFAST_CONFIG", text)).failed(2, &[text]);
}

#[test]
fn it_says_what_networks_are() {
    let home = Home::new();
    home.write(
        "config.toml",
        "port = 4711\n[networks.'*']\nignore = true\n\
         [networks.lo]\nname = 'air'\nclass = 'satellite'\ncost = 7\nmetered = true\nignore = false\n",
    );
    let seen = home.run(&["networks", "--json"]).ended(0).object();
    assert_eq!(seen["port"], 4711);
    let networks = seen["networks"].as_array().unwrap();
    assert_eq!(networks.len(), 1, "{seen}");
    let mut network = networks[0].clone();
    let addresses = network.as_object_mut().unwrap().remove("addresses").unwrap();
    assert!(addresses.as_array().unwrap().contains(&json!("127.0.0.1/8")), "{addresses}");
    let expected = json!({
        "name": "air", "interface": "lo", "state": "up", "class": "satellite", "metered": true, "cost": 7
    });
    assert_eq!(network, expected);
    let table = home.run(&["networks"]).ended(0).out;
    let lines: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "STATE", "CLASS", "METERED", "COST", "ADDRESSES"]);
    assert_eq!(lines[1], ["air", "(lo)", "up", "satellite", "yes", "7", "127.0.0.1/8"]);
    // What is left out is seen by who asks.
    home.write("config.toml", "[networks.'*']\nignore = true\n");
    let empty = home.run(&["networks"]).ended(0).out;
    assert!(empty.contains("No network"), "{empty}");
    let all = home.run(&["networks", "--all", "--json"]).ended(0).object();
    let names: Vec<_> =
        all["networks"].as_array().unwrap().iter().map(|n| (&n["name"], &n["state"])).collect();
    assert!(names.contains(&(&json!("lo"), &json!("unusable"))), "{all}");
}
