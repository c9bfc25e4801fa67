//! Conversations of a process that is saved, ended, and restored elsewhere: both sides count to each other without a pause, so
//! that a number which is lost, doubled or out of order is seen at once.

#![expect(clippy::print_stdout, reason = "the process tells the test what it hears")]

use std::env;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use steadfast::{EndReason, Endpoint, Fingerprint, Identity, Labels, MultiSocket, ScoutConfig, SessionError};
use steadfast_testbed::{Host, Lab, isolated};

use super::{Bench, GUARD, until};
use crate::common::Run;
use crate::daemon::{daemon, home};

/// Where the identity of a counting process lies, whom it trusts, and whom it calls.
const IDENTITY: &str = "STEADFAST_TEST_COUNTER_IDENTITY";
const TRUSTED: &str = "STEADFAST_TEST_COUNTER_TRUSTS";
const CONTACT: &str = "STEADFAST_TEST_COUNTER_CALLS";
/// How many numbers go over in each direction from one look to the next.
const STEP: u64 = 50;
/// The exit codes of a counting process.
pub(super) const DONE: i32 = 0;
const ROLLED_BACK: i32 = 11;
const WRONG: i32 = 12;

/// A process that counts; nothing unless one of the tests below started it.
#[test]
fn counter_process() {
    let Some(identity) = env::var_os(IDENTITY) else { return };
    let trusted: Fingerprint = env::var(TRUSTED).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let code = runtime.block_on(async move {
        let scout = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
        let builder = Endpoint::builder().identity_file(PathBuf::from(identity)).trust(trusted).scout(scout);
        let endpoint = builder.daemon(None).bind().await.unwrap();
        println!("\nlistening {}", endpoint.contact());
        let socket = match env::var(CONTACT) {
            Ok(contact) => endpoint.connect(contact).await.unwrap(),
            Err(_) => endpoint.accept().await.unwrap(),
        };
        let mut verdicts = socket.verdicts();
        tokio::spawn(async move {
            while let Some(standing) = verdicts.next().await {
                println!("verdict {:?} {:?}", standing.verdict, standing.evidence);
            }
        });
        converse(&socket).await
    });
    std::process::exit(code);
}

/// Counts, and checks what the other side counts, until the input says that it is enough or the conversation ends.
async fn converse(socket: &MultiSocket) -> i32 {
    let (said, mut orders) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).for_each(|line| drop(said.send(line)));
    });
    let heard = std::cell::Cell::new(0_u64);
    let counting = async {
        for number in 0_u64.. {
            let mut payload = number.to_be_bytes().to_vec();
            payload.extend(heard.get().to_be_bytes());
            if socket.send(payload, Labels::foreground()).await.is_err() {
                // Why it ended who receives is told, too.
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        std::future::pending::<()>().await;
    };
    let checking = async {
        loop {
            let message = match socket.recv().await {
                Ok(Some(message)) => message,
                Ok(None) => {
                    let _both_do = socket.close().await;
                    return DONE;
                }
                Err(error) => return ended(&error),
            };
            let payload = message.payload().unwrap();
            let number = |at: usize| u64::from_be_bytes(payload[at..at + 8].try_into().unwrap());
            if number(0) != heard.get() {
                println!("wrong {} instead of {}", number(0), heard.get());
                return WRONG;
            }
            heard.set(heard.get() + 1);
            if heard.get().is_multiple_of(STEP) {
                println!("heard {} and was heard {}", heard.get(), number(8));
            }
        }
    };
    tokio::select! {
        () = counting => unreachable!("it waits for the rest"),
        code = checking => code,
        Some(_) = orders.recv() => {
            // The other side ends as soon as it hears of it.
            let closed = socket.close().await;
            println!("closed {closed:?}");
            DONE
        }
    }
}

fn ended(error: &SessionError) -> i32 {
    println!("ended {error:?}");
    match error {
        SessionError::Ended { reason: EndReason::RolledBack, common: Some(_), .. } => ROLLED_BACK,
        SessionError::Ended { reason: EndReason::Closed, .. } => DONE,
        _ => WRONG,
    }
}

/// The side that is not frozen.
pub(super) struct Listener {
    pub(super) child: Child,
    contact: String,
    lines: Receiver<String>,
    verdicts: Vec<String>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Listener {
    fn start(on: &Host, identity: &Path, trusts: Fingerprint) -> Self {
        let mut command = counter(identity, trusts);
        command.env("STEADFAST_CONTROL", "off").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = on.spawn(&mut command).unwrap();
        let mut all = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let contact = all.find_map(|line| line.strip_prefix("listening ").map(str::to_owned)).unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || all.for_each(|line| drop(sender.send(line))));
        Self { child, contact, lines, verdicts: Vec::new() }
    }

    /// Its next line of this kind, without the first word.
    fn next(&mut self, kind: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(GUARD).unwrap_or_else(|_| panic!("never: {kind}"));
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            assert_ne!(word, "wrong", "{line}");
            if word == "verdict" {
                self.verdicts.push(rest.to_owned());
            }
            if word == kind {
                return rest.to_owned();
            }
        }
    }

    /// How many numbers it heard, and how many of its own were heard.
    fn heard(&mut self) -> (u64, u64) {
        let line = self.next("heard");
        let (heard, was_heard) = line.split_once(" and was heard ").unwrap();
        (heard.parse().unwrap(), was_heard.parse().unwrap())
    }

    /// Waits until numbers go both ways that were sent from now on, for a while.
    pub(super) fn goes_on(&mut self) {
        while self.lines.try_recv().map(|line| self.note(&line)).is_ok() {}
        let (heard, was_heard) = self.heard();
        loop {
            let (now, was) = self.heard();
            if now >= heard + 2 * STEP && was >= was_heard + 2 * STEP {
                return;
            }
        }
    }

    /// All verdicts so far.
    pub(super) fn seen(&mut self) -> &[String] {
        while self.lines.try_recv().map(|line| self.note(&line)).is_ok() {}
        &self.verdicts
    }

    fn note(&mut self, line: &str) {
        assert!(!line.starts_with("wrong"), "{line}");
        if let Some(verdict) = line.strip_prefix("verdict ") {
            self.verdicts.push(verdict.to_owned());
        }
    }
}

