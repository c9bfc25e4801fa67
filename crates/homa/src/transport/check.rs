//! What must hold after every step.

use super::Transport;
use crate::rpc::{Role, State};
use alloc::vec;

impl Transport {
    /// Sweeps all state. For tests and simulators: it takes time with everything that there is.
    pub fn check_invariants(&self) {
        let (mut held, mut kept, mut timers, mut clients) = (0, 0, 0, 0);
        let (mut held_requests, mut kept_responses) = (0, 0);
        let mut incoming = vec![0; self.links.len()];
        let mut ready = vec![0; self.links.len()];
        let mut managed = vec![0; self.links.len()];
        for (index, rpc) in self.rpcs.iter() {
            let link = usize::from(rpc.link);
            held += u64::from(rpc.held);
            held_requests += if rpc.role == Role::Server { u64::from(rpc.held) } else { 0 };
            if let Some(outgoing) = &rpc.outgoing {
                outgoing.check_invariants();
                kept += u64::from(outgoing.length());
                kept_responses += if rpc.role == Role::Server { u64::from(outgoing.length()) } else { 0 };
                let place = outgoing.is_ready().then(|| (outgoing.remaining(), rpc.birth, index));
                assert_eq!(outgoing.place, place, "every message is where it belongs");
                ready[link] += usize::from(place.is_some());
            }
            if let Some(message) = &rpc.incoming {
                message.check_invariants(self.config.max_gaps, self.config.unscheduled);
                managed[link] += usize::from(message.managed);
                let waits = message.granted < message.length && !message.stalled;
                assert_eq!(message.managed, waits, "granted are those that wait for it");
            }
            if let Some(at) = rpc.timer {
                timers += 1;
                assert!(self.timers.contains(&(at, index)), "a timer is in the table");
            } else {
                let idle = rpc.role == Role::Server && rpc.state == State::InService;
                assert!(idle, "whoever waits for a peer has a timer");
            }
            let peer = self.peers.index_of(rpc.peer.index, rpc.peer.generation);
            let table = peer.and_then(|peer| self.peers.get(peer)).map(|peer| match rpc.role {
                Role::Client => &peer.clients,
                Role::Server => &peer.servers,
            });
            let found = table.and_then(|table| table.get(&rpc.client_id));
            assert_eq!(found, Some(&index), "an RPC is found by its id");
            clients += usize::from(rpc.role == Role::Client);
        }
        assert_eq!((held, kept), (self.held, self.kept), "bytes are counted once");
        let parts = (self.held_requests, self.kept_responses);
        assert_eq!((held_requests, kept_responses), parts, "and those of peers");
        assert!(self.held <= self.config.max_held, "what peers make us hold is bounded");
        assert_eq!(timers, self.timers.len(), "a timer has its RPC");
        assert_eq!(clients, self.clients);
        assert!(self.rpcs.len() - clients <= self.config.max_server_rpcs, "requests of peers are bounded");
        for (index, link) in self.links.iter().enumerate() {
            assert_eq!(link.sender.len(), ready[index], "what is ready is in the order");
            assert_eq!(link.grants.len(), managed[index], "what waits for grants is known");
            link.grants.check_invariants();
            link.sender.check_invariants(&self.config);
        }
        for (peer, known) in self.peers.iter() {
            let queue = &self.links[usize::from(known.link)].sender.control;
            let waiting = queue
                .iter()
                .filter(|(to, _)| to.index == peer && to.generation == self.peers.generation(peer));
            assert_eq!(waiting.count(), known.control, "what waits for peer {peer} is counted once");
            let messages = known.clients.values().chain(known.servers.values());
            let messages = messages.filter_map(|index| self.rpcs.get(*index)?.incoming.as_ref());
            let counted: u64 = messages.map(|message| u64::from(message.counted)).sum();
            assert_eq!(counted, known.incoming, "what is on its way from peer {peer} is counted once");
            incoming[usize::from(known.link)] += counted.min(self.peer_incoming());
            let requests = known.servers.values().filter_map(|index| self.rpcs.get(*index));
            let held: u64 = requests.map(|rpc| u64::from(rpc.held)).sum();
            assert_eq!(held, known.held, "what requests of peer {peer} hold is counted once");
            assert!(held <= self.config.max_peer_held, "and bounded");
            let calls = known.clients.values().filter_map(|index| self.rpcs.get(*index));
            let held: u64 = calls.map(|rpc| u64::from(rpc.held)).sum();
            assert_eq!(held, known.held_responses, "and what its responses hold");
            assert!(held <= self.config.max_peer_held, "and bounded as well");
            let responses =
                known.servers.values().filter_map(|index| self.rpcs.get(*index)?.outgoing.as_ref());
            let kept: u64 = responses.map(|outgoing| u64::from(outgoing.length())).sum();
            assert_eq!(kept, known.kept, "what is kept for peer {peer} is counted once");
            let calls = known.clients.values().filter_map(|index| self.rpcs.get(*index)?.outgoing.as_ref());
            let kept: u64 = calls.map(|outgoing| u64::from(outgoing.length())).sum();
            assert_eq!(kept, known.kept_calls, "and of our requests to it");
        }
        for (link, incoming) in self.links.iter().zip(incoming) {
            assert_eq!(link.incoming, incoming, "what is on its way is counted once");
        }
        let all: usize = self.peers.iter().map(|(_, peer)| peer.clients.len() + peer.servers.len()).sum();
        assert_eq!(all, self.rpcs.len(), "no peer has an RPC that there is not");
        let most = self.config.max_remembered.max(64 * self.config.max_peers);
        let remembered: usize = self.peers.iter().map(|(_, peer)| peer.taken.ranges()).sum();
        assert!(remembered <= most, "what is remembered is bounded");
    }
}
