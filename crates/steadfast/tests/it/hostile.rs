//! A peer that breaks every rule, over real sockets. Each attack ends in a closed path or a refusal and in a counter;
//! whoever behaves is served meanwhile, and memory stays bounded.

use crate::common::{local, meet, next, soon};
use bytes::{Bytes, BytesMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use steadfast::{Endpoint, Identity, Labels, MultiSocket, SessionError, SessionId, Stats};
use steadfast_net::carrier::{ReadState, Side, WriteState};
use steadfast_net::{Carrier, ConnectOptions, Expect, Tls, connect, handshake};
use steadfast_testbed::isolated;
use steadfast_wire::frame::{Data, EndReason, Frame, Head, Hello, Process, Resume};
use steadfast_wire::{
    Address, Incarnation, MessageId, Network, NetworkClass, NetworkId, Order, PathNumber, RangeSet, Token,
    Urgency,
};
use tokio::net::TcpStream;

/// Who is attacked, a friend in the middle of a conversation, and what the attacker proves to be.
struct Scene {
    victim: Endpoint,
    friend: Endpoint,
    at_friend: MultiSocket,
    at_victim: MultiSocket,
    enemy: Identity,
}

impl Scene {
    async fn new() -> Self {
        let [victim, friend, enemy] = [(); 3].map(|()| Identity::generate().unwrap());
        let (victim_key, friend_key) = (victim.fingerprint(), friend.fingerprint());
        let victim =
            local().identity(victim).trust(friend_key).trust(enemy.fingerprint()).bind().await.unwrap();
        let friend = local().identity(friend).trust(victim_key).bind().await.unwrap();
        let (at_friend, at_victim) = meet(&friend, &victim).await;
        Self { victim, friend, at_friend, at_victim, enemy }
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.victim.port()))
    }

    /// The friend's conversation goes on, both ways.
    async fn friend_is_served(&self) {
        for (from, to) in [(&self.at_friend, &self.at_victim), (&self.at_victim, &self.at_friend)] {
            let receipt = from.send(vec![7; 50_000], Labels::foreground()).await.unwrap();
            assert_eq!(next(to).await.unwrap().len(), 50_000);
            soon("outcome", receipt.outcome()).await;
        }
        assert!(!self.at_friend.is_parked());
    }

    /// Waits until a counter of the victim says that it noticed.
    async fn counts(&self, what: &str, counter: impl Fn(&Stats) -> u64) {
        soon(what, async {
            while counter(&self.victim.stats()) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// A connection with the enemy's key.
    async fn attack(&self) -> Enemy {
        let tls = Tls::new(&self.enemy, Arc::new(|_| true));
        let stream = soon("connect", connect(&ConnectOptions::to(self.address()))).await.unwrap();
        let side = Side::Connecting(Expect::Key(self.victim.fingerprint()));
        let carrier = handshake(stream, &tls, side, Duration::from_secs(60)).await.unwrap();
        Enemy { carrier, input: BytesMut::new() }
    }

    /// A connection that has said HELLO as an honest peer does.
    async fn infiltrate(&self) -> Enemy {
        let mut enemy = self.attack().await;
        enemy.say(&[hello(1)]).await;
        enemy
    }
}

struct Enemy {
    carrier: Carrier,
    input: BytesMut,
}

impl Enemy {
    async fn say(&mut self, frames: &[Frame]) {
        let mut bytes = Vec::new();
        for frame in frames {
            frame.encode(&mut bytes);
        }
        self.write(&bytes).await;
    }

    /// Writes as long as the victim takes it.
    async fn write(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        let socket = self.carrier.socket();
        loop {
            let state = self.carrier.try_write(&mut |out, room| {
                let (now, later) = rest.split_at(rest.len().min(room));
                out.put_bytes(now);
                rest = later;
                !rest.is_empty()
            });
            match state {
                Ok(WriteState::Blocked) => soon("the victim reads", socket.writable()).await.unwrap(),
                Ok(WriteState::More) => tokio::task::yield_now().await,
                Ok(WriteState::Idle) | Err(_) => return,
            }
        }
    }

    /// The next frame; `None` once the connection is closed.
    async fn hear(&mut self) -> Option<Frame> {
        let socket = self.carrier.socket();
        soon("a frame or the end", async {
            loop {
                if let Some(frame) = Frame::decode(&mut self.input).unwrap() {
                    return Some(frame);
                }
                let before = self.input.len();
                match self.carrier.try_read(&mut self.input, 100_000) {
                    Ok(_) if self.input.len() > before => {}
                    Ok(ReadState::Blocked) => socket.readable().await.unwrap(),
                    Ok(ReadState::More) => {}
                    Ok(_) | Err(_) => return None,
                }
            }
        })
        .await
    }

    /// Waits for a frame of a kind.
    async fn hears<R>(&mut self, mut kind: impl FnMut(Frame) -> Option<R>) -> R {
        loop {
            let frame = self.hear().await.expect("the connection was closed");
            if let Some(found) = kind(frame) {
                return found;
            }
        }
    }

    /// The victim hangs up.
    async fn must_be_thrown_out(mut self) {
        while self.hear().await.is_some() {}
    }
}

fn hello(incarnation: u64) -> Frame {
    Frame::Hello(Hello {
        version: 1,
        incarnation: Incarnation(incarnation),
        path: PathNumber(1),
        network: NetworkId(1),
        port: 0,
        features: 0,
        durable: false,
        max_message: 1 << 20,
        windows: [1 << 20; 2],
        process: Process::default(),
    })
}

fn open(session: u64) -> Frame {
    Frame::Open { session: SessionId(session), per_urgency: true, token: Token([1; 16]) }
}

fn data(session: u64, id: u64, payload: Bytes) -> Frame {
    let head = Head {
        labels: Labels::foreground(),
        order: Order::Unordered { sequence: id - 1 },
        streamed: false,
        length: Some(payload.len() as u64),
        expires_in: None,
    };
    Frame::Data(Data {
        session: SessionId(session),
        id: MessageId(id),
        offset: 0,
        class: Urgency::Foreground,
        fin: true,
        head: Some(head),
        payload,
    })
}

fn resume(session: SessionId, confirmed: Token, fresh: bool) -> Frame {
    let none = RangeSet::new;
    Frame::Resume(Resume {
        session,
        fresh,
        per_urgency: true,
        expects: false,
        confirmed: Some(confirmed),
        offered: vec![Token([9; 16])],
        holds: None,
        next: MessageId(1),
        shut: None,
        received: none(),
        delivered: none(),
        dropped: none(),
        partial: Vec::new(),
        charged: [0; 2],
        limits: [1 << 20; 2],
    })
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[expect(clippy::print_stdout, reason = "what it measured belongs to the test's words")]
/// An attack in a process of its own, whose memory may grow by at most `most` bytes.
fn in_bounds<F: Future<Output = ()>>(name: &str, most: u64, attack: fn() -> F) {
    isolated(&format!("hostile::{name}"), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let before = resident();
        runtime.block_on(attack());
        let grown = resident().saturating_sub(before);
        println!("{name}: memory grew by {} KiB", grown / 1024);
        assert!(grown <= most, "memory grew by {grown} bytes");
    });
}

#[tokio::test]
async fn what_cannot_be_read_closes_its_path() {
    let scene = Scene::new().await;
    let mut giant = vec![0x07];
    steadfast_wire::varint::put(&mut giant, steadfast_wire::varint::MAX);
    let attacks: Vec<(&str, Vec<u8>)> = vec![
        ("noise", (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 | 0x80).collect()),
        ("a length beyond all bounds", giant),
        ("a frame whose fields go on after its end", vec![33, 2, 1, 0]),
        ("an unknown frame that must be understood", vec![0x41, 0x01, 0x00]),
    ];
    for (what, bytes) in attacks {
        let before = scene.victim.stats().violations_decode;
        let mut enemy = scene.infiltrate().await;
        enemy.write(&bytes).await;
        enemy.must_be_thrown_out().await;
        assert!(scene.victim.stats().violations_decode > before, "{what}: {:?}", scene.victim.stats());
        scene.friend_is_served().await;
    }
}

#[tokio::test]
async fn whoever_does_not_greet_properly_must_be_thrown_out() {
    let scene = Scene::new().await;
    for frames in [vec![open(1)], vec![hello(1), hello(2)], vec![hello(1), hello(1)]] {
        let before = scene.victim.stats().violations_hello;
        let mut enemy = scene.attack().await;
        enemy.say(&frames).await;
        enemy.must_be_thrown_out().await;
        assert!(scene.victim.stats().violations_hello > before, "{frames:?}");
    }
    scene.friend_is_served().await;
}

#[tokio::test]
async fn a_strangers_key_opens_nothing() {
    let mut scene = Scene::new().await;
    scene.enemy = Identity::generate().unwrap();
    let key = scene.enemy.fingerprint();
    // Refused after its own side of the handshake is done, so it hears nothing, not even HELLO.
    scene.infiltrate().await.must_be_thrown_out().await;
    let stranger = soon("stranger", scene.victim.next_stranger()).await.unwrap();
    assert_eq!(stranger.key, key);
    assert_eq!(scene.victim.reception().strangers, 1);
    assert_eq!(scene.victim.stats().violations_hello, 0);
    scene.friend_is_served().await;
}

#[tokio::test]
async fn another_identity_does_not_get_into_a_conversation() {
    let scene = Scene::new().await;
    let session = scene.at_friend.session_id();
    let mut enemy = scene.infiltrate().await;
    for fresh in [true, false] {
        enemy.say(&[resume(session, Token([1; 16]), fresh)]).await;
        let reason = enemy
            .hears(|frame| match frame {
                Frame::End { session: about, reason, .. } if about == session => Some(reason),
                _ => None,
            })
            .await;
        assert_eq!(reason, EndReason::Unknown);
    }
    // Nor by speaking in it, nor by ending it.
    let end = Frame::End { session, reason: EndReason::Aborted, common: MessageId(0) };
    enemy.say(&[data(session.0, 1, Bytes::from_static(b"evil")), end]).await;
    scene.friend_is_served().await;
}

#[tokio::test]
async fn an_older_state_is_a_rollback() {
    let scene = Scene::new().await;
    let mut enemy = scene.infiltrate().await;
    enemy.say(&[open(5), data(5, 1, Bytes::from_static(b"first"))]).await;
    enemy.hears(|frame| matches!(frame, Frame::Accept { .. }).then_some(())).await;
    let conversation = soon("accept", scene.victim.accept()).await.unwrap();
    assert_eq!(next(&conversation).await.unwrap(), "first");
    drop(enemy);
    let mut again = scene.infiltrate().await;
    again.say(&[resume(SessionId(5), Token([66; 16]), false)]).await;
    let ended = again
        .hears(|frame| match frame {
            Frame::End { session: SessionId(5), reason, .. } => Some(reason),
            _ => None,
        })
        .await;
    assert_eq!(ended, EndReason::RolledBack);
    assert_eq!(scene.victim.stats().rolled_back, 1);
    scene.friend_is_served().await;
}

#[tokio::test]
async fn what_arrives_together_with_the_end_is_taken() {
    const COUNT: u64 = 3000;
    let scene = Scene::new().await;
    let mut enemy = scene.infiltrate().await;
    enemy.say(&[open(5)]).await;
    enemy.hears(|frame| matches!(frame, Frame::Accept { .. }).then_some(())).await;
    let conversation = soon("accept", scene.victim.accept()).await.unwrap();
    // One burst without a pause, so that a turn of reading has the end in it.
    let mut last: Vec<Frame> = (1..=COUNT).map(|id| data(5, id, Bytes::from_static(b"last words"))).collect();
    last.push(Frame::End { session: SessionId(5), reason: EndReason::Aborted, common: MessageId(0) });
    enemy.say(&last).await;
    enemy.carrier.try_close().unwrap();
    // Its last word is the last of all that.
    let ended = loop {
        if let Err(error) = soon("a message or the end", conversation.recv()).await {
            break error;
        }
    };
    assert!(matches!(ended, SessionError::Ended { reason: EndReason::Aborted, .. }), "{ended}");
    scene.friend_is_served().await;
}

#[tokio::test]
async fn ids_that_run_away_close_the_path() {
    let scene = Scene::new().await;
    let mut enemy = scene.infiltrate().await;
    let flood: Vec<Frame> = (0..20_000).map(|n| data(1, 1 + n * 5000, Bytes::new())).collect();
    enemy.say(&[open(1)]).await;
    enemy.say(&flood).await;
    scene.counts("limit", |stats| stats.violations_limit).await;
    enemy.must_be_thrown_out().await;
    scene.friend_is_served().await;
}

#[tokio::test]
async fn a_flood_of_networks_closes_the_path() {
    let scene = Scene::new().await;
    let mut enemy = scene.infiltrate().await;
    let networks = |epoch: u64| {
        let each = |id: u32| Network {
            id: NetworkId(id),
            name: format!("n{epoch}-{id}"),
            class: NetworkClass::Wifi,
            metered: false,
            cost: 0,
            port: 9,
            addresses: vec![Address { ip: Ipv4Addr::new(127, 9, id as u8, 1).into(), prefix: 8 }],
        };
        Frame::Networks { epoch, networks: (1..=16).map(each).collect() }
    };
    for epoch in 1..2000 {
        enemy.say(&[networks(epoch)]).await;
    }
    scene.counts("limit", |stats| stats.violations_limit).await;
    scene.friend_is_served().await;
}

#[test]
fn a_flood_of_sessions_and_of_unread_data() {
    in_bounds("a_flood_of_sessions_and_of_unread_data", 160 << 20, || async {
        let mut scene = Scene::new().await;
        // The default of 512 MiB would only make this slow.
        let mut config = steadfast::Config::default();
        config.max_held = 32 << 20;
        let identity = Identity::generate().unwrap();
        let friend = scene.friend.fingerprint();
        let builder =
            local().identity(identity).trust(friend).trust(scene.enemy.fingerprint()).config(config);
        let victim = builder.bind().await.unwrap();
        let to_victim = soon("connect", scene.friend.connect(victim.contact())).await.unwrap();
        scene.at_victim = soon("accept", victim.accept()).await.unwrap();
        (scene.at_friend, scene.victim) = (to_victim, victim);

        let mut enemy = scene.infiltrate().await;
        enemy.say(&(1..=3000).map(open).collect::<Vec<_>>()).await;
        scene.counts("refused", |stats| stats.refused_sessions).await;
        scene.friend_is_served().await;
        // Nobody accepts them or reads: 1,000 sessions with 300 KiB each would be 300 MB.
        let piece = Bytes::from(vec![1; 60_000]);
        for session in 1..=1000 {
            enemy.say(&(1..=5).map(|id| data(session, id, piece.clone())).collect::<Vec<_>>()).await;
        }
        scene.counts("memory", |stats| stats.refused_memory).await;
        scene.friend_is_served().await;
    });
}

#[test]
fn a_reader_that_never_reads() {
    in_bounds("a_reader_that_never_reads", 128 << 20, || async {
        let scene = Scene::new().await;
        let mut enemy = scene.infiltrate().await;
        enemy.say(&[open(1)]).await;
        let conversation = soon("accept", scene.victim.accept()).await.unwrap();
        // Sends until it would have to wait, and for a while longer: nothing may pile up anywhere.
        let block = Bytes::from(vec![1; 100_000]);
        let mut sent = 0;
        while conversation.try_send(block.clone(), Labels::background()).is_ok() {
            sent += 1;
        }
        assert!((10..1000).contains(&sent), "{sent}");
        for _ in 0..20 {
            scene.friend_is_served().await;
            assert!(conversation.try_send(block.clone(), Labels::background()).is_err());
        }
    });
}

#[test]
fn handshakes_that_are_begun_by_the_thousand() {
    in_bounds("handshakes_that_are_begun_by_the_thousand", 96 << 20, || async {
        let scene = Scene::new().await;
        let mut held = std::collections::VecDeque::new();
        for number in 0..3000 {
            let stream = soon("connect", TcpStream::connect(scene.address())).await.unwrap();
            // Nothing at all, or the beginning of a ClientHello that goes on for 4 KiB.
            if number % 2 == 0 {
                let _closed = stream.try_write(&[0x16, 3, 1, 0x10, 0, 1, 0, 0x0f]);
            }
            held.push_back(stream);
            if held.len() > 500 {
                held.pop_front();
            }
            if number % 500 == 0 {
                scene.friend_is_served().await;
            }
        }
        let reception = scene.victim.reception();
        assert!(reception.displaced >= 1000, "{reception:?}");
        // A newcomer gets in all the same, from the same source.
        let identity = Identity::generate().unwrap();
        scene.victim.trust(identity.fingerprint());
        let newcomer = local().identity(identity).trust(scene.victim.fingerprint()).bind().await.unwrap();
        meet(&newcomer, &scene.victim).await;
        scene.friend_is_served().await;
    });
}

#[test]
fn connections_by_the_hundred_that_do_not_greet_or_greet_alike() {
    in_bounds("connections_by_the_hundred_that_do_not_greet_or_greet_alike", 128 << 20, || async {
        let scene = Scene::new().await;
        let mut silent = Vec::new();
        for _ in 0..300 {
            silent.push(scene.attack().await);
        }
        scene.counts("greetings", |stats| stats.refused_greetings).await;
        drop(silent);
        let mut alike = Vec::new();
        for _ in 0..100 {
            alike.push(scene.infiltrate().await);
        }
        scene.friend_is_served().await;
        let from_enemy =
            scene.victim.paths().iter().filter(|path| path.peer == scene.enemy.fingerprint()).count();
        assert!(from_enemy <= 8, "{from_enemy} paths of one process");
    });
}
