//! A command for each event: no shell, a time limit, so many at once and no more.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use steadfast_backplane::Delivery;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
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

/// Starts a command for every event, in their order; it does not wait for one to end before the next but for room.
pub(super) async fn run(feed: &mut Feed, settings: &CommandSettings) {
    let settings = Arc::new(settings.clone());
    let mut running = JoinSet::new();
    while let Some(delivery) = feed.next().await {
        running.spawn(one(Arc::clone(&settings), delivery, feed.shared_state()));
        while running.len() >= settings.at_once {
            running.join_next().await;
        }
        while running.try_join_next().is_some() {}
    }
    while running.join_next().await.is_some() {}
}

/// Runs it for one event, to its end.
async fn one(settings: Arc<CommandSettings>, delivery: Delivery, state: Arc<SinkState>) {
    let program = &settings.argv[0];
    let input = json(&delivery);
    let mut command = Command::new(program);
    command.args(&settings.argv[1..]).envs(fields(&delivery));
    for name in OURS {
        command.env_remove(name);
    }
    // Its complaints go where the daemon's go. A group of its own, so that it ends with what it started.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit()).process_group(0);
    command.kill_on_drop(true);
    // Starting a process may take its time.
    let started = tokio::task::spawn_blocking(move || command.spawn()).await;
    let child = match started.map_err(io::Error::other).and_then(|started| started) {
        Ok(child) => child,
        Err(error) => {
            state.lost(format!("cannot run `{program}`: {error}; check its path and permissions"));
            return tokio::time::sleep(PAUSE).await;
        }
    };
    match tokio::time::timeout(settings.limit, serve(child, format!("{input}\n"))).await {
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

/// Gives it its input and waits for its end. Killed with its whole group if this is dropped before.
async fn serve(mut child: Child, input: String) -> io::Result<ExitStatus> {
    let mut stdin = child.stdin.take();
    let group = Group(child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)));
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
