//! The agent against a model that keeps everything and searches all of it.

use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Attach { user: u32, space: usize },
    Detach { client: usize },
    Publish { client: usize, name: usize },
    Subscribe { client: usize, id: u32, text: usize, quirk: bool, replay: usize },
    Unsubscribe { client: usize, id: u32 },
    Remote { origin: u8, sequence: u64, verified: bool, space: usize },
    Take { client: usize, count: usize },
    Pass,
}

const SPACES: [&str; 3] = ["a.b.c", "a.b.secret", "FTB.network.steadfast"];
const TEXTS: [&str; 6] = [
    "",
    "event_name=b",
    "event_space=a.all.all",
    "event_space=all.b.c,severity=info",
    "severity=fatal",
    "event_name=a,event_space=a.x.all",
];

fn steps() -> impl Strategy<Value = Step> {
    let client = 0usize..4;
    prop_oneof![
        2 => (0u32..3, 0usize..3).prop_map(|(user, space)| Step::Attach { user, space }),
        1 => client.clone().prop_map(|client| Step::Detach { client }),
        8 => (client.clone(), 0usize..2).prop_map(|(client, name)| Step::Publish { client, name }),
        4 => (client.clone(), 0u32..3, 0usize..6, any::<bool>(), 0usize..5)
            .prop_map(|(client, id, text, quirk, replay)| Step::Subscribe { client, id, text, quirk, replay }),
        1 => (client.clone(), 0u32..3).prop_map(|(client, id)| Step::Unsubscribe { client, id }),
        3 => (2u8..4, 1u64..9, any::<bool>(), 0usize..3)
            .prop_map(|(origin, sequence, verified, space)| Step::Remote { origin, sequence, verified, space }),
        3 => (client, 1usize..4).prop_map(|(client, count)| Step::Take { client, count }),
        1 => Just(Step::Pass),
    ]
}

/// An event that was handed on, in order; its place is its position.
struct Past {
    at: Instant,
    event: Event,
    local: bool,
}

struct Wanted {
    id: u32,
    subscription: Subscription,
    matching: Matching,
    from: usize,
}

#[derive(Default)]
struct Known {
    id: Option<ClientId>,
    user: u32,
    space: usize,
    wanted: Vec<Wanted>,
    /// Places in the past, and for which subscription they are replayed.
    queue: Vec<(usize, Option<u32>)>,
    dropped: u64,
}

struct Model {
    agent: Agent,
    now: Instant,
    past: Vec<Past>,
    clients: [Known; 4],
    seen: Vec<(EventId, bool)>,
    published: u64,
}

impl Model {
    fn new() -> Self {
        let mut rules = Rules::default();
        let spaces = EventSpace::new("all.all.secret").unwrap();
        rules.0.push(Rule { spaces, who: Who::User(2), publish: Some(false), subscribe: Some(false) });
        let mut config = small();
        config.max_origins = 100;
        let mut agent = agent(config);
        agent.set_rules(rules);
        Self {
            agent,
            now: NOW,
            past: Vec::new(),
            clients: Default::default(),
            seen: Vec::new(),
            published: 0,
        }
    }

    fn may_publish(user: u32, space: usize) -> bool {
        match space {
            1 => user != 2,
            2 => user == 0,
            _ => true,
        }
    }

    fn may_receive(user: u32, event: &Event) -> bool {
        user != 2 || event.space.component() != "secret"
    }

    fn hand_on(&mut self, event: Event, local: bool) -> usize {
        let mut count = 0;
        for client in self.clients.iter_mut().filter(|client| client.id.is_some()) {
            let wanted = client.wanted.iter().any(|one| one.subscription.matches(&event, one.matching));
            if wanted && Self::may_receive(client.user, &event) {
                client.queue.push((self.past.len(), None));
                count += 1;
                if client.queue.len() > 5 {
                    client.queue.remove(0);
                    client.dropped += 1;
                }
            }
        }
        self.past.push(Past { at: self.now, event, local });
        count
    }

    /// Places of what is kept: the last eight of this host, and of others.
    fn kept(&self) -> Vec<usize> {
        let mut kept = Vec::new();
        for local in [true, false] {
            let all = (0..self.past.len()).filter(|place| self.past[*place].local == local);
            let all: Vec<_> = all.collect();
            kept.extend(&all[all.len().saturating_sub(8)..]);
        }
        kept.sort_unstable();
        kept
    }

