//! `steadfast status`: what the host's daemon knows.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use steadfast::host::{PeerState, SessionState};
use steadfast_daemon::status::{Answer, ClientStatus, ProcessStatus, Question, Status, Subject, VERSION};
use steadfast_daemon::{SinkStatus, WayStatus};
use steadfast_net::dial;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Table, clean};

/// How long the daemon may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How long before it is tried again where too many wait.
const CROWDED: Duration = Duration::from_millis(5);

#[derive(Debug, Args)]
#[command(after_help = "\
Asks the daemon of this host (steadfast daemon). Exit code 4: there is none. Of processes that use Steadfast you see those of \
your user, with their conversations and peers; root sees all. A process tells at most 64 of each, first what is parked or gone.

Examples:
  steadfast status
  steadfast status --json | jq .status.agent.counters
  steadfast status --json | jq '.status.processes[] | {process, pid, sessions}'")]
pub(crate) struct Arguments {}

pub(crate) fn run(Arguments {}: &Arguments, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    let path = crate::events::socket(&context.config()?).with_file_name("daemon.sock");
    let answer = ask(&path).map_err(|error| {
        let path = path.display();
        let help = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => "start it with `steadfast daemon`",
            io::ErrorKind::PermissionDenied => "ask as a user to whom its `socket-mode` allows it",
            _ => "it runs but does not answer; try again, or look at its log",
        };
        Failure::new(
            Exit::Unreachable,
            format!("cannot ask the daemon of this host at {path}: {error}; {help}"),
        )
    })?;
    let Some(status) = answer.status else {
        let reason = answer.error.unwrap_or_else(|| "it says nothing".into());
        return Err(
            Failure::new(Exit::Failed, format!("the daemon does not answer: {}", clean(&reason))).into()
        );
    };
    output.object(&json!({ "status": status }))?;
    print(&status, output)?;
    Ok(Exit::Done)
}

