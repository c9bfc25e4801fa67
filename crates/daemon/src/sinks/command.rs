//! A command for each event: no shell, a time limit, so many at once and no more.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use steadfast_backplane::Delivery;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use super::settings::CommandSettings;
use super::telling::{fields, json};
use super::{Feed, SinkState};

/// A command that cannot be started keeps its place for so long, so that a flood does not become a loop.
const PAUSE: Duration = Duration::from_millis(100);

/// Variables by which a service manager speaks with the daemon, and with nobody that it starts.
const OURS: [&str; 7] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "INVOCATION_ID",
];

/// How long one that is just being started may take for that when all are to end.
pub(super) const STARTING: Duration = Duration::from_secs(2);

/// The commands of a sink that run.
#[derive(Debug)]
pub(super) struct Commands {
    running: Mutex<JoinSet<()>>,
    /// They are to end when this is true.
    over: watch::Sender<bool>,
}

impl Default for Commands {
    fn default() -> Self {
        Self { running: Mutex::default(), over: watch::Sender::new(false) }
    }
}

impl Commands {
    /// Kills those that run, waits for those that are being started, and kills them.
    pub(super) async fn end(&self, starting: Duration) {
        self.over.send_replace(true);
        let mut running = self.running.lock().await;
        let all = async { while running.join_next().await.is_some() {} };
        let _as_far_as_it_goes = tokio::time::timeout(starting, all).await;
    }
}

/// Starts a command for every event, in their order; it does not wait for one to end before the next but for room.
pub(super) async fn run(feed: &mut Feed, settings: &CommandSettings, commands: &Commands) {
    let settings = Arc::new(settings.clone());
    let mut running = commands.running.lock().await;
    while let Some(delivery) = feed.next().await {
        let (its, state) = (Arc::clone(&settings), feed.shared_state());
        let mut over = commands.over.subscribe();
        running.spawn(async move { one(&its, &delivery, &state, &mut over, Command::spawn).await });
        while running.len() >= settings.at_once {
            running.join_next().await;
        }
        while running.try_join_next().is_some() {}
    }
    while running.join_next().await.is_some() {}
}

/// What is to be started for an event.
fn prepare(settings: &CommandSettings, delivery: &Delivery) -> Command {
    let mut command = Command::new(&settings.argv[0]);
    command.args(&settings.argv[1..]).envs(fields(delivery));
    for name in OURS {
        command.env_remove(name);
    }
    // Its complaints go where the daemon's go. A group of its own, so that it ends with what it started.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit()).process_group(0);
    command.kill_on_drop(true);
    command
}

/// Runs it for one event, to its end.
async fn one(
    settings: &CommandSettings,
    delivery: &Delivery,
    state: &SinkState,
    over: &mut watch::Receiver<bool>,
    spawn: impl FnOnce(&mut Command) -> io::Result<Child> + Send + 'static,
) {
    let program = &settings.argv[0];
    let input = json(delivery);
    let mut command = prepare(settings, delivery);
    let (child, group) = match start(move || spawn(&mut command)).await {
        Ok(started) => started,
        Err(error) => {
            state.lost(format!("cannot run `{program}`: {error}; check its path and permissions"));
            return tokio::time::sleep(PAUSE).await;
        }
    };
    let served = async {
        tokio::select! {
            served = serve(child, format!("{input}\n"), group) => served,
            _ = over.wait_for(|over| *over) => Err(io::Error::other("it was killed, because its sink ended")),
        }
    };
    match tokio::time::timeout(settings.limit, served).await {
        Ok(Ok(status)) if status.success() => state.delivered(1),
        Ok(Ok(status)) => state.lost(format!("`{program}` ended with {status}; its own output says why")),
        Ok(Err(error)) => state.lost(format!("`{program}` was lost: {error}")),
        Err(_) => {
            let limit = settings.limit;
            state.lost(format!(
                "`{program}` was killed because it took longer than {limit:?}; raise its `limit`"
            ));
        }
    }
}

