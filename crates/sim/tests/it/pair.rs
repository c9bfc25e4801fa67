//! Two hosts and one conversation between them, run until something holds.

use bytes::Bytes;
use core::time::Duration;
use std::collections::BTreeMap;
use steadfast_session::{
    Config, Event, OrderRequest, Ordering, Outcome, Read, Received, Recv, SendError, SessionConfig,
};
use steadfast_sim::world::{Attachment, Step, World, identity};
use steadfast_wire::frame::EndReason;
use steadfast_wire::{Instant, Labels, MessageId, SessionId};

/// The host that opens the conversation.
pub(crate) const A: usize = 0;
/// The host that accepts it.
pub(crate) const B: usize = 1;
/// Virtual time after which a condition that does not hold has failed.
const GUARD: Duration = Duration::from_secs(600);

/// What was read of a streamed message, and whether it came to its end or was dropped.
type Streamed = (Vec<u8>, Option<bool>);

pub(crate) struct Pair {
    pub(crate) world: World,
    pub(crate) session: SessionId,
    /// What each host was told, and when.
    pub(crate) events: [Vec<(Instant, Event)>; 2],
    /// What each host took, in order.
    pub(crate) taken: [Vec<Received>; 2],
    /// What each host read of streamed messages, by id.
    pub(crate) streams: [BTreeMap<u64, Streamed>; 2],
    /// Whether the application on each host takes what there is, always.
    pub(crate) reads: [bool; 2],
    /// What the accepting application asks for.
    pub(crate) accepts: SessionConfig,
    config: Config,
}

/// A plain network: this many bytes a second, this many milliseconds each way.
pub(crate) fn net(rate: u64, delay: u64) -> Attachment {
    Attachment::new(rate, Duration::from_millis(delay) / 2)
}

pub(crate) fn ordered(ordering: Ordering) -> SessionConfig {
    let mut config = SessionConfig::default();
    config.ordering = ordering;
    config
}

/// Bytes that tell from which message and place they are.
pub(crate) fn pattern(salt: u64, length: usize) -> Bytes {
    (0..length as u64).map(|at| ((salt + 1).wrapping_mul(at ^ (at >> 7) ^ 0x5bd1) >> 3) as u8).collect()
}

pub(crate) fn after(ids: &[MessageId]) -> OrderRequest {
    OrderRequest::After(ids.to_vec())
}

impl Pair {
    /// Two hosts on the same networks, and a session that A opened; no time has passed.
    pub(crate) fn begin(seed: u64, config: &Config, networks: &[Attachment], session: SessionConfig) -> Self {
        let mut world = World::new(seed);
        for _ in [A, B] {
            world.add_host(config.clone(), networks.to_vec());
        }
        let address = world.address(B, 0);
        let now = world.clock(A);
        let session = world.nodes[A].core.connect(now, identity(B), &[address], session);
        world.pump(A);
        Self {
            world,
            session,
            events: Default::default(),
            taken: Default::default(),
            streams: Default::default(),
            reads: [true; 2],
            accepts: SessionConfig::default(),
            config: config.clone(),
        }
    }

    /// Two hosts with an open conversation, each network of which has a path.
    pub(crate) fn open(seed: u64, config: &Config, networks: &[Attachment], session: SessionConfig) -> Self {
        Self::open_accepted(seed, config, networks, session, SessionConfig::default())
    }

    pub(crate) fn open_accepted(
        seed: u64,
        config: &Config,
        networks: &[Attachment],
        session: SessionConfig,
        accepts: SessionConfig,
    ) -> Self {
        let mut pair = Self::begin(seed, config, networks, session);
        pair.accepts = accepts;
        pair.until("both sides are in the conversation", |pair| {
            let paths = |host: usize| pair.world.nodes[host].core.paths().len() >= networks.len();
            pair.saw(A, |event| matches!(event, Event::Opened { .. }))
                && paths(A)
                && paths(B)
                && pair.knows(B)
        });
        // Until both have accepted and nothing is under way.
        pair.run(Duration::from_secs(1));
        pair
    }

    pub(crate) fn knows(&self, host: usize) -> bool {
        self.world.nodes[host].core.sessions().any(|session| session == self.session)
    }

    // ----- time ----------------------------------------------------------------------------------------------------

    fn absorb(&mut self) {
        loop {
            let events = std::mem::take(&mut self.world.events);
            if events.is_empty() {
                return;
            }
            let mut readable = [false; 2];
            for (host, event) in events {
                readable[host] |= matches!(event, Event::Readable { .. } | Event::Incoming { .. });
                self.events[host].push((self.world.now, event));
            }
            for host in [A, B] {
                if readable[host] && self.reads[host] {
                    self.take(host);
                } else if readable[host] {
                    self.accept(host);
                }
            }
        }
    }

