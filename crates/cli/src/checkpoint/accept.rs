//! `steadfast checkpoint accept`: processes of other hosts may move to this one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use steadfast::{Endpoint, Fingerprint, Stranger};
use steadfast_checkpoint::{Criu, Ended, Woken, prepare};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::guest::{Hall, Note};
use super::hooks::Hooks;
use super::mimic;
use crate::config::Config;
use crate::context::{self, Context};
use crate::exit::{Exit, Failure};
use crate::output::{Output, clean};
use crate::transfer::{Stop, announce};

/// What waits to be told, at most.
const NOTES: usize = 256;
/// How soon it is told again that the same peer was turned away.
const AGAIN: Duration = Duration::from_secs(60);
/// Strangers that are told once each.
const STRANGERS: usize = 1024;

#[derive(Debug, Args)]
#[command(after_help = "\
Prints the line that the other host runs, and waits. Whoever may migrate processes to here runs programs as root on this host, so \
each has to be named with --from: being trusted for conversations or files is not enough.

A program that came runs in a session of its own, under a process that is its parent and passes signals on to it, and goes on when \
this command ends. What it prints to a pipe goes to this command's standard error. It gets the process numbers that it had.

Exit codes: 0 stopped by Ctrl-C; 1 failed; 2 usage. With --once it ends as the program does that came.

Examples:
  steadfast checkpoint accept --from boat
  steadfast checkpoint accept --from kx4v...2a --once --max-size 8000000000
  unshare --pid --fork --mount-proc steadfast checkpoint accept --from boat")]
pub(crate) struct Arguments {
    /// Who may migrate programs to here and so run them as root: a key, or the name of a trusted one; may be given several times.
    #[arg(long, required = true, value_name = "PEER")]
    from: Vec<String>,
    /// Where images lie while they come [default: migrated, in ~/.local/state/steadfast].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Take one program, and end as it does.
    #[arg(long)]
    once: bool,
    /// Leave the images where they are when a program runs; without it they are removed.
    #[arg(long)]
    keep: bool,
    /// The most bytes that the images of one migration may have; a tenth of what is free stays free anyway.
    #[arg(long, value_name = "BYTES")]
    max_size: Option<u64>,
    /// The port to listen on [default: the one of the configuration, 7463, or any other if that is taken].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    #[command(flatten)]
    hooks: Hooks,
}

/// As the first process of a PID namespace, which ends with it: another one accepts, and this one stays until all are gone.
fn stay() -> anyhow::Result<ExitCode> {
    let masked = super::mask()?;
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1));
    let child = masked.lifted(|| command.spawn()).context("cannot start what accepts")?;
    let ended = loop {
        if let Woken::Ended(ended) = masked.wait(child.id(), None).context("cannot wait for what accepts")? {
            break ended;
        }
    };
    while !matches!(
        rustix::process::wait(rustix::process::WaitOptions::empty()),
        Err(rustix::io::Errno::CHILD)
    ) {}
    drop(masked);
    Ok(match ended {
        Ended::Code(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Ended::Signal(_) => Exit::Failed.into(),
    })
}

pub(super) fn run(arguments: &Arguments, context: &Context, output: &mut Output) -> anyhow::Result<ExitCode> {
    if std::process::id() == 1 {
        return stay();
    }
    let config = context.config()?;
    let criu = Criu::find(config.checkpoint.criu.as_deref())?;
    criu.check()?;
    let allowed = allowed(arguments, context, &config)?;
    let named = arguments.dir.clone().unwrap_or_else(|| super::migrated(context));
    let directory = prepare(&named)?;
    super::tell_left(context);
    let mut words = context.config_words();
    words.extend(arguments.keep.then(|| "--keep".into()));
    words.extend(arguments.hooks.words().into_iter().map(Into::into));
    let (notes, told) = mpsc::channel(NOTES);
    let hall = Hall {
        allowed,
        directory,
        max: arguments.max_size,
        keep: arguments.keep,
        once: arguments.once,
        criu,
        words,
        notes,
        guests: std::sync::Mutex::default(),
        closed: AtomicBool::new(false),
    };
    let ended = context::run(async {
        let stop = Stop::new()?;
        let endpoint = context.listen(&config, arguments.port, |builder| builder).await?;
        hall.allowed.iter().for_each(|key| endpoint.trust(*key));
        let from: Vec<_> = hall.allowed.iter().map(ToString::to_string).collect();
        let more = [("directory", json!(hall.directory)), ("from", from.into())];
        let lead = "To move a process here, run on its host, as root:";
        let command = |host: &str| format!("steadfast checkpoint migrate PID {host}");
        announce(&endpoint, command, lead, &more, output)?;
        let once = arguments.once;
        let accepting = Accepting {
            hall: Arc::new(hall),
            endpoint,
            context,
            once,
            taken: None,
            known: HashSet::new(),
            refused: HashMap::new(),
            output,
        };
        accepting.run(stop, told).await
    })?;
    Ok(match ended {
        None => ExitCode::SUCCESS,
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => mimic::mimic(Ended::Code(code)),
            (None, Some(signal)) => mimic::mimic(Ended::Signal(signal)),
            (None, None) => Exit::Failed.into(),
        },
    })
}

