//! One seed: a topology, a workload, faults while it runs, healing, and the verdict of the model.

use crate::model::{Limits, Model, Waits, content};
use crate::rng::Rng;
use crate::world::{Attachment, Life, Step, World, identity};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use steadfast_session::{
    AssociationId, Config, Event, Judgement, OrderRequest, Ordering, Outcome, Read, Recv, Redundancy,
    SendError, SendOptions, SessionConfig, Verdict,
};
use steadfast_wire::frame::EndReason;
use steadfast_wire::{
    Fingerprint, Incarnation, Instant, Labels, MessageId, NetworkClass, NetworkId, Rule, Selector, SessionId,
};

/// Faults and sends happen in this time; then everything is healed.
const ACTIVE: Duration = Duration::from_secs(12);
/// In this time after healing everything must have arrived.
const PATIENCE: Duration = Duration::from_secs(240);

#[derive(Debug, Clone)]
enum Op {
    Open { from: usize, to: usize, total: bool },
    Send { pick: u64 },
    Read { host: usize, burst: u64 },
    Fault { host: usize, network: usize, kind: u64 },
    Mend { host: usize, network: usize },
    Restart { host: usize, old: bool },
    Kill { host: usize },
    Stop { host: usize },
    Resume { host: usize },
}

/// Whose verdict it is: a host, which run of it, and the association with a peer.
type Judged = (usize, u32, Fingerprint, AssociationId);

struct Run {
    rng: Rng,
    world: World,
    model: Model,
    ops: Vec<Op>,
    config: Config,
    ordering: BTreeMap<SessionId, Ordering>,
    /// Which two hosts a session joins.
    members: BTreeMap<SessionId, [usize; 2]>,
    /// What a host reads piece by piece.
    reading: BTreeSet<(usize, SessionId, MessageId)>,
    ended: BTreeMap<(usize, SessionId), EndReason>,
    /// How many records of each host's store the model knows to be confirmed.
    stored: Vec<usize>,
    durable: bool,
    trace: bool,
    healed: bool,
    /// The last verdict of each host's processes on each process that it dealt with.
    judged: BTreeMap<Judged, (Option<Incarnation>, Judgement)>,
    /// When a network last changed.
    faulted: Instant,
    /// When a host's process was last stopped.
    stopped: BTreeMap<usize, Instant>,
    /// How many verdicts there were, of each kind.
    verdicts: BTreeMap<Verdict, usize>,
}

/// What a seed came to.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// Messages delivered.
    pub delivered: usize,
    /// Steps of the simulation.
    pub steps: u64,
    /// Times a path became suspect.
    pub suspicions: u64,
    /// Payload bytes that were sent again.
    pub resent: u64,
    /// Sessions that ended because a process came back with an older state.
    pub rolled_back: u64,
    /// Verdicts that a process crashed.
    pub crashed: usize,
    /// Verdicts that a process hung.
    pub hung: usize,
}

/// Runs a seed; panics with what does not hold.
pub fn run(seed: u64, trace: bool) -> Report {
    let mut run = Run::new(seed, trace);
    run.play(ACTIVE);
    run.heal();
    run.drain();
    run.model.verify();
    run.close();
    let stats: Vec<_> = run.world.nodes.iter().map(|node| node.core.stats()).collect();
    for stats in &stats {
        let violations = stats.violations_decode
            + stats.violations_hello
            + stats.violations_flow_control
            + stats.violations_contradiction
            + stats.violations_progress
            + stats.violations_limit;
        assert_eq!(violations, 0, "an honest peer was accused: {stats:?}");
    }
    Report {
        delivered: run.model.deliveries(),
        steps: run.world.steps,
        suspicions: stats.iter().map(|s| s.suspicions).sum(),
        resent: stats.iter().map(|s| s.bytes_resent).sum(),
        rolled_back: stats.iter().map(|s| s.rolled_back).sum(),
        crashed: run.verdicts.get(&Verdict::Crashed).copied().unwrap_or_default(),
        hung: run.verdicts.get(&Verdict::Hung).copied().unwrap_or_default(),
    }
}

