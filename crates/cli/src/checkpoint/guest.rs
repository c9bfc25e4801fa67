//! One migration at the side that accepts it: who may, whether it could be restored, its files, and the process that becomes its
//! parent.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use steadfast::{Fingerprint, Message, MultiSocket};
use steadfast_checkpoint::{
    Arrival, Ask, Class, Criu, Errno, Error, MAX_FILES, NotUnderstood, Refusal, Said, room,
};
use steadfast_transfer::message::PING;
use steadfast_transfer::{Monitor, ReceiveFailure, Receiver, Store};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};

use super::talk::Talk;
use crate::transfer::bytes as shown;

/// How long a peer may take for its first words.
const GREETING: Duration = Duration::from_secs(30);
/// How long there may be no network to somebody whose processes stand still.
const WAIT: Duration = Duration::from_secs(600);
/// How long the last words may take to arrive.
const FAREWELL: Duration = Duration::from_secs(10);
/// More than anybody says of a restore.
const MAX_REPORT: u64 = 1 << 20;

/// Something to be told.
#[derive(Debug)]
pub(super) enum Note {
    /// Somebody was turned away.
    Refused { peer: Fingerprint, words: String },
    /// Processes want to come, and may.
    Comes { peer: Fingerprint, name: String, pid: u32 },
    /// They did not come.
    Failed { peer: Fingerprint, name: String, pid: u32, words: String },
    /// They run here.
    Runs { peer: Fingerprint, name: String, pid: u32, faults: Vec<String> },
    /// They ended.
    Ended { pid: u32, name: String, status: ExitStatus },
}

/// All that may come, and what becomes of it.
pub(super) struct Hall {
    pub(super) allowed: BTreeSet<Fingerprint>,
    pub(super) directory: PathBuf,
    pub(super) max: Option<u64>,
    /// Images stay.
    pub(super) keep: bool,
    /// One program is all that is taken.
    pub(super) once: bool,
    pub(super) criu: Criu,
    /// What the parent of a program is told, but for the checkpoint.
    pub(super) words: Vec<OsString>,
    pub(super) notes: mpsc::Sender<Note>,
    pub(super) guests: Mutex<BTreeMap<Fingerprint, Guest>>,
    /// Nobody may come any more.
    pub(super) closed: AtomicBool,
}

/// One migration that is under way.
pub(super) struct Guest {
    socket: MultiSocket,
    /// Takes the conversation that brings the files.
    files: mpsc::Sender<(MultiSocket, Message)>,
    /// Bytes that it may still bring.
    reserved: u64,
    /// Its processes do not go on where they were, unless they are told so.
    committed: bool,
}

/// Why nothing came of it.
enum Over {
    /// This side does not want it.
    Refused(Refusal),
    /// The other side is gone, or gave it up.
    Gone(String),
    /// Nobody can tell whether it runs.
    Undecided(String),
}

impl From<Error> for Over {
    fn from(error: Error) -> Self {
        Self::Refused(Refusal::from(&error))
    }
}

/// What went wrong here and is nobody's fault there.
fn trouble(words: impl ToString) -> Over {
    Over::Refused(Refusal::new(Class::Environment, Errno::EIO, words.to_string()))
}

impl Hall {
    fn guests(&self) -> MutexGuard<'_, BTreeMap<Fingerprint, Guest>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what can still go on where it was. Returns whether there is anything else.
    pub(super) fn close(&self) -> bool {
        self.closed.store(true, Ordering::Release);
        let guests = self.guests();
        guests.values().filter(|guest| !guest.committed).for_each(|guest| guest.socket.abort());
        !guests.is_empty()
    }

