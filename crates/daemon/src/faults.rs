//! Steadfast's own faults as events in `FTB.network.steadfast`: what the daemon sees itself, and what processes of this host tell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use steadfast_backplane::{
    Client, ClientId, ClientName, Declaration, EventName, EventSpace, JobId, Kind, OWN_SPACE, Payload,
    Process, Publication,
};

use crate::daemon::Shared;
use crate::hub::Hub;
use crate::process::{name_of, start_of};
use crate::status::{NetworkStatus, networks_of};

/// What can happen, and how severe it is. docs/events.md says what each means, and what to do.
const EVENTS: [(&str, &str); 18] = [
    ("NETWORK_UP", "info"),
    ("NETWORK_DOWN", "warning"),
    ("PATH_SUSPECT", "warning"),
    ("PATH_RECOVERED", "info"),
    ("PATH_DOWN", "warning"),
    ("SESSION_PARKED", "error"),
    ("SESSION_RESUMED", "info"),
    ("PEER_ALIVE", "info"),
    ("PEER_LEFT", "info"),
    ("PEER_CRASHED", "error"),
    ("PEER_RESTARTED", "warning"),
    ("PEER_HUNG", "error"),
    ("PEER_UNREACHABLE", "error"),
    ("PEER_SUSPENDED", "info"),
    ("NO_LOCAL_NETWORK", "error"),
    ("JOURNAL_FAILED", "error"),
    ("JOURNAL_RESTORED", "info"),
    ("FAULTS_LOST", "warning"),
];
/// What processes may tell: all between those that the daemon sees itself.
const TOLD: std::ops::Range<usize> = 2..15;
/// How much one process may tell, in events: at once, and in a second.
const BURST: f64 = 50.0;
const RATE: f64 = 10.0;
/// The most bytes of a detail that somebody tells.
const MAX_DETAIL: usize = 256;

/// What a process tells, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Which event it is.
    pub event: String,
    /// Details, each a word and what it is: `peer`, `network`, `remote_network`, `session`, `evidence`, `reason`.
    #[serde(flatten)]
    pub details: BTreeMap<String, String>,
}

/// The daemon's own client of the backplane.
#[derive(Debug)]
pub(crate) struct Faults {
    client: ClientId,
}

/// How much one connection has told.
#[derive(Debug)]
pub(crate) struct Measure {
    left: f64,
    since: Instant,
    lost: u64,
}

impl Measure {
    pub(crate) fn new() -> Self {
        Self { left: BURST, since: Instant::now(), lost: 0 }
    }

    /// Whether one more may be told. If so, how many could not before.
    fn admit(&mut self) -> Option<u64> {
        self.left = (self.left + self.since.elapsed().as_secs_f64() * RATE).min(BURST);
        self.since = Instant::now();
        if self.left < 1.0 {
            self.lost += 1;
            return None;
        }
        self.left -= 1.0;
        Some(std::mem::take(&mut self.lost))
    }
}

impl Faults {
    /// Attaches the daemon to its own agent.
    pub(crate) fn attach(hub: &Hub) -> Option<Self> {
        let pid = std::process::id();
        let user = rustix::process::geteuid().as_raw();
        let process = Process { user, pid, start: start_of(pid), own: true };
        let name = ClientName::new("steadfast").ok()?;
        let space = EventSpace::new(OWN_SPACE).ok()?;
        let declared: Vec<_> =
            EVENTS.iter().filter_map(|(name, severity)| Declaration::new(name, severity).ok()).collect();
        hub.with(|server, now| {
            let client = Client { name, job: JobId::NONE, extension: 0 };
            let agent = server.agent_mut();
            let client = agent.attach(now, process, Some(space), client).ok()?;
            agent.declare(client, &declared, None).ok()?;
            Some(Self { client })
        })
    }

    /// Publishes one of [`EVENTS`].
    pub(crate) fn publish(&self, hub: &Hub, event: &str, details: &serde_json::Value) {
        let payload = Payload::new(details.to_string().into());
        let (Ok(name), Ok(payload)) = (EventName::new(event), payload) else { return };
        let publication = Publication { name, kind: Kind::Plain, payload };
        let published =
            hub.with(|server, now| server.agent_mut().publish(now, self.client, publication, false));
        match published {
            Ok(_) => hub.tell_published(true),
            Err(error) => tracing::debug!(%error, event, "a fault is not published"),
        }
    }

    /// Publishes what a process tells, with what the kernel says of it.
    pub(crate) fn hear(
        &self,
        hub: &Hub,
        measure: &mut Measure,
        process: &Process,
        mut told: Told,
    ) -> Result<(), String> {
        if !EVENTS[TOLD].iter().any(|(name, _)| *name == told.event) {
            let known: Vec<_> = EVENTS[TOLD].iter().map(|(name, _)| *name).collect();
            return Err(format!("there is no event of that name to tell; there are {}", known.join(", ")));
        }
        let Some(lost) = measure.admit() else { return Ok(()) };
        let name = name_of(process.pid);
        if lost > 0 {
            let details = json!({ "count": lost, "pid": process.pid, "process": name, "user": process.user });
            self.publish(hub, "FAULTS_LOST", &details);
        }
        let known = ["peer", "network", "remote_network", "session", "evidence", "reason"];
        told.details.retain(|word, _| known.contains(&word.as_str()));
        for detail in told.details.values_mut() {
            let end = (0..=MAX_DETAIL.min(detail.len())).rev().find(|at| detail.is_char_boundary(*at));
            detail.truncate(end.unwrap_or_default());
        }
        let mut details = json!(told.details);
        details["pid"] = process.pid.into();
        details["process"] = name.into();
        details["user"] = process.user.into();
        self.publish(hub, &told.event, &details);
        Ok(())
    }
}

/// Publishes what the daemon sees of the networks and its journal, for as long as it runs.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut networks = shared.scout.subscribe();
    let now = |shared: &Shared| -> BTreeMap<u32, NetworkStatus> {
        networks_of(&shared.scout).into_iter().map(|network| (network.id, network)).collect()
    };
    let mut before = now(&shared);
    let mut fault = None;
    loop {
        tokio::select! {
            changed = networks.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        networks.mark_unchanged();
        let after = now(&shared);
        for (event, here, there) in [("NETWORK_DOWN", &before, &after), ("NETWORK_UP", &after, &before)] {
            for network in here.iter().filter(|(id, _)| !there.contains_key(id)).map(|(_, network)| network) {
                shared.faults.publish(&shared.hub, event, &json!(network));
            }
        }
        before = after;
        let broken = shared.hub.storage_fault();
        if broken.is_some() != fault.is_some() {
            let event = if broken.is_some() { "JOURNAL_FAILED" } else { "JOURNAL_RESTORED" };
            shared.faults.publish(&shared.hub, event, &json!({ "reason": broken }));
        }
        fault = broken;
    }
}
