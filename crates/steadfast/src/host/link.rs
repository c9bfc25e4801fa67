//! An endpoint's connection to the daemon of its host, and after it the next. Without one everything works as well.

use super::{Attach, HostNetworks, Lines, MAX_NETWORKS, Reply, State, Statement, Usage, VERSION, namespace};
use crate::shared::Shared;
use ring::rand::{SecureRandom, SystemRandom};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use steadfast_net::dial_patiently;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long a daemon may take to answer before the endpoint begins without it.
const FIRST_WORD: Duration = Duration::from_millis(500);
/// How long it is until a daemon that is gone is sought again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often the daemon hears what is done on the networks; and how often it is looked whether there is a path at all.
const REPORT: Duration = Duration::from_millis(100);
const REST: Duration = Duration::from_secs(1);
/// How often it may hear of conversations and peers.
const STATE: Duration = Duration::from_secs(1);
/// How often it is asked whether it is there; one that is silent for so long is taken to be stopped.
const PING: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(20);
/// The longest line of a daemon.
const MAX_LINE: usize = 1 << 20;

/// Where the daemon is, and what is wanted of it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) socket: PathBuf,
    /// Whether what it says of networks counts.
    pub(crate) networks: bool,
}

/// A connection on which the daemon has answered.
#[derive(Debug)]
pub(crate) struct First(Lines);

impl Place {
    /// Connects, and learns what the daemon says of the networks; none if there is no daemon, or it does not answer at once.
    pub(crate) async fn open(&self, shared: &Shared) -> Option<First> {
        match timeout(FIRST_WORD, self.attach(shared)).await {
            Ok(Ok(lines)) => return Some(First(lines)),
            Ok(Err(error)) => tracing::debug!(socket = %self.socket.display(), %error, "no daemon"),
            Err(_) => tracing::debug!(socket = %self.socket.display(), "the daemon does not answer"),
        }
        None
    }

    async fn attach(&self, shared: &Shared) -> io::Result<Lines> {
        let stream = connect(&self.socket).await?;
        let mut lines = Lines::new(stream, &[], MAX_LINE);
        let attach = Attach { key: shared.identity.to_string(), namespace: namespace() };
        lines.put(&Statement { version: VERSION, attach: Some(attach), ..Statement::default() })?;
        loop {
            let reply: Reply = serde_json::from_slice(&lines.next().await?)?;
            if let Some(error) = reply.error {
                return Err(io::Error::other(error));
            }
            if let Some(host) = reply.host {
                self.learn(shared, host);
                return Ok(lines);
            }
        }
    }

    fn learn(&self, shared: &Shared, host: HostNetworks) {
        // A daemon of another namespace speaks of other networks, whatever their numbers.
        if self.networks && host.namespace != 0 && host.namespace == namespace() {
            shared.learn(host.knowledge());
        }
    }
}

/// Connects to a daemon that may be believed: one of root or of this user, as the kernel says of who listens there.
pub(crate) async fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::from_std(dial_patiently(socket).await?)?;
    let owner = stream.peer_cred()?.uid();
    if owner == 0 || owner == rustix::process::geteuid().as_raw() {
        return Ok(stream);
    }
    let why = format!(
        "the daemon there belongs to user {owner}, who is neither root nor this user; it is told nothing and not believed"
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// Keeps a connection to the daemon, for as long as the endpoint has its kernel objects.
pub(crate) async fn keep(shared: Arc<Shared>, place: Place, mut first: Option<First>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let lines = match first.take() {
            Some(First(lines)) => Some(lines),
            None => place.open(&shared).await.map(|First(lines)| lines),
        };
        if let Some(lines) = lines {
            tracing::debug!(socket = %place.socket.display(), "attached to the daemon");
            let begin = Instant::now();
            if let Err(error) = serve(&shared, &place, lines).await {
                tracing::debug!(%error, "the daemon is gone");
            }
            // What it said of networks stays true; shares die by themselves.
            shared.learn_alone();
            if begin.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Half to all of it, so that processes do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 1];
    let _as_it_was = SystemRandom::new().fill(&mut random);
    pause / 2 + pause / 2 * u32::from(random[0]) / 256
}

/// What the daemon was told and when.
struct Said {
    state: State,
    state_at: Instant,
    ping_at: Instant,
    /// It knows of something that goes on here.
    busy: bool,
}

async fn serve(shared: &Arc<Shared>, place: &Place, mut lines: Lines) -> io::Result<()> {
    let begin = Instant::now();
    let mut said = Said { state: State::default(), state_at: begin, ping_at: begin + PING, busy: false };
    let (mut heard, mut look) = (begin, begin);
    loop {
        tokio::select! {
            line = lines.next() => {
                heard = Instant::now();
                hear(shared, place, &line?)?;
            }
            () = sleep_until(look) => {
                if heard.elapsed() > SILENCE {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"));
                }
                // What a daemon that does not read misses was true then and is not needed later.
                let active = !lines.is_written() || say(shared, &mut lines, &mut said)?;
                look = Instant::now() + if active { REPORT } else { REST };
            }
        }
    }
}

fn hear(shared: &Arc<Shared>, place: &Place, line: &[u8]) -> io::Result<()> {
    let reply: Reply = serde_json::from_slice(line)?;
    if let Some(error) = reply.error {
        tracing::debug!(error, "the daemon does not understand");
    }
    if let Some(host) = reply.host {
        place.learn(shared, host);
    }
    for share in reply.shares.into_iter().flatten().take(MAX_NETWORKS) {
        shared.set_share(share.into());
    }
    Ok(())
}

/// Says what is due, in one line. Whether there are paths, on which something may begin at any time.
fn say(shared: &Shared, lines: &mut Lines, said: &mut Said) -> io::Result<bool> {
    let now = Instant::now();
    let usage: Vec<Usage> =
        shared.network_use().networks.into_iter().take(MAX_NETWORKS).map(Usage::from).collect();
    let (active, busy) = (!usage.is_empty(), !usage.iter().all(Usage::is_idle));
    let mut statement = Statement { version: VERSION, ..Statement::default() };
    if busy || said.busy {
        statement.usage = Some(usage);
    }
    if now >= said.state_at {
        said.state_at = now + STATE;
        let state = shared.account();
        if state != said.state {
            said.state = state.clone();
            statement.state = Some(state);
        }
    }
    if now >= said.ping_at {
        said.ping_at = now + PING;
        statement.ping = Some(0);
    }
    if statement.usage.is_some() || statement.state.is_some() || statement.ping.is_some() {
        lines.put(&statement)?;
    }
    said.busy = busy;
    Ok(active)
}
