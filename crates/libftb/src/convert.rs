//! Events, handles and subscriptions as C has them, and back.
//!
//! FTB's structs have no field for what makes a handle unique. It lies behind the NULs of their texts, where copying the whole
//! carries it along; where those have no room, behind them lies a number under which the library remembers it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use steadfast_backplane::{
    Event, EventHandle, EventId, FTB_HANDLE, Fingerprint, Incarnation, Kind, Location, Subscription,
    SubscriptionId, Timestamp,
};

use crate::abi::{
    self, ClientHandle, ClientIdentity, EventHandleBytes, EventMask, LocationId, PAYLOAD, ReceiveEvent,
    SubscribeHandle, field,
};
use crate::log;

/// Stands before what FTB has no field for.
const MARK: &[u8; 4] = b"SFE1";
/// Mark, id, number, start, address.
const HIDDEN: usize = 4 + 48 + 8 + 8 + 17;
/// Stands before a number under which it is remembered.
const TOKEN: &[u8; 4] = b"SFT1";
/// Stands before the number of a client and that of its subscription.
const SUBSCRIBED: &[u8; 4] = b"SFS1";
/// Handles that are remembered, of the newest events whose texts left no room.
const REMEMBERED: usize = 256;

static HANDLES: Mutex<(u64, VecDeque<(u64, EventHandle)>)> = Mutex::new((0, VecDeque::new()));

/// The bytes behind the NULs of an event's texts: 15 at least.
fn spare(event: &mut ReceiveEvent) -> impl Iterator<Item = &mut u8> {
    let fields: [&mut [u8]; 7] = [
        &mut event.event_space,
        &mut event.incoming_src.hostname,
        &mut event.event_name,
        &mut event.severity,
        &mut event.client_jobid,
        &mut event.client_name,
        &mut event.incoming_src.pid_starttime,
    ];
    fields.into_iter().flat_map(|field| {
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        field.iter_mut().skip(end + 1)
    })
}

/// An event as C programs get it.
pub(crate) fn received(event: &Event) -> ReceiveEvent {
    let location = &event.location;
    let mut made = ReceiveEvent {
        event_space: field(event.space.as_str()),
        event_name: field(event.name.as_str()),
        severity: field(event.severity.as_str()),
        client_jobid: field(event.client.job.as_str()),
        client_name: field(event.client.name.as_str()),
        client_extension: event.client.extension,
        seqnum: event.number as u16,
        incoming_src: LocationId {
            hostname: field(location.host.as_str()),
            pid_starttime: field(&location.start.ftb_start()),
            pid: location.pid.cast_signed(),
        },
        event_type: 1,
        event_payload: [0; PAYLOAD],
    };
    let mut begin = 0;
    if let Kind::Answer(answered) = &event.kind {
        made.event_type = 2;
        made.event_payload[..FTB_HANDLE].copy_from_slice(&answered.to_ftb());
        begin = FTB_HANDLE;
    }
    let payload = event.payload.bytes();
    let room = &mut made.event_payload[begin..];
    let length = payload.len().min(room.len());
    room[..length].copy_from_slice(&payload[..length]);
    if length < payload.len() {
        let (all, name) = (payload.len(), event.name);
        log::tell(
            log::Kind::Cut,
            &format!(
                "`{name}` has {all} bytes, of which FTB has room for {length}; a client of Steadfast gets all"
            ),
        );
    }
    hide(&mut made, event);
    made
}

fn hide(made: &mut ReceiveEvent, event: &Event) {
    let mut hidden = Vec::with_capacity(HIDDEN);
    hidden.extend_from_slice(MARK);
    hidden.extend_from_slice(&event.id.origin.0);
    hidden.extend_from_slice(&event.id.incarnation.0.to_ne_bytes());
    hidden.extend_from_slice(&event.id.sequence.to_ne_bytes());
    hidden.extend_from_slice(&event.number.to_ne_bytes());
    hidden.extend_from_slice(&event.location.start.0.to_ne_bytes());
    match event.location.address {
        None => hidden.push(0),
        Some(IpAddr::V4(address)) => {
            hidden.push(4);
            hidden.extend_from_slice(&address.octets());
        }
        Some(IpAddr::V6(address)) => {
            hidden.push(16);
            hidden.extend_from_slice(&address.octets());
        }
    }
    hidden.resize(HIDDEN, 0);
    if spare(made).count() < HIDDEN {
        let mut handles = HANDLES.lock().unwrap_or_else(PoisonError::into_inner);
        handles.0 += 1;
        let number = handles.0;
        if handles.1.len() == REMEMBERED {
            handles.1.pop_front();
        }
        handles.1.push_back((number, event.handle()));
        hidden = [&TOKEN[..], &number.to_ne_bytes()].concat();
    }
    spare(made).zip(hidden).for_each(|(place, byte)| *place = byte);
}

/// The handle of a received event; for one that was put together by hand, FTB's fields alone.
pub(crate) fn handle_of(event: &ReceiveEvent) -> EventHandleBytes {
    match found(event) {
        Some(handle) => EventHandleBytes::from_array(&handle.to_ftb()),
        None => by_fields(event),
    }
}

