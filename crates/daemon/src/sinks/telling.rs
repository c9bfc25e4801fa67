//! How an event is told outside: fields for the journal and for commands, a line for syslog, JSON.

use std::fmt::Write as _;

use steadfast_backplane::{Delivery, Kind, Level, Provenance};

/// The most bytes of a payload in a text for people.
const SHOWN: usize = 1024;

/// A severity in one spelling, and as syslog counts (RFC 5424, 6.2.1).
pub(super) fn severity(delivery: &Delivery) -> (&'static str, u8) {
    match delivery.event.severity.level() {
        Level::Info => ("info", 6),
        Level::Warning => ("warning", 4),
        Level::Error => ("error", 3),
        Level::Fatal => ("fatal", 2),
    }
}

/// What there is to know of it besides its payload. No value has a control character.
pub(super) fn fields(delivery: &Delivery) -> Vec<(&'static str, String)> {
    let event = &delivery.event;
    let mut fields = vec![
        ("STEADFAST_EVENT_ID", event.id.to_string()),
        ("STEADFAST_EVENT_SPACE", event.space.to_string()),
        ("STEADFAST_EVENT_NAME", event.name.to_string()),
        ("STEADFAST_SEVERITY", severity(delivery).0.into()),
        ("STEADFAST_HOST", event.location.host.to_string()),
        ("STEADFAST_CLIENT", event.client.name.to_string()),
        ("STEADFAST_JOB", event.client.job.to_string()),
        ("STEADFAST_PID", event.location.pid.to_string()),
        ("STEADFAST_USER", event.user.to_string()),
        ("STEADFAST_TIME", event.time.to_string()),
        ("STEADFAST_PROVENANCE", delivery.provenance.name().into()),
    ];
    if let Kind::Answer(handle) = &event.kind {
        fields.push(("STEADFAST_ANSWERS", handle.id.to_string()));
    }
    for (_, value) in &mut fields {
        value.retain(|letter| !letter.is_control());
    }
    fields
}

/// One line for people, without its severity and time, which those who store it have apart.
pub(super) fn line(delivery: &Delivery) -> String {
    let event = &delivery.event;
    let payload = event.payload.bytes();
    let shown = String::from_utf8_lossy(&payload[..payload.len().min(SHOWN)]);
    let mut line = format!("{} {}", event.space, event.name);
    let _infallible = write!(line, " [{} {}/{}]", event.location.host, event.client.name, event.location.pid);
    if delivery.provenance == Provenance::Unsigned {
        line.push_str(" (unsigned)");
    }
    if !shown.is_empty() {
        line.push(' ');
        line.push_str(&shown);
    }
    if payload.len() > SHOWN {
        line.push_str(" ..");
    }
    line.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// The event of `CloudEvents` in one line without its end, and an attribute of it that says who vouches.
pub(super) fn json(delivery: &Delivery) -> String {
    let event = delivery.event.to_cloud_event();
    // An object that is never empty.
    let rest = event.strip_prefix('{').unwrap_or(&event);
    format!("{{\"provenance\":\"{}\",{rest}", delivery.provenance.name())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::Arc;
    use steadfast_backplane::{
        Client, Event, EventId, Fingerprint, Incarnation, JobId, Location, Payload, Timestamp,
    };

    pub(crate) fn delivery(severity: &str, payload: &[u8]) -> Delivery {
        let event = Event {
            id: EventId { origin: Fingerprint([7; 32]), incarnation: Incarnation(9), sequence: 3 },
            space: "a.b.c".parse().unwrap(),
            name: "DONE".parse().unwrap(),
            severity: severity.parse().unwrap(),
            kind: Kind::Plain,
            payload: Payload::new(payload.to_vec().into()).unwrap(),
            client: Client { name: "mpich 3.x".parse().unwrap(), job: JobId::NONE, extension: 0 },
            number: 1,
            location: Location {
                host: "node7".parse().unwrap(),
                address: None,
                pid: 42,
                start: Timestamp(1),
            },
            user: 1000,
            time: Timestamp(200),
            schema: None,
            signature: None,
        };
        Delivery { event: Arc::new(event), provenance: Provenance::Unsigned, replay: None }
    }

    #[test]
    fn one_line_whatever_it_says() {
        let told = line(&delivery("INFO", b"a\nb\x1b[2Jc\r\0\xff"));
        assert_eq!(told, "a.b.c DONE [node7 mpich 3.x/42] (unsigned) a b [2Jc  \u{fffd}");
        assert!(line(&delivery("INFO", &vec![b'x'; 60_000])).len() < 1200);
    }

    #[test]
    fn json_is_an_event_and_says_who_vouches() {
        let delivery = delivery("Fatal", b"\n");
        let text = json(&delivery);
        assert!(!text.contains('\n'), "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["provenance"], &value["specversion"]), (&"unsigned".into(), &"1.0".into()));
        assert_eq!(Event::from_cloud_event(&text).unwrap(), *delivery.event);
    }
}
