//! Endpoints that are attached to the daemon of their host: what it says of networks, and what they tell it of themselves.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rustix::process::Uid;
use rustix::thread::set_thread_uid;
use steadfast::host::{Attach, Lines, Reply, Statement, Usage, VERSION};
use steadfast::{Builder, Endpoint, Event, Identity, Labels, NetworkSource, Override, ScoutConfig};
use steadfast_daemon::status::{Answer, ProcessStatus, Question, Subject};
use tokio::net::UnixStream;

use crate::host::{Directory, Host as Process};
use crate::place::{GUARD, Host, soon};

/// A user who is nobody here.
pub(crate) const NOBODY: u32 = 65_534;

fn builder(daemon: PathBuf) -> Builder {
    let scout = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
    let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
    Endpoint::builder().scout(scout).addresses(addresses).daemon(Some(daemon)).connect_limit(GUARD)
}

/// Waits until the loopback has this name and cost.
async fn until_named(endpoint: &Endpoint, name: &str, cost: u8) {
    let named = async {
        loop {
            let networks = endpoint.networks();
            if networks.iter().any(|network| network.name == name && network.cost == cost) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(GUARD, named).await;
    assert!(found.is_ok(), "never {name} at {cost}: {:?}", endpoint.networks());
}

async fn pair(daemon: PathBuf) -> [Endpoint; 2] {
    let (one, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (first, second) = (one.fingerprint(), other.fingerprint());
    let one = builder(daemon.clone()).identity(one).trust(second).bind().await.unwrap();
    let other = builder(daemon).identity(other).trust(first).bind().await.unwrap();
    [one, other]
}

async fn ask(host: &Host) -> Answer {
    let stream = UnixStream::connect(host.place().join("daemon.sock")).await.unwrap();
    let mut lines = Lines::new(stream, &[], 1 << 24);
    let question = Question { version: VERSION, ask: Some(Subject::Status), ..Question::default() };
    lines.put(&question).unwrap();
    serde_json::from_slice(&soon("an answer", lines.next()).await.unwrap()).unwrap()
}

/// The processes that are attached, once they are as expected.
async fn until_processes(host: &Host, holds: impl Fn(&[ProcessStatus]) -> bool) -> Vec<ProcessStatus> {
    let mut seen = Vec::new();
    let looks = async {
        loop {
            seen = ask(host).await.status.unwrap().processes;
            if holds(&seen) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(GUARD, looks).await.is_ok();
    assert!(found, "never as expected: {seen:?}");
    seen
}

/// Whether this test may act for other users; says so if it may not.
#[expect(clippy::print_stderr, reason = "a test that was skipped must say so in the output of the run")]
pub(crate) fn may_be_others(test: &str) -> bool {
    let may = rustix::process::geteuid().is_root()
        && std::thread::spawn(|| set_thread_uid(Uid::from_raw(NOBODY)).is_ok()).join().unwrap();
    assert!(may || std::env::var_os("CI").is_none(), "nothing may be skipped where CI is set: {test}");
    if !may {
        eprintln!("SKIPPED {test}: only root can act for another user");
    }
    may
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_does_not_notice_that_the_daemon_is_killed() {
    let mut host = Process::new();
    host.name_loopback("inside");
    host.start("");
    let [one, other] = pair(host.daemon_socket()).await;
    for endpoint in [&one, &other] {
        until_named(endpoint, "inside", 7).await;
    }
    let mut events = one.events();
    let socket = soon("connecting", one.connect(other.contact())).await.unwrap();
    let peer = soon("accepting", other.accept()).await.unwrap();
    let numbers: Vec<_> = one.networks().iter().map(|network| network.id).collect();
    for round in 0..3_u8 {
        // It comes back with another name, by which its return is known.
        let names = ["inside", "within", "inward", "inlying"];
        host.kill();
        for _ in 0..50 {
            socket.send(vec![round], Labels::foreground()).await.unwrap();
            let message = soon("a message", peer.recv()).await.unwrap().unwrap();
            assert_eq!(message.into_bytes().await.unwrap()[..], [round]);
        }
        let before = names[usize::from(round)];
        assert!(one.networks().iter().any(|network| network.name == before), "{:?}", one.networks());
        host.name_loopback(names[usize::from(round) + 1]);
        host.start("");
        for endpoint in [&one, &other] {
            until_named(endpoint, names[usize::from(round) + 1], 7).await;
        }
    }
    let after: Vec<_> = one.networks().iter().map(|network| network.id).collect();
    assert_eq!(numbers, after);
    while let Some(event) = events.try_next() {
        let lost = matches!(event, Event::PathDown(..) | Event::Parked { .. });
        assert!(!lost, "{event:?}");
    }
    assert_eq!(one.paths().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_goes_before_the_daemon() {
    let mut host = Process::new();
    host.name_loopback("inside");
    host.start("");
    let own = Override { interface: "l*".into(), cost: Some(3), ..Override::default() };
    let scout = ScoutConfig { nmcli: None, overrides: vec![own], ..ScoutConfig::default() };
    let with = || builder(host.daemon_socket()).identity(Identity::generate().unwrap()).scout(scout.clone());
    until_named(&with().bind().await.unwrap(), "inside", 3).await;
    let alone = with().network_source(NetworkSource::OwnScout).bind().await.unwrap();
    until_named(&alone, "lo", 3).await;
    // It is attached all the same, and hears what it does not take.
    crate::host::until("attached", || (host.status().processes.len() == 1).then_some(()));
    assert!(alone.networks().iter().any(|network| network.name == "lo"), "{:?}", alone.networks());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_comes_later_is_found_and_one_that_stops_is_not_waited_for() {
    let mut host = Process::new();
    host.name_loopback("inside");
    let [one, other] = pair(host.daemon_socket()).await;
    until_named(&one, "lo", 0).await;
    host.start("");
    until_named(&one, "inside", 7).await;
    host.pause();
    // Where few others take its port while it is quiesced.
    let late = builder(host.daemon_socket()).addresses([IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77))]);
    let late = late.identity(Identity::generate().unwrap());
    let late = soon("binding beside a daemon that is stopped", Box::pin(late.bind())).await.unwrap();
    until_named(&late, "lo", 0).await;
    let socket = soon("connecting", one.connect(other.contact())).await.unwrap();
    socket.send("without it", Labels::foreground()).await.unwrap();
    host.resume();
    until_named(&late, "inside", 7).await;
    // What is closed and opened again asks anew.
    late.quiesce().await;
    // Who listens on all addresses may have it all the same, for as long as that lasts.
    let revived = async {
        while let Err(error) = late.revive().await {
            assert!(error.to_string().contains("in use"), "{error}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    soon("its port", revived).await;
    until_named(&late, "inside", 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_of_another_user_is_not_believed() {
    if !may_be_others("attached::a_daemon_of_another_user_is_not_believed") {
        return;
    }
    let directory = Directory::new();
    let permissions = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(&directory.0, permissions).unwrap();
    let path = directory.0.join("daemon.sock");
    let at = path.clone();
    let listening = std::thread::spawn(move || {
        set_thread_uid(Uid::from_raw(NOBODY)).unwrap();
        std::os::unix::net::UnixListener::bind(at).unwrap()
    });
    let listener = listening.join().unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    let endpoint = builder(path).identity(Identity::generate().unwrap()).bind().await.unwrap();
    // It came, and went without a word.
    let (stream, _) = soon("its connection", listener.accept()).await.unwrap();
    let mut lines = Lines::new(stream, &[], 1 << 16);
    let said = soon("its end", lines.next()).await;
    assert!(said.is_err(), "{said:?}");
    until_named(&endpoint, "lo", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_shows_conversations_and_peers() {
    let host = Host::started().await;
    let [one, other] = pair(host.place().join("daemon.sock")).await;
    let (first, second) = (one.fingerprint().to_string(), other.fingerprint().to_string());
    let socket = soon("connecting", one.connect(other.contact())).await.unwrap();
    let _peer = soon("accepting", other.accept()).await.unwrap();
    let both = |processes: &[ProcessStatus]| {
        processes.len() == 2
            && processes.iter().all(|process| process.state.sessions.len() == 1)
            && processes.iter().all(|process| process.state.peers.iter().any(|peer| peer.verdict == "alive"))
    };
    let processes = until_processes(&host, both).await;
    let of_first = processes.iter().find(|process| process.key == first).unwrap();
    let session = &of_first.state.sessions[0];
    assert_eq!((&session.peer, session.state.as_str(), session.queued), (&second, "open", 0));
    assert_eq!(of_first.state.peers[0].networks, ["lo"]);
    assert_eq!((of_first.pid, of_first.state.all_sessions), (std::process::id(), 1));

    // What waits for a peer that is silent, and what became of it.
    other.quiesce().await;
    socket.send(vec![0; 5000], Labels::background()).await.unwrap();
    let waits = |processes: &[ProcessStatus]| {
        let found = processes.iter().find(|process| process.key == first);
        found.is_some_and(|process| {
            let session = &process.state.sessions[0];
            session.state == "parked" && session.queued >= 5000 && session.verdict == "suspended"
        })
    };
    let processes = until_processes(&host, waits).await;
    assert_eq!(processes.len(), 1, "what is quiesced holds no socket: {processes:?}");
    one.close("the test is over").await;
    until_processes(&host, <[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_processes_of_others() {
    if !may_be_others("attached::nobody_sees_processes_of_others") {
        return;
    }
    let host = Host::started().await;
    let _endpoint = builder(host.place().join("daemon.sock"))
        .identity(Identity::generate().unwrap())
        .bind()
        .await
        .unwrap();
    let _client = host.client().await;
    until_processes(&host, |processes| processes.len() == 1).await;
    // The daemon is one of them.
    assert_eq!(ask(&host).await.status.unwrap().agent.clients.len(), 2);
    let path = host.place().join("daemon.sock");
    let connecting = std::thread::spawn(move || {
        set_thread_uid(Uid::from_raw(NOBODY)).unwrap();
        std::os::unix::net::UnixStream::connect(path).unwrap()
    });
    let stream = connecting.join().unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut lines = Lines::new(UnixStream::from_std(stream).unwrap(), &[], 1 << 20);
    let question = Question { version: VERSION, ask: Some(Subject::Status), ..Question::default() };
    lines.put(&question).unwrap();
    let answer: Answer = serde_json::from_slice(&soon("an answer", lines.next()).await.unwrap()).unwrap();
    let status = answer.status.unwrap();
    assert_eq!((status.processes, status.agent.clients), (vec![], vec![]));
}

/// A process that attaches by hand.
async fn attach(host: &Host) -> (Lines, Reply) {
    let stream = UnixStream::connect(host.place().join("daemon.sock")).await.unwrap();
    let mut lines = Lines::new(stream, &[], 1 << 20);
    let attach = Some(Attach { key: "k".repeat(300), namespace: 1 });
    lines.put(&Statement { version: VERSION, attach, ..Statement::default() }).unwrap();
    let reply = serde_json::from_slice(&soon("a reply", lines.next()).await.unwrap()).unwrap();
    (lines, reply)
}

/// Background that waits.
fn pushes() -> Statement {
    let usage = Usage {
        network: 2,
        paths: 1,
        rate: 1_000_000,
        background: 1_000_000,
        background_waits: true,
        ..Usage::default()
    };
    Statement { version: VERSION, usage: Some(vec![usage]), ..Statement::default() }
}

/// What a process may have, each time that it is told.
async fn shares(lines: &mut Lines) -> Option<u64> {
    loop {
        let reply: Reply = serde_json::from_slice(&soon("a share", lines.next()).await.unwrap()).unwrap();
        if let Some(share) = reply.shares.and_then(|shares| shares.into_iter().next()) {
            return share.rate;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_part_of_a_process_is_free_when_it_ends() {
    let host = Host::started().await;
    let ((mut one, _), (mut other, _)) = (attach(&host).await, attach(&host).await);
    // Until both know that there are two.
    let (mut first, mut second) = (None, None);
    while first.is_none() || second.is_none() {
        one.put(&pushes()).unwrap();
        first = shares(&mut one).await;
        other.put(&pushes()).unwrap();
        second = shares(&mut other).await;
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    let half = first.unwrap();
    drop(other);
    // It says nothing itself, and hears of it.
    while shares(&mut one).await.is_some_and(|share| share <= half) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_is_passed_over_and_what_is_no_sense_is_answered() {
    let host = Host::started().await;
    let (mut lines, reply) = attach(&host).await;
    assert!(!reply.host.unwrap().interfaces.is_empty());
    let said = [
        serde_json::json!({ "version": 1, "later": { "versions": ["say", "more"] } }),
        serde_json::json!({ "version": 1, "state": { "sessions": [{ "colour": "red" }], "all_sessions": 7 } }),
        serde_json::json!({ "version": 1, "ping": 9 }),
    ];
    for line in said {
        lines.put(&line).unwrap();
        lines.written().await.unwrap();
    }
    let reply: Reply = serde_json::from_slice(&soon("a reply", lines.next()).await.unwrap()).unwrap();
    assert_eq!((reply.pong, reply.error), (Some(9), None));
    let processes = until_processes(&host, |processes| processes[0].state.all_sessions == 7).await;
    assert_eq!(processes[0].key.len(), 256, "texts are bounded");
    for (line, words) in [
        (serde_json::json!({ "version": 2, "ping": 1 }), "version 1, not 2"),
        (serde_json::json!({ "version": 1, "use": 3 }), "cannot understand"),
    ] {
        lines.put(&line).unwrap();
        let reply: Reply = serde_json::from_slice(&soon("a reply", lines.next()).await.unwrap()).unwrap();
        assert!(reply.error.unwrap().contains(words));
    }
    // More than there is room for is cut; a line without an end is not waited for.
    let many = vec![serde_json::json!({ "verdict": "x".repeat(400) }); 100];
    lines.put(&serde_json::json!({ "version": 1, "state": { "sessions": many } })).unwrap();
    lines.written().await.unwrap();
    let cut = |processes: &[ProcessStatus]| {
        let sessions = &processes[0].state.sessions;
        sessions.len() == 64 && sessions.iter().all(|session| session.verdict.len() == 256)
    };
    until_processes(&host, cut).await;
    lines.put(&"x".repeat(100_000)).unwrap();
    while soon("its end", lines.next()).await.is_ok() {}
    until_processes(&host, <[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_all_places_or_floods_keeps_nobody_from_asking() {
    let host = Host::started().await;
    let mut all = Vec::new();
    let refused = loop {
        let (lines, reply) = attach(&host).await;
        match reply.error {
            Some(error) => break error,
            None => all.push(lines),
        }
    };
    assert_eq!(all.len(), 128);
    assert!(refused.contains("of user") && refused.contains("by itself"), "{refused}");
    // All of them say more than they may, and none reads.
    let floods = all.into_iter().map(|mut lines| {
        tokio::spawn(async move { while lines.put(&pushes()).is_ok() && lines.written().await.is_ok() {} })
    });
    let floods: Vec<_> = floods.collect();
    for _ in 0..5 {
        until_processes(&host, |processes| processes.len() == 128).await;
    }
    for flood in &floods {
        flood.abort();
    }
    until_processes(&host, <[_]>::is_empty).await;
    assert!(attach(&host).await.1.error.is_none(), "there is room again");
}
