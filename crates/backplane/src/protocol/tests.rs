use super::*;
use crate::arbitrary;
use crate::name::{ClientName, JobId};
use alloc::format;
use alloc::vec;
use core::fmt::Write as _;
use proptest::prelude::*;

fn client() -> Client {
    Client { name: ClientName::new("one").unwrap(), job: JobId::NONE, extension: 3 }
}

fn hex(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for byte in bytes {
        write!(hex, "{byte:02x}").unwrap();
    }
    hex
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out
}

/// What clients say.
fn asked() -> Vec<(Frame, String)> {
    let event = arbitrary::event();
    let publication = Publication { name: event.name, kind: Kind::Plain, payload: event.payload.clone() };
    let space = EventSpace::new("a.b.c").unwrap();
    let seven = "07".repeat(32);
    vec![
        (
            Frame::Hello(Hello { lowest: 1, highest: 2, space: Some(space), client: client() }),
            "01 0f 01 02 01 05612e622e63 036f6e65 00 03".into(),
        ),
        (
            Frame::Hello(Hello { lowest: 1, highest: 1, space: None, client: client() }),
            "01 09 01 01 00 036f6e65 00 03".into(),
        ),
        (
            Frame::Declare {
                request: Request(1),
                info: SchemaInfo::new("1", "d").ok(),
                events: vec![Declaration::new("A", "INFO").unwrap()],
            },
            "03 0e 01 01 0131 0164 01 0141 04494e464f".into(),
        ),
        (
            Frame::Publish { request: Request(300), publication },
            "05 0e 412c 0465765f62 01 0568656c6c6f".into(),
        ),
        (
            Frame::Subscribe {
                request: Request(2),
                id: SubscriptionId(7),
                matching: Matching::Ftb,
                replay: Replay::Nothing,
                text: "jobid=x".into(),
            },
            "07 0c 02 07 01 00 07 6a6f6269643d78".into(),
        ),
        (
            Frame::Subscribe {
                request: Request(2),
                id: SubscriptionId(7),
                matching: Matching::Every,
                replay: Replay::Recent { events: 9, within: Duration::from_secs(1) },
                text: String::new(),
            },
            "07 08 02 07 00 01 09 43e8 00".into(),
        ),
        (
            Frame::Subscribe {
                request: Request(2),
                id: SubscriptionId(7),
                matching: Matching::Every,
                replay: Replay::After(event.id),
                text: String::new(),
            },
            format!("07 35 02 07 00 02 {seven} 0000000000000009 0000000000000003 00"),
        ),
        (Frame::Unsubscribe { request: Request(3), id: SubscriptionId(7) }, "09 02 03 07".into()),
        (Frame::Bye, "0b 00".into()),
    ]
}

/// What agents say.
fn answered() -> Vec<(Frame, String)> {
    let event = arbitrary::event();
    let mut event_bytes = Vec::new();
    event.encode(&mut event_bytes);
    let handle = event.handle();
    let mut handle_bytes = Vec::new();
    handle.encode(&mut handle_bytes);
    let seven = "07".repeat(32);
    vec![
        (
            Frame::Welcome(Welcome {
                version: 1,
                origin: event.id.origin,
                incarnation: event.id.incarnation,
                location: event.location,
                user: 5,
            }),
            format!(
                "15 4044 01 {seven} 0000000000000009 056e6f646537 04 0a000007 000004d2 0000000000000064 00000005"
            ),
        ),
        (Frame::Done(Request(4)), "17 01 04".into()),
        (
            Frame::Published { request: Request(5), handle: Box::new(handle) },
            format!(
                "19 {} 05 {}",
                hex(&((handle_bytes.len() + 1) as u16 | 0x4000).to_be_bytes()),
                hex(&handle_bytes)
            ),
        ),
        (
            Frame::Subscribed {
                request: Request(6),
                replayed: Replayed { events: 2, complete: true },
                newest: arbitrary::event().id,
            },
            format!("1b 33 06 02 01 {seven} 0000000000000009 0000000000000003"),
        ),
        (
            Frame::Refused(Refused {
                request: Request(7),
                code: Code::General,
                retry_after: Some(Duration::from_micros(1500)),
                words: "no".into(),
                reason: Reason::Other,
            }),
            "1d 07 07 01 01 02 02 6e6f".into(),
        ),
        (
            Frame::Refused(Refused {
                request: Request(7),
                code: Code::General,
                retry_after: None,
                words: "no".into(),
                reason: Reason::Denied,
            }),
            "1d 07 07 01 00 02 6e6f 01".into(),
        ),
        (
            Frame::Event(Delivery {
                event: Arc::new(event),
                provenance: Provenance::Signed,
                replay: Some(SubscriptionId(7)),
            }),
            format!(
                "1f {} 01 01 07 {}",
                hex(&((event_bytes.len() + 3) as u16 | 0x4000).to_be_bytes()),
                hex(&event_bytes)
            ),
        ),
        (Frame::Dropped(64), "21 02 4040".into()),
        (Frame::Lost { count: 1, code: Code::InvalidEventName }, "23 02 01 0c".into()),
    ]
}

