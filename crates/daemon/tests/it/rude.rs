//! Clients that do what those of ours do not: they say nothing, hear nothing, or leave at once; and an agent that stops.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::outside::ask;
use crate::place::{GUARD, Host, payloads, soon};
use bytes::BytesMut;

use steadfast_backplane::protocol::{Frame, Hello, Request, VERSION};
use steadfast_backplane::{
    Agent, Client, Config, Declaration, Fingerprint, Host as HostOfAgent, Incarnation, Instant, JobId, Kind,
    Matching, Payload, Process, Publication, Replay, Rules, Server, SubscriptionId, Timestamp,
};

fn connect(host: &Host) -> UnixStream {
    let stream = UnixStream::connect(host.place().join("agent.sock")).unwrap();
    stream.set_read_timeout(Some(GUARD)).unwrap();
    stream.set_write_timeout(Some(GUARD)).unwrap();
    stream
}

fn hello(out: &mut Vec<u8>) {
    let client = Client { name: "rude".parse().unwrap(), job: JobId::NONE, extension: 0 };
    let space = Some("a.b.c".parse().unwrap());
    Frame::Hello(Hello { lowest: VERSION, highest: VERSION, space, client }).encode(out);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_gives_way() {
    let host = Host::started().await;
    let mut silent: Vec<_> = (0..80).map(|_| connect(&host)).collect();
    // The last ones have their time, the first ones are told and let go.
    let mut told = String::new();
    silent.remove(0).read_to_string(&mut told).unwrap_or_else(|error| {
        panic!("not let go: {error}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hears_late_is_answered_everything() {
    const COUNT: usize = 4000;
    let host = Host::started().await;
    let mut stream = connect(&host);
    let mut said = Vec::new();
    hello(&mut said);
    for number in 1..=COUNT {
        Frame::Unsubscribe { request: Request(number as u64), id: SubscriptionId(7) }.encode(&mut said);
    }
    assert!(said.len() <= 64 * 1024, "it is read at once");
    stream.write_all(&said).unwrap();
    // The agent has more to say than the socket holds; when that much is there, it waits.
    soon("a socket that fills", async {
        while rustix::io::ioctl_fionread(&stream).unwrap() < 64 * 1024 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (mut input, mut answers) = (BytesMut::new(), 0);
    let mut part = [0; 16 * 1024];
    while answers < COUNT {
        let count = stream.read(&mut part).unwrap_or_else(|error| panic!("{answers} answers, then {error}"));
        input.extend_from_slice(&part[..count]);
        while let Some(frame) = Frame::decode(&mut input).unwrap() {
            answers += usize::from(matches!(frame, Frame::Refused(_)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_at_once_was_heard() {
    const COUNT: usize = 1000;
    let host = Host::started().await;
    let mut events = host.all().await;
    let mut said = Vec::new();
    hello(&mut said);
    let declared = vec![Declaration::new("A", "info").unwrap()];
    Frame::Declare { request: Request(1), info: None, events: declared }.encode(&mut said);
    Frame::Subscribe {
        request: Request(2),
        id: SubscriptionId(1),
        matching: Matching::Every,
        replay: Replay::Nothing,
        text: String::new(),
    }
    .encode(&mut said);
    for number in 0..COUNT {
        let payload = Payload::new(format!("{number:0100}").into()).unwrap();
        let publication = Publication { name: "A".parse().unwrap(), kind: Kind::Plain, payload };
        Frame::Publish { request: Request::NONE, publication }.encode(&mut said);
    }
    let mut stream = connect(&host);
    stream.write_all(&said).unwrap();
    drop(stream);
    assert_eq!(payloads(&mut events, COUNT).await.len(), COUNT);
}

/// Whoever has said all may say so, and still hears what it is owed.
#[tokio::test(flavor = "multi_thread")]
async fn who_closes_its_side_is_answered_everything() {
    const COUNT: u64 = 1000;
    let mut host = Host::new();
    // So that answers wait.
    host.settings.sync = steadfast_daemon::Sync::Each;
    host.start().await;
    let mut said = Vec::new();
    hello(&mut said);
    let declared = vec![Declaration::new("A", "info").unwrap()];
    Frame::Declare { request: Request(1), info: None, events: declared }.encode(&mut said);
    for number in 0..COUNT {
        let publication =
            Publication { name: "A".parse().unwrap(), kind: Kind::Plain, payload: Payload::EMPTY };
        Frame::Publish { request: Request(number + 2), publication }.encode(&mut said);
    }
    let mut stream = connect(&host);
    stream.write_all(&said).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    let mut heard = BytesMut::from(&heard[..]);
    let mut answered = 0;
    while let Some(frame) = Frame::decode(&mut heard).unwrap() {
        answered += u64::from(matches!(frame, Frame::Published { .. }));
    }
    assert_eq!(answered, COUNT);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_nothing_takes_nobodys_place() {
    let host = Host::started().await;
    let ask = || UnixStream::connect(host.place().join("daemon.sock")).unwrap();
    let silent: Vec<_> = (0..64).map(|_| ask()).collect();
    let mut following: Vec<_> = (0..64).map(|_| ask()).collect();
    for stream in &mut following {
        stream.write_all(b"{\"version\":1,\"ask\":\"networks\",\"follow\":true}\n").unwrap();
    }
    let mut one = ask();
    one.set_read_timeout(Some(GUARD)).unwrap();
    one.write_all(b"{\"version\":1,\"ask\":\"status\"}\n").unwrap();
    let mut answer = String::new();
    BufReader::new(one).read_line(&mut answer).unwrap();
    assert!(answer.contains("uptime"), "{answer}");
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_on_publishing_does_not_keep_the_daemon() {
    let mut host = Host::new();
    // Then something has always come while the last was stored.
    host.settings.sync = steadfast_daemon::Sync::Each;
    host.start().await;
    let ended = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut said = Vec::new();
        hello(&mut said);
        let declared = vec![Declaration::new("A", "info").unwrap()];
        Frame::Declare { request: Request(1), info: None, events: declared }.encode(&mut said);
        let payload = Payload::new(vec![7; 8 * 1024].into()).unwrap();
        let publication = Publication { name: "A".parse().unwrap(), kind: Kind::Plain, payload };
        let mut event = Vec::new();
        Frame::Publish { request: Request::NONE, publication }.encode(&mut event);
        let (mut stream, ended) = (connect(&host), Arc::clone(&ended));
        clients.push(std::thread::spawn(move || {
            stream.write_all(&said).unwrap();
            while !ended.load(Ordering::Relaxed) && stream.write_all(&event).is_ok() {}
        }));
    }
    soon("a flood", async {
        while ask(&host, "{\"version\":1,\"ask\":\"status\"}\n")["status"]["agent"]["counters"]["published"]
            .as_u64()
            < Some(300)
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    host.end().await;
    ended.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_stops_does_not_fill_its_clients() {
    let host = Host::new();
    let listener = UnixListener::bind(host.place().join("agent.sock")).unwrap();
    let stopped = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let agent = HostOfAgent {
            origin: Fingerprint([7; 32]),
            incarnation: Incarnation(1),
            name: "h".parse().unwrap(),
            address: None,
        };
        let mut server = Server::new(Agent::new(Config::default(), Rules::default(), agent));
        let now = Instant(1 << 40);
        let process = Process { user: 1, pid: 2, start: Timestamp(3), own: false };
        let id = server.handle_connected(now, process);
        let (mut input, mut part) = (BytesMut::new(), [0; 1024]);
        // Up to the answer to its declaration.
        let mut answers = 0;
        while answers < 2 {
            let count = stream.read(&mut part).unwrap();
            input.extend_from_slice(&part[..count]);
            server.handle_data(now, id, &mut input);
            let mut out = Vec::new();
            while server.poll_transmit(id, &mut out, 4096) {
                answers += 1;
            }
            stream.write_all(&out).unwrap();
        }
        stream
    });
    let client = host.client().await;
    let stream = stopped.join().unwrap();
    let full = (0..1000).find(|_| {
        let large = steadfast::backplane::Publication::new("A", vec![7; 60_000]).unwrap();
        client.publish_unacknowledged(large).is_err()
    });
    assert!(full.is_some(), "60 MB wait for an agent that does not read");
    drop(stream);
}
