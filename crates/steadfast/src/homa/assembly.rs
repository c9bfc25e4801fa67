//! A message that is being put together, at the place where it is wanted.

/// The bytes of a message in the order of their places. They lie where they are to stay from the first packet on.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    bytes: Vec<u8>,
}

impl Assembly {
    /// For a message of `length` bytes, in a buffer that may have room for it already.
    pub(super) fn new(buffer: Vec<u8>, length: usize) -> Self {
        let mut assembly = Self::given(buffer);
        assembly.begin(length);
        assembly
    }

    /// In a buffer that is used once it is known how long the message is.
    pub(super) const fn given(buffer: Vec<u8>) -> Self {
        Self { bytes: buffer }
    }

    /// The first packet of a message of `length` bytes is here, perhaps for the second time.
    pub(super) fn begin(&mut self, length: usize) {
        self.bytes.clear();
        self.bytes.reserve_exact(length);
    }

    /// Puts a packet's bytes where they belong.
    pub(super) fn put(&mut self, offset: usize, packet: &[u8]) {
        let here = self.bytes.len();
        if offset > here {
            // Something before it is late.
            self.bytes.resize(offset, 0);
        } else if offset < here {
            let overlap = packet.len().min(here - offset);
            let (known, new) = packet.split_at(overlap);
            self.bytes[offset..offset + overlap].copy_from_slice(known);
            self.bytes.extend_from_slice(new);
            return;
        }
        self.bytes.extend_from_slice(packet);
    }

    pub(super) fn into_vec(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_in_any_order_make_the_message() {
        let message: Vec<u8> = (0..100).collect();
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [0, 0, 3, 2]] {
            let mut assembly = Assembly::new(Vec::new(), 100);
            for index in order.into_iter().chain(0..4) {
                // They overlap, as packets do that are sent again in other sizes.
                let (from, to) = (index * 25, (index * 25 + 40).min(100));
                assembly.put(from, &message[from..to]);
            }
            assert_eq!(assembly.into_vec(), message, "{order:?}");
        }
    }

    #[test]
    fn a_buffer_that_has_room_is_used() {
        let buffer = Vec::with_capacity(1000);
        let at = buffer.as_ptr();
        let mut assembly = Assembly::new(buffer, 100);
        assembly.put(50, &[1; 50]);
        assembly.put(0, &[2; 50]);
        let whole = assembly.into_vec();
        assert_eq!((whole.as_ptr(), whole.len()), (at, 100));
    }
}