/// A change here is a change of what is said: raise [`VERSION`].
#[test]
fn golden_vectors() {
    for (frame, expected) in asked().into_iter().chain(answered()) {
        let bytes = encoded(&frame);
        assert_eq!(hex(&bytes), expected.replace(' ', ""), "{frame:?}");
        for cut in 0..bytes.len() {
            assert_eq!(Frame::decode(&mut BytesMut::from(&bytes[..cut])), Ok(None), "{frame:?} cut at {cut}");
        }
        let back = Frame::decode(&mut BytesMut::from(&bytes[..])).unwrap().unwrap();
        // Time is rounded up, once.
        assert_eq!(encoded(&back), bytes);
    }
}

#[test]
fn what_breaks_the_format_is_refused() {
    for (bytes, what) in [
        (&[0x0d, 0][..], "an unknown frame that must be understood"),
        (&[0x05, 0x80, 0x02, 0, 0], "a body beyond its bound"),
        (&[0x0b, 1, 0], "a body that goes on"),
        (&[0x09, 1, 1], "a body that ends early"),
        (&[0x07, 6, 1, 1, 2, 0, 1, b'x'], "an unknown matching"),
        (&[0x07, 5, 1, 1, 0, 3, 0], "an unknown replay"),
        (&[0x07, 6, 1, 1, 0, 0, 1, 0xff], "a text that is none"),
        (&[0x05, 6, 0, 1, b'A', 3, 0, 0], "an unknown type of event"),
        (&[0x05, 5, 0, 1, b'-', 1, 0], "a name that is none"),
        (&[0x03, 4, 1, 0, 0x41, 1], "more events than there may be"),
        (&[0x23, 2, 1, 0], "a code that is none"),
        (&[0x1b, 3, 1, 1, 2], "neither yes nor no"),
    ] {
        assert!(Frame::decode(&mut BytesMut::from(bytes)).is_err(), "{what}");
    }
    let mut skipped = BytesMut::from(&[0x0c, 2, 9, 9, 0x0b, 0][..]);
    assert_eq!(Frame::decode(&mut skipped), Ok(Some(Frame::Bye)));
    // A version that is not spoken is read as far as it is known.
    let mut other = BytesMut::from(&[1, 5, 3, 9, 0xff, 0xff, 0xff][..]);
    let Ok(Some(Frame::Hello(hello))) = Frame::decode(&mut other) else { panic!("not read") };
    assert_eq!((hello.lowest, hello.highest), (3, 9));
    // A reason of a later version.
    let mut refused = BytesMut::from(&[0x1d, 5, 7, 1, 0, 0, 99][..]);
    let Ok(Some(Frame::Refused(refused))) = Frame::decode(&mut refused) else { panic!("not read") };
    assert_eq!(refused.reason, Reason::Other);
}

#[test]
fn versions() {
    for (lowest, highest, spoken) in
        [(1, 1, Some(1)), (1, 2, Some(2)), (2, 9, Some(2)), (3, 9, None), (0, 0, None), (2, 1, None)]
    {
        assert_eq!(version(lowest, highest), spoken, "{lowest} to {highest}");
    }
}

#[test]
fn the_largest_event_fits_into_a_frame() {
    let delivery = Delivery {
        event: Arc::new(arbitrary::largest()),
        provenance: Provenance::Signed,
        replay: Some(SubscriptionId(u32::MAX)),
    };
    let frame = Frame::Event(delivery);
    assert_eq!(Frame::decode(&mut BytesMut::from(&encoded(&frame)[..])), Ok(Some(frame)));
    let long = Refused {
        request: Request(1),
        code: Code::General,
        retry_after: None,
        words: "ä".repeat(400),
        reason: Reason::Denied,
    };
    let back = Frame::decode(&mut BytesMut::from(&encoded(&Frame::Refused(long))[..]));
    assert!(matches!(back, Ok(Some(Frame::Refused(refused))) if refused.words.len() == MAX_WORDS));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..18) {
        // A right type and length, or little is reached.
        for start in [vec![], vec![2 * kind + 1, 0x40, bytes.len() as u8]] {
            let mut input = BytesMut::from(&[start, bytes.clone()].concat()[..]);
            while let Ok(Some(frame)) = Frame::decode(&mut input) {
                prop_assert_eq!(Frame::decode(&mut BytesMut::from(&encoded(&frame)[..])), Ok(Some(frame)));
            }
        }
    }

    #[test]
    fn events_come_back(event in arbitrary::events()) {
        let frame = Frame::Event(Delivery { event: Arc::new(event), provenance: Provenance::Local, replay: None });
        prop_assert_eq!(Frame::decode(&mut BytesMut::from(&encoded(&frame)[..])), Ok(Some(frame)));
    }
}
