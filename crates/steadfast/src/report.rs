//! What this process's networks do to it, told to the daemon of the host, which publishes it as events. Without a daemon
//! nothing is told.

use crate::events::Events;
use crate::host::connect;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use steadfast_session::{DownReason, Event, PathInfo, Verdict};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How long a daemon that was not there is not looked for.
const PAUSE: Duration = Duration::from_secs(5);
/// How long it may take to listen.
const LIMIT: Duration = Duration::from_secs(1);

/// Where the daemon listens: beside the agent.
pub(crate) fn place() -> PathBuf {
    steadfast_agent_client::agent().with_file_name("daemon.sock")
}

/// Tells what happens until the endpoint is closed. A connection lasts as long as there is something to tell, so nothing
/// of the system's is held.
pub(crate) async fn report(mut events: Events, daemon: PathBuf, turn: Arc<Semaphore>) {
    let mut not_before = Instant::now();
    // A verdict is told for each process, and only where it differs.
    let mut verdicts = HashMap::new();
    while let Some(event) = events.next().await {
        let mut lines = Vec::new();
        let mut next = Some(event);
        while let Some(event) = next {
            if let Event::Dissociated { association } = &event {
                verdicts.remove(association);
            }
            let changed = match &event {
                Event::Verdict { association, judgement, .. } => {
                    let before = verdicts.insert(*association, judgement.verdict);
                    // To live is no news unless it did not.
                    let expected = [None, Some(Verdict::Unknown)].contains(&before);
                    before != Some(judgement.verdict) && !(expected && judgement.verdict == Verdict::Alive)
                }
                _ => true,
            };
            if changed && let Some(told) = words(&event) {
                lines.extend_from_slice(json!({ "version": 1, "tell": told }).to_string().as_bytes());
                lines.push(b'\n');
            }
            next = events.try_next();
        }
        if lines.is_empty() || Instant::now() < not_before {
            continue;
        }
        // Never while the endpoint is quiesced. It is closed nowhere.
        let Ok(_turn) = turn.acquire().await else { return };
        let told = async {
            let mut stream = connect(&daemon).await?;
            stream.write_all(&lines).await?;
            stream.shutdown().await
        };
        if !matches!(tokio::time::timeout(LIMIT, told).await, Ok(Ok(()))) {
            not_before = Instant::now() + PAUSE;
        }
    }
}

/// An event in the daemon's words; none where it is nobody's business.
fn words(event: &Event) -> Option<Value> {
    let path = |name: &str, info: &PathInfo, reason: Option<&str>| {
        let mut told = json!({
            "event": name,
            "peer": info.peer.to_string(),
            "network": info.local_name,
            "remote_network": info.remote_name,
        });
        if let Some(reason) = reason {
            told["reason"] = reason.into();
        }
        Some(told)
    };
    match event {
        Event::PathSuspect(info) => path("PATH_SUSPECT", info, None),
        Event::PathRecovered(info) => path("PATH_RECOVERED", info, None),
        Event::PathDown(info, reason) => path("PATH_DOWN", info, Some(name_of(*reason)?)),
        Event::Parked { session } => {
            Some(json!({ "event": "SESSION_PARKED", "session": session.0.to_string() }))
        }
        Event::Resumed { session } => {
            Some(json!({ "event": "SESSION_RESUMED", "session": session.0.to_string() }))
        }
        Event::Verdict { peer, judgement, .. } => {
            let name = match judgement.verdict {
                Verdict::Alive => "PEER_ALIVE",
                Verdict::Left => "PEER_LEFT",
                Verdict::Crashed => "PEER_CRASHED",
                Verdict::Restarted => "PEER_RESTARTED",
                Verdict::Hung => "PEER_HUNG",
                Verdict::Unreachable => "PEER_UNREACHABLE",
                Verdict::Suspended => "PEER_SUSPENDED",
                Verdict::NoLocalNetwork => "NO_LOCAL_NETWORK",
                _ => return None,
            };
            let (peer, evidence) = (peer.to_string(), judgement.evidence.to_string());
            Some(json!({ "event": name, "peer": peer, "evidence": evidence }))
        }
        _ => None,
    }
}

/// Why a path is down; none if nothing is wrong.
const fn name_of(reason: DownReason) -> Option<&'static str> {
    Some(match reason {
        DownReason::Carrier => "the connection failed",
        DownReason::Silence => "nothing was heard on it",
        DownReason::LocalNetwork => "our network is gone",
        DownReason::RemoteNetwork => "the peer's network is gone",
        DownReason::Violation => "the peer broke the protocol",
        DownReason::Prohibited => "a rule forbids its networks now",
        _ => return None,
    })
}
