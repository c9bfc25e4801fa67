//! Events for tests.

use crate::event::{Client, Event, EventId, Kind, Location, MAX_PAYLOAD, Payload, SchemaInfo, Signature};
use crate::name::{ClientName, EventName, EventSpace, HostName, JobId, Severity};
use crate::timestamp::Timestamp;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use core::net::IpAddr;
use proptest::prelude::*;
use steadfast_wire::{Fingerprint, Incarnation};

/// A certain event.
pub(crate) fn event() -> Event {
    Event {
        id: EventId { origin: Fingerprint([7; 32]), incarnation: Incarnation(9), sequence: 3 },
        space: EventSpace::new("FTB.mpi.mpich2").unwrap(),
        name: EventName::new("ev_b").unwrap(),
        severity: Severity::new("FATAL").unwrap(),
        kind: Kind::Plain,
        payload: Payload::new("hello".into()).unwrap(),
        client: Client {
            name: ClientName::new("one").unwrap(),
            job: JobId::new("42").unwrap(),
            extension: 0,
        },
        number: 5,
        location: Location {
            host: HostName::new("node7").unwrap(),
            address: "10.0.0.7".parse().ok(),
            pid: 1234,
            start: Timestamp(100),
        },
        user: 1000,
        time: Timestamp(200),
        schema: Some(Arc::new(SchemaInfo::new("1.2", "tests").unwrap())),
        signature: None,
    }
}

/// Every field as long as it may be.
pub(crate) fn largest() -> Event {
    let mut event = event();
    let text = |length| "x".repeat(length);
    event.space = EventSpace::new(&format!("{}.b.c", text(59))).unwrap();
    event.name = EventName::new(&text(31)).unwrap();
    event.severity = Severity::WARNING;
    event.client.name = ClientName::new(&text(15)).unwrap();
    event.client.job = JobId::new(&text(15)).unwrap();
    event.location.host = HostName::new(&text(63)).unwrap();
    event.location.address = "2001:db8::1".parse().ok();
    event.schema = Some(Arc::new(SchemaInfo::new(&text(31), &text(255)).unwrap()));
    event.payload = Payload::new(vec![7; MAX_PAYLOAD].into()).unwrap();
    event.signature = Some(Signature([3; 64]));
    event.kind = Kind::Answer(Box::new(event.handle()));
    event
}

fn space() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-zA-Z0-9_]{1,20}\\.[a-zA-Z0-9_]{1,20}\\.[a-zA-Z0-9_]{1,20}",
        2 => "[ab]\\.[ab]\\.[ab]",
        1 => "[a-z]{59}\\.[a-z]\\.[a-z]",
        1 => "[a-z]\\.[a-z]\\.[a-z]{59}",
        1 => Just(String::from("ftb.os.bgl-cnk")),
    ]
}

fn any_address() -> impl Strategy<Value = Option<IpAddr>> {
    prop_oneof![
        Just(None),
        any::<[u8; 4]>().prop_map(|a| Some(a.into())),
        any::<[u8; 16]>().prop_map(|a| Some(a.into()))
    ]
}

fn plain() -> impl Strategy<Value = Event> {
    let id = (any::<[u8; 32]>(), any::<u64>(), any::<u64>());
    let names = (space(), "[a-zA-Z0-9_]{1,31}", "(info|Info|warning|ERROR|fatal|Fatal)");
    let client = ("[ -~]{0,15}", "[ -~]{0,15}|ü{0,7}", any::<u8>(), any::<u64>());
    let location =
        ("[!-~]{1,63}|é{1,31}", any_address(), any::<u32>(), any::<u64>(), any::<u32>(), any::<u64>());
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        ".{0,60}".prop_map(String::into_bytes),
        Just(b"\"quoted\"\n\ttext \\ \0".to_vec()),
    ];
    let schema = proptest::option::of(("[ -~]{0,31}", "[ -~]{0,255}"));
    let signature = proptest::option::of(any::<u8>());
    (id, names, client, location, payload, schema, signature).prop_map(
        |(id, names, client, location, payload, schema, signature)| Event {
            id: EventId { origin: Fingerprint(id.0), incarnation: Incarnation(id.1), sequence: id.2 },
            space: EventSpace::new(&names.0).unwrap(),
            name: EventName::new(&names.1).unwrap(),
            severity: Severity::new(&names.2).unwrap(),
            kind: Kind::Plain,
            payload: Payload::new(payload.into()).unwrap(),
            client: Client {
                name: ClientName::new(&client.0).unwrap(),
                job: JobId::new(&client.1).unwrap(),
                extension: client.2,
            },
            number: client.3,
            location: Location {
                host: HostName::new(&location.0).unwrap(),
                address: location.1,
                pid: location.2,
                start: Timestamp(location.3),
            },
            user: location.4,
            time: Timestamp(location.5),
            schema: schema.map(|(version, text)| Arc::new(SchemaInfo::new(&version, &text).unwrap())),
            signature: signature.map(|byte| Signature([byte; 64])),
        },
    )
}

/// Any event.
pub(crate) fn events() -> impl Strategy<Value = Event> {
    (plain(), proptest::option::of(plain())).prop_map(|(mut event, answered)| {
        if let Some(answered) = answered {
            event.kind = Kind::Answer(Box::new(answered.handle()));
        }
        event
    })
}
