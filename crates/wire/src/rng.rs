//! Random numbers from a seed, for the cores: nonces, jitter, ids, ports and epoch tokens. Not for secrets; keys belong to
//! the carriers.

use crate::{SessionId, Token, varint};

/// The generator xoshiro256++ (Blackman and Vigna, 2018).
///
/// ```
/// use steadfast_wire::rng::Rng;
/// let (mut one, mut other) = (Rng::new([7; 32]), Rng::new([7; 32]));
/// assert_eq!(one.bits(), other.bits());
/// ```
#[derive(Debug, Clone)]
pub struct Rng([u64; 4]);

impl Rng {
    /// The same numbers for the same seed.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        let mut state = [0; 4];
        for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(8)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        // The all-zero state is the one that never leaves itself.
        if state == [0; 4] {
            state[0] = 0x9e37_79b9_7f4a_7c15;
        }
        Self(state)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound.max(1)
    }

    /// A token for an epoch.
    pub fn token(&mut self) -> Token {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.bits().to_be_bytes());
        bytes[8..].copy_from_slice(&self.bits().to_be_bytes());
        Token(bytes)
    }

    /// An id for a session; never zero.
    pub fn session(&mut self) -> SessionId {
        SessionId((self.bits() & varint::MAX).max(1))
    }
}
