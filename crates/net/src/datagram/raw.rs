//! The header that the kernel leaves in front of what arrives on a raw socket of IPv4. IPv6 has none there.

use super::RAW_PROTOCOL;
use std::net::Ipv4Addr;

/// What is read of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) tos: u8,
    pub(super) destination: Ipv4Addr,
    /// Where the packet behind it begins, and where it ends.
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Reads the header (RFC 791, section 3.1). None unless all of it, and all of what it promises, is there.
pub(super) fn header(bytes: &[u8]) -> Option<Header> {
    const LEAST: usize = 20;
    let fixed: &[u8; LEAST] = bytes.first_chunk()?;
    let start = usize::from(fixed[0] & 0xf) * 4;
    let end = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    // More fragments, or an offset: the kernel puts packets together before it hands them over.
    let fragment = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff != 0;
    let good = fixed[0] >> 4 == 4
        && start >= LEAST
        && start <= end
        && end <= bytes.len()
        && !fragment
        && fixed[9] == RAW_PROTOCOL;
    let destination = Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]);
    good.then_some(Header { tos: fixed[1], destination, start, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(words: u8, payload: usize) -> Vec<u8> {
        let start = usize::from(words) * 4;
        let mut bytes = vec![0; start + payload];
        bytes[0] = 0x40 | words;
        bytes[1] = 0xe0;
        bytes[2..4].copy_from_slice(&((start + payload) as u16).to_be_bytes());
        bytes[6] = 0x40;
        bytes[9] = RAW_PROTOCOL;
        bytes[16..20].copy_from_slice(&[10, 0, 0, 2]);
        bytes
    }

    #[test]
    fn headers_with_and_without_options_are_read() {
        for words in 5..=15 {
            let start = usize::from(words) * 4;
            let header = header(&packet(words, 9)).unwrap_or_else(|| panic!("{words}"));
            let destination = Ipv4Addr::new(10, 0, 0, 2);
            assert_eq!(header, Header { tos: 0xe0, destination, start, end: start + 9 });
        }
        let mut padded = packet(5, 1);
        padded.extend([0; 10]);
        assert_eq!(header(&padded).map(|header| header.end), Some(21));
    }

    #[test]
    fn nothing_else_is() {
        let good = packet(6, 4);
        for length in 0..good.len() {
            assert_eq!(header(&good[..length]), None, "{length}");
        }
        for (at, value) in [(0, 0x66), (0, 0x44), (2, 1), (3, 23), (6, 0x20), (7, 1), (9, 17)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(header(&bad), None, "{at}: {value}");
        }
    }
}
