//! Conversations of a process that is saved, ended, and restored elsewhere: both sides count to each other without a pause, so
//! that a number which is lost, doubled or out of order is seen at once.

#![expect(clippy::print_stdout, reason = "the process tells the test what it hears")]

use std::cell::Cell;
use std::env;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use steadfast::homa::Homa;
use steadfast::rpc::{CallOptions, Request, Response, Rpc};
use steadfast::{EndReason, Endpoint, Fingerprint, Identity, Labels, MultiSocket, ScoutConfig, SessionError};
use steadfast_testbed::{Host, Lab, isolated};

use super::{Bench, GUARD, until};
use crate::common::Run;
use crate::daemon::{daemon, home};

/// Where the identity of a counting process lies, whom it trusts, and whom it calls.
const IDENTITY: &str = "STEADFAST_TEST_COUNTER_IDENTITY";
const TRUSTED: &str = "STEADFAST_TEST_COUNTER_TRUSTS";
const CONTACT: &str = "STEADFAST_TEST_COUNTER_CALLS";
/// The file that says how far the clock of the day is set for a process.
const WALL: &str = "STEADFAST_TEST_WALL";
/// How many numbers go over in each direction from one look to the next.
const STEP: u64 = 50;
/// Where calls over Homa are served, how long one may take, and how long it is until the next.
const PORT: u16 = 7;
const ANSWER: Duration = Duration::from_secs(5);
const BETWEEN: Duration = Duration::from_millis(20);
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
    let code = tokio::task::LocalSet::new().block_on(&runtime, async move {
        let scout = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
        let builder = Endpoint::builder().identity_file(PathBuf::from(identity)).trust(trusted).scout(scout);
        let endpoint = builder.daemon(None).bind().await.unwrap();
        println!("\nlistening {}", endpoint.contact());
        let homa = endpoint.homa().unwrap();
        let echo = async |request: Request| Response::new(request.into_body());
        let _serving = homa.serve(PORT, echo).unwrap();
        let answered = Rc::new(Cell::new(0));
        let socket = match env::var(CONTACT) {
            Ok(contact) => {
                let socket = endpoint.connect(contact.as_str()).await.unwrap();
                tokio::task::spawn_local(call(homa, contact, Rc::clone(&answered)));
                socket
            }
            Err(_) => endpoint.accept().await.unwrap(),
        };
        let mut verdicts = socket.verdicts();
        tokio::spawn(async move {
            while let Some(standing) = verdicts.next().await {
                println!("verdict {:?} {:?}", standing.verdict, standing.evidence);
            }
        });
        converse(&socket, &answered).await
    });
    std::process::exit(code);
}