fn counter(identity: &Path, trusts: Fingerprint) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["checkpoint::conversations::counter_process", "--exact", "--nocapture"]);
    command.env(IDENTITY, identity).env(TRUSTED, trusts.to_string());
    command
}

/// Two hosts for the process that is saved, one for its peer.
pub(super) struct World {
    pub(super) bench: Bench,
    pub(super) hosts: [Host; 2],
    pub(super) listener: Listener,
    /// The process, started through the program.
    pub(super) parent: Child,
    /// 0 once it is nobody's here.
    pub(super) pid: u32,
    pub(super) lab: Lab,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ended_already = self.parent.kill();
        let _status = self.parent.wait();
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid.cast_signed()) {
            let _ended_already = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

impl World {
    pub(super) fn new(bench: Bench) -> Self {
        let lab = Lab::new().unwrap();
        let [a, b, peer] = ["a", "b", "peer"].map(|name| lab.host(name).unwrap());
        lab.link("one", &a, &peer).connect().unwrap();
        lab.link("other", &b, &peer).connect().unwrap();
        let (mine, its) = (bench.path("counter"), bench.path("listener"));
        let key = |path: &Path| Identity::load_or_create(path).unwrap().fingerprint();
        let (my_key, its_key) = (key(&mine), key(&its));
        let mut listener = Listener::start(&peer, &its, my_key);
        let counter = counter(&mine, its_key);
        let mut run = bench.command(&["run", "--"]);
        run.arg(counter.get_program()).args(counter.get_args()).env(CONTACT, &listener.contact);
        run.envs(counter.get_envs().filter_map(|(name, value)| Some((name, value?))));
        run.env("STEADFAST_CONTROL", bench.path("control"));
        let parent = a.spawn(run.stdin(Stdio::null()).stdout(Stdio::null())).unwrap();
        listener.goes_on();
        let pid = child_of(parent.id());
        Self { bench, hosts: [a, b], listener, parent, pid, lab }
    }

    fn save(&mut self, on: usize, how: &str, place: &str) {
        let pid = self.pid.to_string();
        let mut command = self.bench.command(&["save", how, "--clobber", "--dir", place, &pid]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut saving = self.hosts[on].spawn(&mut command).unwrap();
        assert!(saving.wait().unwrap().success());
    }

    /// The process that was it is over; the one that it is restored as has its number.
    fn restore(&mut self, on: usize, place: &str) {
        let _status = self.parent.wait();
        let restored = self.bench.path("restored");
        loop {
            let errors = std::fs::File::create(self.bench.path("errors")).unwrap();
            let mut command = self.bench.command(&["restore", place, "--on-success", "touch restored"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
            self.parent = self.hosts[on].spawn(&mut command).unwrap();
            let is_restored = until("a restored process", || match self.parent.try_wait().unwrap() {
                _ if std::fs::remove_file(&restored).is_ok() => Some(true),
                Some(_) => Some(false),
                None => None,
            });
            if is_restored {
                return;
            }
            // Somebody else of this machine may have got the number meanwhile.
            let errors = std::fs::read_to_string(self.bench.path("errors")).unwrap();
            assert!(errors.contains("in use"), "{errors}");
        }
    }
}

/// The one child of a process.
fn child_of(parent: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn ten_moves_between_two_hosts() {
    const PATH: &str = "checkpoint::conversations::ten_moves_between_two_hosts";
    let Some(_bench) = Bench::new(PATH) else { return };
    isolated(PATH, || {
        let mut world = World::new(Bench::new(PATH).unwrap());
        for round in 0..10 {
            world.save(round % 2, "--kill", "image");
            world.restore((round + 1) % 2, "image");
            world.listener.goes_on();
        }
        writeln!(world.listener.child.stdin.as_mut().unwrap(), "enough").unwrap();
        assert_eq!(world.listener.child.wait().unwrap().code(), Some(DONE));
        assert_eq!(world.parent.wait().unwrap().code(), Some(DONE), "it ends as its program does");
        let expected = |index: usize, verdict: &str| match index % 2 {
            0 => verdict.starts_with("Suspended"),
            _ => verdict.starts_with("Alive"),
        };
        let verdicts = &world.listener.verdicts;
        let good = verdicts.iter().enumerate().all(|(index, verdict)| expected(index, verdict));
        assert!(verdicts.len() == 20 && good, "{verdicts:#?}");
    });
}

#[test]
fn an_old_image_ends_the_conversation_on_both_sides() {
    const PATH: &str = "checkpoint::conversations::an_old_image_ends_the_conversation_on_both_sides";
    let Some(_bench) = Bench::new(PATH) else { return };
    isolated(PATH, || {
        let mut world = World::new(Bench::new(PATH).unwrap());
        world.save(0, "--run", "image");
        world.listener.goes_on();
        let pid = rustix::process::Pid::from_raw(world.pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        world.restore(1, "image");
        let ended = world.listener.next("ended");
        assert!(ended.contains("RolledBack"), "{ended}");
        assert_eq!(world.listener.child.wait().unwrap().code(), Some(ROLLED_BACK));
        assert_eq!(world.parent.wait().unwrap().code(), Some(ROLLED_BACK));
    });
}

/// A process that goes on beside its images: the conversation does not notice more than a silence.
#[test]
fn images_of_a_process_that_goes_on() {
    const PATH: &str = "checkpoint::conversations::images_of_a_process_that_goes_on";
    let Some(_bench) = Bench::new(PATH) else { return };
    isolated(PATH, || {
        let mut world = World::new(Bench::new(PATH).unwrap());
        for _ in 0..5 {
            world.save(0, "--run", "image");
            world.listener.goes_on();
        }
        let dead = |verdict: &String| !verdict.starts_with("Suspended") && !verdict.starts_with("Alive");
        assert!(!world.listener.verdicts.iter().any(dead), "{:#?}", world.listener.verdicts);
        let report = Run::of(&mut world.bench.command(&["inspect", "image"]));
        report.ended(0);
    });
}

/// What was published while it was gone comes, once.
#[test]
fn a_client_of_the_agent_is_there_again() {
    let Some(mut bench) = Bench::new("checkpoint::conversations::a_client_of_the_agent_is_there_again")
    else {
        return;
    };
    bench.home = home();
    let (running, _) = daemon(&bench.home);
    let agent = bench.path("agent.sock");
    let heard = bench.path("heard");
    let publish = |payload: &str| {
        let words = ["events", "publish", "site.apps.backup", "DONE", payload];
        Run::of(bench.home.command(&words).env("STEADFAST_AGENT", &agent)).ended(0);
    };
    let times = |payload: &str| std::fs::read_to_string(&heard).unwrap().matches(payload).count();
    let mut run = bench.command(&["run", "--", env!("CARGO_BIN_EXE_steadfast"), "events", "subscribe"]);
    run.arg("event_space=site.all.all").env("STEADFAST_AGENT", &agent);
    run.env("STEADFAST_CONTROL", bench.path("control"));
    let out = std::fs::File::create(&heard).unwrap();
    let mut parent = run.stdin(Stdio::null()).stdout(out).spawn().unwrap();
    until("a subscriber", || {
        publish("before");
        (times("before") > 0).then_some(())
    });
    let pid = child_of(parent.id());
    bench.run(&["save", "--kill", "--dir", "image", &pid.to_string()]).ended(0);
    parent.wait().unwrap();
    publish("meanwhile");
    let mut restored = bench.command(&["restore", "image"]).stdin(Stdio::null()).spawn().unwrap();
    until("what was published meanwhile", || (times("meanwhile") > 0).then_some(()));
    publish("afterwards");
    until("what was published afterwards", || (times("afterwards") > 0).then_some(()));
    assert_eq!((times("meanwhile"), times("afterwards")), (1, 1));
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    restored.wait().unwrap();
    assert_eq!(running.interrupt().1, Some(0));
}
