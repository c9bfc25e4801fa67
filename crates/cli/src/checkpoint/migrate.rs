//! `steadfast checkpoint migrate`: a process goes on on another host.
//!
//! Until the other side is told to restore it, whatever fails lets it go on here. From then on it goes on here only if the other side
//! surely does not run it.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use steadfast::{Endpoint, Labels, Outcome, Receipt, Target};
use steadfast_checkpoint::{
    After, Class, Departure, Errno, Error, Existing, GHOST_LIMIT, Moving, Observer, PATIENCE, Progress,
    Refusal, Said, Save, SaveError, Saved, Scope, Standing, Tcp, files, prepare, save,
};
use steadfast_transfer::{Monitor, Plan, SendFailure, Sender};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::progress::{Stage, View};
use super::save::with_exit;
use super::talk::Talk;
use super::{Talk as Verbosity, Tools};
use crate::context::{self, Context};
use crate::duration;
use crate::exit::{Exit, Failure};
use crate::output::{Output, clean};
use crate::transfer::{Direction, Meter, Stop, amount};

/// How long the other side may take to answer at first, and to look at what is asked.
const REACH: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(60);
/// How long last words of the other side are waited for.
const LAST: Duration = Duration::from_secs(2);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
#[command(after_help = "\
The process is saved with all that it started and stands still from then on. Its images go to the other host in the background, \
and when it runs there, it ends here. Whatever fails before that: it goes on here. Conversations of Steadfast go on; other \
connections over TCP are closed, since they belong to this host's addresses. Files stay where they are and have to be on the other \
host, too.

HOST is the line that `steadfast checkpoint accept` prints there, HOST[:PORT] of a peer whose key is trusted under that name, or a \
name from the configuration.

Exit codes: 0 it runs there; 1 it goes on here, and the reason names what would help; 2 usage; 3 an application said no, or the other \
side does not accept it; 4 not in time, or the other side was lost; 5 interrupted; after all of these it goes on here. 6 it is not known \
whether it runs there: it stays stopped here.

Examples:
  steadfast checkpoint migrate 4711 boat
  steadfast checkpoint migrate --json 4711 kx4v...2a@192.168.1.7:7463")]
pub(crate) struct Arguments {
    /// The process, which moves with all its descendants.
    #[arg(value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: u32,
    /// Where to.
    host: String,
    /// Where the images lie meanwhile [default: migrating/PID, in ~/.local/state/steadfast]. Nothing stays there.
    #[arg(long, short, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Give up if it is not all there after this time, and let the processes go on here.
    #[arg(long, short, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// How long no network may lead to the other side.
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = duration::parse)]
    wait: Duration,
    /// The most bytes of one open file that has been removed, which becomes part of the checkpoint.
    #[arg(long, value_name = "BYTES", default_value_t = GHOST_LIMIT)]
    ghost_limit: u32,
    #[command(flatten)]
    talk: Verbosity,
}

pub(super) fn run(arguments: &Arguments, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let tools = Tools::new(&config)?;
    let target = context.target(&config, &arguments.host)?;
    let moving = Moving::look(&tools.criu, arguments.pid)?;
    super::tell_left(context);
    let arrivals = super::migrated(context);
    if arrivals.is_dir() {
        let _swept = prepare(&arrivals);
    }
    let (place, departure) = match &arguments.dir {
        Some(dir) if fs::symlink_metadata(dir).is_ok() => {
            let message = format!("there is a {} already; remove it, or name another --dir", dir.display());
            return Err(Failure::usage(message).into());
        }
        Some(dir) => (dir.clone(), None),
        None => {
            let departure = Departure::begin(&super::migrating(context), arguments.pid)?;
            (departure.images(), Some(departure))
        }
    };
    let how = Save {
        scope: Scope::Tree,
        id: arguments.pid,
        place,
        existing: Existing::Refuse,
        after: After::Stop,
        timeout: arguments.timeout,
        patience: PATIENCE,
        tcp: Tcp::Close,
        ghost_limit: arguments.ghost_limit,
    };
    context::run(async {
        let stop = Stop::new()?;
        let endpoint = context.builder(&config).connect_limit(REACH).bind().await?;
        let host = clean(&arguments.host);
        let deadline = arguments.timeout.map(|timeout| Instant::now() + timeout);
        let mut migration =
            Migration { arguments, endpoint, target, host, stop, deadline, view: View::new(), output };
        let result = migration.run(tools, how, departure, &moving).await;
        migration.view.end();
        // A second signal does not wait for farewells.
        let Migration { endpoint, mut stop, host, .. } = migration;
        tokio::select! {
            () = endpoint.close("") => {}
            () = stop.wait() => {}
        }
        result.map_err(|error| match error.downcast_ref() {
            Some(Error::Undecided { .. } | Error::Signal { .. }) => error,
            _ => error.context(format!(
                "process {} ({}) was not migrated to {host} and goes on here",
                moving.ask.root,
                clean(&moving.ask.name)
            )),
        })
    })
}

