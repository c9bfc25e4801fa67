//! Golden vectors, written by hand from the module's layout tables: one byte here is one byte there.

use super::*;
use alloc::vec::Vec;
use proptest::prelude::*;

/// Bytes from hexadecimal text; spaces and line breaks are for the reader.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// Ports 0x8001 to 99; the client's id 0x1234.
fn packet(body: Body) -> Packet {
    Packet { source: 0x8001, destination: 99, sender_id: 0x1234, body }
}

/// The 28 bytes in common: `offset` at 4, `kind` at 11, `doff` at 12.
fn common(offset: &str, kind: &str, doff: &str) -> std::string::String {
    std::format!("8001 0063 {offset} 000000 {kind} {doff} 06 0000 0000 b97d 0000000000001234")
}

fn acks(count: u64) -> Acks {
    let mut acks = Acks::new();
    for number in 1..=count {
        assert!(acks.push(Ack { client_id: 0x10 * number, server_port: 7 }));
    }
    acks
}

fn golden() -> Vec<(Packet, std::string::String)> {
    let control = |kind: &str, rest: &str| common("00000000", kind, "50") + rest;
    let cutoffs = [u32::MAX, 0, 0, 0, 1_000_000, 15_000, 2800, 200];
    let levels = "ffffffff 00000000 00000000 00000000 000f4240 00003a98 00000af0 000000c8 0001";
    let five = "0005 0000000000000010 0007 0000000000000020 0007 0000000000000030 0007
                0000000000000040 0007 0000000000000050 0007";
    let one = "0001 0000000000000010 0007 0000000000000000 0000 0000000000000000 0000
               0000000000000000 0000 0000000000000000 0000";
    let data = Data {
        length: 100_000,
        incoming: 40_000,
        ack: None,
        cutoff_version: 0,
        retransmit: false,
        offset: 0x0590,
    };
    let again = Data {
        ack: Some(Ack { client_id: 0x1230, server_port: 99 }),
        cutoff_version: 0x0102,
        retransmit: true,
        ..data
    };
    let data_bytes =
        common("00000590", "10", "e0") + "000186a0 00009c40 0000000000000000 0000 0000 00 000000 00000590";
    let again_bytes =
        common("00000590", "10", "e0") + "000186a0 00009c40 0000000000001230 0063 0102 01 000000 00000590";
    Vec::from([
        (packet(Body::Data(data)), data_bytes),
        (packet(Body::Data(again)), again_bytes),
        (packet(Body::Grant { offset: 0x0001_0000, priority: 3 }), control("11", "00010000 03")),
        (
            packet(Body::Resend { offset: 0, length: RESEND_ALL, priority: 7 }),
            control("12", "00000000 ffffffff 07"),
        ),
        (packet(Body::Unknown), control("13", "")),
        (packet(Body::Busy), control("14", "")),
        (packet(Body::Cutoffs { cutoffs, version: 1 }), control("15", levels)),
        (packet(Body::Freeze), control("16", "")),
        (packet(Body::NeedAck), control("17", "")),
        (packet(Body::Ack(acks(5))), control("18", five)),
        // Full length, however few there are: the module drops a shorter one.
        (packet(Body::Ack(acks(1))), control("18", one)),
        (packet(Body::Refused(Refusal::NoSuchPort)), control("30", "01")),
    ])
}

#[test]
fn golden_vectors() {
    for (packet, text) in golden() {
        let bytes = hex(&text);
        let mut out = Vec::new();
        packet.encode(&mut out);
        assert_eq!(out, bytes, "{packet:?}");
        assert_eq!(out.len(), packet.kind().header());
        assert_eq!(Packet::decode(Dialect::Steadfast, &bytes), Ok(packet));
    }
}

#[test]
fn the_offset_stands_in_the_sequence_unless_the_segment_has_its_own() {
    let (_, text) = &golden()[0];
    let mut bytes = hex(text);
    // A single-segment packet of the module: seg.offset is -1.
    bytes[52..56].fill(0xff);
    let offset = |bytes: &[u8]| match Packet::decode(Dialect::Linux, bytes).map(|packet| packet.body) {
        Ok(Body::Data(data)) => data.offset,
        other => panic!("not DATA: {other:?}"),
    };
    assert_eq!(offset(&bytes), 0x590);
    // One that was split: the sequence is that of the whole frame.
    bytes[52..56].copy_from_slice(&[0, 0, 0x0b, 0x20]);
    assert_eq!(offset(&bytes), 0xb20);
}

