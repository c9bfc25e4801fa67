//! Why the other side does not answer: real processes that are killed, stopped, cut off, restarted, or leave.
//!
//! The experiments of `docs/verdicts.md`. Each test waits for its verdict; how long that took is printed, not asserted.

mod calls;
mod load;

use crate::common::log;
use crate::world::{GUARD, block_on, block_on_within, endpoint, two_networks};
use rustix::process::{Pid, Signal, kill_process};
use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use steadfast::{
    Endpoint, Evidence, Exit, Fingerprint, Identity, Labels, MultiSocket, Outcome, SessionConfig, Standing,
    Verdict, rpc,
};
use steadfast_testbed::{Host, Lab, Link, isolated};

/// Where the identity of the process lies that this one is to be, and whom it trusts.
const IDENTITY: &str = "STEADFAST_TEST_PEER_IDENTITY";
const TRUSTED: &str = "STEADFAST_TEST_PEER_TRUSTS";
const PORT: &str = "STEADFAST_TEST_PEER_PORT";
/// The port of Homa on which it answers calls.
const HOMA: u16 = 99;

/// The process at the other side; nothing unless one of the tests below started it.
#[test]
fn peer_process() {
    let Some(identity) = std::env::var_os(IDENTITY) else { return };
    let trusted: Fingerprint = std::env::var(TRUSTED).unwrap().parse().unwrap();
    let port = std::env::var(PORT).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let builder = endpoint().identity_file(PathBuf::from(identity)).trust(trusted).port(port);
        let endpoint = builder.bind().await.unwrap();
        println!("\nlistening {} {}", endpoint.port(), endpoint.contact());
        let (said, mut orders) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || {
            std::io::stdin().lines().map_while(Result::ok).for_each(|line| drop(said.send(line)));
        });
        let homa = endpoint.homa().unwrap();
        let _serving = homa.serve(HOMA, echo).unwrap();
        let answering = endpoint.clone();
        tokio::spawn(async move {
            let mut servers = Vec::new();
            while let Some(socket) = answering.accept().await {
                // The first message says what the conversation is for.
                match socket.recv().await {
                    Ok(Some(first)) if first.payload().is_some_and(|bytes| bytes == CALLS) => {
                        servers.push(rpc::serve(socket, echo));
                    }
                    Ok(Some(first)) if first.payload().is_some_and(|bytes| bytes == LOAD) => {
                        tokio::spawn(load::suffer(socket));
                    }
                    _ => {
                        drop(tokio::spawn(
                            async move { while let Ok(Some(_taken)) = socket.recv().await {} },
                        ));
                    }
                }
            }
        });
        // The end of the input is the end of the test.
        while let Some(order) = orders.recv().await {
            match order.as_str() {
                "quiesce" => endpoint.quiesce_for(Duration::from_secs(60)).await,
                "quiesce for a moment" => endpoint.quiesce_for(Duration::from_secs(2)).await,
                "revive" => endpoint.revive().await.unwrap(),
                _ => return endpoint.close("good night").await,
            }
            println!("done");
        }
    });
}

/// What a conversation's first message says of it.
const CALLS: &str = "for calls";
const LOAD: &str = "for load";

async fn echo(request: rpc::Request) -> Result<rpc::Response, rpc::BodyError> {
    Ok(rpc::Response::new(request.into_body().into_bytes().await?))
}

struct Peer {
    child: Child,
    contact: String,
    port: u16,
    /// What else it says.
    lines: tokio::sync::mpsc::UnboundedReceiver<String>,
}

