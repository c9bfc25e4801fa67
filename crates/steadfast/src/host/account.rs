//! What a process tells the daemon of its conversations and peers.

use super::{MAX_LISTED, MAX_TEXT, PeerState, SessionState, State};
use crate::shared::Shared;
use std::collections::{BTreeMap, BTreeSet};
use steadfast_session::Verdict;

impl Shared {
    /// Conversations and peers now, bounded as the daemon wants them.
    pub(super) fn account(&self) -> State {
        let (mut sessions, mut peers, paths) = self.peek(|inner, _| {
            let core = &inner.core;
            let sessions: Vec<_> = inner
                .sessions
                .values()
                .map(|session| (std::sync::Arc::clone(session), core.backlog(session.id).unwrap_or(0)))
                .collect();
            let peers: Vec<_> = core.associates().map(|(_, peer, judged)| (peer, judged.clone())).collect();
            (sessions, peers, core.paths())
        });
        let (all_sessions, all_peers) = (sessions.len() as u64, peers.len() as u64);
        sessions.sort_by_key(|(session, queued)| (!session.is_parked(), *queued == 0));
        sessions.truncate(MAX_LISTED);
        peers.sort_by_key(|(_, judged)| matches!(judged.verdict, Verdict::Alive));
        peers.truncate(MAX_LISTED);
        let mut networks: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for path in paths {
            networks.entry(path.peer).or_default().insert(path.local_name);
        }
        let session = |(session, queued): (std::sync::Arc<crate::state::SessionState>, u64)| SessionState {
            session: session.id.0.to_string(),
            peer: session.peer.to_string(),
            state: match (session.is_parked(), session.is_opened()) {
                (true, _) => "parked",
                (false, true) => "open",
                (false, false) => "opening",
            }
            .into(),
            queued,
            verdict: session.judgement().map_or(Verdict::Unknown, |judged| judged.verdict).to_string(),
        };
        let peer = |(peer, judged): (_, steadfast_session::Judgement)| PeerState {
            networks: networks.get(&peer).into_iter().flatten().cloned().collect(),
            peer: peer.to_string(),
            verdict: judged.verdict.to_string(),
            evidence: shorten(judged.evidence.to_string()),
        };
        State {
            sessions: sessions.into_iter().map(session).collect(),
            peers: peers.into_iter().map(peer).collect(),
            all_sessions,
            all_peers,
        }
    }
}

fn shorten(mut text: String) -> String {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or_default());
    text
}
