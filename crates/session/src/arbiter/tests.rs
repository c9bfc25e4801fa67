//! What the arbiter says, and what processes that lie can do.

use super::*;
use alloc::string::String;
use alloc::vec;

const MS: Duration = Duration::from_millis(1);
const WIFI: NetworkId = NetworkId(7);
const OWNER: Owner = Owner { user: 1000, namespace: 1 };

fn on(network: NetworkId) -> NetworkUse {
    NetworkUse {
        network,
        name: String::from("wifi"),
        paths: 1,
        rate: 0,
        foreground: 0,
        background: 0,
        foreground_waits: false,
        background_waits: false,
        starting: false,
        room: false,
    }
}

/// Sends as much background as it gets, which is this.
fn sends(background: u64) -> NetworkUse {
    NetworkUse { background, background_waits: true, ..on(WIFI) }
}

struct Host {
    arbiter: Arbiter,
    now: Instant,
    last: BTreeMap<(ProcessId, NetworkId), Share>,
}

impl Host {
    fn new() -> Self {
        Self {
            arbiter: Arbiter::new(Duration::from_millis(10)),
            now: Instant(1_000_000_000),
            last: BTreeMap::new(),
        }
    }

    fn report(&mut self, process: u64, network: NetworkUse) {
        self.report_as(process, OWNER, vec![network]);
    }

    fn report_as(&mut self, process: u64, owner: Owner, networks: Vec<NetworkUse>) {
        self.arbiter.handle_report(self.now, ProcessId(process), owner, &Report { networks });
        while let Some((process, share)) = self.arbiter.poll_share() {
            self.last.insert((process, share.network), share);
        }
    }

    /// All of them report ten times a second for so long.
    fn go_on(&mut self, time: Duration, all: &[(u64, NetworkUse)]) {
        let end = self.now + time;
        while self.now < end {
            self.now += 100 * MS;
            self.arbiter.handle_timeout(self.now);
            for (process, network) in all {
                self.report(*process, network.clone());
            }
        }
    }

    fn rate(&self, process: u64) -> Option<u64> {
        self.last[&(ProcessId(process), WIFI)].rate
    }
}

fn near(rate: Option<u64>, expected: u64) -> bool {
    rate.is_some_and(|rate| rate.abs_diff(expected) <= expected / 20)
}

#[test]
fn one_that_sends_alone_is_not_limited_and_two_get_half_of_it_each() {
    let mut host = Host::new();
    host.go_on(2000 * MS, &[(1, sends(1_000_000)), (2, on(WIFI))]);
    assert_eq!(host.rate(1), None);
    host.go_on(500 * MS, &[(1, sends(700_000)), (2, sends(300_000))]);
    assert!(near(host.rate(1), 500_000) && near(host.rate(2), 500_000), "{:?}", host.last);
    let queues: u64 = host.last.values().map(|share| share.queue).sum();
    assert!(queues.abs_diff(10_000) <= 500, "10 ms of it in all: {queues}");
}

#[test]
fn who_goes_idle_gives_its_share_back_with_its_first_report() {
    let mut host = Host::new();
    host.go_on(2000 * MS, &[(1, sends(500_000)), (2, sends(500_000))]);
    host.now += 100 * MS;
    host.report(2, on(WIFI));
    assert!(near(host.rate(1), 1_000_000), "the other one is told at once: {:?}", host.last);
    host.go_on(1500 * MS, &[(1, sends(1_000_000)), (2, on(WIFI))]);
    assert_eq!(host.rate(1), None);
}

#[test]
fn who_falls_silent_or_ends_is_forgotten() {
    for ends in [false, true] {
        let mut host = Host::new();
        host.go_on(1000 * MS, &[(1, sends(500_000)), (2, sends(500_000))]);
        if ends {
            host.arbiter.handle_gone(host.now, ProcessId(2));
            host.now += 100 * MS;
            host.report(1, sends(500_000));
            assert!(near(host.rate(1), 1_000_000), "{:?}", host.last);
        }
        host.go_on(2000 * MS, &[(1, sends(1_000_000))]);
        assert_eq!(host.rate(1), None);
        assert_eq!(host.arbiter.stats().silent, u64::from(!ends));
        assert_eq!(host.arbiter.poll_timeout(), Some(host.now + SILENCE));
    }
}

#[test]
fn what_one_does_not_use_is_left_to_the_others_and_offered_to_it_again() {
    let mut host = Host::new();
    host.go_on(2500 * MS, &[(1, sends(900_000)), (2, sends(100_000))]);
    assert!(near(host.rate(1), 900_000), "{:?}", host.last);
    let mut offered = false;
    for _ in 0..90 {
        host.go_on(100 * MS, &[(1, sends(900_000)), (2, sends(100_000))]);
        offered |= near(host.rate(1), 800_000);
    }
    assert!(offered, "twice what it has was kept free for it once more");
}

#[test]
fn a_network_that_shows_no_queue_is_tried_out_in_big_steps() {
    let mut host = Host::new();
    let roomy = |background| NetworkUse { room: true, ..sends(background) };
    host.go_on(1500 * MS, &[(1, roomy(500_000)), (2, sends(500_000))]);
    assert!(near(host.rate(1), 625_000) && near(host.rate(2), 500_000), "{:?}", host.last);
    host.go_on(100 * MS, &[(1, roomy(600_000)), (2, sends(500_000))]);
    assert!(near(host.rate(1), 1_200_000), "it still grows: {:?}", host.last);
}

