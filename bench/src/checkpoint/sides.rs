//! The process that is saved, and the peer that it talks to.
//!
//! CRIU cannot save half of a pipe, so the conductor says nothing to the process itself: what it needs lies in its working
//! directory, what it is to do and what it sees goes through its conversations. Each message has the longest time
//! that it did not run so far.

use std::fs;
use std::path::Path;
use std::process::{Child as Process, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use steadfast::{Bytes, Endpoint, Identity, Labels, MultiSocket};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::{CONVERSATIONS, GUARD, LOOK, MEMORY, PACE};
use crate::Part;
use crate::child::{Child, Console, Place, WORD, tell};
use crate::systems::{Ground, Listen, Listening, endpoint};
use crate::usage::{Nanos, now};

/// Bytes of a message.
pub(super) const MESSAGE: usize = 64;
/// Where its key lies, and where the peer's contact.
pub(super) const IDENTITY: &str = "identity";
const CONTACT: &str = "contact";
/// It has made its conversations quiet.
const QUIET: &str = "quiet";
/// How long they are to be quiet at most.
const SILENCE: Duration = Duration::from_secs(60);
/// Messages that each conversation has had before it counts as live.
const LIVE: usize = 100;

/// To the peer.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Order {
    /// What came until now does not count.
    Begin,
    /// Tell what came.
    Look,
    /// Have the other side make its conversations quiet.
    Quiet,
}

/// When the process did not run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stood {
    pub(super) from: Nanos,
    pub(super) to: Nanos,
}

/// What the peer has seen.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Look {
    /// Of the conversation with the fewest, how many messages came.
    pub(super) fewest: usize,
    /// The longest time between two messages of one conversation.
    pub(super) longest: Nanos,
    /// When the process did not run for longest, since the beginning.
    pub(super) stood: Option<Stood>,
    /// When each conversation had had a message after that.
    pub(super) again: Option<Nanos>,
}

/// Both of them, seen from the conductor.
pub(super) struct Pair {
    pub(super) saved: Saved,
    peer: Child,
}

/// The process that is saved; dropped, it is ended.
pub(super) struct Saved(Process);

impl Saved {
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    fn end(&mut self) {
        // One that has ended cannot be killed, which is just as well.
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        self.end();
    }
}

impl Pair {
    /// Starts them in a directory that has the key of the process, until all conversations are live.
    pub(super) fn start(place: &Path, key: &str) -> anyhow::Result<Self> {
        let mut peer = Child::start("peer", Part::CheckpointPeer, Place::Here)?;
        peer.order(&Listen { keys: vec![key.to_owned()], ground: Ground::LOOPBACK })?;
        let Listening { contact, .. } = peer.expect("listening", GUARD)?;
        fs::write(place.join(CONTACT), contact)?;
        // What shells leave open for whoever they start is no part of the process.
        let mut command = Command::new("sh");
        command.args(["-c", "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; exec \"$@\"", "sh"]);
        command.arg(std::env::current_exe()?).arg(WORD).arg(serde_json::to_string(&Part::CheckpointSaved)?);
        command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir(place);
        command
            .stderr(fs::File::create(place.join("errors"))?)
            .env("STEADFAST_CONTROL", place.join("control"));
        let saved = Saved(command.spawn().context("cannot start the process that is to be saved")?);
        let mut pair = Self { saved, peer };
        pair.until("all conversations are live", place, |pair| Ok(pair.look()?.fewest >= LIVE))?;
        Ok(pair)
    }

    /// From now on counts what comes.
    pub(super) fn begin(&mut self) -> anyhow::Result<()> {
        self.peer.order(&Order::Begin)
    }

    pub(super) fn look(&mut self) -> anyhow::Result<Look> {
        self.peer.order(&Order::Look)?;
        self.peer.expect("looking", GUARD)
    }

    /// Waits until the process has made its conversations quiet.
    pub(super) fn quiet(&mut self, place: &Path) -> anyhow::Result<()> {
        self.peer.order(&Order::Quiet)?;
        self.until("the process is quiet", place, |_| Ok(place.join(QUIET).exists()))
    }