fn found(event: &ReceiveEvent) -> Option<EventHandle> {
    let mut copy = ReceiveEvent { ..*event };
    let hidden: Vec<u8> = spare(&mut copy).take(HIDDEN).map(|byte| *byte).collect();
    if let Some(number) = hidden.strip_prefix(TOKEN) {
        let number = u64::from_ne_bytes(number.get(..8)?.try_into().ok()?);
        let handles = HANDLES.lock().unwrap_or_else(PoisonError::into_inner);
        return handles.1.iter().find(|(known, _)| *known == number).map(|(_, handle)| handle.clone());
    }
    let mut rest = hidden.strip_prefix(MARK)?;
    let origin = Fingerprint(rest.split_off(..32)?.try_into().ok()?);
    let mut number = || Some(u64::from_ne_bytes(rest.split_off(..8)?.try_into().ok()?));
    let (incarnation, sequence) = (Incarnation(number()?), number()?);
    let (own, start) = (number()?, Timestamp(number()?));
    let address = match rest.split_off_first()? {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(rest.get(..4)?).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(rest.get(..16)?).ok()?)),
        _ => None,
    };
    Some(EventHandle {
        id: EventId { origin, incarnation, sequence },
        space: abi::text(&event.event_space)?.parse().ok()?,
        name: abi::text(&event.event_name)?.parse().ok()?,
        severity: abi::text(&event.severity)?.parse().ok()?,
        client: abi::text(&event.client_name)?.parse().ok()?,
        extension: event.client_extension,
        number: own,
        location: Location {
            host: abi::text(&event.incoming_src.hostname)?.parse().ok()?,
            address,
            pid: event.incoming_src.pid.cast_unsigned(),
            start,
        },
    })
}

fn by_fields(event: &ReceiveEvent) -> EventHandleBytes {
    let space = abi::text(&event.event_space).unwrap_or_default();
    let mut parts = space.splitn(3, '.');
    let mut part = || field(parts.next().unwrap_or_default());
    EventHandleBytes {
        event_name: event.event_name,
        severity: event.severity,
        client_id: ClientIdentity {
            region: part(),
            comp_cat: part(),
            comp: part(),
            client_name: event.client_name,
            ext: event.client_extension,
        },
        seqnum: event.seqnum,
        location_id: event.incoming_src,
    }
}

/// Whether two handles mean the same event. Those that no agent of Steadfast gave are compared by FTB's fields.
pub(crate) fn same(one: &EventHandleBytes, other: &EventHandleBytes) -> bool {
    match (EventHandle::from_ftb(&one.array()), EventHandle::from_ftb(&other.array())) {
        (Ok(one), Ok(other)) => one == other,
        (Err(_), Err(_)) => fields(one) == fields(other),
        _ => false,
    }
}

fn fields(handle: &EventHandleBytes) -> (Vec<Vec<u8>>, u8, u16, i32) {
    let id = &handle.client_id;
    let texts: [&[u8]; 8] = [
        &handle.event_name,
        &handle.severity,
        &id.region,
        &id.comp_cat,
        &id.comp,
        &id.client_name,
        &handle.location_id.hostname,
        &handle.location_id.pid_starttime,
    ];
    let lower = |text: &[u8]| abi::bytes(text).unwrap_or(text).to_ascii_lowercase();
    (texts.into_iter().map(lower).collect(), id.ext, handle.seqnum, handle.location_id.pid)
}

/// What a program gets for its subscription. Its fields say what is wanted; the rest says which one it is.
pub(crate) fn subscribed(
    client: ClientHandle,
    serial: u64,
    id: SubscriptionId,
    subscription: &Subscription,
    calls: bool,
) -> SubscribeHandle {
    let all = || "all".to_owned();
    let mut values = ["severity", "event_space", "jobid", "host_name", "event_name", "client_name"]
        .map(|attribute| (attribute, all()));
    let written = subscription.to_string();
    for (attribute, value) in written.split(',').filter_map(|pair| pair.split_once('=')) {
        if let Some(slot) = values.iter_mut().find(|(known, _)| *known == attribute) {
            value.clone_into(&mut slot.1);
        }
    }
    let [severity, space, job, host, name, client_name] = values.map(|(_, value)| value);
    let mut parts = space.splitn(3, '.').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_else(all);
    let mut payload = [0; PAYLOAD];
    payload[..4].copy_from_slice(SUBSCRIBED);
    payload[4..12].copy_from_slice(&serial.to_ne_bytes());
    payload[12..16].copy_from_slice(&id.0.to_ne_bytes());
    SubscribeHandle {
        client_handle: client,
        subscription_event: EventMask {
            region: field(&part()),
            comp_cat: field(&part()),
            comp: field(&part()),
            event_name: field(&name),
            severity: field(&severity),
            client_jobid: field(&job),
            client_name: field(&client_name),
            hostname: field(&host),
            seqnum: 0,
            event_type: 0,
            event_payload: payload,
        },
        subscription_type: if calls { 2 } else { 1 },
        valid: 1,
    }
}

/// Which client and which subscription a handle means.
pub(crate) fn numbers(handle: &SubscribeHandle) -> Option<(u64, SubscriptionId)> {
    let mut rest = handle.subscription_event.event_payload.strip_prefix(SUBSCRIBED)?;
    let serial = u64::from_ne_bytes(rest.split_off(..8)?.try_into().ok()?);
    let id = u32::from_ne_bytes(rest.split_off(..4)?.try_into().ok()?);
    (handle.valid == 1).then_some((serial, SubscriptionId(id)))
}

#[cfg(test)]
mod tests;