fn ask(path: &std::path::Path) -> io::Result<Answer> {
    let until = Instant::now() + LIMIT;
    let mut stream = loop {
        match dial(path) {
            // Too many wait there to be let in.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                std::thread::sleep(CROWDED);
            }
            dialled => break dialled?,
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let question = Question { version: VERSION, ask: Some(Subject::Status), ..Question::default() };
    let mut line = serde_json::to_vec(&question)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

fn print(status: &Status, output: &mut Output) -> anyhow::Result<()> {
    let Status { program, pid, host, key, networks, agent, .. } = status;
    let uptime = age(status.uptime as u64);
    output
        .line(format!("Daemon {program}, process {pid}, for {uptime}. Host {}, key {key}.", clean(host)))?;
    let mut table = Table::new(["NETWORK", "CLASS", "METERED", "COST", "ADDRESSES"]);
    for network in networks {
        let metered = if network.metered { "yes" } else { "no" };
        let addresses = network.addresses.join(" ");
        table.row([
            clean(&network.name).as_ref(),
            &network.class,
            metered,
            &network.cost.to_string(),
            &addresses,
        ]);
    }
    output.line(String::new())?;
    output.table(&table)?;
    print_processes(&status.processes, output)?;
    output.line(String::new())?;
    let count = |name: &str| agent.counters.get(name).copied().unwrap_or_default();
    output.line(format!(
        "Agent at {}: {} clients, {} events published, {} acknowledged, {} from other hosts, {} given up in full queues, {} refused.",
        clean(&agent.socket),
        count("clients_now"),
        count("published"),
        count("acknowledged"),
        count("remote"),
        count("dropped"),
        ["undeclared", "denied", "too_fast", "outbox_full", "not_stored"].iter().map(|name| count(name)).sum::<u64>(),
    ))?;
    if let Some(fault) = &agent.storage_fault {
        output
            .line(format!("The journal cannot be written, so nothing is acknowledged: {}.", clean(fault)))?;
    }
    print_ways(status, output)?;
    print_sinks(&status.sinks, output)?;
    if !agent.clients.is_empty() {
        let mut table =
            Table::new(["CLIENT", "PROCESS", "USER", "EVENT SPACE", "SUBSCRIPTIONS", "PUBLISHED", "WAITING"]);
        for ClientStatus { name, space, pid, process, user, subscriptions, published, waiting } in
            &agent.clients
        {
            let process = format!("{} {pid}", clean(process));
            table.row([
                clean(name).as_ref(),
                &process,
                &user.to_string(),
                space.as_deref().unwrap_or("-"),
                &subscriptions.to_string(),
                &published.to_string(),
                &waiting.to_string(),
            ]);
        }
        output.line(String::new())?;
        output.table(&table)?;
    }
    Ok(())
}

/// A time for people, in its two largest units.
fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Where events go to and come from, other than this host.
fn print_ways(status: &Status, output: &mut Output) -> anyhow::Result<()> {
    if !status.ways.is_empty() {
        let mut table = Table::new(["WAY", "CONNECTED", "SENT", "LOST", "RECEIVED", "REFUSED"]);
        for WayStatus { name, connected, sent, lost, received, refused, .. } in &status.ways {
            let counts = [sent, lost, received, refused].map(ToString::to_string);
            let [sent, lost, received, refused] = counts.each_ref().map(String::as_str);
            let connected = if *connected { "yes" } else { "no" };
            table.row([clean(name).as_ref(), connected, sent, lost, received, refused]);
        }
        output.line(String::new())?;
        output.table(&table)?;
        for WayStatus { name, fault, .. } in &status.ways {
            if let Some(fault) = fault {
                output.line(format!("Way {}: {}.", clean(name), clean(fault)))?;
            }
        }
    }
    if let Some(exchange) = &status.exchange {
        output
            .line(format!("Other hosts name this one in their [daemon.exchange] as {}.", clean(exchange)))?;
    }
    Ok(())
}

fn print_sinks(sinks: &[SinkStatus], output: &mut Output) -> anyhow::Result<()> {
    if sinks.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(["SINK", "TO", "DELIVERED", "DROPPED", "FAILED", "WAITING"]);
    for SinkStatus { name, kind, delivered, dropped, failed, waiting, .. } in sinks {
        let counts = [delivered, dropped, failed, waiting].map(ToString::to_string);
        let [delivered, dropped, failed, waiting] = counts.each_ref().map(String::as_str);
        table.row([clean(name).as_ref(), clean(kind).as_ref(), delivered, dropped, failed, waiting]);
    }
    output.line(String::new())?;
    output.table(&table)?;
    for SinkStatus { name, fault, .. } in sinks {
        if let Some(fault) = fault {
            output.line(format!("Sink {}: {}.", clean(name), clean(fault)))?;
        }
    }
    Ok(())
}

/// What processes tell of their conversations, peers and networks.
fn print_processes(processes: &[ProcessStatus], output: &mut Output) -> anyhow::Result<()> {
    let title = |process: &ProcessStatus| format!("{} {}", process.process, process.pid);
    let mut parts =
        Table::new(["PROCESS", "USER", "NETWORK", "PATHS", "FOREGROUND", "BACKGROUND", "ITS SHARE"]);
    let mut sessions = Table::new(["PROCESS", "SESSION", "PEER", "STATE", "QUEUED", "VERDICT"]);
    let mut peers = Table::new(["PROCESS", "PEER", "VERDICT", "NETWORKS", "EVIDENCE"]);
    let (mut listed, mut all) = ([0, 0], [0, 0]);
    for process in processes {
        let (title, user, state) = (title(process), process.user.to_string(), &process.state);
        if process.networks.is_empty() {
            parts.row([title.as_str(), &user, "-", "-", "-", "-", "-"]);
        }
        for part in &process.networks {
            let rate = |bytes: u64| format!("{} kB/s", bytes / 1000);
            parts.row([
                title.as_str(),
                &user,
                &part.network,
                &part.paths.to_string(),
                &rate(part.foreground),
                &rate(part.background),
                &part.allowed.map_or("all".into(), rate),
            ]);
        }
        for session in &state.sessions {
            let queued = format!("{} B", session.queued);
            let SessionState { session, peer, state, verdict, .. } = session;
            sessions.row([title.as_str(), session, peer, state, &queued, verdict]);
        }
        for peer in &state.peers {
            let PeerState { peer, verdict, evidence, networks } = peer;
            let networks = if networks.is_empty() { "-".into() } else { networks.join(" ") };
            peers.row([title.as_str(), peer, verdict, &networks, evidence]);
        }
        for (count, more) in listed.iter_mut().zip([state.sessions.len(), state.peers.len()]) {
            *count += more as u64;
        }
        for (count, more) in all.iter_mut().zip([state.all_sessions, state.all_peers]) {
            *count += more;
        }
    }
    let tables = [(parts, None), (sessions, Some((listed[0], all[0]))), (peers, Some((listed[1], all[1])))];
    for (table, counts) in tables {
        if table.is_empty() {
            continue;
        }
        output.line(String::new())?;
        output.table(&table)?;
        if let Some((listed, all)) = counts.filter(|(listed, all)| listed < all) {
            output.line(format!("... and {} more.", all - listed))?;
        }
    }
    Ok(())
}