impl Run {
    fn new(seed: u64, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let mut world = World::new(rng.next());
        world.check_every = 8;
        world.said = Some(Vec::new());
        world.routed = rng.chance(30);
        let durable = rng.chance(40);
        let mut config = Config::default();
        config.durable = durable;
        if rng.chance(50) {
            config.max_message = 32 * 1024;
            config.windows = [64 * 1024, 128 * 1024];
            config.send_buffers = [96 * 1024, 192 * 1024];
        }
        if rng.chance(70) {
            // Windows that have to grow, some of them without the room to.
            config.first_windows = [8 * 1024, 16 * 1024];
            config.max_growth = if rng.chance(50) { 100_000 } else { config.max_growth };
        }
        if seed.is_multiple_of(5) {
            // More pairs of networks than there may be paths.
            config.max_paths = 1 + (seed / 5 % 4) as usize;
        }
        let hosts = if rng.chance(25) { 3 } else { 2 };
        let networks = rng.range(1, 5) as usize;
        for _ in 0..hosts {
            let attachments = (0..networks).map(|network| attachment(&mut rng, network)).collect();
            let host = world.add_host(config.clone(), attachments);
            // A slow store leaves time to die before it has confirmed.
            world.nodes[host].store_delay = Duration::from_micros(rng.range(100, 120_000));
            world.nodes[host].drift = rng.range(0, 400).cast_signed() - 200;
        }
        let mut run = Self {
            rng,
            world,
            model: Model::default(),
            ops: Vec::new(),
            config,
            ordering: BTreeMap::new(),
            members: BTreeMap::new(),
            reading: BTreeSet::new(),
            ended: BTreeMap::new(),
            stored: vec![0; hosts],
            durable,
            trace,
            healed: false,
            judged: BTreeMap::new(),
            faulted: Instant(0),
            stopped: BTreeMap::new(),
            verdicts: BTreeMap::new(),
        };
        run.plan(hosts, networks);
        run
    }

    fn plan(&mut self, hosts: usize, networks: usize) {
        for _ in 0..self.rng.range(1, 4) {
            let to = self.rng.range(1, hosts as u64) as usize;
            let (from, to) = if self.rng.chance(50) { (0, to) } else { (to, 0) };
            let total = self.rng.chance(50);
            self.add(Duration::from_millis(10), Op::Open { from, to, total });
        }
        for _ in 0..self.rng.range(10, 120) {
            let pick = self.rng.next();
            self.add(ACTIVE, Op::Send { pick });
        }
        for _ in 0..self.rng.range(5, 200) {
            let op =
                Op::Read { host: self.rng.range(0, hosts as u64) as usize, burst: self.rng.range(1, 20) };
            self.add(ACTIVE, op);
        }
        for _ in 0..self.rng.range(0, 14) {
            let host = self.rng.range(0, hosts as u64) as usize;
            let network = self.rng.range(0, networks as u64) as usize;
            // Two hosts that both move while they are apart cannot find each other: only one moves.
            let kind = self.rng.range(0, if host == 0 { 7 } else { 6 });
            let at = self.add(ACTIVE, Op::Fault { host, network, kind });
            let mended = at + Duration::from_millis(self.rng.range(5, 6000));
            self.ops.push(Op::Mend { host, network });
            self.world.script(mended, self.ops.len() as u64 - 1);
        }
        if self.rng.chance(35) {
            for _ in 0..self.rng.range(1, 3) {
                let host = self.rng.range(0, hosts as u64) as usize;
                let old = self.durable && self.rng.chance(15);
                let at = self.add(ACTIVE, Op::Restart { host, old });
                // It may have been dead for a while.
                if self.rng.chance(40) {
                    let before = Duration::from_millis(self.rng.range(1, 8000)).min(at.since(self.world.now));
                    self.ops.push(Op::Kill { host });
                    self.world.script(at - before, self.ops.len() as u64 - 1);
                }
            }
        }
        if self.rng.chance(25) {
            let host = self.rng.range(0, hosts as u64) as usize;
            let at = self.add(ACTIVE, Op::Stop { host });
            let until = at + Duration::from_millis(self.rng.range(1, 9000));
            self.ops.push(Op::Resume { host });
            self.world.script(until, self.ops.len() as u64 - 1);
        }
    }

