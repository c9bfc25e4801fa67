//! Events as CloudEvents 1.0 in JSON (structured mode), out and in without loss.

use crate::event::{
    Client, Event, EventId, Kind, Location, MAX_PAYLOAD, Payload, SIGNATURE_LENGTH, SchemaInfo, Signature,
};
use crate::handle::EventHandle;
use crate::name::{ClientName, EventName, EventSpace, HostName, JobId, Level, Severity};
use crate::timestamp::Timestamp;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt::Write as _;
use core::str::FromStr;
use data_encoding::BASE64;
use serde_json::{Map, Value};
use steadfast_wire::{Incarnation, Reader};
use thiserror::Error;

/// The media type of an event in this form.
pub const MEDIA_TYPE: &str = "application/cloudevents+json";
/// The most bytes of such an event: every byte of the payload may be written with six.
pub const MAX_CLOUD_EVENT: usize = 6 * MAX_PAYLOAD + 8192;

const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";

/// Why a text is no event of a backplane.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CloudError {
    /// Longer than any event.
    #[error("a CloudEvent of the backplane has at most {MAX_CLOUD_EVENT} bytes, this has {0}")]
    TooLong(usize),
    /// No JSON object.
    #[error("this is no JSON object, which a CloudEvent is; check where it comes from")]
    Json,
    /// Another version.
    #[error("this is no CloudEvent of version 1.0; `specversion` should say so")]
    Version,
    /// An attribute is not there, or not as the backplane writes it.
    #[error(
        "the CloudEvent's `{0}` is missing, or is not what the backplane writes there; was it published by an agent?"
    )]
    Attribute(&'static str),
}

impl Event {
    /// The event as one JSON object in one line, attributes in alphabetical order.
    ///
    /// `type` is event space and name with a dot between, `source` says host, process and client, `id` is unique among all
    /// events. A payload that is text without control characters (other than tab and line ends) stands in `data`, any
    /// other in `data_base64`.
    #[must_use]
    pub fn to_cloud_event(&self) -> String {
        let mut map = Map::new();
        let mut put = |name: &str, value: Value| {
            map.insert(name.to_owned(), value);
        };
        put("specversion", "1.0".into());
        put("id", self.id.to_string().into());
        put("type", format!("{}.{}", self.space, self.name).into());
        put("source", source(self).into());
        put("time", self.time.to_string().into());
        if !self.client.job.as_str().is_empty() {
            put("subject", self.client.job.as_str().into());
        }
        put("severitytext", self.severity.as_str().into());
        put("severitynumber", severity_number(self.severity).into());
        put("clientextension", self.client.extension.into());
        put("sequence", self.number.to_string().into());
        // Attributes have integers of 32 bits with a sign at most.
        put("userid", self.user.to_string().into());
        if let Some(address) = self.location.address {
            put("hostaddress", address.to_string().into());
        }
        if let Kind::Answer(handle) = &self.kind {
            let mut bytes = Vec::new();
            handle.encode(&mut bytes);
            put("causationid", handle.id.to_string().into());
            put("answers", BASE64.encode(&bytes).into());
        }
        if let Some(schema) = &self.schema {
            put("schemaversion", schema.version().into());
            put("schemadescription", schema.description().into());
        }
        if let Some(signature) = &self.signature {
            put("signature", BASE64.encode(&signature.0).into());
        }
        let payload = self.payload.bytes();
        match core::str::from_utf8(payload) {
            Ok("") => {}
            Ok(text) if text.chars().all(|one| !one.is_control() || matches!(one, '\n' | '\r' | '\t')) => {
                put("datacontenttype", TEXT.into());
                put("data", text.into());
            }
            _ => {
                put("datacontenttype", BYTES.into());
                put("data_base64", BASE64.encode(payload).into());
            }
        }
        Value::Object(map).to_string()
    }

