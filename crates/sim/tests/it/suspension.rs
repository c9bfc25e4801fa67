//! What SUSPEND may do and what not, with a peer whose every frame is written by hand.

#![expect(clippy::unwrap_used, reason = "the inputs are this file's own")]

use bytes::BytesMut;
use core::time::Duration;
use steadfast_session::{Action, Config, Endpoint, Evidence, SessionConfig, Verdict};
use steadfast_sim::world::identity;
use steadfast_wire::frame::{FEATURE_SUSPENSION, Frame, Hello, Process};
use steadfast_wire::{
    Address, Gather, Incarnation, Instant, Network, NetworkClass, NetworkId, PathNumber, SessionId, Token,
};

const SECOND: Duration = Duration::from_secs(1);
const SESSION: SessionId = SessionId(7);

struct Host {
    core: Endpoint,
    now: Instant,
    actions: Vec<Action>,
}

impl Host {
    fn new() -> Self {
        let mut core = Endpoint::new(Config::default(), identity(0), [7; 32]);
        let now = Instant(1_000_000_000);
        let network = |number: u32| Network {
            id: NetworkId(number),
            name: format!("net{number}"),
            class: NetworkClass::Ethernet,
            metered: false,
            cost: 0,
            port: 1,
            addresses: vec![Address { ip: format!("10.0.{number}.1").parse().unwrap(), prefix: 24 }],
        };
        core.handle_networks(now, vec![network(1), network(2)]);
        Self { core, now, actions: Vec::new() }
    }

    /// The peer connects over one of the networks and says HELLO.
    fn greet(&mut self, network: u32, features: u64) -> PathNumber {
        let (local, remote) = (format!("10.0.{network}.1"), format!("10.0.{network}.2:9"));
        let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
        let path =
            self.core.handle_accepted(self.now, NetworkId(network), local, remote, identity(1)).unwrap();
        let hello = Hello {
            version: 1,
            incarnation: Incarnation(5),
            path: PathNumber(path.0),
            network: NetworkId(network),
            port: 9,
            features,
            durable: false,
            max_message: 1 << 20,
            windows: [1 << 20; 2],
            process: Process::default(),
        };
        self.say(path, &Frame::Hello(hello));
        path
    }

    /// With a conversation over both networks.
    fn converse(features: u64) -> (Self, [PathNumber; 2]) {
        let mut host = Self::new();
        let paths = [1, 2].map(|network| host.greet(network, features));
        host.say(paths[0], &Frame::Open { session: SESSION, per_urgency: true, token: Token([1; 16]) });
        while host.core.accept(host.now, SessionConfig::default()).is_some() {}
        for path in paths {
            host.hear(path);
        }
        assert_eq!(host.verdict(), Verdict::Alive);
        (host, paths)
    }

    fn say(&mut self, path: PathNumber, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert!(!self.core.handle_data(self.now, path, &mut BytesMut::from(&bytes[..])), "one frame");
        self.core.check_invariants();
    }

    /// What is said to the peer on a path.
    fn hear(&mut self, path: PathNumber) -> Vec<Frame> {
        while self.core.poll_ready().is_some() {}
        let mut out = Gather::default();
        while self.core.poll_transmit(self.now, path, 64 * 1024, &mut out) > 0 {}
        while let Some(action) = self.core.poll_action() {
            self.actions.push(action);
        }
        let mut out = BytesMut::from(&out.to_vec()[..]);
        std::iter::from_fn(|| Frame::decode(&mut out).unwrap()).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.core.handle_timeout(self.now);
        self.core.check_invariants();
    }

    fn verdict(&self) -> Verdict {
        self.core.verdict(SESSION).unwrap().verdict
    }
}

fn suspend(epoch: u64, seconds: u64) -> Frame {
    Frame::Suspend { epoch, limit: seconds * 1000 }
}

