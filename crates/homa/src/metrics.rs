//! Counters, under the names that the Linux module prints where it has them. They only grow, and nothing reads them to
//! decide.

use crate::packet::{Kind, PRIORITIES};
use alloc::format;

/// Buckets of 64 bytes, for messages up to 4 KiB.
const SMALL: usize = 64;
/// Buckets of 1 KiB, for messages up to 64 KiB; the first four are not used.
const MEDIUM: usize = 64;

/// Makes the struct of plain counters and the list of their names, so that none is forgotten.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a transport has done and refused.
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        pub struct Metrics {
            $($(#[$doc])* pub $name: u64,)*
            /// Packets sent, in the order of [`Kind::ALL`].
            pub packets_sent: [u64; Kind::ALL.len()],
            /// Packets received, in the same order.
            pub packets_rcvd: [u64; Kind::ALL.len()],
            /// Bytes sent at each level, headers included.
            pub priority_bytes: [u64; PRIORITIES],
            /// Packets sent at each level.
            pub priority_packets: [u64; PRIORITIES],
            small: [u64; SMALL],
            medium: [u64; MEDIUM],
        }

        impl Default for Metrics {
            fn default() -> Self {
                Self {
                    $($name: 0,)*
                    packets_sent: [0; Kind::ALL.len()],
                    packets_rcvd: [0; Kind::ALL.len()],
                    priority_bytes: [0; PRIORITIES],
                    priority_packets: [0; PRIORITIES],
                    small: [0; SMALL],
                    medium: [0; MEDIUM],
                }
            }
        }

        impl Metrics {
            fn plain(&self, visit: &mut dyn FnMut(&str, u64)) {
                $(visit(stringify!($name), self.$name);)*
            }
        }
    };
}

counters! {
    /// Messages longer than 64 KiB that began to arrive.
    large_msg_count,
    /// Bytes of these.
    large_msg_bytes,
    /// Bytes of all messages that were given to be sent.
    sent_msg_bytes,
    /// Requests that arrived whole.
    requests_received,
    /// Responses that arrived whole.
    responses_received,
    /// Requests made.
    send_calls,
    /// Responses given.
    reply_calls,
    /// Requests cancelled by their application.
    abort_calls,
    /// Times that the next message was asked for and had to wait, because the link had enough.
    throttle_list_adds,
    /// DATA packets sent again.
    resent_packets,
    /// Payload bytes of these.
    resent_bytes,
    /// Peers added.
    peer_allocs,
    /// Peers refused because there were too many.
    peer_kmalloc_errors,
    /// Packets for RPCs that are not here.
    unknown_rpcs,
    /// Requests dropped because there was no room for them, or no port.
    server_cant_create_rpcs,
    /// Packets, but those of requests, for ports that are not open here.
    unknown_ports,
    /// Packets of no known type.
    unknown_packet_types,
    /// Packets too short for their type.
    short_packets,
    /// Packets dropped because all of their bytes were here.
    packet_discards,
    /// The same of packets that were sent again.
    resent_discards,
    /// Payload bytes of packets that were dropped because all of their bytes were here, sent again or not: what the link carried for
    /// nothing.
    discarded_bytes,
    /// Packets sent again that had bytes not yet here.
    resent_packets_used,
    /// RPCs ended because their peer was silent.
    rpc_timeouts,
    /// Requests dropped at the server before they were answered.
    server_rpc_discards,
    /// Requests dropped at the server because their client did not know them.
    server_rpcs_unknown,
    /// Times a message moved up among those that are granted.
    grant_priority_bumps,
    /// Grants to the oldest message.
    fifo_grants,
    /// Those of them to a message that had nothing on its way.
    fifo_grants_no_incoming,
    /// ACK packets sent because too many acknowledgements waited for DATA.
    ack_overflows,
    /// `NEED_ACK` packets not answered because the response has not arrived.
    ignored_need_acks,
    /// Payload bytes dropped because too much was held.
    dropped_data_no_bufs,
    /// Packets that contradict themselves or what was said before.
    malformed_packets,
    /// Packets of requests that were taken before, or are older than what is remembered.
    late_duplicates,
    /// Packets that would have begun one range too many of their message.
    refused_gaps,
    /// Packets other than DATA that found too many waiting.
    refused_control,
    /// Requests or responses refused because too much was waiting to be sent.
    refused_sends,
    /// Responses given up because nobody acknowledged them.
    unacknowledged,
    /// Times that all RPCs with a silent peer were ended.
    silent_peers,
    /// FREEZE packets, which do nothing here.
    ignored_freezes,
    /// Times that cut-offs were changed by the traffic.
    cutoff_changes,
}

