//! What idle conversations cost: many in one association, and many associations with one each.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use steadfast::{Bytes, Endpoint, Identity, Labels, MultiSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::child::{Child, Console, Place, tell};
use crate::outcome::Outcome;
use crate::spread::Spread;
use crate::systems::{Connect, Connected, Ground, Keys, Listen, Listening, endpoint, introduce};
use crate::usage::{cpu_seconds, raise_descriptor_limit, resident_bytes};
use crate::{Effort, Part};

const SCENARIO: &str = "idle";
const SYSTEM: &str = "steadfast";
const SESSIONS: usize = 5000;
const ASSOCIATIONS: usize = 1000;
/// What each conversation has exchanged before it is idle, in each direction.
const MESSAGE: usize = 100;
/// Conversations that are opened at once.
const AT_ONCE: usize = 32;
/// From the last exchange to the first look at memory.
const SETTLE: Duration = Duration::from_secs(3);
const GUARD: Duration = Duration::from_secs(120);

/// Orders to the client.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// Open so many conversations and exchange a message in each.
    Open(usize),
    /// Tell what is used.
    Look,
}

/// The client has opened them.
#[derive(Debug, Serialize, Deserialize)]
struct Opened;

/// What a process uses.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Usage {
    resident: u64,
    cpu_seconds: f64,
}

impl Usage {
    fn now() -> anyhow::Result<Self> {
        Ok(Self { resident: resident_bytes()?, cpu_seconds: cpu_seconds() })
    }
}

/// What one conversation costs at both ends together.
struct Cost {
    bytes: f64,
    cpu_percent: f64,
}

pub(crate) fn run(effort: Effort) -> anyhow::Result<Outcome> {
    let (rounds, idle) = effort.of((1, 10), (3, 20));
    let mut outcome = Outcome::new("sessions");
    outcome.condition("rounds", rounds);
    outcome.condition("idle_seconds", idle);
    outcome.condition("sessions", SESSIONS);
    outcome.condition("associations", ASSOCIATIONS);
    outcome.condition("runtime", "tokio, current thread");
    outcome.condition(
        "processes",
        "one server endpoint in one process; one client endpoint for all sessions, or one for each association (its \
         listener, scout and identity included), in another; one thread each",
    );
    outcome.condition(
        "idle",
        "a message of 100 B was exchanged in each; the sockets are held and nothing waits",
    );
    outcome.condition("memory", "growth of resident memory of both processes, divided by the count");
    outcome.condition("encryption", "TLS 1.3");
    let mut costs = Vec::new();
    for round in 1..=rounds {
        for (part, count) in [(Part::SessionsClient, SESSIONS), (Part::AssociationsClient, ASSOCIATIONS)] {
            let cost = measure(part, count, Duration::from_secs(idle))?;
            eprintln!(
                "round {round} of {rounds}: {count} {part:?}: {:.0} bytes each, {:.2} % of a core",
                cost.bytes, cost.cpu_percent
            );
            costs.push((count, cost));
        }
    }
    for (count, name, cpu) in [
        (SESSIONS, "bytes_per_session", "cpu_percent"),
        (ASSOCIATIONS, "bytes_per_association", "cpu_percent_associations"),
    ] {
        let of = || costs.iter().filter(|(of, _)| *of == count).map(|(_, cost)| cost);
        let bytes = Spread::of(of().map(|cost| cost.bytes)).context("no round")?;
        outcome.figure(SCENARIO, SYSTEM, name, bytes.median());
        outcome.figure(SCENARIO, SYSTEM, &format!("{name}_max"), bytes.max());
        let used = Spread::of(of().map(|cost| cost.cpu_percent)).context("no round")?;
        outcome.figure(SCENARIO, SYSTEM, cpu, used.median());
    }
    Ok(outcome)
}

fn measure(part: Part, count: usize, idle: Duration) -> anyhow::Result<Cost> {
    let mut server = Child::start("server", Part::SessionsServer, Place::Here)?;
    let mut client = Child::start("client", part, Place::Here)?;
    introduce(&mut client, &mut server, Ground::LOOPBACK)?;
    let look = |client: &mut Child, server: &mut Child| -> anyhow::Result<(u64, f64)> {
        let mut both = (0, 0.0);
        for child in [client, server] {
            child.order(&Order::Look)?;
            let usage: Usage = child.expect("looking", GUARD)?;
            both = (both.0 + usage.resident, both.1 + usage.cpu_seconds);
        }
        Ok(both)
    };
    let (before, _) = look(&mut client, &mut server)?;
    client.order(&Order::Open(count))?;
    let Opened = client.expect("opening", GUARD)?;
    std::thread::sleep(SETTLE);
    let (after, used) = look(&mut client, &mut server)?;
    std::thread::sleep(idle);
    let (_, used_then) = look(&mut client, &mut server)?;
    let bytes = after.saturating_sub(before) as f64 / count as f64;
    Ok(Cost { bytes, cpu_percent: (used_then - used) / idle.as_secs_f64() * 100.0 })
}