    /// Takes one conversation, whatever it is for.
    pub(super) async fn serve(self: Arc<Self>, socket: MultiSocket) {
        let first = timeout(GREETING, socket.recv()).await;
        let Some(message) = first.ok().and_then(Result::ok).flatten() else { return };
        let peer = socket.peer();
        let words = message.payload().cloned().unwrap_or_default();
        if let Ok(Said::Ask(ask)) = Said::decode(&words) {
            return self.asked(Talk::new(socket, WAIT), ask).await;
        }
        if Said::is_meant(&words) {
            let refusal = Refusal::new(Class::Environment, Errno::EPROTO, NotUnderstood.to_string());
            return farewell(&Talk::new(socket, WAIT), &Said::Refused(refusal)).await;
        }
        if words == PING {
            while let Ok(Some(_)) = socket.recv().await {}
            return;
        }
        // What is for nobody here is answered by its end.
        let files = self.guests().get(&peer).map(|guest| guest.files.clone());
        if let Some(files) = files {
            let _second = files.try_send((socket, message));
        }
    }

    async fn asked(self: &Arc<Self>, mut talk: Talk, ask: Ask) {
        let (peer, name, pid) = (talk.socket().peer(), ask.name.clone(), ask.root);
        let entered = self.enter(&talk);
        let (files, _leave) = match entered {
            Ok(entered) => entered,
            Err(refusal) => {
                self.refused(peer, &refusal);
                return farewell(&talk, &Said::Refused(refusal)).await;
            }
        };
        let result = self.host(&mut talk, &ask, files).await;
        match result {
            Ok(()) => _ = talk.socket().close_within(FAREWELL).await,
            Err(Over::Refused(refusal)) => {
                let words = refusal.words.clone();
                self.note(Note::Failed { peer, name, pid, words }).await;
                farewell(&talk, &Said::Failed(refusal)).await;
            }
            Err(Over::Gone(words)) => {
                let words = format!("{words}; what had come of it is removed");
                self.note(Note::Failed { peer, name, pid, words }).await;
                talk.socket().abort();
            }
            Err(Over::Undecided(words)) => {
                self.note(Note::Failed { peer, name, pid, words }).await;
                talk.socket().abort();
            }
        }
    }

    /// Takes the one place that a peer has.
    fn enter(
        self: &Arc<Self>,
        talk: &Talk,
    ) -> Result<(mpsc::Receiver<(MultiSocket, Message)>, Leave), Refusal> {
        let peer = talk.socket().peer();
        if !self.allowed.contains(&peer) {
            return Err(Refusal::stranger(format!(
                "its `accept` was not told to take programs, which run as root there, from {peer}; start it there with \
                 `--from {peer}`"
            )));
        }
        let busy = |words: &str| Err(Refusal::new(Class::Temporary, Errno::EBUSY, words));
        if self.closed.load(Ordering::Acquire) {
            return busy("it is about to end");
        }
        let mut guests = self.guests();
        if self.once && guests.keys().any(|other| *other != peer) {
            return busy("it takes one program, and another host's is coming; try again if that fails");
        }
        if let Some(before) = guests.get(&peer) {
            // One that nobody reaches any more gives way, if its processes can still go on where they were.
            if before.committed || !before.socket.is_parked() {
                return busy("another migration from this host is under way; wait until that is over");
            }
            before.socket.abort();
        }
        let (sender, files) = mpsc::channel(1);
        let socket = talk.socket().clone();
        let leave = Leave { hall: Arc::clone(self), peer, socket: socket.clone() };
        guests.insert(peer, Guest { socket, files: sender, reserved: 0, committed: false });
        Ok((files, leave))
    }

    async fn note(&self, note: Note) {
        // Who told it ends.
        let _gone = self.notes.send(note).await;
    }

    /// Nobody has to wait until that is told: anybody may cause it.
    fn refused(&self, peer: Fingerprint, refusal: &Refusal) {
        let _too_many = self.notes.try_send(Note::Refused { peer, words: refusal.words.clone() });
    }