    pub(super) fn end(mut self) {
        self.saved.end();
        self.peer.end();
    }

    fn until(
        &mut self,
        what: &str,
        place: &Path,
        is_so: impl Fn(&mut Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + GUARD;
        while !is_so(self)? {
            if let Some(status) = self.saved.0.try_wait()? {
                let errors = fs::read_to_string(place.join("errors")).unwrap_or_default();
                bail!("the process that is to be saved has ended ({status}): {}", errors.trim());
            }
            if deadline < Instant::now() {
                bail!("it took longer than {GUARD:?} until {what}");
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }
}

/// The process that is saved; it ends with the conductor.
pub(crate) async fn saved() -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Pages that are not all alike, each of its own.
    let memory: Vec<u64> =
        (0..MEMORY as u64 / 8).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    let clock = Clock::start();
    let identity = Identity::load_or_create(Path::new(IDENTITY))?;
    let contact = fs::read_to_string(CONTACT).context("there is no contact")?;
    let endpoint = endpoint::builder(identity, true).daemon(None).bind().await?;
    let mut all = JoinSet::new();
    for _ in 0..CONVERSATIONS {
        let socket = Arc::new(endpoint.connect(contact.clone()).await?);
        all.spawn(speak(Arc::clone(&socket), {
            let clock = Arc::clone(&clock);
            move || clock.stood()
        }));
        all.spawn(obey(socket, endpoint.clone()));
    }
    while let Some(result) = all.join_next().await {
        result??;
    }
    std::hint::black_box(memory);
    Ok(())
}

/// Sees when this process did not run.
struct Clock {
    stood: Mutex<Stood>,
}

impl Clock {
    fn start() -> Arc<Self> {
        let clock = Arc::new(Self { stood: Mutex::default() });
        let own = Arc::clone(&clock);
        thread::spawn(move || {
            let mut last = now();
            loop {
                thread::sleep(PACE);
                let next = now();
                let mut stood = lock(&own.stood);
                if next - last > stood.to - stood.from {
                    *stood = Stood { from: last, to: next };
                }
                last = next;
            }
        });
        clock
    }

    fn stood(&self) -> Stood {
        *lock(&self.stood)
    }
}

/// What is to be done, or nothing.
const NOTHING: u8 = 0;
const BE_QUIET: u8 = 1;

/// One message after the other.
async fn speak(socket: Arc<MultiSocket>, stood: impl Fn() -> Stood) -> anyhow::Result<()> {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        socket.send(message(NOTHING, stood()), Labels::foreground()).await?;
    }
}

fn message(order: u8, Stood { from, to }: Stood) -> Bytes {
    let mut payload = vec![order];
    payload.extend(from.to_be_bytes());
    payload.extend(to.to_be_bytes());
    payload.resize(MESSAGE, 7);
    payload.into()
}

fn read(payload: &[u8]) -> Option<(u8, Stood)> {
    let number = |at: usize| Some(u64::from_be_bytes(payload.get(at..at + 8)?.try_into().ok()?));
    Some((*payload.first()?, Stood { from: number(1)?, to: number(9)? }))
}

/// Takes what comes, and makes the endpoint quiet when it is to be.
async fn obey(socket: Arc<MultiSocket>, endpoint: Endpoint) -> anyhow::Result<()> {
    while let Some(received) = socket.recv().await? {
        let (order, _) = read(&received.into_bytes().await?).context("a message makes no sense")?;
        if order == BE_QUIET {
            endpoint.quiesce_for(SILENCE).await;
            fs::write(QUIET, "")?;
        }
    }
    Ok(())
}

/// What came in one conversation.
#[derive(Debug, Default)]
struct Came {
    at: Vec<Nanos>,
    stood: Stood,
}

/// What came in all of them.
#[derive(Debug, Default)]
struct Seen {
    conversations: Vec<Came>,
    begun: Nanos,
}

impl Seen {
    fn begin(&mut self, begun: Nanos) {
        self.begun = begun;
        for came in &mut self.conversations {
            came.at.clear();
        }
    }

