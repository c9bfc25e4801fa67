//! FTB's structs as C lays them out, and texts in and out of their fields.

use std::os::raw::c_int;

pub(crate) const PAYLOAD: usize = 368;

/// `FTB_client_t`
#[repr(C)]
pub struct ClientInfo {
    pub schema_ver: [u8; 8],
    pub event_space: [u8; 64],
    pub client_name: [u8; 16],
    pub client_jobid: [u8; 16],
    pub style: [u8; 32],
    pub polling_queue_len: c_int,
}

/// `FTB_event_info_t`
#[repr(C)]
pub struct EventInfo {
    pub event_name: [u8; 32],
    pub severity: [u8; 16],
}

/// `FTB_event_properties_t`
#[repr(C)]
pub struct EventProperties {
    pub event_type: u8,
    pub event_payload: [u8; PAYLOAD],
}

/// `FTB_location_id_t`
#[derive(Clone, Copy)]
#[repr(C)]
pub struct LocationId {
    pub hostname: [u8; 64],
    pub pid_starttime: [u8; 32],
    pub pid: i32,
}

/// `FTB_client_id_t`
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ClientIdentity {
    pub region: [u8; 64],
    pub comp_cat: [u8; 64],
    pub comp: [u8; 64],
    pub client_name: [u8; 16],
    pub ext: u8,
}

/// `FTB_client_handle_t`
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ClientHandle {
    pub valid: u8,
    pub client_id: ClientIdentity,
}

/// `FTB_receive_event_t`
#[repr(C)]
pub struct ReceiveEvent {
    pub event_space: [u8; 64],
    pub event_name: [u8; 32],
    pub severity: [u8; 16],
    pub client_jobid: [u8; 16],
    pub client_name: [u8; 16],
    pub client_extension: u8,
    pub seqnum: u16,
    pub incoming_src: LocationId,
    pub event_type: u8,
    pub event_payload: [u8; PAYLOAD],
}

/// `FTB_event_handle_t`. Aligned as C's; its bytes are the core's business.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct EventHandleBytes {
    pub event_name: [u8; 32],
    pub severity: [u8; 16],
    pub client_id: ClientIdentity,
    pub seqnum: u16,
    pub location_id: LocationId,
}

/// `FTB_event_t`
#[derive(Clone, Copy)]
#[repr(C)]
pub struct EventMask {
    pub region: [u8; 64],
    pub comp_cat: [u8; 64],
    pub comp: [u8; 64],
    pub event_name: [u8; 32],
    pub severity: [u8; 16],
    pub client_jobid: [u8; 16],
    pub client_name: [u8; 16],
    pub hostname: [u8; 64],
    pub seqnum: u16,
    pub event_type: u8,
    pub event_payload: [u8; PAYLOAD],
}

/// `FTB_subscribe_handle_t`
#[derive(Clone, Copy)]
#[repr(C)]
pub struct SubscribeHandle {
    pub client_handle: ClientHandle,
    pub subscription_event: EventMask,
    pub subscription_type: u8,
    pub valid: u8,
}

/// The bytes of a field up to its NUL; `None` without one.
pub(crate) fn bytes(field: &[u8]) -> Option<&[u8]> {
    field.iter().position(|byte| *byte == 0).map(|end| &field[..end])
}

/// The text of a field; `None` if it does not end or is no UTF-8.
pub(crate) fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes(field)?).ok()
}

/// A field with a text, cut where it does not fit, and its NULs.
pub(crate) fn field<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    for (place, byte) in field[..N - 1].iter_mut().zip(text.bytes()) {
        *place = byte;
    }
    field
}

impl EventHandleBytes {
    /// All of it, in order. There is no padding that counts: the one byte before `seqnum` is zero.
    pub(crate) fn array(&self) -> [u8; 360] {
        let mut bytes = [0; 360];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        put(&self.event_name);
        put(&self.severity);
        let id = &self.client_id;
        put(&id.region);
        put(&id.comp_cat);
        put(&id.comp);
        put(&id.client_name);
        put(&[id.ext, 0]);
        put(&self.seqnum.to_ne_bytes());
        put(&self.location_id.hostname);
        put(&self.location_id.pid_starttime);
        put(&self.location_id.pid.to_ne_bytes());
        bytes
    }

    pub(crate) fn from_array(bytes: &[u8; 360]) -> Self {
        fn plain<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
            let (part, after) = rest.split_at(N);
            *rest = after;
            std::array::from_fn(|at| part[at])
        }
        let mut rest = &bytes[..];
        let rest = &mut rest;
        Self {
            event_name: plain(rest),
            severity: plain(rest),
            client_id: ClientIdentity {
                region: plain(rest),
                comp_cat: plain(rest),
                comp: plain(rest),
                client_name: plain(rest),
                ext: plain::<2>(rest)[0],
            },
            seqnum: u16::from_ne_bytes(plain(rest)),
            location_id: LocationId {
                hostname: plain(rest),
                pid_starttime: plain(rest),
                pid: i32::from_ne_bytes(plain(rest)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    /// As measured of FTB 0.6.2 on x86-64.
    #[test]
    fn sizes_and_offsets_are_ftbs() {
        assert_eq!((size_of::<ClientInfo>(), offset_of!(ClientInfo, polling_queue_len)), (140, 136));
        assert_eq!((size_of::<EventInfo>(), offset_of!(EventInfo, severity)), (48, 32));
        assert_eq!((size_of::<EventProperties>(), offset_of!(EventProperties, event_payload)), (369, 1));
        assert_eq!((size_of::<LocationId>(), offset_of!(LocationId, pid)), (100, 96));
        assert_eq!((size_of::<ClientIdentity>(), offset_of!(ClientIdentity, ext)), (209, 208));
        assert_eq!((size_of::<ClientHandle>(), offset_of!(ClientHandle, client_id)), (210, 1));
        assert_eq!(size_of::<ReceiveEvent>(), 620);
        assert_eq!(offset_of!(ReceiveEvent, client_extension), 144);
        assert_eq!(offset_of!(ReceiveEvent, seqnum), 146);
        assert_eq!(offset_of!(ReceiveEvent, incoming_src), 148);
        assert_eq!(offset_of!(ReceiveEvent, event_type), 248);
        assert_eq!(offset_of!(ReceiveEvent, event_payload), 249);
        assert_eq!(size_of::<EventHandleBytes>(), 360);
        assert_eq!(offset_of!(EventHandleBytes, client_id), 48);
        assert_eq!(offset_of!(EventHandleBytes, seqnum), 258);
        assert_eq!(offset_of!(EventHandleBytes, location_id), 260);
        assert_eq!(size_of::<EventMask>(), 708);
        assert_eq!(offset_of!(EventMask, event_payload), 339);
        assert_eq!(size_of::<SubscribeHandle>(), 920);
        assert_eq!(offset_of!(SubscribeHandle, subscription_event), 210);
        assert_eq!(
            (offset_of!(SubscribeHandle, subscription_type), offset_of!(SubscribeHandle, valid)),
            (918, 919)
        );
    }

    #[test]
    fn handles_and_bytes() {
        let mut bytes: [u8; 360] = std::array::from_fn(|at| at as u8);
        bytes[257] = 0;
        assert_eq!(EventHandleBytes::from_array(&bytes).array(), bytes);
    }

    #[test]
    fn texts_and_fields() {
        assert_eq!(text(&field::<8>("abc")), Some("abc"));
        assert_eq!(text(&field::<4>("abcdef")), Some("abc"));
        assert_eq!(text(&[1; 4]), None);
        assert_eq!(text(&[0xff, 0]), None);
    }
}
