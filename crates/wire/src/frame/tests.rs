#![expect(clippy::single_range_in_vec_init, reason = "sets of one range are meant")]

use super::*;
use crate::label::{Rule, Selector, SizeClass};
use crate::network::{Address, NetworkClass};
use alloc::vec;
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    use core::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn set(ranges: &[core::ops::Range<u64>]) -> RangeSet {
    ranges.iter().cloned().collect()
}

fn full_head() -> Head {
    Head {
        labels: Labels {
            urgency: Urgency::Background,
            size: SizeClass::Large,
            rule: Rule::default().prohibit(Selector::Metered).avoid(Selector::Name("x".into())),
        },
        order: Order::After { sequence: 2, dependencies: vec![MessageId(1)] },
        streamed: false,
        length: Some(2),
        expires_in: Some(300),
    }
}

/// One of each frame, with its bytes. A change here is a change of the wire format: raise [`VERSION`].
fn golden() -> Vec<(Frame, &'static str)> {
    let session = SessionId(0x1234_5678_9abc);
    vec![
        (
            Frame::Hello(Hello {
                version: 1,
                incarnation: Incarnation(0x0102_0304_0506_0708),
                path: PathNumber(5),
                network: NetworkId(2),
                port: 0x1234,
                features: 0,
                durable: true,
                max_message: 1 << 20,
                windows: [1 << 22, 1 << 24],
                process: Process { pid: 77, start: 9, namespace: 4_026_531_836 },
            }),
            "012601010203040506070805021234000180100000804000008100000 0404d09c0000000effffffc",
        ),
        (
            Frame::Networks {
                epoch: 2,
                networks: vec![Network {
                    id: NetworkId(4),
                    name: "wlan0".into(),
                    class: NetworkClass::Wifi,
                    metered: false,
                    cost: 7,
                    port: 0x1f2e,
                    addresses: vec![Address { ip: "10.0.0.1".parse().unwrap(), prefix: 24 }],
                }],
            },
            "0315020104 05776c616e30 020007 1f2e 01 18 040a000001",
        ),
        (
            Frame::Open { session, per_urgency: true, token: Token([0xab; 16]) },
            "0519 c000123456789abc 01 abababababababababababababababab",
        ),
        (
            Frame::Accept { session, token: Token([1; 16]), holds: Token([2; 16]) },
            "0728 c000123456789abc 01010101010101010101010101010101 02020202020202020202020202020202",
        ),
        (
            Frame::Confirm { session, holds: Token([3; 16]) },
            "0918c000123456789abc03030303030303030303030303030303",
        ),
        (
            Frame::Resume(Resume {
                session: SessionId(1),
                fresh: false,
                per_urgency: true,
                expects: true,
                confirmed: Some(Token([4; 16])),
                offered: vec![Token([5; 16])],
                holds: None,
                next: MessageId(9),
                shut: Some((MessageId(8), ShutKind::Close)),
                received: set(&[4..5]),
                delivered: set(&[1..3]),
                dropped: set(&[3..4]),
                partial: vec![(MessageId(6), set(&[0..10]))],
                charged: [1, 2],
                limits: [3, 4],
            }),
            "0b3d01000101010404040404040404040404040404040401050505050505050505050505050505050009010801010401010102010301010601000a01020304",
        ),
    ]
}

/// As [`golden`], of messages, of paths and of farewells.
fn golden_of_messages() -> Vec<(Frame, &'static str)> {
    let id = MessageId(3);
    vec![
        (
            Frame::Data(Data {
                session: SessionId(1),
                id,
                offset: 0,
                class: Urgency::Background,
                fin: true,
                head: Some(full_head()),
                payload: Bytes::from_static(b"hi"),
            }),
            "0d16 01 03 00 1b 0d 00 0102 00 01010178 03 02 01 02 02 412c 6869",
        ),
        (
            Frame::Data(Data {
                session: SessionId(1),
                id,
                offset: 2,
                class: Urgency::Foreground,
                fin: false,
                head: None,
                payload: Bytes::from_static(b"ho"),
            }),
            "0d06 01 03 02 00 686f",
        ),
        (
            Frame::Ack(
                SessionId(1),
                Ack { received: set(&[1..4, 6..7]), delivered: set(&[1..2]), dropped: RangeSet::new() },
            ),
            "0f0a 01 0201030201 010101 00",
        ),
        (Frame::Credit { session: SessionId(1), class: Urgency::Background, limit: 64 }, "110401014040"),
        (
            Frame::Reset {
                session: SessionId(1),
                id,
                order: Urgency::Foreground,
                sequence: 2,
                class: Urgency::Background,
                charged: 9,
                known: true,
            },
            "13070103 0002 0109 01",
        ),
        (Frame::Relabel { session: SessionId(1), id, labels: Labels::foreground().small() }, "1503010302"),
        (Frame::Shut { session: SessionId(1), last: MessageId(0), kind: ShutKind::Finish }, "1703010000"),
        (
            Frame::End { session: SessionId(1), reason: EndReason::RolledBack, common: MessageId(5) },
            "1903010205",
        ),
        (
            Frame::Offer { from: 4, to: 3, epoch: 2, offer: Bytes::from_static(b"key") },
            "2707 04 03 02 03 6b6579",
        ),
        (Frame::Progress(Progress { path: PathNumber(1), count: 2, delay: 3, clock: 4 }), "1b0401020304"),
        (Frame::Check { path: PathNumber(1) }, "1d0101"),
        (Frame::Have { path: PathNumber(1), count: Some(9), closed: true }, "1f0401010109"),
        (Frame::Ping { nonce: 1 }, "210101"),
        (Frame::Pong { nonce: 1 }, "230101"),
        (Frame::Bye { reason: "done".into() }, "250504646f6e65"),
        (Frame::Suspend { epoch: 2, limit: 60_000 }, "2905 02 8000ea60"),
    ]
}