/// One endpoint with many conversations.
pub(crate) async fn client(console: &mut Console) -> anyhow::Result<()> {
    let identity = Identity::generate()?;
    tell(&Keys { keys: vec![identity.fingerprint().to_string()] });
    let Connect { contact, .. } = console.hear().await?;
    let endpoint = endpoint::builder(identity, true).bind().await?;
    // The association itself is not what is counted.
    let _first = open(&endpoint, &contact).await?;
    tell(&Connected);
    obey(console, async move |count| {
        let mut sockets = Vec::with_capacity(count);
        let mut opening = JoinSet::new();
        for _ in 0..count {
            if opening.len() == AT_ONCE {
                sockets.push(next(&mut opening).await?);
            }
            let (endpoint, contact) = (endpoint.clone(), contact.clone());
            opening.spawn(async move { open(&endpoint, &contact).await });
        }
        while !opening.is_empty() {
            sockets.push(next(&mut opening).await?);
        }
        Ok(sockets)
    })
    .await
}

/// Many endpoints with one conversation each.
pub(crate) async fn many_clients(console: &mut Console) -> anyhow::Result<()> {
    let descriptors = raise_descriptor_limit()?;
    if descriptors < 8 * ASSOCIATIONS as u64 {
        bail!(
            "{descriptors} descriptors are too few; raise the hard limit (ulimit -Hn) to {}",
            8 * ASSOCIATIONS
        );
    }
    let first = Identity::generate()?;
    let identities = (0..ASSOCIATIONS).map(|_| Identity::generate()).collect::<Result<Vec<_>, _>>()?;
    let keys = identities.iter().chain([&first]).map(|identity| identity.fingerprint().to_string()).collect();
    tell(&Keys { keys });
    let Connect { contact, .. } = console.hear().await?;
    let first = endpoint::builder(first, true).bind().await?;
    let _first = (open(&first, &contact).await?, first);
    tell(&Connected);
    let mut identities = identities.into_iter();
    obey(console, async move |count| {
        let mut all = Vec::with_capacity(count);
        let mut opening = JoinSet::new();
        for identity in identities.by_ref().take(count) {
            if opening.len() == AT_ONCE {
                all.push(next(&mut opening).await?);
            }
            let contact = contact.clone();
            opening.spawn(async move {
                let endpoint = endpoint::builder(identity, true).bind().await?;
                let socket = open(&endpoint, &contact).await?;
                Ok((endpoint, socket))
            });
        }
        while !opening.is_empty() {
            all.push(next(&mut opening).await?);
        }
        Ok(all)
    })
    .await
}

async fn next<T: 'static>(opening: &mut JoinSet<anyhow::Result<T>>) -> anyhow::Result<T> {
    opening.join_next().await.context("nothing is being opened")??
}

/// Does what the conductor says, and holds what `open` gives.
async fn obey<T>(
    console: &mut Console,
    mut open: impl AsyncFnMut(usize) -> anyhow::Result<Vec<T>>,
) -> anyhow::Result<()> {
    let mut held = None;
    loop {
        match console.hear().await? {
            Order::Look => tell(&Usage::now()?),
            Order::Open(count) => {
                let opened = held.insert(open(count).await?).len();
                if opened != count {
                    bail!("{opened} of {count} were opened");
                }
                tell(&Opened);
            }
        }
    }
}

/// Opens a conversation and exchanges a message in it.
async fn open(endpoint: &Endpoint, contact: &str) -> anyhow::Result<MultiSocket> {
    let socket = endpoint.connect(contact).await?;
    let receipt = socket.send(Bytes::from(vec![7; MESSAGE]), Labels::foreground()).await?;
    socket.recv().await?.context("no answer")?;
    receipt.outcome().await;
    Ok(socket)
}

/// Takes every conversation, answers the one message in it, and holds it.
pub(crate) async fn server(console: &mut Console) -> anyhow::Result<()> {
    raise_descriptor_limit()?;
    let Listen { keys, .. } = console.hear().await?;
    let endpoint = endpoint::server(&keys, true).await?;
    tell(&Listening { contact: endpoint.contact(), certificate: Vec::new() });
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        let bound = Arc::new(Semaphore::new(AT_ONCE * 2));
        let (done, mut answered) = tokio::sync::mpsc::unbounded_channel();
        loop {
            tokio::select! {
                socket = endpoint.accept() => {
                    let Some(socket) = socket else { return held };
                    let (done, bound) = (done.clone(), Arc::clone(&bound));
                    tokio::spawn(async move {
                        let _turn = bound.acquire().await;
                        if let Ok(Some(message)) = socket.recv().await
                            && let Ok(payload) = message.into_bytes().await
                        {
                            let _closed = socket.send(payload, Labels::foreground()).await;
                        }
                        let _over = done.send(socket);
                    });
                }
                Some(socket) = answered.recv() => held.push(socket),
            }
        }
    });
    let looking = async {
        loop {
            if let Order::Look = console.hear().await? {
                tell(&Usage::now()?);
            }
        }
    };
    tokio::select! {
        result = looking => result,
        _ = held => bail!("the endpoint was closed"),
        () = sleep(GUARD * 4) => bail!("the conductor went silent"),
    }
}