    fn subscribe(&mut self, client: usize, id: u32, text: usize, matching: Matching, replay: usize) {
        let subscription = Subscription::new(TEXTS[text]).unwrap();
        let kept = self.kept();
        let after = self.past.len().checked_sub(3).map(|place| self.past[place].event.id);
        let replay = match replay {
            0 => Replay::Nothing,
            1 => Replay::Recent { events: 2, within: Duration::from_secs(100) },
            2 => Replay::Recent { events: 100, within: Duration::from_secs(1) },
            3 => Replay::After(EventId {
                origin: Fingerprint([9; 32]),
                incarnation: Incarnation(0),
                sequence: 1,
            }),
            _ => after.map_or(Replay::Nothing, Replay::After),
        };
        let known = &mut self.clients[client];
        let Some(attached) = known.id else { return };
        let answer = self.agent.subscribe(
            self.now,
            attached,
            SubscriptionId(id),
            subscription.clone(),
            matching,
            replay,
        );
        if known.wanted.iter().any(|one| one.id == id) {
            assert_eq!(answer, Err(SubscribeError::Taken(SubscriptionId(id))));
            return;
        }
        let fits = |place: &usize| {
            let event = &self.past[*place].event;
            subscription.matches(event, matching) && Self::may_receive(known.user, event)
        };
        let (asked, whole): (Vec<usize>, bool) = match replay {
            Replay::Nothing => (Vec::new(), true),
            Replay::Recent { events, within } => {
                let young = |place: &usize| self.past[*place].at >= self.now - within;
                let all: Vec<_> = kept.iter().copied().filter(young).filter(fits).collect();
                (all[all.len().saturating_sub(events as usize)..].to_vec(), true)
            }
            Replay::After(id) => {
                // The same event may be there twice, made up and signed: what came after the last.
                let start = kept.iter().rposition(|place| self.past[*place].event.id == id);
                let rest = &kept[start.map_or(0, |start| start + 1)..];
                (rest.iter().copied().filter(fits).collect(), start.is_some())
            }
        };
        let room = 5 - known.queue.len();
        let complete = whole && asked.len() <= room;
        let told = &asked[asked.len().saturating_sub(room)..];
        let already = |place: &usize| {
            let event = &self.past[*place].event;
            known.wanted.iter().any(|one| one.from <= *place && one.subscription.matches(event, one.matching))
        };
        let fresh: Vec<_> = told.iter().copied().filter(|place| !already(place)).collect();
        assert_eq!(answer, Ok(Replayed { events: fresh.len() as u64, complete }));
        let from = told.first().copied().unwrap_or(self.past.len());
        known.queue.extend(fresh.into_iter().map(|place| (place, Some(id))));
        known.wanted.push(Wanted { id, subscription, matching, from });
    }

    fn publish(&mut self, client: usize, name: usize) {
        let Known { id: Some(id), user, space, .. } = self.clients[client] else { return };
        let answer = self.agent.publish(self.now, id, publication(["a", "b"][name]), true);
        if Self::may_publish(user, space) {
            self.published += 1;
            let handle = answer.unwrap();
            assert_eq!(handle.id.sequence, self.published);
            let mut event = crate::arbitrary::event();
            event.id = handle.id;
            event.space = handle.space;
            event.name = handle.name;
            event.severity = handle.severity;
            self.hand_on(event, true);
        } else {
            assert!(matches!(answer, Err(PublishError::Denied { .. })));
        }
    }

    fn remote(&mut self, origin: u8, sequence: u64, verified: bool, space: usize) {
        let mut event = remote(origin, sequence);
        event.space = EventSpace::new(SPACES[space]).unwrap();
        let arrived = self.agent.handle_remote(self.now, event.clone(), Arrival { peer: None, verified });
        let expected = if space == 2 && !verified {
            Arrived::Denied
        } else if self.seen.contains(&(event.id, verified)) {
            Arrived::Duplicate
        } else {
            self.seen.push((event.id, verified));
            Arrived::Delivered(self.hand_on(event, false))
        };
        assert_eq!(arrived, expected);
    }

    fn take(&mut self, client: usize, count: usize) {
        let known = &mut self.clients[client];
        let Some(id) = known.id else { return };
        for _ in 0..count {
            let next = self.agent.poll(id);
            if known.dropped > 0 {
                assert_eq!(next, Some(Next::Dropped(core::mem::take(&mut known.dropped))));
            } else if known.queue.is_empty() {
                assert_eq!(next, None);
            } else {
                let (place, replay) = known.queue.remove(0);
                let Some(Next::Event(delivery)) = next else { panic!("{next:?}") };
                assert_eq!(delivery.event.id, self.past[place].event.id);
                assert_eq!(delivery.replay, replay.map(SubscriptionId));
                assert_eq!(delivery.provenance == Provenance::Local, self.past[place].local);
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Attach { user, space } => {
                if let Some(place) = self.clients.iter().position(|known| known.id.is_none()) {
                    let id = client(&mut self.agent, user, SPACES[space]);
                    self.clients[place] = Known { id: Some(id), user, space, ..Known::default() };
                }
            }
            Step::Detach { client } => {
                if let Some(id) = core::mem::take(&mut self.clients[client]).id {
                    self.agent.detach(id);
                }
            }
            Step::Publish { client, name } => self.publish(client, name),
            Step::Subscribe { client, id, text, quirk, replay } => {
                let matching = if quirk { Matching::Ftb } else { Matching::Every };
                self.subscribe(client, id, text, matching, replay);
            }
            Step::Unsubscribe { client, id } => {
                let known = &mut self.clients[client];
                let Some(attached) = known.id else { return };
                let there = known.wanted.iter().position(|one| one.id == id);
                assert_eq!(self.agent.unsubscribe(attached, SubscriptionId(id)).is_ok(), there.is_some());
                there.map(|there| known.wanted.remove(there));
            }
            Step::Remote { origin, sequence, verified, space } => {
                self.remote(origin, sequence, verified, space);
            }
            Step::Take { client, count } => self.take(client, count),
            Step::Pass => self.now += Duration::from_millis(700),
        }
        self.agent.check_invariants();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_agent_does_what_the_model_does(steps in proptest::collection::vec(steps(), 1..80)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        (0..4).for_each(|client| model.take(client, 10));
    }
}