impl Metrics {
    /// Calls `visit` with the name and the value of every counter, in the order in which the module prints them.
    pub fn visit(&self, mut visit: impl FnMut(&str, u64)) {
        for (index, bytes) in self.small.iter().enumerate() {
            visit(&format!("msg_bytes_{}", (index + 1) * 64), *bytes);
        }
        for (index, bytes) in self.medium.iter().enumerate().skip(SMALL * 64 / 1024) {
            visit(&format!("msg_bytes_{}", (index + 1) * 1024), *bytes);
        }
        for kind in Kind::ALL {
            visit(&format!("packets_sent_{}", kind.name()), self.packets_sent[kind.index()]);
        }
        for kind in Kind::ALL {
            visit(&format!("packets_rcvd_{}", kind.name()), self.packets_rcvd[kind.index()]);
        }
        for (level, bytes) in self.priority_bytes.iter().enumerate() {
            visit(&format!("priority{level}_bytes"), *bytes);
        }
        for (level, packets) in self.priority_packets.iter().enumerate() {
            visit(&format!("priority{level}_packets"), *packets);
        }
        self.plain(&mut visit);
    }

    /// A message of `length` bytes begins to arrive.
    pub(crate) fn count_message(&mut self, length: u32) {
        let length_bytes = u64::from(length);
        let at = length.saturating_sub(1) as usize;
        if let Some(bytes) = self.small.get_mut(at / 64) {
            *bytes += length_bytes;
        } else if let Some(bytes) = self.medium.get_mut(at / 1024) {
            *bytes += length_bytes;
        } else {
            self.large_msg_count += 1;
            self.large_msg_bytes += length_bytes;
        }
    }

    /// Packets leave.
    pub(crate) fn count_sent(&mut self, kind: Kind, priority: u8, packets: u64, bytes: u64) {
        self.packets_sent[kind.index()] += packets;
        let level = usize::from(priority).min(PRIORITIES - 1);
        self.priority_packets[level] += packets;
        self.priority_bytes[level] += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec::Vec;

    #[test]
    fn messages_are_counted_in_the_modules_buckets() {
        let mut metrics = Metrics::default();
        for length in [1, 64, 65, 4096, 4097, 65_536, 65_537] {
            metrics.count_message(length);
        }
        let mut lines: Vec<(String, u64)> = Vec::new();
        metrics.visit(|name, value| lines.push((name.into(), value)));
        let value = |name: &str| lines.iter().find(|line| line.0 == name).map(|line| line.1);
        assert_eq!(value("msg_bytes_64"), Some(65));
        assert_eq!(value("msg_bytes_128"), Some(65));
        assert_eq!(value("msg_bytes_4096"), Some(4096));
        assert_eq!(value("msg_bytes_5120"), Some(4097));
        assert_eq!(value("msg_bytes_65536"), Some(65_536));
        assert_eq!(value("large_msg_count"), Some(1));
        assert_eq!(value("packets_sent_GRANT"), Some(0));
        assert_eq!(value("msg_bytes_1024"), Some(0), "once, in steps of 64");
        assert_eq!(lines.iter().filter(|line| line.0 == "msg_bytes_1024").count(), 1);
    }
}