    /// All of it, up to the answer.
    async fn host(
        self: &Arc<Self>,
        talk: &mut Talk,
        ask: &Ask,
        mut files: mpsc::Receiver<(MultiSocket, Message)>,
    ) -> Result<(), Over> {
        let peer = talk.socket().peer();
        let (asked, criu) = (ask.clone(), self.criu.clone());
        let examined = spawn_blocking(move || asked.examine(&criu)).await.map_err(trouble)?;
        if let Err(refusal) =
            examined.map_err(Over::Refused).and_then(|()| self.reserve(peer, ask.bytes, false))
        {
            // Nothing was frozen there yet.
            let Over::Refused(refusal) = refusal else { return Err(refusal) };
            return self.turned_away(talk, refusal).await;
        }
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        said(talk, &Said::Welcome { host }).await?;
        self.note(Note::Comes { peer, name: ask.name.clone(), pid: ask.root }).await;
        let Said::Images { files: count, bytes } = talk.hear().await.map_err(Over::Gone)? else {
            return Err(Over::Gone("it broke the protocol".to_owned()));
        };
        if count > MAX_FILES {
            return Err(trouble(format!(
                "its checkpoint has {count} files, and at most {MAX_FILES} are taken"
            )));
        }
        self.reserve(peer, bytes, true)?;
        let key = peer.to_string();
        let place = self.directory.join(format!("{}.{}", &key[..key.len().min(8)], ask.root));
        let keep = self.keep;
        let (arrival, store) = spawn_blocking(move || {
            let arrival = Arrival::begin(&place, keep)?;
            let store = Store::open(arrival.directory(), false).map_err(trouble)?;
            Ok::<_, Over>((arrival, store))
        })
        .await
        .map_err(trouble)??;
        said(talk, &Said::Send).await?;
        self.fetch(talk, &mut files, Receiver::new(store).limits(count, bytes)).await?;
        let (place, _owner) = spawn_blocking(|| arrival.commit()).await.map_err(trouble)??;
        let answer = self.adopt(place, ask, peer).await?;
        // Who asked is told, or asks nobody any more and leaves its processes as they are.
        let _unheard = talk.say(&answer).await;
        Ok(())
    }

    async fn turned_away(&self, talk: &Talk, refusal: Refusal) -> Result<(), Over> {
        self.refused(talk.socket().peer(), &refusal);
        farewell(talk, &Said::Refused(refusal)).await;
        Ok(())
    }

    /// Whether so much may come, beside what others may bring; and if it counts, nobody else may bring it from now on.
    fn reserve(&self, peer: Fingerprint, bytes: u64, counts: bool) -> Result<(), Over> {
        let room = room(&self.directory, self.max)?;
        let mut guests = self.guests();
        let others = guests.iter().filter(|(other, _)| **other != peer);
        let taken = others.map(|(_, guest)| guest.reserved).fold(0_u64, u64::saturating_add);
        let room = room.saturating_sub(taken);
        if bytes > room {
            let advice = match self.max {
                Some(max) if bytes > max => "--max-size of `accept` says so",
                _ => "make room there, or name another --dir",
            };
            return Err(Over::Refused(Refusal::new(
                Class::Temporary,
                Errno::ENOSPC,
                format!("it needs {}, and {} may come; {advice}", shown(bytes), shown(room)),
            )));
        }
        if counts && let Some(guest) = guests.get_mut(&peer) {
            guest.reserved = bytes;
        }
        Ok(())
    }