    fn look(&self) -> Look {
        let all = &self.conversations;
        let is_whole = all.len() == CONVERSATIONS;
        let fewest = all.iter().map(|came| came.at.len()).min().filter(|_| is_whole).unwrap_or_default();
        let longest = all.iter().flat_map(|came| came.at.windows(2).map(|pair| pair[1] - pair[0])).max();
        let stood = all.iter().map(|came| came.stood).max_by_key(|stood| stood.to - stood.from);
        let stood = stood.filter(|stood| stood.from > self.begun);
        let again = stood.and_then(|stood| {
            let after = |came: &Came| came.at.iter().copied().find(|at| *at > stood.to);
            all.iter().map(after).collect::<Option<Vec<_>>>()?.into_iter().max()
        });
        Look { fewest, longest: longest.unwrap_or_default(), stood, again }
    }
}

/// The peer: speaks in each conversation too, and notes when something came.
pub(crate) async fn peer(console: &mut Console) -> anyhow::Result<()> {
    let Listen { keys, .. } = console.hear().await?;
    let endpoint = endpoint::server(&keys, true).await?;
    tell(&Listening { contact: endpoint.contact(), certificate: Vec::new() });
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut first = None;
    let mut all = JoinSet::new();
    loop {
        tokio::select! {
            socket = endpoint.accept() => {
                let socket = Arc::new(socket.context("the endpoint was closed")?);
                first.get_or_insert_with(|| Arc::clone(&socket));
                all.spawn(speak(Arc::clone(&socket), Stood::default));
                all.spawn(note(socket, Arc::clone(&seen)));
            }
            Some(ended) = all.join_next() => ended??,
            order = console.hear() => match order? {
                Order::Begin => lock(&seen).begin(now()),
                Order::Look => {
                    let look = lock(&seen).look();
                    tell(&look);
                }
                Order::Quiet => {
                    let socket = first.as_ref().context("there is no conversation yet")?;
                    socket.send(message(BE_QUIET, Stood::default()), Labels::foreground()).await?;
                }
            },
        }
    }
}

/// Notes what comes in a conversation.
async fn note(socket: Arc<MultiSocket>, seen: Arc<Mutex<Seen>>) -> anyhow::Result<()> {
    let index = {
        let conversations = &mut lock(&seen).conversations;
        conversations.push(Came::default());
        conversations.len() - 1
    };
    while let Some(received) = socket.recv().await? {
        let (_, stood) = read(&received.into_bytes().await?).context("a message makes no sense")?;
        let came = &mut lock(&seen).conversations[index];
        came.at.push(now());
        came.stood = stood;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_conversations_have_to_go_on_after_the_process_ran_again() {
        let stood = Stood { from: 100, to: 200 };
        let came = |at: &[Nanos], stood| Came { at: at.to_vec(), stood };
        let mut seen = Seen { conversations: Vec::new(), begun: 50 };
        for at in [[90, 230], [95, 220], [60, 215]] {
            seen.conversations.push(came(&at, stood));
        }
        assert_eq!(seen.look().fewest, 0, "one is not there yet");
        // What it hears late was said before.
        seen.conversations.push(came(&[99, 150], Stood::default()));
        assert_eq!((seen.look().again, seen.look().longest), (None, 155));
        seen.conversations[3].at.push(240);
        let look = seen.look();
        assert_eq!((look.fewest, look.stood, look.again), (2, Some(stood), Some(240)));
        seen.begin(150);
        assert_eq!(seen.look().stood, None, "that was before");
    }

    #[test]
    fn a_message_says_what_it_was_made_of() {
        let stood = Stood { from: 7, to: u64::MAX };
        assert_eq!(read(&message(BE_QUIET, stood)), Some((BE_QUIET, stood)));
        assert_eq!(message(NOTHING, stood).len(), MESSAGE);
        assert_eq!(read(&[0; 16]), None);
    }
}
