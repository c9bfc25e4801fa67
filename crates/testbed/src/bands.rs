//! What waits for the wire: one queue, or eight in strict priority.

use std::collections::VecDeque;

/// How many classes there are: DSCP's upper three bits, the class selector of RFC 2474.
pub(crate) const BANDS: usize = 8;

const ETHERNET_HEADER: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// Frames that wait, each in its band; the highest band that has one goes first, within a band the oldest.
#[derive(Debug, Default)]
pub(crate) struct Bands {
    bands: [Band; BANDS],
}

#[derive(Debug, Default)]
struct Band {
    frames: VecDeque<Box<[u8]>>,
    bytes: usize,
}

impl Bands {
    /// Takes a frame, unless its band would then hold more than `bound` bytes.
    pub(crate) fn push(&mut self, band: usize, frame: &[u8], bound: usize) -> bool {
        let band = &mut self.bands[band];
        if band.bytes + frame.len() > bound {
            return false;
        }
        band.bytes += frame.len();
        band.frames.push_back(frame.into());
        true
    }

    pub(crate) fn pop(&mut self) -> Option<Box<[u8]>> {
        let band = self.bands.iter_mut().rev().find(|band| !band.frames.is_empty())?;
        let frame = band.frames.pop_front()?;
        band.bytes -= frame.len();
        Some(frame)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bands.iter().map(|band| band.bytes).sum()
    }

    pub(crate) fn frames(&self) -> usize {
        self.bands.iter().map(|band| band.frames.len()).sum()
    }

    pub(crate) fn clear(&mut self) {
        self.bands = Default::default();
    }
}

/// The band of an Ethernet frame. What is not IP, such as ARP, keeps the network going and goes first.
pub(crate) fn band_of(frame: &[u8]) -> usize {
    let (Some(kind), Some([first, second])) =
        (frame.get(12..14), frame.get(ETHERNET_HEADER..).and_then(<[u8]>::first_chunk))
    else {
        return BANDS - 1;
    };
    if kind == IPV4 {
        usize::from(second >> 5)
    } else if kind == IPV6 {
        // The traffic class begins with the lower half of the first byte.
        usize::from((first & 0x0f) >> 1)
    } else {
        BANDS - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: [u8; 2], packet: [u8; 2]) -> Vec<u8> {
        [&[0; 12], &kind[..], &packet[..]].concat()
    }

    #[test]
    fn the_class_is_read_from_both_families() {
        for class in 0..8_u8 {
            // The lower five bits, drop precedence and ECN, do not matter.
            for rest in [0, 0b1_1111] {
                let field = class << 5 | rest;
                assert_eq!(band_of(&frame(IPV4, [0x45, field])), usize::from(class));
                assert_eq!(band_of(&frame(IPV6, [0x60 | field >> 4, field << 4])), usize::from(class));
            }
        }
        assert_eq!(band_of(&frame([0x08, 0x06], [0, 1])), 7, "ARP");
        assert_eq!(band_of(&[0; 14]), 7, "an empty frame");
        assert_eq!(band_of(&[]), 7);
    }

    #[test]
    fn each_band_has_its_own_tail() {
        let mut bands = Bands::default();
        assert!(bands.push(0, &[1; 60], 100) && !bands.push(0, &[2; 60], 100));
        assert!(bands.push(3, &[3; 60], 100) && bands.push(0, &[4; 40], 100));
        assert_eq!((bands.frames(), bands.bytes()), (3, 160));
        let order: Vec<u8> = std::iter::from_fn(|| bands.pop()).map(|frame| frame[0]).collect();
        assert_eq!(order, [3, 1, 4]);
        assert_eq!((bands.frames(), bands.bytes()), (0, 0));
    }
}
