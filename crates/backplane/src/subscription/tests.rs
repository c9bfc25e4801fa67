use super::*;
use crate::arbitrary;
use alloc::format;
use alloc::string::{String, ToString};
use proptest::prelude::*;

/// Measured with FTB 0.6.2, or read in its source; `Ok` is its 0.
#[test]
fn golden_table() {
    let long = |count| "x".repeat(count);
    let cases: [(&str, Option<i32>); 34] = [
        ("", None),
        ("severity=debug", Some(-16)),
        ("colour=red", Some(-15)),
        ("severity=info,severity=info", Some(-14)),
        ("severity", Some(-14)),
        ("severity=info,", Some(-14)),
        ("severity=in fo", Some(-16)),
        (" event_name = ev_b , SEVERITY = info ", None),
        ("event_space=ftb.all.watchdog", None),
        ("event_space=FTB.STARTUP.MV2_MPIRUN , jobid=4711", None),
        ("event_space=a.b", Some(-2)),
        ("event_space=a.b.c.d", Some(-2)),
        ("event_space=all", Some(-2)),
        ("event_space=a-x.b.c", Some(-2)),
        ("event_space=all.all.all", None),
        ("severity=all,event_name=ALL,jobid=All,host_name=all,client_name=all", None),
        ("severity=FATAL", None),
        (" ", Some(-14)),
        (",", Some(-14)),
        ("=", Some(-14)),
        ("=x", Some(-14)),
        ("severity= ", Some(-14)),
        ("event name=x", Some(-15)),
        ("colour=r ed", Some(-16)),
        ("severity=info,colour=red,severity=debug", Some(-15)),
        ("severity=all,severity=debug", Some(-14)),
        ("\tseverity\t=\tinfo\t", None),
        ("severity\n=info", Some(-15)),
        (&format!("jobid={}", long(15)), None),
        (&format!("jobid={}", long(16)), Some(-16)),
        (&format!("event_name={}", long(32)), Some(-16)),
        (&format!("client_name={}", long(16)), Some(-16)),
        (&format!("host_name={}", long(64)), Some(-16)),
        ("a=b,a=b,a=b,a=b,a=b,a=b,a=b,a=b,a=b,a=b,a=b", Some(-14)),
    ];
    for (text, code) in cases {
        let read = Subscription::new(text).err().map(|error| error.code() as i32);
        assert_eq!(read, code, "{text:?}");
    }
    // FTB takes this, and loses what follows the second sign.
    assert_eq!(Subscription::new("jobid=a=b").unwrap_err().code(), Code::SubscriptionString);
    assert_eq!(Subscription::new(&" ".repeat(1025)), Err(SubscriptionError::TooLong));
}

fn wants(text: &str) -> (bool, bool) {
    let event = arbitrary::event();
    let subscription = Subscription::new(text).unwrap();
    (subscription.matches(&event, Matching::Every), subscription.matches(&event, Matching::Ftb))
}

/// The event is `FTB.mpi.mpich2`, `ev_b`, FATAL, client `one`, job `42`, host `node7`, 10.0.0.7.
#[test]
fn every_attribute_counts() {
    for text in [
        "",
        "severity=fatal",
        "event_space=ftb.MPI.Mpich2",
        "event_space=all.mpi.all",
        "jobid=42",
        "host_name=NODE7",
        "host_name=10.0.0.7",
        "event_name=EV_B",
        "client_name=ONE",
        "event_name=ev_b,severity=fatal,event_space=ftb.mpi.mpich2,jobid=42,client_name=one,host_name=node7",
    ] {
        assert_eq!(wants(text), (true, true), "{text}");
    }
    for text in [
        "severity=info",
        "event_space=x.mpi.mpich2",
        "event_space=ftb.x.mpich2",
        "event_space=ftb.mpi.x",
        "jobid=4",
        "host_name=node8",
        "host_name=10.0.0.8",
        "event_name=ev",
        "client_name=on",
        "jobid=42,client_name=two",
        "event_name=ev_b,jobid=43",
        "event_name=ev_b,event_space=x.all.all",
        "event_name=ev_b,host_name=x",
    ] {
        assert_eq!(wants(text), (false, false), "{text}");
    }
}

#[test]
fn the_quirk_behind_its_switch() {
    for text in [
        "event_name=ev_b,severity=info",
        "event_name=ev_b,event_space=ftb.x.y",
        "severity=warning,event_space=FTB.all.y,event_name=ev_b",
    ] {
        assert_eq!(wants(text), (false, true), "{text}");
    }
    // A wildcard is no name.
    assert_eq!(wants("event_name=all,severity=info"), (false, false));
}

#[test]
fn one_space_or_several() {
    for (text, one) in [
        ("event_space=a.b.c", Some("a.b.c")),
        ("event_space=a.ALL.c", None),
        ("event_space=all.b.c", None),
        ("event_space=a.b.all", None),
        ("severity=info", None),
    ] {
        assert_eq!(Subscription::new(text).unwrap().one_space().map(EventSpace::as_str), one, "{text}");
    }
}

fn pair() -> impl Strategy<Value = String> {
    let attribute = prop_oneof![
        4 => prop::sample::select(&ATTRIBUTES[..]).prop_map(String::from),
        1 => "[ -~]{0,8}",
    ];
    let value = prop_oneof![
        Just(String::from("all")),
        Just(String::from("Fatal")),
        "[a-z]{1,3}\\.[a-z]{1,3}\\.[a-z]{1,3}",
        "[ -~]{0,20}",
    ];
    (attribute, "[ \t]{0,2}", value)
        .prop_map(|(attribute, blank, value)| format!("{blank}{attribute}{blank}={value}{blank}"))
}

proptest! {
    #[test]
    fn written_and_read_back(pairs in proptest::collection::vec(pair(), 0..7)) {
        if let Ok(subscription) = Subscription::new(&pairs.join(",")) {
            prop_assert_eq!(Subscription::new(&subscription.to_string()), Ok(subscription));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _any = Subscription::new(&text);
    }

    /// What one attribute refuses, no other can bring back; and the quirk only ever wants more.
    #[test]
    fn a_longer_subscription_wants_less(pairs in proptest::collection::vec(pair(), 1..5), event in arbitrary::events()) {
        let (whole, part) = (pairs.join(","), pairs[..pairs.len() - 1].join(","));
        if let (Ok(whole), Ok(part)) = (Subscription::new(&whole), Subscription::new(&part)) {
            let every = whole.matches(&event, Matching::Every);
            prop_assert!(!every || part.matches(&event, Matching::Every));
            prop_assert!(!every || whole.matches(&event, Matching::Ftb));
        }
    }
}
