//! `steadfast ping`, to a peer in this process.

use serde_json::Value;
use steadfast::Identity;

use crate::common::{Home, Peer, Running};

fn number(object: &Value, key: &str) -> f64 {
    object[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {object}"))
}

#[test]
fn every_path_and_a_message_answer() {
    let home = Home::new();
    let peer = Peer::new(home.key(), "there");
    let arguments = ["ping", "-c", "3", "-i", "10ms", &peer.contact];
    let run = home.run(&[&arguments[..], &["--json"]].concat()).ended(0);
    let objects = run.objects();
    let of = |kind: &str| objects.iter().filter(|object| object["type"] == kind).collect::<Vec<_>>();
    for kind in ["probe", "message"] {
        assert!(!of(kind).is_empty(), "{run:?}");
        assert!(of(kind).iter().all(|answer| number(answer, "time_ms") >= 0.0), "{run:?}");
    }
    assert!(of("message").iter().all(|answer| answer["by"][0]["local"] == "lo"), "{run:?}");
    let summary = run.object();
    assert_eq!((&summary["type"], &summary["peer"]), (&"summary".into(), &peer.key.to_string().into()));
    let path = &summary["paths"][0];
    assert_eq!(path["path"]["local"], "lo");
    assert!(number(path, "asked") >= 1.0 && number(path, "carried") >= 1.0, "{summary}");
    let message = &summary["message"];
    assert_eq!((number(message, "loss_percent"), &message["asked"]), (0.0, &message["answered"]));
    for row in [path, message] {
        let [min, avg, max] = ["min_ms", "avg_ms", "max_ms"].map(|key| number(row, key));
        assert!(min <= avg + 0.001 && avg <= max + 0.001 && number(row, "mdev_ms") >= 0.0, "{row}");
    }

    let text = home.run(&arguments).ended(0).out;
    assert!(text.starts_with(&format!("Ping {}\n", peer.key)), "{text}");
    for part in ["   3  ", "over lo", " ms\n", "lo > there", "ASKED", "CARRIED"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_host_is_a_name_of_the_configuration() {
    let home = Home::new();
    let peer = Peer::new(home.key(), "there");
    let (_, address) = peer.contact.split_once('@').unwrap();
    home.configure(&format!("[hosts]\nboat = '{}'\nshed = '{address}'\n", peer.contact));
    let text = home.run(&["ping", "-c", "1", "boat"]).ended(0).out;
    assert!(text.starts_with(&format!("Ping boat, {}\n", peer.key)), "{text}");
    // Without a key there, the trusted peer of that name is meant.
    home.run(&["ping", "-c", "1", "shed"]).failed(3, &["shed", "steadfast trust add"]);
    home.run(&["trust", "add", &peer.key.to_string(), "shed"]).ended(0);
    home.run(&["ping", "-c", "1", "shed"]).ended(0);
}

#[test]
fn who_is_refused_learns_what_would_help() {
    let home = Home::new();
    let peer = Peer::new(Identity::generate().unwrap().fingerprint(), "there");
    let own = format!("steadfast trust add {}", home.key());
    let run = home.run(&["ping", "--json", &peer.contact]).failed(3, &[&own]);
    assert_eq!(run.object()["exit"], 3);
    assert!(run.object()["error"].as_str().unwrap().contains(&own), "{run:?}");
    home.run(&["ping", "127.0.0.1:9"]).failed(3, &["127.0.0.1:9", "steadfast trust add KEY"]);
}

#[test]
fn nobody_there() {
    let home = Home::new();
    let contact = Peer::new(home.key(), "there").contact;
    let run = home.run(&["ping", "--connect-limit", "300ms", "--json", &contact]).failed(4, &["check that"]);
    assert_eq!(run.object()["exit"], 4);
}

#[test]
fn what_is_no_host() {
    let home = Home::new();
    for (host, part) in [("a b", "a host is"), ("x@10.0.0.1", "52"), ("boat:0", "port"), ("", "HOST")] {
        home.run(&["ping", host]).failed(2, &[part]);
    }
    let own = format!("{}@10.0.0.1", home.key());
    home.run(&["ping", &own]).failed(2, &["own key"]);
    for wrong in
        [&["ping"][..], &["ping", "-c", "0", "x"], &["ping", "-i", "0", "x"], &["ping", "-i", "soon", "x"]]
    {
        let run = home.run(wrong).ended(2);
        assert!(run.out.is_empty() && run.err.contains("error: "), "{run:?}");
    }
}

#[test]
fn ctrl_c_ends_with_the_summary() {
    let home = Home::new();
    let peer = Peer::new(home.key(), "there");
    let mut command = home.command(&["ping", "--json", &peer.contact]);
    let mut ping = Running::start(&mut command, |command| command.spawn().unwrap());
    ping.until("an answer", |object| object["type"] == "message");
    let (rest, code) = ping.interrupt();
    assert_eq!(code, Some(0), "{rest:?}");
    assert_eq!(rest.last().unwrap()["type"], "summary");
}