/// Starts a process, which may take its time. From then on it is killed with its group unless it is waited for.
async fn start(spawn: impl FnOnce() -> io::Result<Child> + Send + 'static) -> io::Result<(Child, Group)> {
    let started = tokio::task::spawn_blocking(move || {
        let child = spawn()?;
        let group = Group(child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)));
        Ok((child, group))
    });
    started.await.map_err(io::Error::other)?
}

/// Gives it its input and waits for its end. Killed with its whole group if this is dropped before.
async fn serve(mut child: Child, input: String, group: Group) -> io::Result<ExitStatus> {
    let mut stdin = child.stdin.take();
    let feed = async {
        if let Some(stdin) = &mut stdin {
            // It need not read.
            let _gone = stdin.write_all(input.as_bytes()).await;
        }
        drop(stdin);
        std::future::pending::<()>().await;
    };
    let status = tokio::select! {
        status = child.wait() => status,
        () = feed => unreachable!("it never ends"),
    };
    group.ended();
    status
}

/// A process group whose leader has not been waited for, so that its number is nobody else's.
struct Group(Option<Pid>);

impl Group {
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::SinkName;
    use super::super::telling::tests::delivery;
    use super::*;
    use std::sync::mpsc;

    const GUARD: Duration = Duration::from_secs(60);

    /// Whether somebody of a process group is there and no zombie.
    fn lives(group: u32) -> bool {
        let of_it = |entry: io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
            let mut words = stat.rsplit_once(')')?.1.split_whitespace();
            let state = words.next()?;
            (words.nth(1)? == group.to_string() && state != "Z").then_some(())
        };
        std::fs::read_dir("/proc").unwrap().find_map(of_it).is_some()
    }

    #[test]
    fn the_service_manager_is_not_its_to_speak_with() {
        let settings = CommandSettings::new(vec!["true".into()]);
        let command = prepare(&settings, &delivery("info", b"x"));
        let variables: Vec<_> = command.as_std().get_envs().collect();
        for name in ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "INVOCATION_ID"] {
            assert!(variables.contains(&(name.as_ref(), None)), "{name} is left to it: {variables:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_just_being_started_does_not_outlive_the_end() {
        let commands = Arc::new(Commands::default());
        let (begun, begins) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        let words = ["/bin/sh", "-c", "sleep 100000 & sleep 100000"];
        let settings = CommandSettings::new(words.map(String::from).to_vec());
        let state = Arc::new(SinkState::new(SinkName::new("one").unwrap()));
        let mut over = commands.over.subscribe();
        let told = Arc::clone(&state);
        commands.running.lock().await.spawn(async move {
            let slow = move |command: &mut Command| {
                begun.send(0).unwrap();
                may_go.recv().unwrap();
                let child = command.spawn()?;
                let pid = child.id().unwrap();
                // It has a child by now, which only its group knows.
                while std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?.is_empty() {
                    std::thread::yield_now();
                }
                begun.send(pid).unwrap();
                Ok(child)
            };
            one(&settings, &delivery("info", b"x"), &told, &mut over, slow).await;
        });
        tokio::task::block_in_place(|| begins.recv_timeout(GUARD)).unwrap();
        let end = tokio::spawn({
            let commands = Arc::clone(&commands);
            async move { commands.end(GUARD).await }
        });
        commands.over.subscribe().wait_for(|over| *over).await.unwrap();
        go.send(()).unwrap();
        end.await.unwrap();
        // All that was to be done is done, without this runtime's help.
        let pid = begins.try_recv().expect("the end waits for what is being started");
        let gone = async {
            while lives(pid) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(GUARD, gone).await.expect("nobody of it is left");
        let fault = super::super::lock(&state.fault).clone().unwrap();
        assert!(fault.contains("its sink ended"), "{fault}");
    }
}