impl Peer {
    /// Starts the process on a host, or on this one.
    fn start(on: Option<&Host>, identity: &std::path::Path, trusts: Fingerprint, port: u16) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["verdicts::peer_process", "--exact", "--nocapture"]);
        command.env(IDENTITY, identity).env(TRUSTED, trusts.to_string()).env(PORT, port.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = match on {
            Some(host) => host.spawn(&mut command).unwrap(),
            None => command.spawn().unwrap(),
        };
        let mut all = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let line = all.find(|line| line.starts_with("listening ")).expect("the peer listens");
        let (sender, lines) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || all.for_each(|line| drop(sender.send(line))));
        let mut words = line.split_whitespace().skip(1);
        let port = words.next().unwrap().parse().unwrap();
        let contact = words.next().unwrap().into();
        Self { child, contact, port, lines }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn leave(&mut self) {
        self.order("leave");
    }

    fn order(&mut self, order: &str) {
        self.child.stdin.as_mut().unwrap().write_all(format!("{order}\n").as_bytes()).unwrap();
    }

    /// Gives an order and waits until it is carried out.
    async fn obeys(&mut self, order: &str) {
        self.order(order);
        self.says("done").await;
    }

    /// Waits for a line that begins like this.
    async fn says(&mut self, word: &str) -> String {
        loop {
            let line = self.lines.recv().await.expect("the peer lives");
            if line.starts_with(word) {
                return line;
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may be gone.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A conversation with a process, and what is known of it.
struct Bench {
    name: &'static str,
    here: Endpoint,
    socket: MultiSocket,
    peer: Peer,
    identity: PathBuf,
    _directory: Directory,
}

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

impl Bench {
    async fn open(name: &'static str, on: Option<Host>, at: Option<String>) -> Self {
        let directory =
            std::env::temp_dir().join(format!("steadfast-verdicts-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let identity = directory.join("identity");
        let here = endpoint().identity(Identity::generate().unwrap()).bind().await.unwrap();
        let key = here.fingerprint();
        let (file, host) = (identity.clone(), on.clone());
        let start = move || Peer::start(host.as_ref(), &file, key, 0);
        let peer = tokio::task::spawn_blocking(start).await.unwrap();
        let contact = match at {
            Some(ip) => {
                let (key, _) = peer.contact.split_once('@').unwrap();
                format!("{key}@{ip}:{}", peer.port)
            }
            None => peer.contact.clone(),
        };
        let socket = here.connect(contact).await.unwrap();
        let bench = Self { name, here, socket, peer, identity, _directory: Directory(directory) };
        bench.converses().await;
        bench.until(Verdict::Alive, |_| true).await;
        // Until nothing is owed on either side, and the heartbeats are somewhere between two.
        tokio::time::sleep(Duration::from_millis(1200 + u64::from(bench.peer.port) % 1000)).await;
        bench
    }

    async fn converses(&self) {
        let receipt = self.socket.send("are you there?", Labels::foreground()).await.unwrap();
        assert_eq!(receipt.outcome().await, Outcome::Delivered);
    }

    /// Waits for a verdict; returns what came until then, with it.
    #[expect(clippy::print_stdout, reason = "how long it took is for people, and no assertion")]
    async fn until(&self, verdict: Verdict, evidence: impl Fn(&Evidence) -> bool) -> Vec<Verdict> {
        let begin = Instant::now();
        let mut changes = self.socket.verdicts();
        let mut before = Vec::new();
        let fits = |standing: &Standing| standing.verdict == verdict && evidence(&standing.evidence);
        let mut now = self.socket.verdict();
        while !fits(&now) {
            now =
                changes.next().await.unwrap_or_else(|| panic!("{:?}, not {verdict}", self.socket.verdict()));
            before.push(now.verdict);
        }
        println!("{} {verdict} after {} ms ({now})", self.name, begin.elapsed().as_millis());
        before
    }
}

/// Two hosts with two networks between them; the test is host a.
fn two_hosts<F: Future<Output = ()>>(
    test: &'static str,
    story: impl Fn(Bench, Arc<Bed>) -> F + Send + Sync + 'static,
) {
    isolated(&format!("verdicts::{test}"), move || {
        log();
        let rounds = std::env::var("STEADFAST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        for _ in 0..rounds {
            let lab = Lab::new().unwrap();
            let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
            let links = two_networks(lab.link("wifi", &a, &b), lab.link("lte", &a, &b));
            let links = links.map(|link| link.connect().unwrap());
            let at = links[0].address_of(&b).to_string();
            let bed = Arc::new(Bed { links, a, b });
            bed.a.run(|| {
                block_on_within(GUARD + load::lasts(), async {
                    let bench = Bench::open(test, Some(bed.b.clone()), Some(at)).await;
                    while bench.here.paths().len() < 2 {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    story(bench, Arc::clone(&bed)).await;
                });
            });
        }
    });
}

struct Bed {
    links: [Link; 2],
    a: Host,
    b: Host,
}

impl Bed {
    fn cut(&self) {
        for link in &self.links {
            link.set(|settings| settings.blackhole = true);
        }
    }

    fn heal(&self) {
        self.links.iter().for_each(Link::heal);
    }
}

fn any(_: &Evidence) -> bool {
    true
}

#[test]
fn killed() {
    two_hosts("killed", |bench, _| async move {
        bench.peer.signal(Signal::KILL);
        let before = bench.until(Verdict::Crashed, |evidence| matches!(evidence, Evidence::Refused(_))).await;
        assert_eq!(before, [Verdict::Crashed]);
    });
}

#[test]
fn killed_with_unread_data() {
    two_hosts("killed_with_unread_data", |bench, _| async move {
        // Its kernel holds what it has not read, and resets the connection where it would have ended it.
        bench.peer.signal(Signal::STOP);
        let _never = bench.socket.send(vec![7; 100_000], Labels::background()).await.unwrap();
        bench.peer.signal(Signal::KILL);
        bench.until(Verdict::Crashed, any).await;
    });
}

#[test]
fn stopped() {
    two_hosts("stopped", |bench, _| async move {
        bench.peer.signal(Signal::STOP);
        let before = bench.until(Verdict::Hung, |evidence| *evidence == Evidence::Unanswered).await;
        assert_eq!(before, [Verdict::Hung]);
        bench.peer.signal(Signal::CONT);
        let before = bench.until(Verdict::Alive, any).await;
        assert_eq!(before, [Verdict::Alive]);
        bench.converses().await;
    });
}

#[test]
fn stopped_with_a_full_window() {
    two_hosts("stopped_with_a_full_window", |bench, _| async move {
        bench.peer.signal(Signal::STOP);
        for _ in 0..8 {
            let _later = bench.socket.send(vec![7; 1_000_000], Labels::background()).await.unwrap();
        }
        let before = bench.until(Verdict::Hung, any).await;
        assert_eq!(before, [Verdict::Hung]);
        bench.peer.signal(Signal::CONT);
        bench.until(Verdict::Alive, any).await;
        bench.converses().await;
    });
}

#[test]
fn stopped_and_killed() {
    two_hosts("stopped_and_killed", |bench, _| async move {
        bench.peer.signal(Signal::STOP);
        bench.until(Verdict::Hung, any).await;
        bench.peer.signal(Signal::KILL);
        let before = bench.until(Verdict::Crashed, any).await;
        assert_eq!(before, [Verdict::Crashed]);
    });
}

#[test]
fn cut() {
    two_hosts("cut", |bench, bed| async move {
        bed.cut();
        let before = bench.until(Verdict::Unreachable, |evidence| *evidence == Evidence::Silence).await;
        assert_eq!(before, [Verdict::Unreachable]);
        bed.heal();
        let before = bench.until(Verdict::Alive, any).await;
        assert_eq!(before, [Verdict::Alive]);
        bench.converses().await;
    });
}

#[test]
fn cut_and_killed() {
    two_hosts("cut_and_killed", |bench, bed| async move {
        bed.cut();
        bench.peer.signal(Signal::KILL);
        let before = bench.until(Verdict::Unreachable, any).await;
        assert_eq!(before, [Verdict::Unreachable]);
        bed.heal();
        let before = bench.until(Verdict::Crashed, any).await;
        assert_eq!(before, [Verdict::Crashed]);
    });
}

#[test]
fn restarted() {
    two_hosts("restarted", |mut bench, bed| async move {
        bench.peer.signal(Signal::KILL);
        bench.peer.child.wait().unwrap();
        bench.until(Verdict::Crashed, any).await;
        let (port, key, file) = (bench.peer.port, bench.here.fingerprint(), bench.identity.clone());
        bench.peer =
            tokio::task::spawn_blocking(move || Peer::start(Some(&bed.b), &file, key, port)).await.unwrap();
        let before = bench.until(Verdict::Restarted, any).await;
        assert_eq!(before, [Verdict::Restarted]);
        // The conversation died with its process, and that is what is remembered of it.
        assert!(bench.socket.recv().await.is_err());
        assert_eq!(bench.socket.verdict().verdict, Verdict::Restarted);
        let again = bench.here.connect(bench.peer.contact.clone()).await.unwrap();
        assert_eq!(again.verdict().verdict, Verdict::Alive);
    });
}

#[test]
fn left() {
    two_hosts("left", |mut bench, _| async move {
        bench.peer.leave();
        let words = Evidence::Farewell("good night".into());
        let before = bench.until(Verdict::Left, |evidence| *evidence == words).await;
        assert_eq!(before, [Verdict::Left]);
        bench.peer.child.wait().unwrap();
        assert_eq!(bench.socket.verdict().verdict, Verdict::Left);
    });
}

#[test]
fn suspended() {
    two_hosts("suspended", |mut bench, _| async move {
        let heard = tokio::spawn({
            let mut changes = bench.socket.verdicts();
            async move { changes.next().await.map(|standing| standing.verdict) }
        });
        bench.peer.obeys("quiesce").await;
        let limit = Evidence::Suspended(Duration::from_secs(60));
        bench.until(Verdict::Suspended, |evidence| *evidence == limit).await;
        // That its host refuses connections now says nothing.
        tokio::time::timeout(Duration::from_secs(3), bench.socket.verdicts().next()).await.unwrap_err();
        let later = bench.socket.send("when you are back", Labels::foreground()).await.unwrap();
        bench.peer.obeys("revive").await;
        assert_eq!(bench.until(Verdict::Alive, any).await, [Verdict::Alive]);
        assert_eq!(later.outcome().await, Outcome::Delivered);
        assert_eq!(heard.await.unwrap(), Some(Verdict::Suspended));
    });
}

#[test]
fn suspended_for_longer_than_it_said() {
    two_hosts("suspended_for_longer_than_it_said", |mut bench, _| async move {
        bench.peer.obeys("quiesce for a moment").await;
        bench.until(Verdict::Suspended, any).await;
        assert_eq!(bench.until(Verdict::Crashed, any).await, [Verdict::Crashed]);
        bench.peer.obeys("revive").await;
        assert_eq!(bench.until(Verdict::Alive, any).await, [Verdict::Alive]);
        bench.converses().await;
    });
}

#[test]
fn no_local_network() {
    two_hosts("no_local_network", |bench, bed| async move {
        for link in &bed.links {
            link.carrier_down(&bed.a).unwrap();
        }
        bench.until(Verdict::NoLocalNetwork, any).await;
        bed.links[1].carrier_up(&bed.a).unwrap();
        bench.until(Verdict::Alive, any).await;
        bench.converses().await;
    });
}

fn same_host<F: Future<Output = ()>>(
    test: &'static str,
    public: bool,
    story: impl Fn(Bench) -> F + Send + Sync + 'static,
) {
    isolated(&format!("verdicts::{test}"), move || {
        let lab = Lab::new().unwrap();
        let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
        let link = lab.link("wifi", &a, &b).connect().unwrap();
        let at = if public { link.address_of(&a).to_string() } else { "127.0.0.1".into() };
        let host = a.clone();
        a.run(|| block_on(async { story(Bench::open(test, Some(host), Some(at)).await).await }));
    });
}

/// What the kernel tells a parent of its child.
fn by_kill(evidence: &Evidence) -> bool {
    *evidence == Evidence::Exited(Exit::Signal(Signal::KILL.as_raw()))
}

#[test]
fn killed_on_the_same_host() {
    same_host("killed_on_the_same_host", false, |bench| async move {
        bench.peer.signal(Signal::KILL);
        bench.until(Verdict::Crashed, by_kill).await;
    });
}

#[test]
fn killed_on_the_same_host_at_its_public_address() {
    same_host("killed_on_the_same_host_at_its_public_address", true, |bench| async move {
        bench.peer.signal(Signal::KILL);
        bench.until(Verdict::Crashed, by_kill).await;
    });
}

#[test]
fn left_on_the_same_host() {
    same_host("left_on_the_same_host", false, |mut bench| async move {
        bench.peer.leave();
        assert_eq!(bench.until(Verdict::Left, any).await, [Verdict::Left]);
    });
}

#[test]
fn stopped_on_the_same_host() {
    same_host("stopped_on_the_same_host", false, |bench| async move {
        bench.peer.signal(Signal::STOP);
        // Nothing is asked of it while nothing is owed.
        tokio::time::timeout(Duration::from_secs(5), bench.socket.verdicts().next()).await.unwrap_err();
        let owed = bench.socket.send("are you there?", Labels::foreground()).await.unwrap();
        assert_eq!(bench.until(Verdict::Hung, any).await, [Verdict::Hung]);
        bench.peer.signal(Signal::CONT);
        bench.until(Verdict::Alive, any).await;
        assert_eq!(owed.outcome().await, Outcome::Delivered);
    });
}

#[test]
fn suspended_on_the_same_host() {
    same_host("suspended_on_the_same_host", false, |mut bench| async move {
        bench.peer.obeys("quiesce").await;
        bench.until(Verdict::Suspended, any).await;
        bench.peer.obeys("revive").await;
        assert_eq!(bench.until(Verdict::Alive, any).await, [Verdict::Alive]);
        bench.converses().await;
        bench.peer.signal(Signal::KILL);
        bench.until(Verdict::Crashed, by_kill).await;
    });
}

#[test]
fn a_process_is_watched_again_after_quiescing() {
    same_host("a_process_is_watched_again_after_quiescing", false, |bench| async move {
        bench.here.quiesce().await;
        bench.here.revive().await.unwrap();
        bench.converses().await;
        bench.peer.signal(Signal::KILL);
        bench.until(Verdict::Crashed, by_kill).await;
    });
}

#[test]
fn a_new_conversation_knows_what_is_known() {
    same_host("a_new_conversation_knows_what_is_known", false, |bench| async move {
        let other =
            bench.here.connect_with(bench.peer.contact.clone(), SessionConfig::default()).await.unwrap();
        assert_eq!(other.verdict().verdict, Verdict::Alive);
        assert!(other.verdict().age <= GUARD);
    });
}