#[test]
fn golden_vectors() {
    for (frame, expected) in golden().into_iter().chain(golden_of_messages()) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert_eq!(hex(&bytes), expected.replace(' ', ""), "{frame:?}");
        let mut input = BytesMut::from(&bytes[..]);
        assert_eq!(Frame::decode(&mut input), Ok(Some(frame)));
        assert!(input.is_empty());
    }
}

#[test]
fn every_cut_of_a_stream_waits_for_more() {
    for (frame, _) in golden().into_iter().chain(golden_of_messages()) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(Frame::decode(&mut BytesMut::from(&bytes[..cut])), Ok(None), "{frame:?} cut at {cut}");
        }
    }
}

#[test]
fn a_body_that_is_cut_is_an_error() {
    for (frame, _) in golden().into_iter().chain(golden_of_messages()) {
        // A payload may be any length, and a HELLO may grow.
        if matches!(frame, Frame::Data(_)) {
            continue;
        }
        let mut body = Vec::new();
        let kind = codec::encode_body(&frame, &mut body);
        for cut in 0..body.len() {
            let mut bytes = Vec::new();
            varint::put(&mut bytes, kind);
            varint::put_bytes(&mut bytes, &body[..cut]);
            assert!(Frame::decode(&mut BytesMut::from(&bytes[..])).is_err(), "{frame:?} with {cut} bytes");
        }
        if !matches!(frame, Frame::Hello(_)) {
            let mut bytes = Vec::new();
            body.push(0);
            varint::put(&mut bytes, kind);
            varint::put_bytes(&mut bytes, &body);
            assert_eq!(
                Frame::decode(&mut BytesMut::from(&bytes[..])),
                Err(DecodeError::Trailing),
                "{frame:?}"
            );
        }
    }
}

#[test]
fn unknown_frames() {
    let mut ping = Vec::new();
    Frame::Ping { nonce: 1 }.encode(&mut ping);
    let mut optional = vec![0x3e, 3, 1, 2, 3];
    optional.extend(&ping);
    assert_eq!(Frame::decode(&mut BytesMut::from(&optional[..])), Ok(Some(Frame::Ping { nonce: 1 })));
    let required = [0x3f, 3, 1, 2, 3];
    assert_eq!(Frame::decode(&mut BytesMut::from(&required[..])), Err(DecodeError::Unknown(0x3f)));
}

#[test]
fn a_giant_length_is_refused_at_once() {
    let mut bytes = Vec::new();
    varint::put(&mut bytes, 13);
    varint::put(&mut bytes, MAX_BODY as u64 + 1);
    assert_eq!(Frame::decode(&mut BytesMut::from(&bytes[..])), Err(DecodeError::TooLarge));
}

#[test]
fn a_long_offer_is_refused() {
    for (length, fits) in [(MAX_OFFER, true), (MAX_OFFER + 1, false)] {
        let mut body = vec![1, 1, 1];
        varint::put_bytes(&mut body, &vec![7; length]);
        let mut bytes = vec![39];
        varint::put_bytes(&mut bytes, &body);
        assert_eq!(Frame::decode(&mut BytesMut::from(&bytes[..])).is_ok(), fits, "{length}");
    }
}

#[test]
fn dependencies_lie_in_the_past() {
    const FLAG_LENGTH: u8 = 8;
    for back in [0, 3, 4] {
        let mut body = vec![1, 3, 0, FLAG_LENGTH, 0, 3, 0, 1, back, 0];
        let mut bytes = vec![13, body.len() as u8];
        bytes.append(&mut body);
        assert!(
            matches!(Frame::decode(&mut BytesMut::from(&bytes[..])), Err(DecodeError::Malformed(_))),
            "{back}"
        );
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut input = BytesMut::from(&bytes[..]);
        while let Ok(Some(frame)) = Frame::decode(&mut input) {
            let mut again = Vec::new();
            frame.encode(&mut again);
            prop_assert_eq!(Frame::decode(&mut BytesMut::from(&again[..])), Ok(Some(frame)));
        }
    }
}
