//! Nothing lasts longer than its limit, and nothing is left behind.

use super::*;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::Command;
use steadfast_agent_client::Error;
use steadfast_backplane::{Matching, Receive, Replay};

const SHORT: Duration = Duration::from_millis(50);

fn impatient(place: &Place) -> Settings {
    Settings { limit: SHORT, ..place.settings() }
}

/// Stopped, an agent still has connections accepted by the kernel, until its backlog is full.
#[test]
fn an_agent_that_is_stopped() {
    let place = Place::new();
    let agent = place.agent();
    let settings = impatient(&place);
    let mut one = loop {
        // It may be slow at first; that is not what is tested.
        match Client::connect(settings.clone(), "FTB.apps.example".parse().ok(), named("one")) {
            Ok(client) => break client,
            Err(error) => assert!(matches!(error, Error::TimedOut { .. }), "{error}"),
        }
    };
    agent.pause(true);
    for _ in 0..3 {
        assert!(matches!(one.publish(publication("A")), Err(Error::TimedOut { .. })));
        let subscribed = one.subscribe("", Matching::Every, Replay::Nothing, Receive::Polling);
        assert!(matches!(subscribed, Err(Error::TimedOut { .. })));
    }
    // Until the socket is full, and beyond.
    let full = (0..1000).find(|_| one.publish_unanswered(with("A", 60_000)).is_err());
    assert!(full.is_some());
    let mut waiting = Vec::new();
    let error = loop {
        match Client::connect(settings.clone(), None, named("late")) {
            Ok(_) => panic!("nobody answered"),
            Err(error @ Error::NoAgent { .. }) => break error,
            Err(_) => {
                // Dropped clients stay in the backlog too; these only make sure of it.
                waiting.push(std::os::unix::net::UnixStream::connect(place.path()));
            }
        }
        if waiting.len() > 3 {
            break Error::Unknown;
        }
    };
    assert!(error.is_connection());
    one.disconnect(SHORT).unwrap_err();
    agent.pause(false);
    let mut again = place.publisher();
    again.publish(publication("A")).unwrap();
}

/// Goes on where it was stopped: answers that nobody waits for any more are swallowed.
#[test]
fn an_agent_that_goes_on() {
    let place = Place::new();
    let agent = place.agent();
    let mut one = place.client("one");
    let mut two = Client::connect(
        Settings { limit: Duration::from_secs(1), ..place.settings() },
        "FTB.apps.example".parse().ok(),
        named("two"),
    )
    .unwrap();
    let (all, _) = one.subscribe("", Matching::Every, Replay::Nothing, Receive::Polling).unwrap();
    two.declare(None, vec![Declaration::new("A", "info").unwrap()]).unwrap();
    agent.pause(true);
    assert!(matches!(two.publish(publication("A")), Err(Error::TimedOut { .. })));
    assert!(two.subscribe("", Matching::Every, Replay::Nothing, Receive::Polling).is_err());
    agent.pause(false);
    let second = two.publish(publication("A")).unwrap();
    assert_ne!(one.poll(all, GUARD).unwrap().unwrap().event.handle(), second);
    assert_eq!(one.poll(all, GUARD).unwrap().unwrap().event.handle(), second);
    assert!(!two.has_callbacks() && two.counters().connections == 1);
}

fn descriptors() -> BTreeSet<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    fs::read_dir("/proc/self/fd").unwrap().filter_map(name).collect()
}

/// Alone in a process of its own: other tests open descriptors at the same time.
#[test]
fn nothing_is_left_open() {
    const ALONE: &str = "STEADFAST_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let own = std::env::current_exe().unwrap();
        let mut command = Command::new(own);
        command.args(["limits::nothing_is_left_open", "--exact", "--test-threads=1"]).env(ALONE, "1");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let place = Place::new();
    let before = descriptors();
    for _ in 0..1000 {
        assert!(matches!(Client::connect(place.settings(), None, named("one")), Err(Error::NoAgent { .. })));
    }
    assert_eq!(descriptors(), before);
    // Somebody who is no agent.
    let listener = UnixListener::bind(place.path()).unwrap();
    let open = descriptors();
    for noise in ["HTTP/1.1 400 Bad Request\r\n", ""] {
        let error = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(noise.as_bytes()).unwrap();
            });
            Client::connect(place.settings(), None, named("one")).unwrap_err()
        });
        assert!(matches!(error, Error::Violation(_) | Error::Ended { .. }), "{error}");
    }
    assert_eq!(descriptors(), open);
    // Close-on-exec, and only one.
    let accepted = std::thread::scope(|scope| {
        let accepted = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut hello = [0; 1];
            stream.read_exact(&mut hello).unwrap();
            // As long as the client waits it is open. What the listing itself opened is gone.
            let info = |fd: String| fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok();
            let is_socket = |fd: &String| {
                let target = fs::read_link(format!("/proc/self/fd/{fd}"));
                target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
            };
            descriptors().into_iter().filter(is_socket).filter_map(info).collect::<Vec<_>>()
        });
        let _ended = Client::connect(place.settings(), None, named("one"));
        accepted.join().unwrap()
    });
    assert!(accepted.len() >= 3, "the listener's, the client's and the accepted one");
    for info in &accepted {
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        let flags = u32::from_str_radix(flags, 8).unwrap();
        assert_ne!(flags & 0o2_000_000, 0, "close-on-exec: {info}");
    }
    assert_eq!(descriptors(), open);
}