/// Calls over Homa, one after the other. Those that a move comes in between may fail, as they do when a network is gone.
async fn call(homa: Homa, contact: String, answered: Rc<Cell<u64>>) {
    let peer = homa.connect(contact.as_str()).await.unwrap();
    let rpc = Rpc::over_homa(&peer, PORT);
    for number in 0_u64.. {
        let question = number.to_string();
        if let Ok(answer) = rpc.call(question.clone(), CallOptions::default().deadline(ANSWER)).await
            && let Ok(answer) = answer.into_bytes().await
        {
            assert_eq!(answer, question);
            answered.set(answered.get() + 1);
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

/// What one side says each time, in this order.
struct Words {
    number: u64,
    /// How many of the other side's it has heard.
    heard: u64,
    /// How many of its calls over Homa were answered.
    answered: u64,
    /// Its clock of the day, in seconds.
    wall: u64,
}

impl Words {
    fn say(&self) -> Vec<u8> {
        [self.number, self.heard, self.answered, self.wall].map(u64::to_be_bytes).concat()
    }

    fn hear(bytes: &[u8]) -> Self {
        let number = |at: usize| u64::from_be_bytes(bytes[at * 8..at * 8 + 8].try_into().unwrap());
        Self { number: number(0), heard: number(1), answered: number(2), wall: number(3) }
    }
}

/// Counts, and checks what the other side counts, until the input says that it is enough or the conversation ends.
async fn converse(socket: &MultiSocket, answered: &Cell<u64>) -> i32 {
    let (said, mut orders) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).for_each(|line| drop(said.send(line)));
    });
    let heard = Cell::new(0_u64);
    let counting = async {
        let mut last = Instant::now();
        for number in 0_u64.. {
            let now = Instant::now();
            if now < last {
                println!("wrong clock, which went back by {:?}", last - now);
                std::process::exit(WRONG);
            }
            last = now;
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let words = Words { number, heard: heard.get(), answered: answered.get(), wall };
            if socket.send(words.say(), Labels::foreground()).await.is_err() {
                // Why it ended who receives is told, too.
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        std::future::pending::<()>().await;
    };
    let checking = async {
        let mut wall = 0;
        loop {
            let message = match socket.recv().await {
                Ok(Some(message)) => message,
                Ok(None) => {
                    let _both_do = socket.close().await;
                    return DONE;
                }
                Err(error) => return ended(&error),
            };
            let words = Words::hear(message.payload().unwrap());
            if words.number != heard.get() {
                println!("wrong {} instead of {}", words.number, heard.get());
                return WRONG;
            }
            if words.wall + 60 < wall {
                println!("back {}", wall - words.wall);
            }
            wall = words.wall;
            heard.set(heard.get() + 1);
            if heard.get().is_multiple_of(STEP) {
                println!("heard {} and was heard {} with {}", heard.get(), words.heard, words.answered);
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
    /// But for a silence that was taken back: a busy machine may be the cause of that.
    verdicts: Vec<String>,
    is_silent: bool,
    /// How far the other side's clock of the day went back, each time.
    went_back: Vec<u64>,
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
        command.env("STEADFAST_CONTROL", "off");
        Self::of(on, command)
    }

    fn of(on: &Host, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = on.spawn(&mut command).unwrap();
        let mut all = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let contact = all.find_map(|line| line.strip_prefix("listening ").map(str::to_owned)).unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || all.for_each(|line| drop(sender.send(line))));
        Self { child, contact, lines, verdicts: Vec::new(), is_silent: false, went_back: Vec::new() }
    }

    /// Its next line of this kind, without the first word.
    fn next(&mut self, kind: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(GUARD).unwrap_or_else(|_| panic!("never: {kind}"));
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            self.note(&line);
            if word == kind {
                return rest.to_owned();
            }
        }
    }

    /// How many numbers it heard, how many of its own were heard, and how many of the other side's calls it answered.
    fn heard(&mut self) -> [u64; 3] {
        let line = self.next("heard");
        let (heard, rest) = line.split_once(" and was heard ").unwrap();
        let (was_heard, answered) = rest.split_once(" with ").unwrap();
        [heard, was_heard, answered].map(|number| number.parse().unwrap())
    }

    /// Waits until numbers go both ways that were sent from now on, for a while, and calls are answered.
    pub(super) fn goes_on(&mut self) {
        while self.lines.try_recv().map(|line| self.note(&line)).is_ok() {}
        let [heard, was_heard, answered] = self.heard();
        loop {
            let [now, was, calls] = self.heard();
            // The first of these calls may have been made before.
            if now >= heard + 2 * STEP && was >= was_heard + 2 * STEP && calls >= answered + 2 {
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
            let was_silent = std::mem::take(&mut self.is_silent);
            let is_suspended = self.verdicts.last().is_some_and(|last| last.starts_with("Suspended"));
            self.is_silent = verdict.starts_with("Unreachable") && !is_suspended;
            if !(self.is_silent || was_silent && verdict.starts_with("Alive")) {
                self.verdicts.push(verdict.to_owned());
            }
        }
        if let Some(seconds) = line.strip_prefix("back ") {
            self.went_back.push(seconds.parse().unwrap());
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
    /// By how much the clock that machines measure with is back where it is restored.
    behind: Option<Duration>,
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
        let mut run = bench.command(&["run", "--", "env"]);
        std::fs::write(bench.path("wall"), "0").unwrap();
        run.arg(format!("LD_PRELOAD={}", wallclock(&bench).display())).env(WALL, bench.path("wall"));
        run.arg(counter.get_program()).args(counter.get_args()).env(CONTACT, &listener.contact);
        run.envs(counter.get_envs().filter_map(|(name, value)| Some((name, value?))));
        run.env("STEADFAST_CONTROL", bench.path("control"));
        let parent = a.spawn(run.stdin(Stdio::null()).stdout(Stdio::null())).unwrap();
        listener.goes_on();
        let pid = child_of(parent.id());
        Self { bench, hosts: [a, b], listener, parent, pid, behind: None, lab }
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
        let guard = Instant::now() + GUARD;
        loop {
            let errors = std::fs::File::create(self.bench.path("errors")).unwrap();
            let mut command = self.bench.command(&["restore", place, "--on-success", "touch restored"]);
            if let Some(behind) = self.behind {
                command = set_back(&command, behind);
            }
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
            assert!(errors.contains("in use by") && Instant::now() < guard, "{errors}");
        }
    }
}

/// Compiles what sets the clock of the day for one program.
fn wallclock(bench: &Bench) -> PathBuf {
    let library = bench.path("wallclock.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/wallclock.c");
    let mut compiler = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
    compiler.args(["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]);
    let output = compiler.arg(&library).arg(source).output().expect("a C compiler, which cargo itself needs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// The same command where the clocks that go on all the time are back by so much.
pub(super) fn set_back(command: &Command, by: Duration) -> Command {
    let mut back = Command::new("unshare");
    back.args(["--time", "--fork", "--kill-child"]);
    back.args(["--monotonic", "--boottime"].map(|clock| format!("{clock}=-{}", by.as_secs())));
    back.arg("--").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => back.env(name, value),
            None => back.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        back.current_dir(directory);
    }
    back
}

/// Half of the time that this machine has: its clock cannot go back further than to zero.
pub(super) fn half() -> Duration {
    let now = clock_gettime(ClockId::Monotonic).tv_sec.unsigned_abs();
    Duration::from_secs(now / 2)
}

/// The one child of a process.
fn child_of(parent: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}

/// Nothing is lost, doubled or out of order, also where the new host's clocks are behind.
#[test]
fn ten_moves_between_two_hosts() {
    const PATH: &str = "checkpoint::conversations::ten_moves_between_two_hosts";
    let Some(_bench) = Bench::new(PATH) else { return };
    isolated(PATH, || {
        let mut world = World::new(Bench::new(PATH).unwrap());
        for round in 0..10 {
            world.save(round % 2, "--kill", "image");
            // Both clocks are set back once: that of the day by one, and that of the machine.
            world.behind = (round == 4).then(half);
            if round == 4 {
                std::fs::write(world.bench.path("wall"), "-86400").unwrap();
            }
            world.restore((round + 1) % 2, "image");
            world.listener.goes_on();
        }
        let [back] = world.listener.went_back[..] else { panic!("{:?}", world.listener.went_back) };
        assert!(back > 86_400 - 2 * GUARD.as_secs() && back <= 86_400, "{back}");
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

/// How often the busy process is saved; more by hand.
const ROUNDS: &str = "STEADFAST_TEST_ROUNDS";
const BUSY: &str = "STEADFAST_TEST_BUSY";
const CONVERSATIONS: usize = 4;

/// A process of many threads with four conversations; nothing unless the test below started it.
#[test]
fn busy_process() {
    let (Some(identity), Some(_)) = (env::var_os(IDENTITY), env::var_os(BUSY)) else { return };
    let trusted: Fingerprint = env::var(TRUSTED).unwrap().parse().unwrap();
    for _ in 0..3 {
        std::thread::spawn(|| {
            loop {
                let _soon_over = std::thread::spawn(|| std::hint::black_box(vec![7_u8; 1 << 16])).join();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let code = runtime.block_on(async move {
        let scout = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
        let builder = Endpoint::builder().identity_file(PathBuf::from(identity)).trust(trusted).scout(scout);
        let endpoint = builder.daemon(None).bind().await.unwrap();
        println!("\nlistening {}", endpoint.contact());
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..CONVERSATIONS {
            let socket = match env::var(CONTACT) {
                Ok(contact) => endpoint.connect(contact).await.unwrap(),
                Err(_) => endpoint.accept().await.unwrap(),
            };
            all.spawn(count(socket));
        }
        all.join_next().await.unwrap().unwrap()
    });
    std::process::exit(code);
}

/// Counts to the other side, which does the same.
async fn count(socket: MultiSocket) -> i32 {
    let sending = async {
        for number in 0_u64.. {
            socket.send(number.to_be_bytes().to_vec(), Labels::foreground()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let receiving = async {
        for number in 0_u64.. {
            let message = socket.recv().await.unwrap().unwrap();
            let heard = u64::from_be_bytes(message.payload().unwrap()[..].try_into().unwrap());
            if heard != number {
                println!("wrong {heard} instead of {number}");
                std::process::exit(WRONG);
            }
            if (number + 1).is_multiple_of(STEP) {
                println!("heard {}", number + 1);
            }
        }
    };
    tokio::join!(sending, receiving);
    WRONG
}

/// A process with threads that come and go and four conversations that do not pause: each save comes to an end.
#[test]
fn a_busy_process_is_saved_again_and_again() {
    const PATH: &str = "checkpoint::conversations::a_busy_process_is_saved_again_and_again";
    let Some(_bench) = Bench::new(PATH) else { return };
    isolated(PATH, || {
        let bench = Bench::new(PATH).unwrap();
        let lab = Lab::new().unwrap();
        let host = lab.host("host").unwrap();
        let key = |name: &str| Identity::load_or_create(&bench.path(name)).unwrap().fingerprint();
        let busy = |identity: &str, trusts: &str| {
            let mut command = Command::new(env::current_exe().unwrap());
            command.args(["checkpoint::conversations::busy_process", "--exact", "--nocapture"]);
            command.env(IDENTITY, bench.path(identity)).env(TRUSTED, key(trusts).to_string()).env(BUSY, "1");
            command
        };
        let mut command = busy("its", "mine");
        command.env("STEADFAST_CONTROL", "off");
        let mut listener = Listener::of(&host, command);
        let mut command = busy("mine", "its");
        command.env(CONTACT, &listener.contact).env("STEADFAST_CONTROL", bench.path("control"));
        let mut saved = Ended(host.spawn(command.stdin(Stdio::null()).stdout(Stdio::null())).unwrap());
        let pid = saved.0.id().to_string();
        for _ in 0..CONVERSATIONS {
            listener.next("heard");
        }
        let rounds = env::var(ROUNDS).map_or(5, |rounds| rounds.parse().unwrap());
        for round in 0..rounds {
            let begun = Instant::now();
            let mut command = bench.command(&["save", "--clobber", "--dir", "image", &pid]);
            let mut saving = Ended(host.spawn(command.stdin(Stdio::null()).stdout(Stdio::null())).unwrap());
            let status = until("the end of a save", || saving.0.try_wait().unwrap());
            assert!(status.success(), "round {round}: {status}");
            println!("round {round}: saved after {:?}", begun.elapsed());
            while listener.lines.try_recv().map(|line| listener.note(&line)).is_ok() {}
            for _ in 0..CONVERSATIONS {
                listener.next("heard");
            }
        }
        assert_eq!(saved.0.try_wait().unwrap(), None);
    });
}

/// A process that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _status = self.0.wait();
    }
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
    let out = std::fs::File::create(&heard).unwrap();
    let words =
        ["run", "--", env!("CARGO_BIN_EXE_steadfast"), "events", "subscribe", "event_space=site.all.all"];
    let parent = bench.start(&words, |run| {
        run.env("STEADFAST_AGENT", &agent).env("STEADFAST_CONTROL", bench.path("control"));
        run.stdin(Stdio::null()).stdout(out);
    });
    until("a subscriber", || {
        publish("before");
        (times("before") > 0).then_some(())
    });
    let pid = child_of(parent.0.id());
    bench.run(&["save", "--kill", "--dir", "image", &pid.to_string()]).ended(0);
    parent.wait();
    publish("meanwhile");
    let restored = bench.start(&["restore", "image"], |restore| {
        restore.stdin(Stdio::null());
    });
    until("what was published meanwhile", || (times("meanwhile") > 0).then_some(()));
    publish("afterwards");
    until("what was published afterwards", || (times("afterwards") > 0).then_some(()));
    assert_eq!((times("meanwhile"), times("afterwards")), (1, 1));
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    restored.wait();
    assert_eq!(running.interrupt().1, Some(0));
}
