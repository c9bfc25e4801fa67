//! A program on a host that publishes and subscribes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use bytes::BytesMut;
use steadfast_backplane::{
    Declaration, Delivery, EventId, EventSpace, Heard, JobId, Kind, Matching, Payload, Provenance,
    Publication, Replay, Session, SubscriptionId,
};

use crate::host::{GUARD, until};

pub(crate) struct Client {
    stream: UnixStream,
    session: Session,
    input: BytesMut,
    /// Events that came while something else was waited for.
    events: Vec<Delivery>,
}

impl Client {
    /// It has declared `DONE`.
    pub(crate) fn new(socket: &Path, space: &str) -> Self {
        let stream = until("the agent's socket", || UnixStream::connect(socket).ok());
        stream.set_read_timeout(Some(GUARD)).unwrap();
        let client =
            steadfast_backplane::Client { name: "test".parse().unwrap(), job: JobId::NONE, extension: 0 };
        let session = Session::new(Some(EventSpace::new(space).unwrap()), client);
        let mut client = Self { stream, session, input: BytesMut::new(), events: Vec::new() };
        client.session.handle_connected();
        client.session.declare(None, vec![Declaration::new("DONE", "info").unwrap()]).unwrap();
        client.wait(|heard| matches!(heard, Heard::Done(_)));
        client
    }

    fn say(&mut self) {
        let mut out = Vec::new();
        self.session.poll_transmit(&mut out);
        self.stream.write_all(&out).unwrap();
    }

    fn hear(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.session.poll(&mut self.input).unwrap() {
                return heard;
            }
            let mut bytes = [0; 8 * 1024];
            let count = self.stream.read(&mut bytes).expect("the agent says something in time");
            assert!(count > 0, "the agent is gone");
            self.input.extend_from_slice(&bytes[..count]);
        }
    }

    fn wait(&mut self, wanted: impl Fn(&Heard) -> bool) -> Heard {
        self.say();
        loop {
            match self.hear() {
                heard if wanted(&heard) => return heard,
                Heard::Event(delivery) => self.events.push(delivery),
                Heard::Welcome { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn subscribe(&mut self, text: &str, replay: Replay) {
        self.session.subscribe(SubscriptionId(1), Matching::Every, replay, text).unwrap();
        self.wait(|heard| matches!(heard, Heard::Subscribed { .. }));
    }

    /// Publishes `DONE`, and waits until it is acknowledged.
    pub(crate) fn publish(&mut self, text: &str) -> EventId {
        let payload = Payload::new(text.to_owned().into()).unwrap();
        let publication = Publication { name: "DONE".parse().unwrap(), kind: Kind::Plain, payload };
        self.session.publish(publication, true).unwrap();
        let heard = self.wait(|heard| matches!(heard, Heard::Published { .. }));
        let Heard::Published { handle, .. } = heard else { unreachable!() };
        handle.id
    }

    pub(crate) fn next(&mut self) -> Delivery {
        if !self.events.is_empty() {
            return self.events.remove(0);
        }
        loop {
            match self.hear() {
                Heard::Event(delivery) => return delivery,
                Heard::Welcome { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next event's payload, how it was vouched for, and whether it is a replay.
    pub(crate) fn next_text(&mut self) -> (String, Provenance) {
        let delivery = self.next();
        (String::from_utf8(delivery.event.payload.bytes().to_vec()).unwrap(), delivery.provenance)
    }

    /// Takes events until all of these came, which none may twice.
    pub(crate) fn take_once(&mut self, mut expected: BTreeMap<EventId, String>) {
        while !expected.is_empty() {
            let delivery = self.next();
            let text = expected.remove(&delivery.event.id);
            assert!(text.is_some(), "twice, or never published: {delivery:?}");
            assert_eq!(text.unwrap().as_bytes(), delivery.event.payload.bytes());
            assert_eq!(delivery.provenance, Provenance::Signed);
        }
    }
}