    fn add(&mut self, within: Duration, op: Op) -> Instant {
        let at = self.world.now + Duration::from_micros(self.rng.range(0, within.as_micros() as u64));
        self.ops.push(op);
        self.world.script(at, self.ops.len() as u64 - 1);
        at
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            #[expect(clippy::print_stderr, reason = "a replay is read by a person")]
            {
                eprintln!("{:?} {}", self.world.now, what());
            }
        }
    }

    /// Runs for a time, or until `done` says so.
    fn play(&mut self, time: Duration) {
        let until = self.world.now + time;
        self.play_until(until, |_| false);
    }

    fn play_until(&mut self, until: Instant, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        loop {
            match self.world.step(until) {
                Step::Over => return done(self),
                Step::Script(tag) => {
                    let op = self.ops[tag as usize].clone();
                    self.act(op);
                }
                Step::Ran => {}
            }
            self.check_stored();
            self.check_said();
            let events = std::mem::take(&mut self.world.events);
            let any = !events.is_empty();
            for (host, event) in events {
                self.event(host, event);
            }
            if any && done(self) {
                return true;
            }
            assert!(self.world.steps < 20_000_000, "the simulation does not come to rest");
        }
    }

    /// Tells the model what the stores confirmed. One step confirms, another one takes new labels.
    fn check_stored(&mut self) {
        for (host, stored) in self.stored.iter_mut().enumerate() {
            let node = &self.world.nodes[host];
            for entry in &node.journal[*stored..node.confirmed] {
                self.model.stored(host, entry);
            }
            *stored = node.confirmed;
        }
    }

    /// Not one byte of a message goes where its rule forbids it.
    fn check_said(&mut self) {
        let said = std::mem::take(self.world.said.get_or_insert_default());
        for said in said {
            let network = |(host, network): (usize, usize)| {
                let id = NetworkId(network as u32 + 1);
                self.world.networks_of(host).into_iter().find(|network| network.id == id)
            };
            // A network that has just gone away carries nothing whatever was given to it.
            if let (Some(near), Some(far)) = (network(said.from), network(said.to)) {
                self.model.said(said.session, said.from.0, said.id, (&near, &far));
            }
        }
    }

    fn act(&mut self, op: Op) {
        self.say(|| format!("op {op:?}"));
        match op {
            Op::Open { from, to, total } => {
                let ordering = if total { Ordering::Total } else { Ordering::PerUrgency };
                let mut config = SessionConfig::default();
                config.ordering = ordering;
                let addresses = [self.world.address(to, 0)];
                let clock = self.world.clock(from);
                let session = self.world.nodes[from].core.connect(clock, identity(to), &addresses, config);
                self.ordering.insert(session, ordering);
                self.members.insert(session, [from, to]);
                self.world.pump(from);
            }
            Op::Send { pick } => self.send(pick),
            Op::Read { host, burst } => self.read(host, burst),
            Op::Fault { host, network, kind } => self.fault(host, network, kind),
            Op::Mend { host, network } => self.mend(host, network),
            Op::Restart { host, old } => self.restart(host, old),
            // What a dead process holds is lost with it: that is its restart's, which follows.
            Op::Kill { host } => self.world.kill(host),
            Op::Stop { host } => {
                self.world.stop(host);
                self.stopped.insert(host, self.world.now);
            }
            Op::Resume { host } => {
                self.world.resume(host);
                self.stopped.insert(host, self.world.now);
            }
        }
    }

    fn fault(&mut self, host: usize, network: usize, kind: u64) {
        // Who moves before it has heard of a conversation cannot be found by the other side.
        let known: Vec<SessionId> = self.world.nodes[host].core.sessions().collect();
        if kind == 6 && self.sessions_of(host).iter().any(|session| !known.contains(session)) {
            return;
        }
        self.faulted = self.world.now;
        let attachment = &mut self.world.nodes[host].attachments[network];
        match kind {
            0 => (attachment.hole_out, attachment.hole_in) = (true, true),
            1 => attachment.hole_out = true,
            2 => attachment.hole_in = true,
            3 => attachment.loss = 150,
            4 => attachment.up = false,
            // The first network stays what it is, so that every rule can be kept in the end.
            5 => attachment.metered = network > 0 && !attachment.metered,
            _ => attachment.generation = attachment.generation.wrapping_add(1),
        }
        if kind >= 4 {
            self.world.networks_changed(host);
        }
    }

    fn mend(&mut self, host: usize, network: usize) {
        self.faulted = self.world.now;
        let attachment = &mut self.world.nodes[host].attachments[network];
        (attachment.hole_out, attachment.hole_in) = (false, false);
        attachment.loss = attachment.loss.min(10);
        attachment.up = true;
        self.world.networks_changed(host);
    }

    /// A process dies and comes back: from what its store confirmed, from something older, or from nothing.
    fn restart(&mut self, host: usize, old: bool) {
        let confirmed = self.world.nodes[host].confirmed;
        let keep = match (self.durable, old) {
            (false, _) => 0,
            (true, false) => confirmed,
            (true, true) => self.rng.range(0, confirmed as u64 + 1) as usize,
        };
        self.say(|| format!("restart of {host} with {keep} of {confirmed} records"));
        self.reading.retain(|(reader, ..)| *reader != host);
        if keep < confirmed || !self.durable {
            let known = self.world.nodes[host].core.sessions().collect::<Vec<_>>();
            self.model.broken.extend(known);
        }
        let config = self.config.clone();
        let full = self.world.nodes[host].journal[..keep].to_vec();
        self.world.restart(host, config, keep);
        self.world.events.retain(|(of, _)| *of != host);
        let mine =
            self.members.iter().filter(|(_, members)| members.contains(&host)).map(|(id, _)| *id).collect();
        self.model.restarted(host, &mine, &full);
        self.stored[host] = keep;
    }

    fn sessions_of(&self, host: usize) -> Vec<SessionId> {
        let mine = self.members.iter().filter(|(_, members)| members.contains(&host));
        mine.map(|(session, _)| *session)
            .filter(|session| !self.ended.contains_key(&(host, *session)))
            .collect()
    }

    /// Sessions in which the application still speaks. After a restart from an old state it does not: what that state
    /// comes to is judged by what it had said before.
    fn whole_sessions_of(&self, host: usize) -> Vec<SessionId> {
        self.sessions_of(host).into_iter().filter(|session| !self.model.broken.contains(session)).collect()
    }

    fn send(&mut self, pick: u64) {
        let mut rng = Rng::new(pick);
        let host = rng.range(0, self.world.nodes.len() as u64) as usize;
        let sessions = self.whole_sessions_of(host);
        if sessions.is_empty() {
            return;
        }
        let session = sessions[rng.range(0, sessions.len() as u64) as usize];
        let next = self.model.next_id(session, host);
        match rng.range(0, 100) {
            0..=7 => self.cancel(host, session, MessageId(rng.range(1, next + 1))),
            8..=13 => self.relabel(host, session, MessageId(rng.range(1, next + 1)), &mut rng),
            14..=19 => self.policy(host, session, &mut rng),
            20..=34 => self.stream(host, session, &mut rng),
            _ => self.whole(host, session, &mut rng, next),
        }
        self.world.pump(host);
    }

    /// What becomes of certain labels when no network fits, and whether they go out twice.
    fn policy(&mut self, host: usize, session: SessionId, rng: &mut Rng) {
        let labels = Self::labels(rng);
        let timeout = match rng.range(0, 4) {
            0 => None,
            1 => Some(Duration::ZERO),
            _ => Some(Duration::from_millis(rng.range(1, 5000))),
        };
        let redundancy = [Redundancy::Never, Redundancy::OnSuspicion, Redundancy::Always];
        let redundancy = redundancy[rng.range(0, 3) as usize];
        let core = &mut self.world.nodes[host].core;
        let known = core.set_failure_timeout(session, &labels, timeout).is_ok();
        assert_eq!(core.set_redundancy(session, &labels, redundancy).is_ok(), known);
        if known {
            assert_eq!(core.failure_timeout(session, &labels), Ok(timeout));
        }
    }

    /// How long a message lives, and when it may be given up.
    fn limits(
        &self,
        host: usize,
        session: SessionId,
        labels: &Labels,
        rng: &mut Rng,
    ) -> (Option<Duration>, Limits) {
        let clock = self.world.clock(host);
        let lifetime = rng.chance(20).then(|| Duration::from_millis(rng.range(0, 6000)));
        let timeout = self.world.nodes[host].core.failure_timeout(session, labels).unwrap_or_default();
        let limits = Limits {
            expires: lifetime.map(|lifetime| clock + lifetime),
            stranded: timeout.map(|timeout| clock + timeout),
        };
        (lifetime, limits)
    }

    /// A send fails for want of a network exactly when its labels want that and none fits.
    fn check_refusal(&self, host: usize, session: SessionId, labels: &Labels, result: Result<(), SendError>) {
        let core = &self.world.nodes[host].core;
        let without = core.failure_timeout(session, labels).is_ok_and(|timeout| timeout.is_some())
            && !core.has_path_for(session, &labels.rule);
        match result {
            Ok(()) => assert!(!without, "accepted without a network"),
            Err(SendError::NoNetwork { .. }) => assert!(without, "refused beside a network"),
            Err(_) => {}
        }
    }

    fn cancel(&mut self, host: usize, session: SessionId, id: MessageId) {
        let clock = self.world.clock(host);
        if self.world.nodes[host].core.cancel(clock, session, id).is_ok() {
            self.model.cancelled(session, host, id);
        }
    }

    fn relabel(&mut self, host: usize, session: SessionId, id: MessageId, rng: &mut Rng) {
        let labels = Self::labels(rng);
        let clock = self.world.clock(host);
        if self.world.nodes[host].core.relabel(clock, session, id, labels.clone()).is_ok() {
            self.model.relabelled(session, host, id, &labels, self.durable);
        }
    }

    fn labels(rng: &mut Rng) -> Labels {
        let labels = if rng.chance(50) { Labels::foreground() } else { Labels::background() };
        // Every network of a world with rules comes back, so that every rule can be kept in the end.
        match rng.range(0, 12) {
            0 => labels.rule(Rule::default().prohibit(Selector::Name("net1".into()))),
            1 => labels.rule(Rule::default().prefer(Selector::Class(NetworkClass::Wifi))),
            2 => labels.rule(Rule::default().require(Selector::Name("net0".into()))),
            3 => labels.rule(Rule::default().prohibit(Selector::Metered)),
            _ => labels,
        }
    }

    fn order(&self, rng: &mut Rng, session: SessionId, next: u64) -> (OrderRequest, Waits) {
        match rng.range(0, 10) {
            0..=5 => match self.ordering[&session] {
                Ordering::Total => (OrderRequest::Default, Waits::Total),
                Ordering::PerUrgency => (OrderRequest::Default, Waits::PerUrgency),
            },
            6..=7 => (OrderRequest::Unordered, Waits::Nothing),
            _ => {
                let count = rng.range(0, 4);
                let list: Vec<_> =
                    (0..count).filter(|_| next > 1).map(|_| MessageId(rng.range(1, next))).collect();
                (OrderRequest::After(list.clone()), Waits::For(list))
            }
        }
    }

    fn whole(&mut self, host: usize, session: SessionId, rng: &mut Rng, next: u64) {
        let length = match rng.range(0, 10) {
            0 => 0,
            1..=6 => rng.range(1, 3000),
            7..=8 => rng.range(3000, 30_000),
            _ => rng.range(1, self.config.max_message.min(200_000)),
        };
        let (labels, urgency) = {
            let labels = Self::labels(rng);
            let urgency = labels.urgency;
            (labels, urgency)
        };
        let (order, waits) = self.order(rng, session, next);
        let bytes = content(session, host, MessageId(next), 0, length);
        let clock = self.world.clock(host);
        let (lifetime, limits) = self.limits(host, session, &labels, rng);
        let mut options = SendOptions::from(order);
        options.lifetime = lifetime;
        let core = &mut self.world.nodes[host].core;
        let result = core.send(clock, session, labels.clone(), options, bytes);
        self.check_refusal(host, session, &labels, result.clone().map(drop));
        match result {
            Ok(id) => {
                assert_eq!(id.0, next, "ids count up");
                self.model.sent(session, host, id, urgency, waits, Some(length), (labels.rule, limits));
                // Half of the time the sender dwells on it.
            }
            Err(SendError::TooLarge { .. }) => panic!("the peer's limit is ours"),
            Err(_) => {}
        }
    }

    fn stream(&mut self, host: usize, session: SessionId, rng: &mut Rng) {
        let open: Vec<_> = self.model.unfinished(host).into_iter().filter(|(of, _)| *of == session).collect();
        let clock = self.world.clock(host);
        if open.is_empty() || rng.chance(20) {
            let labels = Self::labels(rng);
            let urgency = labels.urgency;
            let next = self.model.next_id(session, host);
            let (order, waits) = match self.ordering[&session] {
                Ordering::Total => (OrderRequest::Default, Waits::Total),
                Ordering::PerUrgency => (OrderRequest::Default, Waits::PerUrgency),
            };
            let (lifetime, limits) = self.limits(host, session, &labels, rng);
            let mut options = SendOptions::from(order);
            options.lifetime = lifetime;
            let core = &mut self.world.nodes[host].core;
            let result = core.begin(clock, session, labels.clone(), options, None);
            self.check_refusal(host, session, &labels, result.clone().map(drop));
            if let Ok(id) = result {
                assert_eq!(id.0, next, "ids count up");
                self.model.sent(session, host, id, urgency, waits, None, (labels.rule, limits));
            }
            return;
        }
        let (_, id) = open[rng.range(0, open.len() as u64) as usize];
        let length = rng.range(0, 60_000);
        let from = self.model.written(session, host, id);
        let core = &mut self.world.nodes[host].core;
        if core.write(clock, session, id, content(session, host, id, from, length)).is_ok() {
            self.model.wrote(session, host, id, length, false);
        }
        if rng.chance(30) && core.finish_message(clock, session, id).is_ok() {
            self.model.wrote(session, host, id, 0, true);
        }
    }

    fn read(&mut self, host: usize, burst: u64) {
        let clock = self.world.clock(host);
        while self.world.nodes[host].core.accept(clock, SessionConfig::default()).is_some() {}
        let reading: Vec<_> = self.reading.iter().filter(|(reader, ..)| *reader == host).copied().collect();
        for (_, session, id) in reading {
            self.read_stream(host, session, id, burst);
        }
        for session in self.sessions_of(host) {
            let Some(sender) = self.members[&session].iter().copied().find(|member| *member != host) else {
                continue;
            };
            for _ in 0..burst {
                let clock = self.world.clock(host);
                let Ok(Recv::Message(message)) = self.world.nodes[host].core.recv(clock, session) else {
                    break;
                };
                let urgency = message.labels.urgency;
                self.model.taken(session, sender, message.id, urgency, message.payload.as_ref());
                if message.payload.is_none() {
                    self.reading.insert((host, session, message.id));
                    self.read_stream(host, session, message.id, burst);
                }
            }
        }
        self.world.pump(host);
    }

    fn read_stream(&mut self, host: usize, session: SessionId, id: MessageId, burst: u64) {
        let Some(sender) = self.members[&session].iter().copied().find(|member| *member != host) else {
            return;
        };
        for _ in 0..burst * 4 {
            let clock = self.world.clock(host);
            match self.world.nodes[host].core.read(clock, session, id) {
                Ok(Read::Chunk(bytes)) => self.model.read(session, sender, id, &bytes),
                Ok(Read::Pending) => return,
                Ok(end) => {
                    self.model.read_end(session, sender, id, end == Read::End);
                    self.reading.remove(&(host, session, id));
                    return;
                }
                Err(_) => {
                    self.reading.remove(&(host, session, id));
                    return;
                }
            }
        }
    }

    fn event(&mut self, host: usize, event: Event) {
        self.say(|| format!("host {host}: {event:?}"));
        match event {
            Event::Outcome { session, id, outcome }
                if (outcome != Outcome::Unknown || !self.model.broken.contains(&session)) =>
            {
                assert_ne!(outcome, Outcome::Unknown, "{session} {id}: unknown while the conversation lasts");
                let clock = self.world.clock(host);
                self.model.outcome(clock, session, host, id, outcome);
            }
            Event::Ended { session, reason, .. } => {
                let fine = self.model.broken.contains(&session) || reason == EndReason::Closed;
                assert!(fine, "{session} ended at {host}: {reason:?}");
                self.ended.insert((host, session), reason);
            }
            Event::Verdict { association, peer, incarnation, judgement, .. } => {
                self.judged(host, association, peer, incarnation, judgement);
            }
            Event::Readable { .. } if self.healed => {
                let clock = self.world.clock(host);
                let _ = clock;
                self.read(host, 1_000_000);
            }
            _ => {}
        }
    }

    /// A verdict is never told twice nor after a final one, and nothing is said of a process that is not so.
    fn judged(
        &mut self,
        host: usize,
        association: AssociationId,
        peer: Fingerprint,
        incarnation: Option<Incarnation>,
        judgement: Judgement,
    ) {
        let Judgement { verdict, since, .. } = judgement;
        *self.verdicts.entry(verdict).or_default() += 1;
        let key = (host, self.world.nodes[host].run, peer, association);
        let place = (0..self.world.nodes.len()).find(|host| identity(*host) == peer);
        let Some(other) = place.map(|place| &self.world.nodes[place]) else { panic!("{peer} is nobody") };
        let lives = other.life != Life::Dead && incarnation == Some(other.core.incarnation());
        let gone = matches!(verdict, Verdict::Left | Verdict::Crashed | Verdict::Restarted);
        assert!(!(gone && lives), "host {host}: {judgement:?} of a process that lives");
        assert_ne!(verdict, Verdict::Left, "nobody left");
        if verdict == Verdict::Hung {
            let stopped = place.and_then(|place| self.stopped.get(&place));
            // After a fault an answer may wait in the other side's kernel.
            let lately = stopped.is_some_and(|at| self.world.now.since(*at) < Duration::from_secs(20))
                || self.world.now.since(self.faulted) < Duration::from_secs(4);
            assert!(lately, "host {host}: {judgement:?} of a process that runs");
        }
        if verdict == Verdict::NoLocalNetwork {
            assert!(self.world.networks_of(host).is_empty(), "host {host} has networks");
        }
        if let Some((process, before)) = self.judged.insert(key, (incarnation, judgement.clone())) {
            assert!(!before.verdict.is_final(), "host {host}: {judgement:?} after {before:?}");
            // Sessions that come to be with this process hear the same.
            let again = before == judgement;
            assert!(again || before.verdict != verdict, "host {host}: {judgement:?} after {before:?}");
            assert!(before.since <= since, "host {host}: {judgement:?} is older than {before:?}");
            assert!(process.is_none() || process == incarnation, "an association changed its process");
        }
    }

    fn heal(&mut self) {
        self.say(|| "healing".into());
        self.healed = true;
        for host in 0..self.world.nodes.len() {
            for network in 0..self.world.nodes[host].attachments.len() {
                self.mend(host, network);
            }
        }
        for host in 0..self.world.nodes.len() {
            self.world.resume(host);
            assert_ne!(self.world.nodes[host].life, Life::Dead, "a restart follows every death");
            self.finish_streams(host);
            self.read(host, 1_000_000);
        }
    }

    fn finish_streams(&mut self, host: usize) {
        for (session, id) in self.model.unfinished(host) {
            let clock = self.world.clock(host);
            if self.world.nodes[host].core.finish_message(clock, session, id).is_ok() {
                self.model.wrote(session, host, id, 0, true);
            }
        }
        self.world.pump(host);
    }

    fn drain(&mut self) {
        let until = self.world.now + PATIENCE;
        // A restart may be among the last operations: then streams were reopened and have to be finished.
        let done = self.play_until(until, |run| run.model.open().is_none());
        if !done && let Some((session, sender, id)) = self.model.open() {
            panic!(
                "{session}: message #{id} of host {sender} has no outcome after healing\n{:#?}",
                self.world.nodes
            );
        }
        // Whoever takes part in a conversation answers, and the other side knows it.
        let late = |run: &Self| {
            let all = run.members.iter().flat_map(|(id, members)| members.map(|host| (host, *id)));
            let judged = |(host, id): (usize, SessionId)| run.world.nodes[host].core.verdict(id);
            let mut alive = all.filter(|(_, id)| !run.model.broken.contains(id)).filter_map(judged);
            alive.find(|judgement| judgement.verdict != Verdict::Alive)
        };
        let until = self.world.now + PATIENCE;
        let done = late(self).is_none() || self.play_until(until, |run| late(run).is_none());
        assert!(done, "{:?} of a process that runs, after healing", late(self));
    }

    /// Ends every session from one side: both sides must come to rest.
    fn close(&mut self) {
        for (session, members) in self.members.clone() {
            let host = members[self.rng.range(0, 2) as usize];
            let clock = self.world.clock(host);
            let known = |host: &usize| self.world.nodes[*host].core.peer(session).is_some();
            if !members.iter().all(known) {
                for host in members {
                    let clock = self.world.clock(host);
                    let _unknown = self.world.nodes[host].core.close(clock, session, Duration::from_secs(60));
                }
            } else if self.rng.chance(50) {
                let _ended = self.world.nodes[host].core.close(clock, session, Duration::from_secs(60));
            } else {
                for host in members {
                    let clock = self.world.clock(host);
                    let _ended = self.world.nodes[host].core.finish(clock, session);
                }
            }
            for host in members {
                self.world.pump(host);
            }
        }
        let until = self.world.now + Duration::from_secs(90);
        self.play_until(until, |run| {
            run.world.nodes.iter().all(|node| node.core.sessions().next().is_none())
        });
        for (host, node) in self.world.nodes.iter().enumerate() {
            let left: Vec<_> =
                node.core.sessions().filter(|session| !self.model.broken.contains(session)).collect();
            assert!(left.is_empty(), "host {host} did not come to rest: {left:?}\n{:#?}", self.world.nodes);
        }
        assert_eq!(self.model.unstored(), None, "labels are wanted that no store has");
        for ((host, session), reason) in &self.ended {
            let fine = *reason == EndReason::Closed || self.model.broken.contains(session);
            assert!(fine, "{session} ended at {host} with {reason:?}");
        }
    }
}

fn attachment(rng: &mut Rng, network: usize) -> Attachment {
    let mut attachment =
        Attachment::new(rng.range(50_000, 5_000_000), Duration::from_micros(rng.range(0, 60_000)));
    attachment.jitter = Duration::from_micros(if rng.chance(40) { rng.range(0, 10_000) } else { 0 });
    attachment.loss = if rng.chance(30) { rng.range(0, 10) } else { 0 };
    attachment.metered = network > 0 && rng.chance(20);
    attachment.class = if rng.chance(50) { NetworkClass::Wifi } else { NetworkClass::Ethernet };
    attachment
}
