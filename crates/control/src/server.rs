//! The socket and the one thread that serves it.

use crate::participant::{Checkpoint, Outcome, Requester, Veto};
use crate::place::Bound;
use crate::process::own_start;
use crate::protocol::{self, Answer, GoOn, Prepare, Question, StatusNow, Told, VERSION};
use crate::registry::{self, Entry};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::Shutdown;
use std::fs;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a requester may take for a line.
const MAX_WORDS: Duration = Duration::from_secs(5);
/// The longest time that a requester may ask for.
const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);
/// How long to wait where there is no descriptor for a connection.
const STARVED: Duration = Duration::from_millis(100);

/// The socket of this process, while somebody is registered.
#[derive(Debug)]
pub(crate) struct Server {
    pid: u32,
    listener: Arc<UnixListener>,
    stopped: Arc<AtomicBool>,
    path: PathBuf,
}

impl Server {
    pub(crate) fn start() -> io::Result<Self> {
        let Bound { listener, path } = Bound::open()?;
        let listener = Arc::new(listener);
        let stopped = Arc::new(AtomicBool::new(false));
        let mut serving = Serving {
            listener: Arc::clone(&listener),
            stopped: Arc::clone(&stopped),
            prepared: None,
            last: None,
        };
        thread::Builder::new().name("checkpoints".into()).spawn(move || serving.run())?;
        Ok(Self { pid: std::process::id(), listener, stopped, path })
    }

    /// Whether its thread runs here.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.pid == std::process::id()
    }

    /// The thread ends by itself, soon.
    pub(crate) fn stop(self) {
        if self.is_of_this_process() {
            let _removed_already = fs::remove_file(&self.path);
            self.stopped.store(true, Ordering::Release);
            // Wakes it.
            let _closed_already = rustix::net::shutdown(&*self.listener, Shutdown::Both);
        }
    }
}

/// A process that may be frozen at any moment.
struct Prepared {
    token: String,
    since: Instant,
    silence: Duration,
    /// When this process started: the one that an image becomes started later.
    start: Option<u64>,
    images: Option<PathBuf>,
    ready: Vec<Entry>,
}

impl Prepared {
    /// How long it still waits for somebody to say how it went. Where the clock went back, it is another machine's: not at all.
    fn left(&self, now: Instant) -> Duration {
        now.checked_duration_since(self.since)
            .map_or(Duration::ZERO, |passed| self.silence.saturating_sub(passed))
    }
}

struct Serving {
    listener: Arc<UnixListener>,
    stopped: Arc<AtomicBool>,
    prepared: Option<Prepared>,
    /// The last checkpoint that is over, and what could not be taken up again: who asks late is told the same.
    last: Option<(String, Vec<String>)>,
}

impl Serving {
    fn run(&mut self) {
        while !self.stopped.load(Ordering::Acquire) {
            if let Some(stream) = self.next() {
                // Whoever says nothing, or nonsense, is told nothing.
                let _unserved = self.serve(stream);
            }
        }
        self.go_on(None);
    }

    /// The next connection; `None` if it is to be asked again.
    fn next(&mut self) -> Option<UnixStream> {
        let left = self.prepared.as_ref().map(|prepared| prepared.left(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            self.go_on(None);
            return None;
        }
        let limit = left.and_then(|left| Timespec::try_from(left).ok());
        if poll(&mut [PollFd::new(&*self.listener, PollFlags::IN)], limit.as_ref()) == Ok(0) {
            return None;
        }
        match self.listener.accept() {
            Ok((stream, _)) => Some(stream),
            Err(error) => {
                let again = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted];
                if !again.contains(&error.kind()) {
                    thread::sleep(STARVED);
                }
                None
            }
        }
    }

