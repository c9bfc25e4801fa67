use super::*;
use steadfast_wire::{Fingerprint, Order, RangeSet};

const SESSION: SessionId = SessionId(7);

fn opened() -> Record {
    let peer = Fingerprint([1; 32]);
    Record::Opened { peer, incarnation: None, opener: true, per_urgency: false, addresses: Vec::new() }
}

fn sent(id: u64, bytes: &'static [u8]) -> Record {
    let (labels, length) = (Labels::foreground(), Some(bytes.len() as u64));
    let head = Head { labels, order: Order::Total, streamed: false, length, expires_in: None };
    Record::Sent { id: MessageId(id), head, payload: Some(Bytes::from_static(bytes)) }
}

fn digest(records: &[Record]) -> Digest {
    let mut digest = Digest::default();
    for record in records {
        digest.take(SESSION, record);
    }
    digest
}

fn records(digest: &Digest) -> Vec<Record> {
    digest.records().map(|(_, record)| record).collect()
}

#[test]
fn what_is_settled_leaves_ranges_alone() {
    let mut all = alloc::vec![opened()];
    for id in 1..=1000 {
        all.push(sent(id, b"some bytes"));
        all.push(Record::Settled { id: MessageId(id), delivered: true });
        all.push(Record::Resolved { id: MessageId(id), delivered: true, place: (0, id - 1) });
    }
    let digest = digest(&all);
    let [Record::Opened { .. }, Record::Summary(summary)] = &records(&digest)[..] else {
        panic!("{:?}", records(&digest));
    };
    assert_eq!((summary.sent, summary.sequences), (1000, [1000, 0]));
    assert_eq!(summary.resolved, (1..1001).map(|id| id..id + 1).collect::<RangeSet>());
    assert!(digest.size() < 1000);
}

#[test]
fn a_digest_of_a_digest_is_the_same() {
    let all = [
        opened(),
        Record::Offered(Token([1; 16])),
        Record::Offered(Token([2; 16])),
        Record::Confirmed(Token([1; 16])),
        Record::Held(Token([9; 16])),
        sent(1, b"open"),
        sent(2, b"cancelled"),
        sent(3, b"dropped"),
        sent(4, b"forgotten"),
        Record::Relabelled { id: MessageId(1), labels: Labels::background() },
        Record::Cancelled(MessageId(2), DropReason::Cancelled),
        Record::Settled { id: MessageId(3), delivered: false },
        Record::Settled { id: MessageId(4), delivered: false },
        Record::Forgotten(MessageId(4)),
        Record::Resolved { id: MessageId(1), delivered: false, place: (0, 0) },
        Record::Resolved { id: MessageId(2), delivered: false, place: (0, 1) },
        Record::Excused(MessageId(1)),
        Record::Shut(MessageId(4), ShutKind::Finish),
    ];
    let once = digest(&all);
    let twice = digest(&records(&once));
    assert_eq!(records(&once), records(&twice));
    assert_eq!(once.size(), twice.size());
    assert_eq!(once.payloads, b"open".len() as u64, "what is to be dropped keeps no payload");
    let open: Vec<_> = records(&once)
        .into_iter()
        .filter_map(|record| match record {
            Record::Sent { id, .. } => Some(id.0),
            _ => None,
        })
        .collect();
    assert_eq!(open, [1, 2, 3]);
    let Some(Record::Summary(summary)) =
        records(&once).into_iter().find(|record| matches!(record, Record::Summary(_)))
    else {
        panic!("no summary");
    };
    assert_eq!(
        summary.dropped,
        (3..5).map(|id| id..id + 1).collect::<RangeSet>(),
        "what is forgotten still makes dependents undeliverable"
    );
    assert_eq!(summary.refused, (2..3).map(|id| id..id + 1).collect::<RangeSet>());
}

#[test]
fn a_session_that_ended_leaves_nothing() {
    let digest = digest(&[opened(), sent(1, b"never"), Record::Ended]);
    assert_eq!((records(&digest), digest.size()), (Vec::new(), 0));
}