    /// Reads what [`to_cloud_event`](Self::to_cloud_event) wrote, whoever passed it on: attributes in any order, unknown ones
    /// ignored, `data` also as JSON where `datacontenttype` says so. The signature fits what was signed.
    pub fn from_cloud_event(text: &str) -> Result<Self, CloudError> {
        if text.len() > MAX_CLOUD_EVENT {
            return Err(CloudError::TooLong(text.len()));
        }
        let Ok(Value::Object(map)) = serde_json::from_str(text) else { return Err(CloudError::Json) };
        let map = Attributes(map);
        if map.text("specversion") != Some("1.0") {
            return Err(CloudError::Version);
        }
        let (space, name) = map
            .text("type")
            .and_then(|kind| kind.rsplit_once('.'))
            .and_then(|(space, name)| Some((EventSpace::new(space).ok()?, EventName::new(name).ok()?)))
            .ok_or(CloudError::Attribute("type"))?;
        let (host, pid, start, client) =
            parse_source(map.text("source").unwrap_or_default()).ok_or(CloudError::Attribute("source"))?;
        let job = map.text("subject").map_or(Ok(JobId::NONE), JobId::new);
        let extension = map.0.get("clientextension").map_or(Some(0), Value::as_u64);
        let extension = extension.and_then(|number| number.try_into().ok());
        let address = map.text("hostaddress").map(str::parse).transpose();
        Ok(Self {
            id: map.parsed("id", parse_id)?,
            space,
            name,
            severity: map.parsed("severitytext", |text| Severity::new(text).ok())?,
            kind: map.kind()?,
            payload: map.payload()?,
            client: Client {
                name: client,
                job: job.map_err(|_| CloudError::Attribute("subject"))?,
                extension: extension.ok_or(CloudError::Attribute("clientextension"))?,
            },
            number: map.parsed("sequence", number)?,
            location: Location {
                host,
                address: address.map_err(|_| CloudError::Attribute("hostaddress"))?,
                pid,
                start,
            },
            user: map.parsed("userid", number)?,
            time: map.parsed("time", |text| text.parse().ok())?,
            schema: map.schema()?,
            signature: map.signature()?,
        })
    }
}

/// As OpenTelemetry numbers severities.
const fn severity_number(severity: Severity) -> u64 {
    match severity.level() {
        Level::Info => 9,
        Level::Warning => 13,
        Level::Error => 17,
        Level::Fatal => 21,
    }
}

/// `//HOST/PID/START/CLIENT`, where START is in nanoseconds since 1970 and CLIENT may be empty.
fn source(event: &Event) -> String {
    let mut source = String::from("//");
    escape(event.location.host.as_str(), &mut source);
    let _infallible = write!(source, "/{}/{}/", event.location.pid, event.location.start.0);
    escape(event.client.name.as_str(), &mut source);
    source
}

fn parse_source(source: &str) -> Option<(HostName, u32, Timestamp, ClientName)> {
    let mut parts = source.strip_prefix("//")?.split('/');
    let host = HostName::new(&unescape(parts.next()?)?).ok()?;
    let (pid, start) = (number(parts.next()?)?, number(parts.next()?)?);
    let client = ClientName::new(&unescape(parts.next()?)?).ok()?;
    parts.next().is_none().then_some((host, pid, Timestamp(start), client))
}

fn parse_id(text: &str) -> Option<EventId> {
    let mut parts = text.split('-');
    let origin = parts.next()?.parse().ok()?;
    let incarnation =
        parts.next().filter(|part| part.len() == 16 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    let incarnation = Incarnation(u64::from_str_radix(incarnation, 16).ok()?);
    let sequence = number(parts.next()?)?;
    parts.next().is_none().then_some(EventId { origin, incarnation, sequence })
}

/// Decimal digits alone: `parse` would take a sign as well.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// What RFC 3986 calls unreserved stays; all else is `%` and two digits.
fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _infallible = write!(out, "%{byte:02X}");
        }
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let mut byte = *byte;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            let digits = core::str::from_utf8(digits).ok()?;
            byte = u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?;
            rest = after;
        }
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok()
}

