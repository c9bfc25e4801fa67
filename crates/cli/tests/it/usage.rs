//! Arguments.

use crate::common::{Home, Peer, Run, steadfast};

#[test]
fn a_wrong_argument_is_a_usage_error() {
    for arguments in [&["demo", "--slowly"][..], &["no-such-command"], &[]] {
        let output = steadfast().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_shows_the_commands_for_people_only() {
    let output = steadfast().arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.contains("demo") && !text.contains("demo-"), "{text}");
    let output = steadfast().arg("--version").output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("steadfast {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_usage_error_is_an_object_too() {
    for arguments in [&["--json", "no-such-command"][..], &["ping", "--json"]] {
        let run = Run::of(steadfast().args(arguments)).ended(2);
        let object = run.object();
        assert_eq!(object["exit"], 2);
        assert!(!object["error"].as_str().unwrap().contains("error: "), "{object}");
        assert!(run.err.starts_with("error: "), "{run:?}");
    }
}

#[test]
fn every_command_explains_itself() {
    for command in [
        &["ping"][..],
        &["networks"],
        &["trust", "add"],
        &["completions"],
        &["man"],
        &["tunnel"],
        &["simulate", "homa"],
    ] {
        let help = Run::of(steadfast().args(command).arg("--help")).ended(0).out;
        assert!(help.contains("Example") && help.contains("--json"), "{help}");
    }
}

#[test]
fn what_happens_inside_is_told_on_standard_error() {
    let home = Home::new();
    let run = Run::of(home.command(&["networks", "--json"]).env("STEADFAST_LOG", "loud"))
        .failed(2, &["loud", "debug"]);
    assert_eq!(run.object()["exit"], 2);
    let peer = Peer::new(home.key(), "there");
    let mut command = home.command(&["ping", "-c", "1", "--json", &peer.contact]);
    let run = Run::of(command.env("STEADFAST_LOG", "steadfast=debug")).ended(0);
    assert!(run.err.contains("DEBUG steadfast") && !run.err.contains('\u{1b}'), "{run:?}");
    assert_eq!(run.object()["type"], "summary");
}

#[test]
fn nobody_reads_the_output() {
    for arguments in [&["networks"][..], &["networks", "--json"], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let run = Run::of(Home::new().command(arguments).stdout(writer)).ended(1);
        assert_eq!(run.err, "", "{arguments:?}");
    }
}

#[test]
fn without_a_home() {
    let home = Home::empty();
    Run::of(home.command(&["id"]).env_remove("HOME")).failed(2, &["HOME"]);
    Run::of(home.command(&["man"]).env_remove("HOME")).ended(0);
}