    fn accept(&mut self, host: usize) {
        let now = self.world.clock(host);
        while self.world.nodes[host].core.accept(now, self.accepts).is_some() {}
        self.world.pump(host);
    }

    /// Runs until `done`, which must come true in good time.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let guard = self.world.now + GUARD;
        self.absorb();
        while !done(self) {
            let over = self.world.step(guard) == Step::Over;
            self.absorb();
            assert!(
                !over || done(self),
                "it never came to this: {what}\n{:#?}\n{:#?}",
                self.events,
                self.taken
            );
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.world.now + time;
        self.absorb();
        while self.world.step(end) != Step::Over {
            self.absorb();
        }
        self.world.now = end;
        self.absorb();
    }

    // ----- what the applications do --------------------------------------------------------------------------------

    /// Does something with a host's core.
    pub(crate) fn on<R>(
        &mut self,
        host: usize,
        f: impl FnOnce(&mut steadfast_session::Endpoint, Instant, SessionId) -> R,
    ) -> R {
        let now = self.world.clock(host);
        let result = f(&mut self.world.nodes[host].core, now, self.session);
        self.world.pump(host);
        self.absorb();
        result
    }

    pub(crate) fn try_send(
        &mut self,
        host: usize,
        labels: Labels,
        order: OrderRequest,
        bytes: Bytes,
    ) -> Result<MessageId, SendError> {
        self.on(host, |core, now, session| core.send(now, session, labels, order, bytes))
    }

    #[track_caller]
    pub(crate) fn send(
        &mut self,
        host: usize,
        labels: Labels,
        order: OrderRequest,
        bytes: Bytes,
    ) -> MessageId {
        self.try_send(host, labels, order, bytes).expect("the message is accepted")
    }

    /// A small foreground message in the default order.
    #[track_caller]
    pub(crate) fn say(&mut self, host: usize, text: &str) -> MessageId {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        self.send(host, Labels::foreground(), OrderRequest::Default, bytes)
    }

    #[track_caller]
    pub(crate) fn begin_stream(&mut self, host: usize, labels: Labels, order: OrderRequest) -> MessageId {
        self.on(host, |core, now, session| core.begin(now, session, labels, order, None)).expect("it begins")
    }

    /// Appends to a streamed message, waiting for room where there is none.
    #[track_caller]
    pub(crate) fn write(&mut self, host: usize, id: MessageId, bytes: &Bytes) {
        loop {
            let result = self.on(host, |core, now, session| core.write(now, session, id, bytes.clone()));
            match result {
                Ok(()) => return,
                Err(SendError::Full(_)) => {
                    let before = self.count(host, |event| matches!(event, Event::Writable { .. }));
                    self.until("there is room again", |pair| {
                        pair.count(host, |event| matches!(event, Event::Writable { .. })) > before
                    });
                }
                Err(error) => panic!("{id}: {error}"),
            }
        }
    }

    #[track_caller]
    pub(crate) fn finish_stream(&mut self, host: usize, id: MessageId) {
        self.on(host, |core, now, session| core.finish_message(now, session, id)).expect("it ends");
    }

    #[track_caller]
    pub(crate) fn cancel(&mut self, host: usize, id: MessageId) {
        self.on(host, |core, now, session| core.cancel(now, session, id)).expect("it can be cancelled");
    }

    /// Takes one message, if there is one.
    pub(crate) fn recv(&mut self, host: usize) -> Option<Received> {
        let now = self.world.clock(host);
        let result = self.world.nodes[host].core.recv(now, self.session);
        let Ok(Recv::Message(message)) = result else { return None };
        if message.payload.is_none() {
            self.streams[host].insert(message.id.0, (Vec::new(), None));
        }
        self.taken[host].push(message.clone());
        self.world.pump(host);
        Some(message)
    }

    /// Takes what there is, streamed messages included.
    pub(crate) fn take(&mut self, host: usize) {
        self.accept(host);
        self.read_streams(host);
        while self.recv(host).is_some() {
            self.read_streams(host);
        }
    }

    fn read_streams(&mut self, host: usize) {
        let open: Vec<u64> =
            self.streams[host].iter().filter(|(_, (_, end))| end.is_none()).map(|(id, _)| *id).collect();
        for id in open {
            while let Some(Read::Chunk(_)) = self.read(host, MessageId(id)) {}
        }
    }

