use super::*;
use steadfast_wire::{Rule, Selector};

fn every_kind() -> Vec<Record> {
    let labels = Labels::background().rule(Rule::default().prohibit(Selector::Metered));
    let order = Order::After { sequence: 7, dependencies: alloc::vec![MessageId(2), MessageId(5)] };
    let head = Head { labels: labels.clone(), order, streamed: false, length: Some(5), expires_in: Some(9) };
    let stream = Head { streamed: true, length: None, expires_in: None, order: Order::Total, ..head.clone() };
    let set = |ranges: &[(u64, u64)]| ranges.iter().map(|(from, to)| *from..*to).collect::<RangeSet>();
    let mut all = alloc::vec![
        Record::Opened {
            peer: Fingerprint([3; 32]),
            incarnation: Some(Incarnation(77)),
            opener: true,
            per_urgency: false,
            addresses: alloc::vec!["10.0.0.1:7463".parse().unwrap(), "[fe80::1%3]:80".parse().unwrap()],
        },
        Record::Opened {
            peer: Fingerprint([4; 32]),
            incarnation: None,
            opener: false,
            per_urgency: true,
            addresses: Vec::new(),
        },
        Record::Offered(Token([1; 16])),
        Record::Confirmed(Token([2; 16])),
        Record::Held(Token([3; 16])),
        Record::Sent { id: MessageId(6), head: head.clone(), payload: Some(Bytes::from_static(b"hello")) },
        Record::Sent { id: MessageId(6), head, payload: None },
        Record::Sent { id: MessageId(9), head: stream, payload: None },
        Record::Relabelled { id: MessageId(6), labels },
        Record::Settled { id: MessageId(4), delivered: true },
        Record::Settled { id: MessageId(4), delivered: false },
        Record::Resolved { id: MessageId(1 << 40), delivered: true, place: (1, 12) },
        Record::Resolved { id: MessageId(1), delivered: false, place: (0, 0) },
        Record::Forgotten(MessageId(3)),
        Record::Excused(MessageId(8)),
        Record::Shut(MessageId(0), ShutKind::Finish),
        Record::Shut(MessageId(12), ShutKind::Close),
        Record::Summary(Summary {
            sent: 900,
            sequences: [400, 500],
            dropped: set(&[(3, 4), (9, 12)]),
            floor: 2,
            resolved: set(&[(1, 800)]),
            refused: set(&[(5, 6)]),
            places: [set(&[(0, 300)]), set(&[(0, 10), (11, 499)])],
        }),
        Record::Ended,
    ];
    all.extend(REASONS.map(|reason| Record::Cancelled(MessageId(2), reason)));
    all
}

#[test]
fn every_record_comes_back_as_it_was() {
    for record in every_kind() {
        let mut bytes = Vec::new();
        record.encode(SessionId(0xfedc_ba98_7654_3210), &mut bytes);
        let (session, back) = Record::decode(bytes.into()).unwrap();
        assert_eq!((session.0, back), (0xfedc_ba98_7654_3210, record));
    }
}

#[test]
fn what_is_cut_or_goes_on_is_refused() {
    for record in every_kind() {
        let mut bytes = Vec::new();
        record.encode(SessionId(1), &mut bytes);
        for end in 0..bytes.len() {
            let cut = Record::decode(Bytes::copy_from_slice(&bytes[..end]));
            assert!(cut.is_err(), "{record:?} cut to {end}: {cut:?}");
        }
        bytes.push(0);
        assert_eq!(Record::decode(bytes.into()), Err(DecodeError::Trailing), "{record:?}");
    }
}

#[test]
fn changed_bytes_never_panic() {
    for record in every_kind() {
        let mut bytes = Vec::new();
        record.encode(SessionId(1), &mut bytes);
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[index] ^= 1 << bit;
                let _any = Record::decode(other.into());
            }
        }
    }
}