    /// Takes the files, and returns when the other side has left the processes to this one.
    async fn fetch(
        &self,
        talk: &mut Talk,
        files: &mut mpsc::Receiver<(MultiSocket, Message)>,
        receiver: Receiver,
    ) -> Result<(), Over> {
        let receiving = async {
            let came = files.recv().await;
            let (socket, first) = came.ok_or_else(|| Over::Gone("another one took its place".to_owned()))?;
            let request = receiver.greet_with(socket, Some(first)).await;
            let request = request.ok_or_else(|| Over::Gone("it broke the protocol".to_owned()))?;
            let monitor = Arc::new(Monitor::default());
            let failed = match receiver.receive(request, Arc::clone(&monitor)).await {
                Ok(unread) => unread + monitor.progress().failed,
                Err(failure @ (ReceiveFailure::TooMuch(..) | ReceiveFailure::Version(..))) => {
                    return Err(trouble(failure));
                }
                Err(failure) => return Err(Over::Gone(failure.to_string())),
            };
            let reason = || monitor.progress().failures.into_iter().next().map(|(_, reason)| reason);
            if failed > 0 { Err(trouble(reason().unwrap_or_default())) } else { Ok(()) }
        };
        let mut receiving = std::pin::pin!(receiving);
        let mut received = None;
        let mut go = None;
        while received.is_none() || go.is_none() {
            tokio::select! {
                result = &mut receiving, if received.is_none() => received = Some(result?),
                // It was said after the last of them, which is about to be here.
                () = sleep_until(go.unwrap_or_else(Instant::now) + WAIT), if go.is_some() => {
                    return Err(trouble("it said that all files are there, and they are not"));
                }
                heard = talk.hear(), if go.is_none() => match heard.map_err(Over::Gone)? {
                    Said::Go => {
                        go = Some(Instant::now());
                        let (peer, session) = (talk.socket().peer(), talk.socket().session_id());
                        let mut guests = self.guests();
                        let guest = guests.get_mut(&peer);
                        if let Some(guest) = guest.filter(|guest| guest.socket.session_id() == session) {
                            guest.committed = true;
                        }
                    }
                    _ => return Err(Over::Gone("it broke the protocol".to_owned())),
                }
            }
        }
        Ok(())
    }

    /// Starts the process that restores it and stays with it; what it says.
    async fn adopt(&self, place: PathBuf, ask: &Ask, peer: Fingerprint) -> Result<Said, Over> {
        let words = self.words.clone();
        let (child, said) = spawn_blocking(move || {
            let (child, ours) = start(&words, &place)?;
            let mut report = Vec::new();
            let _cut_off = ours.take(MAX_REPORT).read_to_end(&mut report);
            Ok::<_, std::io::Error>((child, Said::decode(&report)))
        })
        .await
        .map_err(trouble)?
        .map_err(|error| trouble(format!("cannot start what restores it: {error}")))?;
        let name = ask.name.clone();
        match said {
            Ok(Said::Runs { pid, faults }) => {
                if self.once {
                    self.closed.store(true, Ordering::Release);
                }
                let runs = Note::Runs { peer, name: name.clone(), pid, faults: faults.clone() };
                self.note(runs).await;
                self.stay_with(child, pid, name);
                Ok(Said::Runs { pid, faults })
            }
            Ok(Said::Failed(refusal)) => {
                let mut child = child;
                // A hook of it may take its time.
                std::thread::spawn(move || drop(child.wait()));
                Err(Over::Refused(refusal))
            }
            _ => Err(Over::Undecided(
                "what was to restore it died; look with `ps` whether it runs here".to_owned(),
            )),
        }
    }

    /// Tells when it ends. The thread ends with this process, the program does not.
    fn stay_with(&self, mut child: Child, pid: u32, name: String) {
        let notes = self.notes.clone();
        std::thread::spawn(move || {
            if let Ok(status) = child.wait() {
                let _gone = notes.blocking_send(Note::Ended { pid, name, status });
            }
        });
    }
}

fn start(words: &[OsString], place: &std::path::Path) -> std::io::Result<(Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let errors = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("checkpoint-adopt").args(words).arg("--").arg(place);
    // What a program says goes where this one's errors go: its own output is for whoever runs it.
    command.stdin(OwnedFd::from(theirs)).stdout(Stdio::from(errors));
    Ok((command.spawn()?, ours))
}

async fn said(talk: &Talk, words: &Said) -> Result<(), Over> {
    talk.say(words).await.map(drop).map_err(|error| Over::Gone(error.to_string()))
}

/// The last words of a conversation.
async fn farewell(talk: &Talk, words: &Said) {
    if talk.say(words).await.is_ok() {
        let _over = talk.socket().close_within(FAREWELL).await;
    }
}

/// Gives the place of a peer back, unless another has it by then.
struct Leave {
    hall: Arc<Hall>,
    peer: Fingerprint,
    socket: MultiSocket,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut guests = self.hall.guests();
        let own = self.socket.session_id();
        if guests.get(&self.peer).is_some_and(|guest| guest.socket.session_id() == own) {
            guests.remove(&self.peer);
        }
    }
}