#[test]
fn small_foreground_takes_what_it_needs_and_large_foreground_nearly_all() {
    let mut host = Host::new();
    let asks = NetworkUse { foreground: 100_000, ..on(WIFI) };
    host.go_on(2000 * MS, &[(1, sends(450_000)), (2, sends(450_000)), (3, asks)]);
    assert!(near(host.rate(1), 450_000), "{:?}", host.last);
    assert!(host.last[&(ProcessId(1), WIFI)].foreground && !host.last[&(ProcessId(3), WIFI)].foreground);
    let presses = NetworkUse { foreground: 600_000, foreground_waits: true, ..on(WIFI) };
    host.go_on(500 * MS, &[(1, sends(200_000)), (2, sends(200_000)), (3, presses)]);
    assert!(near(host.rate(1), 1_000_000 / 16 / 2), "never less than a sixteenth in all: {:?}", host.last);
}

#[test]
fn a_liar_has_no_more_than_an_honest_process_could_have() {
    // Whatever it says of its background, the others keep their equal parts of what they are seen to carry...
    for claim in [0, 1, 1_000_000, 1 << 40, u64::MAX] {
        let mut host = Host::new();
        let others = [(1, sends(500_000)), (2, sends(500_000))];
        host.go_on(2000 * MS, &others);
        let lie =
            NetworkUse { background: claim, background_waits: true, starting: true, room: true, ..on(WIFI) };
        host.go_on(5000 * MS, &[others[0].clone(), others[1].clone(), (3, lie)]);
        for honest in [1, 2] {
            let rate = host.rate(honest);
            assert!(rate.is_none_or(|rate| rate >= 320_000), "{claim}: {rate:?}");
        }
    }
    // ...and of its foreground, they keep a sixteenth, as if it were true.
    for claim in [1, 900_000, 1 << 40, u64::MAX] {
        let mut host = Host::new();
        host.go_on(2000 * MS, &[(1, sends(1_000_000))]);
        let lie = NetworkUse { foreground: claim, foreground_waits: true, ..on(WIFI) };
        host.go_on(5000 * MS, &[(1, sends(100_000)), (3, lie)]);
        let rate = host.rate(1);
        assert!(rate.is_none_or(|rate| rate >= 100_000 / 16), "{claim}: {rate:?}");
    }
}

#[test]
fn there_is_room_for_so_many_processes_of_a_user_and_so_many_networks_of_a_process() {
    let mut host = Host::new();
    for process in 0..MAX_OF_USER as u64 + 10 {
        host.report(process, sends(1000));
    }
    assert_eq!(host.arbiter.members.len(), MAX_OF_USER);
    assert_eq!(host.arbiter.stats().refused_processes, 10);
    let other = Owner { user: 1, namespace: 1 };
    host.report_as(5000, other, (0..100).map(|id| NetworkUse { ..on(NetworkId(id)) }).collect());
    assert_eq!(host.arbiter.members.len(), MAX_OF_USER + 1, "another user has room");
    assert_eq!(host.arbiter.places.len(), MAX_NETWORKS);
    // What it reports too soon is not looked at, and what it reports no more is gone.
    host.report_as(5000, other, Vec::new());
    assert_eq!((host.arbiter.stats().refused_reports, host.arbiter.places.len()), (1, MAX_NETWORKS));
    host.now += 100 * MS;
    host.report_as(5000, other, Vec::new());
    assert_eq!(host.arbiter.places.len(), 1);
    host.arbiter.handle_timeout(host.now + SILENCE);
    assert!(host.arbiter.members.is_empty() && host.arbiter.places.is_empty());
}

#[test]
fn networks_of_other_namespaces_are_other_networks() {
    let mut host = Host::new();
    for _ in 0..20 {
        host.now += 100 * MS;
        host.report(1, sends(1_000_000));
        host.report_as(2, Owner { namespace: 2, ..OWNER }, vec![sends(1_000_000)]);
    }
    assert_eq!((host.rate(1), host.rate(2)), (None, None));
}

#[test]
fn all_drain_at_once_when_one_begins_and_now_and_then() {
    let mut host = Host::new();
    let drains = |host: &Host| host.last.values().map(|share| share.drain).collect::<Vec<_>>();
    host.go_on(2000 * MS, &[(1, sends(500_000)), (2, on(WIFI))]);
    assert_eq!(drains(&host), [0, 0]);
    host.now += 100 * MS;
    host.report(2, sends(0));
    assert_eq!(drains(&host), [1, 1]);
    // Who begins again and again does not make the others drain as often.
    for _ in 0..9 {
        host.go_on(100 * MS, &[(1, sends(500_000)), (2, on(WIFI))]);
        host.go_on(100 * MS, &[(1, sends(500_000)), (2, sends(0))]);
    }
    assert!(drains(&host)[0] <= 3, "{:?}", drains(&host));
    let before = drains(&host)[0];
    host.go_on(10_000 * MS, &[(1, sends(500_000)), (2, sends(500_000))]);
    assert_eq!(drains(&host), [before + 1, before + 1]);
}
