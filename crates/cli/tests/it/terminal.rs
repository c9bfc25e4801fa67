//! Nothing that others say controls a terminal.

use serde_json::Value;
use steadfast::Identity;

use crate::common::{Home, Peer, Run, Running};

/// Would set the title, clear the screen, colour, and write the rest backwards.
const EVIL: &str = "a\u{1b}]0;b\u{7}\u{1b}[2J\u{9b}31m\u{202e}c";

fn assert_clean(text: &str) {
    let bad = |letter: &char| {
        (letter.is_control() && *letter != '\n') || ('\u{202a}'..='\u{202e}').contains(letter)
    };
    assert_eq!(text.chars().find(bad), None, "{text:?}");
}

/// Runs it; what it prints is clean.
fn clean_run(home: &Home, arguments: &[&str]) -> Run {
    let run = home.run(arguments);
    assert_clean(&run.out);
    assert_clean(&run.err);
    run
}

#[test]
fn names_of_a_peers_networks() {
    let home = Home::new();
    let peer = Peer::new(home.key(), EVIL);
    // The name may come after the first answer.
    let mut command = home.command(&["ping", "-i", "20ms", &peer.contact]);
    let mut ping = Running::start(&mut command, |command| command.spawn().unwrap());
    loop {
        let line = ping.line();
        assert!(!line.is_empty(), "it ended without the name");
        assert_clean(&line);
        if line.contains("lo > a\\u{1b}]0;b\\u{7}") {
            break;
        }
    }
    let mut command = home.command(&["ping", "--json", "-i", "20ms", &peer.contact]);
    let mut ping = Running::start(&mut command, |command| command.spawn().unwrap());
    loop {
        let line = ping.line();
        assert_clean(&line);
        let object: Value = serde_json::from_str(&line).unwrap();
        if object["path"]["remote"] == EVIL {
            break;
        }
    }
}

#[test]
fn names_in_files_and_arguments() {
    let home = Home::new();
    let key = Identity::generate().unwrap().fingerprint();
    let name = EVIL.replace(char::is_whitespace, "");
    home.write("trusted", &format!("{key} {name}\n"));
    let run = clean_run(&home, &["trust", "list"]).ended(0);
    assert!(run.out.contains("\\u{1b}"), "{run:?}");
    let run = clean_run(&home, &["trust", "list", "--json"]).ended(0);
    assert_eq!(run.object()["trusted"][0]["name"], name);
    clean_run(&home, &["trust", "remove", &format!("{EVIL}?")]).failed(1, &["\\u{1b}"]);
    home.write("config.toml", "[hosts]\n\"a\u{202e}b\" = 1\n");
    clean_run(&home, &["networks", "--json"]).failed(2, &["line 2", "\\u{202e}"]);
}