struct Attributes(Map<String, Value>);

impl Attributes {
    /// A text; one that is null is not there, as CloudEvents says.
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    fn parsed<T>(&self, name: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, CloudError> {
        self.text(name).and_then(parse).ok_or(CloudError::Attribute(name))
    }

    fn bytes(&self, name: &'static str) -> Result<Option<Vec<u8>>, CloudError> {
        let decode = |text: &str| BASE64.decode(text.as_bytes());
        self.text(name).map(decode).transpose().map_err(|_| CloudError::Attribute(name))
    }

    fn kind(&self) -> Result<Kind, CloudError> {
        let Some(bytes) = self.bytes("answers")? else { return Ok(Kind::Plain) };
        let mut reader = Reader::new(Bytes::from(bytes));
        let handle = EventHandle::decode(&mut reader).ok().filter(|_| reader.remaining() == 0);
        let handle = handle.ok_or(CloudError::Attribute("answers"))?;
        if self.text("causationid") == Some(&handle.id.to_string()) {
            Ok(Kind::Answer(Box::new(handle)))
        } else {
            Err(CloudError::Attribute("causationid"))
        }
    }

    fn payload(&self) -> Result<Payload, CloudError> {
        let is_json = self.text("datacontenttype").is_some_and(|kind| {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json")
        });
        let bytes = match (self.0.get("data"), self.bytes("data_base64")?) {
            (None | Some(Value::Null), None) => Bytes::new(),
            (None | Some(Value::Null), Some(bytes)) => bytes.into(),
            (Some(Value::String(text)), None) if !is_json => text.clone().into(),
            (Some(value), None) if is_json => value.to_string().into(),
            _ => return Err(CloudError::Attribute("data")),
        };
        Payload::new(bytes).map_err(|_| CloudError::Attribute("data"))
    }

    fn schema(&self) -> Result<Option<Arc<SchemaInfo>>, CloudError> {
        match (self.text("schemaversion"), self.text("schemadescription")) {
            (None, None) => Ok(None),
            (version, description) => {
                let info = SchemaInfo::new(version.unwrap_or_default(), description.unwrap_or_default());
                info.map(|info| Some(Arc::new(info))).map_err(|_| CloudError::Attribute("schemaversion"))
            }
        }
    }

    fn signature(&self) -> Result<Option<Signature>, CloudError> {
        let Some(bytes) = self.bytes("signature")? else { return Ok(None) };
        let bytes: [u8; SIGNATURE_LENGTH] =
            bytes.try_into().map_err(|_| CloudError::Attribute("signature"))?;
        Ok(Some(Signature(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arbitrary;
    use proptest::prelude::*;

    #[test]
    fn golden_event() {
        let mut event = arbitrary::event();
        event.client.name = ClientName::new("mpich 3.x").unwrap();
        let id = format!("{}-0000000000000009-3", event.id.origin);
        let expected = [
            r#"{"clientextension":0,"data":"hello","datacontenttype":"text/plain; charset=utf-8","#,
            &format!(r#""hostaddress":"10.0.0.7","id":"{id}","schemadescription":"tests","schemaversion":"1.2","#),
            r#""sequence":"5","severitynumber":21,"severitytext":"FATAL","source":"//node7/1234/100/mpich%203.x","#,
            r#""specversion":"1.0","subject":"42","time":"1970-01-01T00:00:00.000000200Z","#,
            r#""type":"FTB.mpi.mpich2.ev_b","userid":"1000"}"#,
        ]
        .concat();
        assert_eq!(event.to_cloud_event(), expected);
        event.payload = Payload::new(Bytes::from_static(&[0, 255])).unwrap();
        let text = event.to_cloud_event();
        assert!(
            text.contains(r#""data_base64":"AP8=","datacontenttype":"application/octet-stream""#),
            "{text}"
        );
    }

    #[test]
    fn the_largest_is_read() {
        let mut event = arbitrary::largest();
        for byte in [7, b'"', b'\n', b'a'] {
            event.payload = Payload::new(alloc::vec![byte; MAX_PAYLOAD].into()).unwrap();
            let text = event.to_cloud_event();
            assert_eq!(Event::from_cloud_event(&text).as_ref(), Ok(&event));
        }
        let long = " ".repeat(MAX_CLOUD_EVENT + 1);
        assert_eq!(Event::from_cloud_event(&long), Err(CloudError::TooLong(long.len())));
    }

    #[test]
    fn what_others_make_of_it() {
        let event = arbitrary::event();
        let change = |name: &str, value: Value| {
            let Value::Object(mut map) = serde_json::from_str(&event.to_cloud_event()).unwrap() else {
                panic!()
            };
            map.insert(name.to_owned(), value);
            Event::from_cloud_event(&Value::Object(map).to_string())
        };
        assert_eq!(change("traceparent", "00-1".into()), Ok(event.clone()));
        assert_eq!(change("signature", Value::Null), Ok(event.clone()));
        assert_eq!(change("time", "1970-01-01T01:00:00.0000002+01:00".into()), Ok(event.clone()));
        assert_eq!(change("data", Value::Null).unwrap().payload, Payload::EMPTY);
        for (name, value, error) in [
            ("specversion", "0.3".into(), CloudError::Version),
            ("id", "7".into(), CloudError::Attribute("id")),
            ("type", "com.example.thing".into(), CloudError::Attribute("type")),
            ("source", "/host/1".into(), CloudError::Attribute("source")),
            ("source", "//a/1/2/%zz".into(), CloudError::Attribute("source")),
            ("source", "//a/+1/2/x".into(), CloudError::Attribute("source")),
            ("severitytext", "debug".into(), CloudError::Attribute("severitytext")),
            ("time", "yesterday".into(), CloudError::Attribute("time")),
            ("clientextension", 256.into(), CloudError::Attribute("clientextension")),
            ("signature", "AAAA".into(), CloudError::Attribute("signature")),
            ("answers", "AAAA".into(), CloudError::Attribute("answers")),
            ("data", 7.into(), CloudError::Attribute("data")),
            ("data_base64", "AAAA".into(), CloudError::Attribute("data")),
        ] {
            assert_eq!(change(name, value), Err(error), "{name}");
        }
        for text in ["", "[]", "7", "{", &"[".repeat(100_000)] {
            assert_eq!(Event::from_cloud_event(text), Err(CloudError::Json));
        }
        let json =
            event.to_cloud_event().replace(TEXT, "application/json").replace("\"hello\"", r#"{"a": 1}"#);
        assert_eq!(Event::from_cloud_event(&json).unwrap().payload.bytes(), &br#"{"a":1}"#[..]);
    }

    proptest! {
        #[test]
        fn out_and_in(event in arbitrary::events()) {
            let text = event.to_cloud_event();
            let back = Event::from_cloud_event(&text);
            prop_assert_eq!(back.as_ref(), Ok(&event));
            prop_assert_eq!(back.unwrap().signed_bytes(), event.signed_bytes(), "what was signed is the same");
            prop_assert!(!text.contains('\n'));
            let Ok(Value::Object(map)) = serde_json::from_str(&text) else { panic!("no object") };
            for name in map.keys().filter(|name| *name != "data_base64") {
                let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
                prop_assert!(name.len() <= 20 && name.bytes().all(fine), "{}", name);
            }
            for required in ["id", "source", "specversion", "type"] {
                prop_assert!(map[required].as_str().is_some_and(|value| !value.is_empty()));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,300}", event in arbitrary::events(), at in any::<prop::sample::Index>()) {
            let _any = Event::from_cloud_event(&text);
            let mut bytes = event.to_cloud_event().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = b'7';
            let _any = Event::from_cloud_event(&String::from_utf8_lossy(&bytes));
        }
    }
}