    fn serve(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(MAX_WORDS))?;
        // Whoever says it slowly must not keep the process from going on.
        let now = Instant::now();
        let limit = self.prepared.as_ref().map_or(MAX_WORDS, |prepared| prepared.left(now).min(MAX_WORDS));
        let limit = now + limit;
        let who = rustix::net::sockopt::socket_peercred(&stream)?;
        let (uid, pid) = (who.uid.as_raw(), who.pid.as_raw_pid().unsigned_abs());
        if uid != 0 && uid != rustix::process::geteuid().as_raw() {
            let reason = "only the user of the process, and root, may take its checkpoints";
            return protocol::say(&stream, &Answer::refused(&Veto::Permanent(reason.into())));
        }
        let question: Question = protocol::hear(&stream, limit)?;
        let mut answer = match question {
            Question { prepare: Some(prepare), .. } => match self.prepare(Requester { pid, uid }, prepare) {
                Ok(()) => Answer { ready: Some(protocol::Empty {}), ..Answer::default() },
                Err(veto) => Answer::refused(&veto),
            },
            Question { go_on: Some(words), .. } => self.told(words),
            Question { status: Some(_), .. } => {
                let (participants, prepared) = (registry::participants(), self.prepared.is_some());
                Answer { status: Some(StatusNow { participants, prepared }), ..Answer::default() }
            }
            _ => Answer::refused(&Veto::Permanent("this process does not know what was asked".into())),
        };
        answer.version = VERSION;
        let said = protocol::say(&stream, &answer);
        if said.is_err() && answer.ready.is_some() {
            self.go_on(Some(Told::Abandoned { reason: "the requester is gone".into() }));
        }
        said
    }

    fn prepare(&mut self, requester: Requester, asked: Prepare) -> Result<(), Veto> {
        if self.prepared.is_some() {
            return Err(Veto::Temporary("another checkpoint of this process is being taken".into()));
        }
        let time = |ms: u64| Duration::from_millis(ms).min(MAX_TIME);
        let (ready, silence) = (time(asked.ready_ms), time(asked.silence_ms));
        let checkpoint = Checkpoint {
            requester,
            silence,
            deadline: Instant::now() + ready,
            images: asked.images.clone(),
            goes_on: asked.goes_on,
        };
        if !registry::gate().begin(checkpoint.deadline) {
            return Err(Veto::Temporary(format!(
                "the program is in a part of it that must not be interrupted, for longer than {} s",
                ready.as_secs_f64()
            )));
        }
        let entries = registry::prepare(&checkpoint).inspect_err(|_| registry::gate().end())?;
        self.prepared = Some(Prepared {
            token: asked.token,
            since: Instant::now(),
            silence,
            start: own_start(),
            images: asked.images,
            ready: entries,
        });
        if Instant::now() > checkpoint.deadline {
            let reason = format!("the program took longer than {} s to prepare", ready.as_secs_f64());
            self.go_on(Some(Told::Abandoned { reason: reason.clone() }));
            return Err(Veto::Temporary(reason));
        }
        Ok(())
    }

    /// A requester says how it went.
    fn told(&mut self, words: GoOn) -> Answer {
        if self.prepared.as_ref().is_some_and(|prepared| prepared.token == words.token) {
            self.go_on(words.outcome);
        }
        match &self.last {
            Some((token, faults)) if *token == words.token => Answer::going(faults.clone()),
            _ => {
                let reason = "this process did not prepare for that checkpoint";
                Answer::refused(&Veto::Permanent(reason.into()))
            }
        }
    }

    /// Goes on, as somebody said or because nobody did.
    fn go_on(&mut self, told: Option<Told>) {
        let Some(Prepared { token, start, images, ready, .. }) = self.prepared.take() else { return };
        let is_another = own_start() != start;
        let outcome = match told {
            Some(Told::Restored { images }) => Outcome::Restored { images },
            _ if is_another => Outcome::Restored { images },
            Some(Told::Continued) => Outcome::Continued,
            Some(Told::Abandoned { reason }) => Outcome::Abandoned(reason),
            None => Outcome::Abandoned("nobody said how the checkpoint went".into()),
        };
        let faults = registry::go_on(ready, &outcome);
        registry::gate().end();
        self.last = Some((token, faults));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_does_not_wait_longer_where_the_clock_went_back() {
        let since = Instant::now() + Duration::from_secs(1000);
        let silence = Duration::from_secs(60);
        let prepared =
            Prepared { token: String::new(), since, silence, start: None, images: None, ready: Vec::new() };
        let after = |seconds| since + Duration::from_secs(seconds);
        assert_eq!(prepared.left(after(0)), silence);
        assert_eq!(prepared.left(after(59)), Duration::from_secs(1));
        assert_eq!(prepared.left(after(61)), Duration::ZERO);
        let before = since.checked_sub(Duration::from_secs(500)).unwrap();
        assert_eq!(prepared.left(before), Duration::ZERO);
    }
}
