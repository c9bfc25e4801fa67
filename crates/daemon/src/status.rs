//! The daemon's second socket: questions about the host, one JSON object a line, answered in the same way.
//!
//! A question is `{"version": 1, "ask": "status"}` or `{"version": 1, "ask": "networks"}`; with `"follow": true` the second is
//! answered again whenever something changes. `{"version": 1, "tell": {"event": "PATH_DOWN", ..}}` publishes a fault of the
//! asking process ([`Told`]) and is not answered. What cannot be answered is `{"version": 1, "error": ".."}`.
//!
//! `{"version": 1, "attach": {..}}` makes of the connection that of an attached process: [`steadfast::host`]. Who asks for the status
//! sees the processes and clients of his own user; root sees all.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::Network;
use steadfast::host::{Attach, State};
use steadfast_backplane::Process;
use steadfast_net::Scout;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::attached;
use crate::daemon::Shared;
use crate::faults::{Measure, Told};
use crate::nats::nkey;
use crate::process::name_of;
use crate::sinks::SinkStatus;
use crate::socket::process_of;
use crate::ways::WayStatus;
use users::{Asker, CROWDED, USER_FOLLOWERS, Users};

mod users;

/// The version that is spoken here.
pub const VERSION: u32 = 1;
/// The most bytes of a question.
const MAX_QUESTION: u64 = 16 * 1024;
/// How long somebody may take to ask, and to read an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// What somebody asks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Question {
    /// [`VERSION`].
    pub version: u32,
    /// What about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<Subject>,
    /// Something that happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tell: Option<Told>,
    /// To be told again when it changes.
    #[serde(default)]
    pub follow: bool,
    /// To become an attached process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attach: Option<Attach>,
}

