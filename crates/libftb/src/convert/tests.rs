use super::*;
use std::sync::Arc;
use steadfast_backplane::{Client, Payload, SchemaInfo};

fn event(long: bool) -> Event {
    let text = |length: usize, short: &str| if long { "x".repeat(length) } else { short.to_owned() };
    Event {
        id: EventId { origin: Fingerprint([7; 32]), incarnation: Incarnation(9), sequence: 3 },
        space: if long { format!("{}.b.c", text(59, "")) } else { "FTB.mpi.mpich2".into() }.parse().unwrap(),
        name: text(31, "ev_b").parse().unwrap(),
        severity: "WARNING".parse().unwrap(),
        kind: Kind::Plain,
        payload: Payload::new(bytes::Bytes::from(vec![5; PAYLOAD])).unwrap(),
        client: Client {
            name: text(15, "mpich 3.x").parse().unwrap(),
            job: text(15, "42").parse().unwrap(),
            extension: 0,
        },
        number: 70_000,
        location: Location {
            host: text(63, "node7").parse().unwrap(),
            address: "2001:db8::1".parse().ok(),
            pid: 1234,
            start: Timestamp(1_000_000_000),
        },
        user: 1000,
        time: Timestamp(2_000_000_000),
        schema: SchemaInfo::new("1", "").ok().map(Arc::new),
        signature: None,
    }
}

#[test]
fn the_handle_of_an_event_is_whole() {
    for long in [false, true] {
        let event = event(long);
        let mut made = received(&event);
        assert_eq!(spare(&mut made).count() >= HIDDEN, !long, "both ways are tried");
        let handle = handle_of(&made);
        let back = EventHandle::from_ftb(&handle.array()).unwrap();
        assert_eq!(format!("{back:?}"), format!("{:?}", event.handle()));
        assert!(same(&handle, &handle));
        assert_eq!(abi::text(&made.event_space), Some(event.space.as_str()));
        assert_eq!((made.seqnum, made.event_type), (70_000_u32 as u16, 1));
    }
}

#[test]
fn what_no_agent_gave_is_compared_by_its_fields() {
    let mut made = received(&event(false));
    spare(&mut made).for_each(|byte| *byte = 0);
    let by_hand = handle_of(&made);
    assert!(EventHandle::from_ftb(&by_hand.array()).is_err());
    assert_eq!(abi::text(&by_hand.client_id.comp), Some("mpich2"));
    let mut other = by_hand;
    other.event_name = field("EV_B");
    assert!(same(&by_hand, &other), "without case");
    other.seqnum += 1;
    assert!(!same(&by_hand, &other));
    assert!(!same(&by_hand, &handle_of(&received(&event(false)))));
}

#[test]
fn answers_begin_with_the_handle() {
    let answered = event(true).handle();
    let mut answer = event(false);
    answer.kind = Kind::Answer(Box::new(answered.clone()));
    answer.payload = Payload::new(bytes::Bytes::from_static(b"12345678more")).unwrap();
    let made = received(&answer);
    assert_eq!(made.event_type, 2);
    assert_eq!(made.event_payload[..FTB_HANDLE], answered.to_ftb());
    assert_eq!(made.event_payload[FTB_HANDLE..], *b"12345678");
}

#[test]
fn a_subscription_tells_what_it_wants() {
    let subscription = "event_space=ftb.all.x, severity=Info".parse().unwrap();
    let client = ClientHandle {
        valid: 1,
        client_id: ClientIdentity {
            region: field("a"),
            comp_cat: field("b"),
            comp: field("c"),
            client_name: field(""),
            ext: 0,
        },
    };
    let mut handle = subscribed(client, 5, SubscriptionId(6), &subscription, true);
    let wanted = &handle.subscription_event;
    assert_eq!(abi::text(&wanted.region), Some("ftb"));
    assert_eq!(abi::text(&wanted.comp_cat), Some("all"));
    assert_eq!(abi::text(&wanted.comp), Some("x"));
    assert_eq!(abi::text(&wanted.event_name), Some("all"));
    assert!(abi::text(&wanted.severity).unwrap().eq_ignore_ascii_case("info"));
    assert_eq!(numbers(&handle), Some((5, SubscriptionId(6))));
    handle.valid = 0;
    assert_eq!(numbers(&handle), None);
}