    /// Reads the next piece of a streamed message.
    pub(crate) fn read(&mut self, host: usize, id: MessageId) -> Option<Read> {
        let now = self.world.clock(host);
        let result = self.world.nodes[host].core.read(now, self.session, id).ok()?;
        let entry = self.streams[host].entry(id.0).or_default();
        match &result {
            Read::Chunk(bytes) => entry.0.extend_from_slice(bytes),
            Read::End => entry.1 = Some(true),
            Read::Dropped => entry.1 = Some(false),
            Read::Pending => {}
        }
        self.world.pump(host);
        Some(result)
    }

    // ----- what happens to the networks ----------------------------------------------------------------------------

    pub(crate) fn set_up(&mut self, host: usize, network: usize, up: bool) {
        self.world.nodes[host].attachments[network].up = up;
        self.world.networks_changed(host);
        self.absorb();
    }

    /// The host's address on a network changes.
    pub(crate) fn readdress(&mut self, host: usize, network: usize) {
        self.world.nodes[host].attachments[network].generation += 1;
        self.world.networks_changed(host);
        self.absorb();
    }

    /// What a host sends into a network, and what it would get from it, vanishes.
    pub(crate) fn hole(&mut self, host: usize, network: usize, out: bool, into: bool) {
        let attachment = &mut self.world.nodes[host].attachments[network];
        (attachment.hole_out, attachment.hole_in) = (out, into);
    }

    /// The process dies and comes back with the first `keep` records of its journal.
    pub(crate) fn restart(&mut self, host: usize, keep: usize) {
        let config = self.config.clone();
        self.world.restart(host, config, keep);
        for (_, end) in self.streams[host].values_mut() {
            end.get_or_insert(false);
        }
        self.absorb();
        if self.reads[host] {
            self.take(host);
        }
    }

    // ----- what came of it -----------------------------------------------------------------------------------------

    pub(crate) fn count(&self, host: usize, test: impl Fn(&Event) -> bool) -> usize {
        self.events[host].iter().filter(|(_, event)| test(event)).count()
    }

    pub(crate) fn saw(&self, host: usize, test: impl Fn(&Event) -> bool) -> bool {
        self.count(host, test) > 0
    }

    /// When a host was first told something.
    pub(crate) fn when(&self, host: usize, test: impl Fn(&Event) -> bool) -> Option<Instant> {
        self.events[host].iter().find(|(_, event)| test(event)).map(|(at, _)| *at)
    }

    pub(crate) fn parked(&self, host: usize) -> usize {
        self.count(host, |event| matches!(event, Event::Parked { .. }))
    }

    pub(crate) fn resumed(&self, host: usize) -> usize {
        self.count(host, |event| matches!(event, Event::Resumed { .. }))
    }

    /// The outcome of a message; there is at most one.
    pub(crate) fn outcome(&self, host: usize, id: MessageId) -> Option<Outcome> {
        let all: Vec<Outcome> = self.events[host]
            .iter()
            .filter_map(|(_, event)| match event {
                Event::Outcome { id: of, outcome, .. } if *of == id => Some(*outcome),
                _ => None,
            })
            .collect();
        assert!(all.len() <= 1, "{id} has more than one outcome: {all:?}");
        all.first().copied()
    }

    /// How the conversation ended for a host, with the last common message.
    pub(crate) fn ended(&self, host: usize) -> Option<(EndReason, Option<MessageId>)> {
        let all: Vec<_> = self.events[host]
            .iter()
            .filter_map(|(_, event)| match event {
                Event::Ended { reason, common, .. } => Some((*reason, *common)),
                _ => None,
            })
            .collect();
        assert!(all.len() <= 1, "ended more than once: {all:?}");
        all.first().copied()
    }

    #[track_caller]
    pub(crate) fn until_delivered(&mut self, host: usize, ids: &[MessageId]) {
        self.until("everything is delivered", |pair| ids.iter().all(|id| pair.outcome(host, *id).is_some()));
        for id in ids {
            assert_eq!(self.outcome(host, *id), Some(Outcome::Delivered), "{id}");
        }
    }

    #[track_caller]
    pub(crate) fn until_parked(&mut self) {
        self.until("both sides are without a path", |pair| {
            [A, B].iter().all(|host| pair.world.nodes[*host].core.paths().is_empty())
        });
    }

    /// The ids that a host took, in order.
    pub(crate) fn ids(&self, host: usize) -> Vec<u64> {
        self.taken[host].iter().map(|message| message.id.0).collect()
    }

    /// The texts that a host took, in order.
    pub(crate) fn texts(&self, host: usize) -> Vec<String> {
        let text = |m: &Received| m.payload.as_ref().map(|b| String::from_utf8_lossy(b).into_owned());
        self.taken[host].iter().filter_map(text).collect()
    }
}