/// What can be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// All there is to know.
    Status,
    /// The networks of this host.
    Networks,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`].
    pub version: u32,
    /// The answer to [`Subject::Status`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// The answer to [`Subject::Networks`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<NetworkStatus>>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The daemon and its host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the program.
    pub program: String,
    /// The daemon's process.
    pub pid: u32,
    /// For how long it runs, in seconds.
    pub uptime: f64,
    /// The host, as its events name it.
    pub host: String,
    /// Its public key.
    pub key: String,
    /// The same as NATS writes it, for a server that is to let it in.
    #[serde(default)]
    pub nkey: String,
    /// Its networks.
    pub networks: Vec<NetworkStatus>,
    /// The backplane's agent.
    pub agent: AgentStatus,
    /// The processes that are attached, of the user who asks.
    #[serde(default)]
    pub processes: Vec<ProcessStatus>,
    /// Where events go to and come from, other than this host.
    #[serde(default)]
    pub ways: Vec<WayStatus>,
    /// Where events go on this host besides its clients.
    #[serde(default)]
    pub sinks: Vec<SinkStatus>,
    /// `KEY@ADDRESS:PORT` for the `hosts` of another daemon's `[daemon.exchange]`; none if there is no such section here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// The number of its interface.
    pub id: u32,
    /// The interface's or the configured name.
    pub name: String,
    /// The interface.
    #[serde(default)]
    pub interface: String,
    /// `ethernet`, `wifi`, `cellular`, `satellite`, `loopback`, `other`.
    pub class: String,
    /// Whether it costs by volume.
    pub metered: bool,
    /// As configured; 0 unless set.
    pub cost: u8,
    /// Its addresses.
    pub addresses: Vec<String>,
}

/// A process that is attached, or one endpoint of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Its number.
    pub pid: u32,
    /// What it is called.
    pub process: String,
    /// Its user.
    pub user: u32,
    /// The key of the endpoint.
    pub key: String,
    /// For how long it is attached, in seconds.
    pub attached: f64,
    /// What it does on networks.
    pub networks: Vec<PartStatus>,
    /// Its conversations and peers.
    #[serde(flatten)]
    pub state: State,
}

/// What a process does on a network, and may do. Bytes a second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartStatus {
    /// The network.
    pub network: String,
    /// Paths there.
    pub paths: u32,
    /// Foreground that arrived.
    pub foreground: u64,
    /// Background that arrived.
    pub background: u64,
    /// How much background it may have; none if nobody else wants the network.
    pub allowed: Option<u64>,
}

/// The agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Where its socket is.
    pub socket: String,
    /// Why the journal cannot be written; none if it can.
    pub storage_fault: Option<String>,
    /// Who is attached, of the user who asks.
    pub clients: Vec<ClientStatus>,
    /// What was counted since the start; names that end in `_now` tell what there is.
    pub counters: std::collections::BTreeMap<String, u64>,
}

/// A client of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientStatus {
    /// What it calls itself.
    pub name: String,
    /// Where it publishes, if it does.
    pub space: Option<String>,
    /// Its process.
    pub pid: u32,
    /// What the process is called.
    pub process: String,
    /// Its user.
    pub user: u32,
    /// Its subscriptions.
    pub subscriptions: usize,
    /// Events that it has published.
    pub published: u64,
    /// Events that wait for it.
    pub waiting: usize,
}

impl NetworkStatus {
    fn of(network: &Network, scout: &Scout) -> Self {
        Self {
            id: network.id.0,
            name: network.name.clone(),
            interface: scout.device_of(network.id).unwrap_or_else(|| network.name.clone()),
            class: network.class.name().into(),
            metered: network.metered,
            cost: network.cost,
            addresses: network
                .addresses
                .iter()
                .map(|address| format!("{}/{}", address.ip, address.prefix))
                .collect(),
        }
    }
}

impl Answer {
    const NOTHING: Self = Self { version: VERSION, status: None, networks: None, error: None };

    fn error(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::NOTHING }
    }
}

pub(crate) fn networks_of(scout: &Scout) -> Vec<NetworkStatus> {
    scout.networks().iter().map(|network| NetworkStatus::of(network, scout)).collect()
}

fn status(shared: &Shared, user: u32) -> Status {
    let hub = &shared.hub;
    let (counters, clients, host) = hub.peek(|server| {
        let mut counters = std::collections::BTreeMap::new();
        server.agent().metrics().visit(|name, value| {
            counters.insert(name.to_owned(), value);
        });
        counters.insert("connections_now".into(), server.connections() as u64);
        counters.insert("violations".into(), server.violations());
        (counters, server.agent().clients(), *server.agent().host())
    });
    let seen = clients.into_iter().filter(|client| user == 0 || client.process.user == user);
    let clients = seen.map(|client| ClientStatus {
        name: client.client.name.to_string(),
        space: client.space.map(|space| space.to_string()),
        pid: client.process.pid,
        process: name_of(client.process.pid),
        user: client.process.user,
        subscriptions: client.subscriptions,
        published: client.published,
        waiting: client.waiting,
    });
    let mut sinks = shared.sinks.status();
    if user != 0 && user != rustix::process::geteuid().as_raw() {
        // It names files and commands of whoever runs the daemon.
        for sink in &mut sinks {
            sink.fault = None;
        }
    }
    Status {
        program: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        uptime: shared.started.elapsed().as_secs_f64(),
        host: host.name.to_string(),
        key: host.origin.to_string(),
        nkey: nkey(&host.origin),
        processes: shared.attached.status(user),
        ways: hub.ways().iter().map(|way| way.status()).collect(),
        sinks,
        exchange: shared.exchange.as_ref().map(|exchange| exchange.endpoint.contact()),
        networks: networks_of(&shared.scout),
        agent: AgentStatus {
            socket: shared.socket.display().to_string(),
            storage_fault: hub.storage_fault(),
            clients: clients.collect(),
            counters,
        },
    }
}

/// Answers for as long as the daemon runs.
pub(crate) async fn accept(shared: &Arc<Shared>, listener: &UnixListener) {
    let users = Arc::new(Users::default());
    loop {
        let accepted = listener.accept().await.and_then(|(stream, _)| Ok((process_of(&stream)?, stream)));
        let Ok((process, stream)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some(asker) = users.enter(process.user) else {
            if let Ok(line) = line_of(&Answer::error(CROWDED)) {
                let _as_far_as_it_goes = stream.try_write(&line);
            }
            continue;
        };
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let _gone = serve(&shared, stream, &process, &asker).await;
        });
    }
}

/// What somebody said.
enum Heard {
    Told(Told),
    Attach(Attach),
    Status,
    Networks { follow: bool },
    Wrong(String),
}

impl Heard {
    fn of(line: &str, follows: bool) -> Self {
        match serde_json::from_str::<Question>(line) {
            Ok(question) if question.version != VERSION => Self::Wrong(format!(
                "this daemon speaks version {VERSION}, not {}; update the older of both",
                question.version
            )),
            Ok(Question { tell: Some(told), .. }) => Self::Told(told),
            Ok(Question { attach: Some(attach), .. }) if !follows => Self::Attach(attach),
            Ok(Question { ask: Some(Subject::Status), .. }) => Self::Status,
            Ok(Question { ask: Some(Subject::Networks), follow, .. }) => Self::Networks { follow },
            Ok(Question { ask: None, .. }) => Self::Wrong(
                "nothing is asked and nothing told; ask like {\"version\": 1, \"ask\": \"status\"}".into(),
            ),
            Err(error) => {
                let example = r#"{"version": 1, "ask": "status"}"#;
                Self::Wrong(format!("cannot understand that ({error}); ask like {example}"))
            }
        }
    }
}

async fn serve(shared: &Shared, stream: UnixStream, process: &Process, asker: &Asker) -> io::Result<()> {
    let mut measure = Measure::new();
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    let mut networks = shared.scout.subscribe();
    let mut follows = false;
    loop {
        let line = tokio::select! {
            line = line(&mut lines) => match line? {
                Some(line) => line,
                None => return Ok(()),
            },
            // Who says nothing holds no descriptor for long.
            () = tokio::time::sleep(LIMIT), if !follows => return Ok(()),
            () = asker.ended() => {
                let _as_far_as_it_goes = write.try_write(&line_of(&Answer::error(CROWDED))?);
                return Ok(());
            }
            changed = networks.changed(), if follows => {
                if changed.is_err() {
                    return Ok(());
                }
                networks.mark_unchanged();
                let answer = Answer { networks: Some(networks_of(&shared.scout)), ..Answer::NOTHING };
                say(&mut write, &answer).await?;
                continue;
            }
        };
        let (mut heard, mut last) = (Heard::of(&line, follows), false);
        if let Heard::Told(told) = heard {
            match shared.faults.hear(&shared.hub, &mut measure, process, told) {
                Ok(()) => continue,
                Err(error) => heard = Heard::Wrong(error),
            }
        }
        if let Heard::Attach(attach) = heard {
            match shared.attached.enter(*process, attach) {
                Ok(guard) => {
                    // It has a bound of its own from here on.
                    asker.attach();
                    let read = lines.buffer().to_vec();
                    let stream = lines.into_inner().reunite(write).map_err(io::Error::other)?;
                    return attached::serve(shared, stream, &read, &guard).await;
                }
                Err(error) => (heard, last) = (Heard::Wrong(error), true),
            }
        }
        if let Heard::Networks { follow: true } = heard
            && !follows
        {
            follows = asker.follow();
            if !follows {
                heard = Heard::Wrong(format!(
                    "{USER_FOLLOWERS} of this user, or too many of all, are told of changes already; ask without `follow`"
                ));
            }
        }
        let said = async {
            let (costs, user) = (matches!(heard, Heard::Status), process.user);
            let make = || match heard {
                Heard::Status => Answer { status: Some(status(shared, user)), ..Answer::NOTHING },
                Heard::Wrong(error) => Answer::error(error),
                // Those that need no such answer are dealt with.
                Heard::Networks { .. } | Heard::Told(_) | Heard::Attach(_) => {
                    networks.mark_unchanged();
                    Answer { networks: Some(networks_of(&shared.scout)), ..Answer::NOTHING }
                }
            };
            let Some((answer, _place)) = asker.answer(costs, make).await else { return Ok(()) };
            say(&mut write, &answer).await
        };
        tokio::select! {
            said = said => said?,
            () = asker.ended() => return Ok(()),
        }
        if last {
            return Ok(());
        }
    }
}

/// A line that is no longer than it may be; none at the end. Not cancel safe in the middle of a line, whose rest is then a fault.
async fn line(lines: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = String::new();
    lines.take(MAX_QUESTION).read_line(&mut line).await?;
    Ok(line.ends_with('\n').then_some(line))
}

async fn say(write: &mut (impl tokio::io::AsyncWrite + Unpin), answer: &Answer) -> io::Result<()> {
    tokio::time::timeout(LIMIT, write.write_all(&line_of(answer)?)).await?
}

fn line_of(answer: &Answer) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    Ok(line)
}