/// Processes that stand still, or are about to, with their images.
struct Held {
    standing: Standing,
    place: PathBuf,
    /// Its directory, where nobody named another.
    departure: Option<Departure>,
    /// Whether what is in that place is ours.
    saved: bool,
    /// Since when they stand, about.
    since: Instant,
    /// Whether they go on here when this is dropped.
    ours: bool,
}

impl Held {
    fn remove_images(&mut self) {
        if self.saved {
            let _gone = fs::remove_dir_all(&self.place);
        }
        if let Some(departure) = &mut self.departure {
            departure.decided();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.ours {
            self.standing.go_on();
            self.remove_images();
        }
    }
}

struct Migration<'a> {
    arguments: &'a Arguments,
    endpoint: Endpoint,
    target: Target,
    host: String,
    stop: Stop,
    deadline: Option<Instant>,
    view: View,
    output: &'a mut Output,
}

fn interrupted() -> anyhow::Error {
    Failure::new(Exit::Interrupted, "interrupted").into()
}

impl Migration<'_> {
    async fn run(
        &mut self,
        tools: Tools,
        mut how: Save,
        departure: Option<Departure>,
        moving: &Moving,
    ) -> anyhow::Result<Exit> {
        self.view.show(Stage::Connecting, (0, 0), None, self.output);
        let connected = tokio::select! {
            connected = self.endpoint.connect(self.target.clone()) => connected?,
            () = self.stop.wait() => return Err(interrupted()),
        };
        let mut talk = Talk::new(connected, self.arguments.wait);
        talk.say(&Said::Ask(moving.ask.clone())).await.map_err(|error| self.astray(error))?;
        match self.answer(&mut talk).await? {
            Said::Welcome { .. } => {}
            other => return Err(self.misunderstood(&other)),
        }
        let standing = Standing::of(moving)?;
        let (place, since) = (how.place.clone(), Instant::now());
        // What was used up so far counts.
        how.timeout = self.deadline.map(|deadline| deadline.saturating_duration_since(since));
        if how.timeout.is_some_and(|left| left.is_zero()) {
            return Err(self.late());
        }
        let mut held = Held { standing, place, departure, saved: false, since, ours: true };
        let saved = self.save(&mut talk, tools, how, &mut held).await?;
        held.standing.check()?;
        let bytes = self.copy(&mut talk, &saved).await?;
        if let Some(why) = held.standing.seize()? {
            let why = format!(
                "process {} cannot be held ({why}): until it runs on {}, no `kill -CONT` may let it go on",
                moving.ask.root, self.host
            );
            self.view.line(&why);
        }
        if let Some(departure) = &mut held.departure {
            departure.ordered(&moving.ask.name, &self.host)?;
        }
        // The point of no return.
        held.ours = false;
        let (there, faults) = match self.commit(&mut talk, moving, &held).await {
            Ok(runs) => runs,
            Err(error) => {
                held.ours = !matches!(error.downcast_ref(), Some(Error::Undecided { .. }));
                return Err(error);
            }
        };
        let still = held.since.elapsed();
        let ended = spawn_blocking(move || {
            let mut held = held;
            let ended = held.standing.end();
            held.remove_images();
            ended
        });
        ended.await??;
        let _over = talk.socket().close_within(LAST).await;
        self.view.end();
        // It runs there, whoever reads that.
        let _unread = self.told(&saved, there, bytes, still, &faults);
        Ok(Exit::Done)
    }

    fn told(
        &mut self,
        saved: &Saved,
        there: u32,
        bytes: u64,
        still: Duration,
        faults: &[String],
    ) -> anyhow::Result<()> {
        self.output.object(&json!({
            "event": "result",
            "pid": saved.manifest.root,
            "there": there,
            "host": self.host,
            "bytes": bytes,
            "still_ms": (still.as_secs_f64() * 1000.0).round(),
            "faults": faults,
            "exit": Exit::Done as u8,
        }))?;
        self.output.line(format!(
            "{} runs on {} as process {there}: {}, still for {:.1} s.",
            clean(&saved.manifest.describe()),
            self.host,
            amount::bytes(bytes),
            still.as_secs_f64()
        ))?;
        for fault in faults {
            super::tell(&format!("it runs there, without this: {fault}"));
        }
        Ok(())
    }

    fn astray(&self, why: impl ToString) -> anyhow::Error {
        Error::Astray { host: self.host.clone(), why: why.to_string() }.into()
    }

    fn elsewhere(&self, refusal: Refusal) -> anyhow::Error {
        Error::Elsewhere { host: self.host.clone(), refusal }.into()
    }

    fn misunderstood(&self, said: &Said) -> anyhow::Error {
        match said {
            Said::Refused(refusal) | Said::Failed(refusal) => self.elsewhere(refusal.clone()),
            _ => self.astray("it broke the protocol; is the same version on both hosts?"),
        }
    }

    fn late(&self) -> anyhow::Error {
        let (pid, host) = (self.arguments.pid, &self.host);
        let limit = self.arguments.timeout.unwrap_or_default();
        Error::Late { what: format!("process {pid} and copying it to {host}"), limit, more: String::new() }
            .into()
    }

    /// Waits until there is no time left.
    async fn timeout(deadline: Option<Instant>) {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    }

    /// The answer to a question that needs no work.
    async fn answer(&mut self, talk: &mut Talk) -> anyhow::Result<Said> {
        let heard = tokio::select! {
            heard = timeout(ANSWER, talk.hear()) => heard,
            () = Self::timeout(self.deadline) => return Err(self.late()),
            () = self.stop.wait() => return Err(interrupted()),
        };
        match heard {
            Ok(heard) => heard.map_err(|why| self.astray(why)),
            Err(_) => Err(self.astray("it does not answer")),
        }
    }

    /// Saves them, and they stand still.
    async fn save(
        &mut self,
        talk: &mut Talk,
        mut tools: Tools,
        how: Save,
        held: &mut Held,
    ) -> anyhow::Result<Saved> {
        let stopped = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Progress::Asking));
        let mut watcher = Watcher { stopped: Arc::clone(&stopped), seen: Arc::clone(&seen) };
        let mut saving = spawn_blocking(move || {
            let saved = save(&tools.criu, &how, None, &mut tools.publisher, &mut watcher);
            (saved, tools)
        });
        let (mut looks, mut reason) = (ticks(), None);
        let (saved, mut tools) = loop {
            tokio::select! {
                saved = &mut saving => break saved?,
                heard = talk.hear(), if reason.is_none() => {
                    reason = Some(match heard {
                        Ok(said) => self.misunderstood(&said),
                        Err(why) => self.astray(why),
                    });
                    stopped.store(true, Ordering::Release);
                }
                () = self.stop.wait() => {
                    reason.get_or_insert_with(interrupted);
                    stopped.store(true, Ordering::Release);
                }
                _ = looks.tick() => {
                    let now = *seen.lock().unwrap_or_else(PoisonError::into_inner);
                    self.view.saving(now, self.output);
                }
            }
        };
        self.arguments.talk.notes(&mut tools.publisher);
        // CRIU may fail when the images are in place already. What was there before is somebody else's.
        held.saved = !matches!(&saved, Err(SaveError::Failed(Error::Taken(_) | Error::Exists(_))));
        match (saved, reason) {
            (Ok(saved), None) => Ok(saved),
            // It came too late for that.
            (Ok(_), Some(reason)) => Err(reason),
            (Err(SaveError::Interrupted), Some(reason)) => Err(reason),
            (Err(SaveError::Failed(Error::Late { what, more, .. })), _) => {
                let limit = self.arguments.timeout.unwrap_or_default();
                Err(Error::Late { what, limit, more }.into())
            }
            (Err(error), _) => Err(with_exit(error)),
        }
    }

    /// Copies the images; how many bytes they have.
    async fn copy(&mut self, talk: &mut Talk, saved: &Saved) -> anyhow::Result<u64> {
        let files = files(&saved.place, &saved.manifest);
        let sizes = files.iter().filter_map(|file| Some(fs::metadata(file).ok()?.len()));
        let (count, bytes) = (files.len() as u64, sizes.sum());
        self.view.show(Stage::Copying, (0, bytes), None, self.output);
        talk.say(&Said::Images { files: count, bytes }).await.map_err(|error| self.astray(error))?;
        match self.answer(talk).await? {
            Said::Send => {}
            other => return Err(self.misunderstood(&other)),
        }
        let plan = spawn_blocking(move || Plan::new(&files)).await??;
        let sender = Sender::new(plan, Labels::background()).parked_limit(Some(self.arguments.wait));
        let monitor = Monitor::default();
        let (endpoint, target) = (self.endpoint.clone(), self.target.clone());
        let mut meter = Meter::new(&self.endpoint, Some(talk.socket().peer()), Direction::Sent);
        let sending = async {
            let socket = endpoint.connect(target).await?;
            sender.send(&socket, &monitor).await
        };
        let (mut sending, mut looks) = (std::pin::pin!(sending), ticks());
        let sent = loop {
            tokio::select! {
                sent = &mut sending => break sent,
                heard = talk.hear() => return Err(match heard {
                    Ok(said) => self.misunderstood(&said),
                    Err(why) => self.astray(why),
                }),
                () = Self::timeout(self.deadline) => return Err(self.late()),
                () = self.stop.wait() => return Err(interrupted()),
                _ = looks.tick() => {
                    let progress = monitor.progress();
                    meter.sample(progress.bytes);
                    self.view.show(Stage::Copying, (progress.done, bytes), Some(&meter), self.output);
                }
            }
        };
        if let Err(failure) = sent {
            return Err(self.not_sent(talk, failure).await);
        }
        let progress = monitor.progress();
        if let Some((path, words)) = progress.failures.first() {
            let words = format!("{}: {words}", steadfast_transfer::printable(path));
            return Err(self.elsewhere(Refusal::new(Class::Temporary, Errno::EIO, words)));
        }
        Ok(bytes)
    }

    /// Why the files are not there: the other side may say it better.
    async fn not_sent(&self, talk: &mut Talk, failure: SendFailure) -> anyhow::Error {
        if let Ok(Ok(said @ (Said::Failed(_) | Said::Refused(_)))) = timeout(LAST, talk.hear()).await {
            return self.misunderstood(&said);
        }
        match failure {
            SendFailure::Connect(_)
            | SendFailure::Lost(_)
            | SendFailure::Parked(_)
            | SendFailure::Idle(_) => self.astray(failure),
            other => anyhow::Error::from(other),
        }
    }

    /// Has it restored. Returns only if it surely runs there, or surely does not, or with [`Error::Undecided`].
    async fn commit(
        &mut self,
        talk: &mut Talk,
        moving: &Moving,
        held: &Held,
    ) -> anyhow::Result<(u32, Vec<String>)> {
        let go = talk.say(&Said::Go).await.map_err(|error| self.astray(error))?;
        let undecided = |host: &str, why: String| {
            anyhow::Error::from(Error::Undecided {
                pid: moving.ask.root,
                name: moving.ask.name.clone(),
                host: host.to_owned(),
                why,
                images: held.place.clone(),
            })
        };
        let (mut looks, mut taken, mut asked_back) = (ticks(), false, false);
        loop {
            tokio::select! {
                biased;
                heard = talk.hear() => match heard {
                    Ok(Said::Runs { pid, faults }) => return Ok((pid, faults)),
                    Ok(said @ (Said::Failed(_) | Said::Refused(_))) => return Err(self.misunderstood(&said)),
                    Ok(_) => return Err(undecided(&self.host, "it broke the protocol".to_owned())),
                    Err(why) => {
                        if surely_not(talk, &go).await {
                            return Err(self.astray(why));
                        }
                        return Err(undecided(&self.host, why));
                    }
                },
                outcome = go.outcome(), if !taken => {
                    if let Outcome::Dropped(_) = outcome {
                        return Err(interrupted());
                    }
                    taken = true;
                }
                () = self.stop.wait() => {
                    if asked_back {
                        return Err(undecided(&self.host, "this command was interrupted while it was restored".to_owned()));
                    }
                    asked_back = true;
                    self.view.line("It may be running there already: waiting for the answer. Ctrl-C once more does not wait.");
                    let _late = talk.socket().cancel(go.id());
                }
                _ = looks.tick() => self.view.show(Stage::Restoring, (0, 0), None, self.output),
            }
        }
    }
}

/// Whether the other side surely never heard that it is to restore.
async fn surely_not(talk: &Talk, go: &Receipt) -> bool {
    let _over = talk.socket().cancel(go.id());
    tokio::select! {
        outcome = go.outcome() => matches!(outcome, Outcome::Dropped(_)),
        () = sleep(LAST) => false,
    }
}

fn ticks() -> tokio::time::Interval {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

/// Tells how far saving is, and hears that it is to stop.
struct Watcher {
    stopped: Arc<AtomicBool>,
    seen: Arc<Mutex<Progress>>,
}

impl Observer for Watcher {
    fn progress(&mut self, progress: Progress) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    fn interrupted(&mut self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}
