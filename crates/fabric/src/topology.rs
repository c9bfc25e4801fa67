//! Racks of hosts under spines, and what an empty network takes for a message.

/// Lengths of time are picoseconds here: a byte takes 200 of them at 40 Gbit/s.
pub const MICROSECOND: u64 = 1_000_000;

/// The shape of the network.
#[derive(Debug, Clone, Copy)]
pub struct Topology {
    /// Racks, each with a switch.
    pub racks: usize,
    /// Hosts in each.
    pub hosts_per_rack: usize,
    /// Switches that connect all racks; every packet takes a random one.
    pub spines: usize,
    /// Bits a second between host and rack.
    pub host_rate: u64,
    /// Bits a second between rack and spine.
    pub spine_rate: u64,
    /// From a packet's end at a switch to its place in a queue, in picoseconds.
    pub switch_delay: u64,
    /// From the application to the first bit, and from a packet's end to what the host does about it.
    pub send_delay: u64,
    /// From a packet's end to the application.
    pub receive_delay: u64,
    /// Payload bytes of a full packet.
    pub segment: u32,
    /// What a packet of payload takes on a link besides it.
    pub data_overhead: u32,
    /// What any other packet takes.
    pub control: u32,
    /// Bytes that may wait at a level in front of a switch's link; what comes beyond is dropped. `u64::MAX` where queues have no end.
    pub buffer: u64,
}

impl Topology {
    /// That of the paper's simulations (SIGCOMM'18): 144 hosts at 10 Gbit/s in 9 racks, 4 spines at 40 Gbit/s.
    #[must_use]
    pub const fn paper() -> Self {
        Self {
            racks: 9,
            hosts_per_rack: 16,
            spines: 4,
            host_rate: 10_000_000_000,
            spine_rate: 40_000_000_000,
            switch_delay: 250_000,
            // Half a microsecond of software and half a microsecond of the network card.
            send_delay: MICROSECOND,
            receive_delay: MICROSECOND / 2,
            segment: 1442,
            data_overhead: 96,
            control: 84,
            buffer: u64::MAX,
        }
    }

    /// Five hosts at a switch of 100 Mbit/s, whose queues are as long as those of switches of ten gigabits a second: twenty
    /// times what the network holds in a round trip.
    #[must_use]
    pub const fn slow() -> Self {
        Self {
            racks: 1,
            hosts_per_rack: 5,
            spines: 0,
            host_rate: 100_000_000,
            switch_delay: 25 * MICROSECOND,
            send_delay: 50 * MICROSECOND,
            receive_delay: 50 * MICROSECOND,
            segment: 1378,
            data_overhead: 136,
            control: 110,
            buffer: 200_000,
            ..Self::paper()
        }
    }

    /// All hosts.
    #[must_use]
    pub const fn hosts(&self) -> usize {
        self.racks * self.hosts_per_rack
    }

    /// The rack of a host.
    #[must_use]
    pub const fn rack(&self, host: usize) -> usize {
        host / self.hosts_per_rack
    }

    /// Bytes that a packet with so much payload takes on a link; no frame is shorter than a control packet.
    #[must_use]
    pub fn wire(&self, payload: u32) -> u32 {
        (payload + self.data_overhead).max(self.control)
    }

    /// From sending to the application at the other end in an empty network: all packets back to back, stored and
    /// forwarded at each switch. Between racks a short last packet may overtake the one before it by another spine.
    #[must_use]
    pub fn ideal(&self, from: usize, to: usize, length: u32) -> u64 {
        let (slow, fast) = (8_000_000_000_000 / self.host_rate, 8_000_000_000_000 / self.spine_rate);
        let full = u64::from(self.wire(self.segment));
        let packets = u64::from(length.div_ceil(self.segment));
        let last = u64::from(self.wire(length - (packets as u32 - 1) * self.segment));
        // From the end of a packet on the first link to its place before the last one.
        let across = |bytes: u64| {
            if self.rack(from) == self.rack(to) {
                self.switch_delay
            } else {
                3 * self.switch_delay + 2 * bytes * fast
            }
        };
        // No later link is slower than the first, so full packets never wait for each other.
        let before_sent = (packets - 1) * full * slow;
        let last_there = before_sent + last * slow + across(last);
        let end = if packets == 1 {
            last_there + last * slow
        } else {
            let before_there = before_sent + across(full);
            if last_there < before_there {
                before_there.max(last_there + last * slow) + full * slow
            } else {
                last_there.max(before_there + full * slow) + last * slow
            }
        };
        end + self.send_delay + self.receive_delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_small_packet_takes_each_link_and_switch_once() {
        let topology = Topology::paper();
        // 100 bytes are 196 on the wire: 156.8 ns at 10 Gbit/s, 39.2 ns at 40.
        assert_eq!(topology.ideal(0, 1, 100), 1_500_000 + 2 * 156_800 + 250_000);
        assert_eq!(topology.ideal(0, 143, 100), 1_500_000 + 2 * 156_800 + 2 * 39_200 + 750_000);
    }

    #[test]
    fn a_long_message_takes_the_time_of_its_bytes_and_one_packet_more_for_each_switch() {
        let topology = Topology::paper();
        let full = 1538 * 800;
        assert_eq!(topology.ideal(0, 1, 1442 * 1000), 1_500_000 + 1001 * full + 250_000);
        // The last packet is short, and waits for the one before it on the last link.
        let last = u64::from(topology.wire(1)) * 800;
        assert_eq!(topology.ideal(0, 1, 1443), 1_500_000 + 2 * full + 250_000 + last);
    }
}