/// The keys that `--from` means.
fn allowed(
    arguments: &Arguments,
    context: &Context,
    config: &Config,
) -> anyhow::Result<BTreeSet<Fingerprint>> {
    let trusted = context.trusted()?;
    let key = |name: &String| -> anyhow::Result<Fingerprint> {
        let known = name.trim().parse().ok().or_else(|| trusted.find_by_name(name.trim()));
        let found = known.or_else(|| config.hosts.get(name.trim())?.0.fingerprint);
        found.ok_or_else(|| {
            Failure::usage(format!(
                "cannot accept anything from `{name}`: no trusted key has that name; `steadfast trust add KEY {name}` gives it one, \
                 or write the key itself, which `steadfast id` prints there"
            ))
            .into()
        })
    };
    arguments.from.iter().map(key).collect()
}

struct Accepting<'a> {
    hall: Arc<Hall>,
    endpoint: Endpoint,
    context: &'a Context,
    once: bool,
    /// The program that came, where one is enough.
    taken: Option<u32>,
    /// Strangers that were told.
    known: HashSet<Fingerprint>,
    /// When it was last told who was turned away.
    refused: HashMap<Fingerprint, Instant>,
    output: &'a mut Output,
}

impl Accepting<'_> {
    /// How the one program ended, if that is why this ends.
    async fn run(
        mut self,
        mut stop: Stop,
        mut told: mpsc::Receiver<Note>,
    ) -> anyhow::Result<Option<ExitStatus>> {
        let mut tasks = JoinSet::new();
        let ended = loop {
            tokio::select! {
                socket = self.endpoint.accept() => {
                    let Some(socket) = socket else { break None };
                    tasks.spawn(Arc::clone(&self.hall).serve(socket));
                }
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                Some(note) = told.recv() => {
                    let ended = self.note(note);
                    if ended.is_some() {
                        break ended;
                    }
                }
                stranger = self.endpoint.next_stranger() => {
                    let Some(stranger) = stranger else { break None };
                    let _unread = self.stranger(&stranger);
                }
                () = stop.wait() => break None,
            }
        };
        // What is being restored is waited for: the other side has to hear of it. A second signal does not wait.
        while self.hall.close() {
            tokio::select! {
                Some(note) = told.recv() => drop(self.note(note)),
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
                () = stop.wait() => break,
            }
        }
        tokio::select! {
            () = self.endpoint.close("") => {}
            () = stop.wait() => {}
        }
        while let Ok(note) = told.try_recv() {
            self.note(note);
        }
        if ended.is_none() {
            self.output.object(&json!({ "event": "stopped", "exit": Exit::Done as u8 }))?;
        }
        Ok(ended)
    }

    fn name_of(&self, peer: &Fingerprint) -> String {
        let trusted = self.context.trusted().ok();
        trusted.and_then(|file| file.name_of(peer).map(clean)).unwrap_or_else(|| peer.to_string())
    }

    fn stranger(&mut self, stranger: &Stranger) -> anyhow::Result<()> {
        let (key, address) = (stranger.key, stranger.address);
        if self.known.len() >= STRANGERS || !self.known.insert(key) {
            return Ok(());
        }
        self.output
            .object(&json!({ "event": "refused", "key": key.to_string(), "address": address.to_string() }))?;
        self.output.line(format!(
            "Refused {key} at {address}: --from {key} would let it run programs here, as root."
        ))?;
        Ok(())
    }

    /// How the one program ended that was waited for. Others depend on this process, so it goes on where nobody reads.
    fn note(&mut self, note: Note) -> Option<ExitStatus> {
        let mut ended = None;
        match &note {
            Note::Refused { peer, .. } => {
                let told = self.refused.get(peer).is_some_and(|at| at.elapsed() < AGAIN);
                if told || self.refused.len() >= STRANGERS && !self.refused.contains_key(peer) {
                    return None;
                }
                self.refused.insert(*peer, Instant::now());
            }
            Note::Runs { pid, .. } if self.once => {
                self.taken.get_or_insert(*pid);
            }
            Note::Ended { pid, status, .. } if self.taken == Some(*pid) => ended = Some(*status),
            _ => {}
        }
        let _unread = self.tell(note);
        ended
    }

    fn tell(&mut self, note: Note) -> anyhow::Result<()> {
        let peer_of = |peer: &Fingerprint| peer.to_string();
        match note {
            Note::Refused { peer, words } => {
                self.output.object(&json!({ "event": "refused", "key": peer_of(&peer), "reason": words }))?;
                let name = self.name_of(&peer);
                self.output.line(format!("Refused {name}: {}.", clean(&words)))?;
            }
            Note::Comes { peer, name, pid } => {
                self.output
                    .object(&json!({ "event": "comes", "peer": peer_of(&peer), "pid": pid, "name": name }))?;
                let from = self.name_of(&peer);
                self.output.line(format!("Process {pid} ({}) is to come from {from}.", clean(&name)))?;
            }
            Note::Failed { peer, name, pid, words } => {
                self.output.object(
                    &json!({ "event": "failed", "peer": peer_of(&peer), "pid": pid, "name": name, "error": words }),
                )?;
                let from = self.name_of(&peer);
                let words = clean(&words);
                self.output
                    .line(format!("Process {pid} ({}) did not come from {from}: {words}.", clean(&name)))?;
            }
            Note::Runs { peer, name, pid, faults } => {
                self.output.object(
                    &json!({ "event": "runs", "peer": peer_of(&peer), "pid": pid, "name": name, "faults": faults }),
                )?;
                let from = self.name_of(&peer);
                self.output.line(format!("Process {pid} ({}) came from {from}, and runs.", clean(&name)))?;
            }
            Note::Ended { pid, name, status } => {
                self.output.object(&json!({
                    "event": "ended", "pid": pid, "name": name, "code": status.code(), "signal": status.signal(),
                }))?;
                self.output.line(format!("Process {pid} ({}) ended: {status}.", clean(&name)))?;
            }
        }
        Ok(())
    }
}