#[test]
fn a_frame_that_no_card_split_is_several_packets() {
    // Two full segments of 3 bytes and one of 1; a split frame's first header has its offset, too.
    let (_, text) = &golden()[1];
    let mut frame = hex(text);
    frame[12] = 13 << 4;
    frame.extend([1, 1, 1, 0, 0, 5, 0x93, 2, 2, 2, 0, 0, 5, 0x96, 3]);
    let packets = split(Dialect::Linux, &frame, 3).map(|packets| {
        let parts = packets.map(|(packet, payload)| match packet.body {
            Body::Data(data) => (data.offset, data.ack.is_some(), payload.to_vec()),
            other => panic!("not DATA: {other:?}"),
        });
        parts.collect::<Vec<_>>()
    });
    let expected = [
        (0x590, true, Vec::from([1, 1, 1])),
        (0x593, false, Vec::from([2, 2, 2])),
        (0x596, false, Vec::from([3])),
    ];
    assert_eq!(packets, Ok(Vec::from(expected)));
}

#[test]
fn a_packet_that_a_card_made_is_one_whatever_its_length() {
    for (packet, text) in golden() {
        let mut bytes = hex(&text);
        let payload: &[u8] = if packet.kind() == Kind::Data { &[7; 10] } else { &[] };
        bytes.extend(payload);
        let packets = split(Dialect::Steadfast, &bytes, 3).map(Iterator::collect::<Vec<_>>);
        assert_eq!(packets, Ok(Vec::from([(packet, payload)])));
    }
}

#[test]
fn what_is_shorter_than_its_type_is_dropped() {
    for (packet, text) in golden() {
        let bytes = hex(&text);
        for length in 0..bytes.len() {
            let decoded = Packet::decode(Dialect::Steadfast, &bytes[..length]);
            assert_eq!(decoded, Err(DecodeError::Short { length }), "{packet:?}");
        }
    }
}

#[test]
fn a_grant_of_the_draft_has_one_byte_more() {
    let bytes = hex(&(common("00000000", "11", "50") + "00010000 03 01"));
    let grant = Body::Grant { offset: 0x0001_0000, priority: 3 };
    assert_eq!(Packet::decode(Dialect::Linux, &bytes), Ok(packet(grant)));
}

#[test]
fn types_outside_of_the_dialect_are_unknown() {
    for code in (0..=255_u8).filter(|code| !(0x10..=0x18).contains(code)) {
        let bytes = hex(&common("00000000", &std::format!("{code:02x}"), "50"));
        let whole = [bytes, Vec::from([1; 60])].concat();
        assert_eq!(Packet::decode(Dialect::Linux, &whole), Err(DecodeError::UnknownType(code)));
        assert_eq!(Packet::decode(Dialect::Steadfast, &whole).is_ok(), code == 0x30);
    }
}

#[test]
fn more_acknowledgements_than_fit_are_no_packet() {
    let (_, text) = &golden()[9];
    let mut bytes = hex(text);
    bytes[29] = 6;
    assert_eq!(Packet::decode(Dialect::Linux, &bytes), Err(DecodeError::Invalid(0x18)));
}

#[test]
fn a_sixth_acknowledgement_has_no_room_and_the_newest_leaves_first() {
    let mut all = acks(5);
    assert!(all.is_full());
    assert!(!all.push(Ack::default()));
    assert_eq!(all.pop().map(|ack| ack.client_id), Some(0x50));
    assert_eq!(all.as_slice().len(), 4);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100), kind in 0x0f_u8..0x1a) {
        let mut bytes = bytes;
        if let Some(byte) = bytes.get_mut(11) {
            *byte = kind;
        }
        for dialect in [Dialect::Linux, Dialect::Steadfast] {
            let payload = split(dialect, &bytes, 5).map_or(0, |all| all.map(|(_, payload)| payload.len()).sum());
            prop_assert!(payload <= bytes.len());
            if let Ok(packet) = Packet::decode(dialect, &bytes) {
                let mut out = Vec::new();
                packet.encode(&mut out);
                prop_assert_eq!(Packet::decode(dialect, &out), Ok(packet));
            }
        }
    }
}