#[test]
fn it_is_the_last_word_on_every_path_and_nobody_is_let_in() {
    let (mut host, paths) = Host::converse(FEATURE_SUSPENSION);
    host.core.suspend(host.now, 60 * SECOND);
    for path in paths {
        assert_eq!(host.hear(path), [suspend(1, 60)]);
        assert!(host.actions.contains(&Action::Close { path }), "{:?}", host.actions);
    }
    let (local, remote) = ("10.0.1.1".parse().unwrap(), "10.0.1.2:9".parse().unwrap());
    assert_eq!(host.core.handle_accepted(host.now, NetworkId(1), local, remote, identity(1)), None);
    host.pass(2 * SECOND);
    assert!(!host.actions.iter().any(|action| matches!(action, Action::Connect { .. })));
    host.core.wake(host.now);
    let path = host.greet(1, FEATURE_SUSPENSION);
    host.hear(path);
    host.core.suspend(host.now, SECOND);
    assert_eq!(host.hear(path).last(), Some(&suspend(2, 1)), "it is counted");
}

#[test]
fn who_does_not_know_it_is_told_nothing() {
    let (mut host, paths) = Host::converse(0);
    host.core.suspend(host.now, 60 * SECOND);
    for path in paths {
        assert_eq!(host.hear(path), []);
        assert!(host.actions.contains(&Action::Close { path }));
    }
}

#[test]
fn what_was_said_before_it_may_come_after_it() {
    let (mut host, paths) = Host::converse(FEATURE_SUSPENSION);
    host.say(paths[0], &suspend(1, 60));
    assert_eq!(host.verdict(), Verdict::Suspended);
    host.say(paths[1], &Frame::Ping { nonce: 1 });
    assert_eq!(host.verdict(), Verdict::Suspended, "a slower network");
    host.say(paths[1], &suspend(1, 60));
    host.pass(30 * SECOND);
    assert_eq!(host.verdict(), Verdict::Suspended);
    host.greet(1, FEATURE_SUSPENSION);
    assert_eq!(host.verdict(), Verdict::Alive);
}

#[test]
fn who_goes_on_speaking_lives() {
    let (mut host, paths) = Host::converse(FEATURE_SUSPENSION);
    host.say(paths[0], &suspend(1, 60));
    host.pass(2 * SECOND);
    host.say(paths[1], &Frame::Ping { nonce: 1 });
    assert_eq!(host.verdict(), Verdict::Alive);
}

#[test]
fn one_that_is_late_counts_for_nothing() {
    let (mut host, paths) = Host::converse(FEATURE_SUSPENSION);
    host.say(paths[0], &suspend(1, 60));
    host.greet(1, FEATURE_SUSPENSION);
    assert_eq!(host.verdict(), Verdict::Alive);
    // The other one comes when it is over.
    host.say(paths[1], &suspend(1, 60));
    assert_eq!(host.verdict(), Verdict::Alive);
}

#[test]
fn a_path_that_came_up_just_then_takes_it_back_for_a_moment_only() {
    let (mut host, paths) = Host::converse(FEATURE_SUSPENSION);
    host.say(paths[0], &suspend(1, 60));
    host.say(paths[1], &suspend(1, 60));
    // This HELLO was said before, on a path that came up later.
    let late = host.greet(2, FEATURE_SUSPENSION);
    assert_eq!(host.verdict(), Verdict::Alive);
    host.say(late, &suspend(1, 60));
    assert_eq!(host.verdict(), Verdict::Suspended);
}

#[test]
fn its_limit_is_bounded_and_no_number_is_too_large() {
    let (mut host, paths) = Host::converse(FEATURE_SUSPENSION);
    let most = steadfast_wire::varint::MAX;
    host.say(paths[0], &Frame::Suspend { epoch: most, limit: most });
    let evidence = host.core.verdict(SESSION).unwrap().evidence;
    assert_eq!(evidence, Evidence::Suspended(Config::default().max_suspension));
    host.say(paths[1], &suspend(1, 0));
    host.pass(Config::default().max_suspension.saturating_sub(SECOND));
    assert_eq!(host.verdict(), Verdict::Suspended);
    host.pass(SECOND);
    host.pass(2 * SECOND);
    assert_eq!(host.verdict(), Verdict::Unreachable);
}
