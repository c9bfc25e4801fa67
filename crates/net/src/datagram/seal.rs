//! Authenticated encryption of packets, without I/O: what a TLS connection agreed on, for packets that take other ways.
//!
//! Each receiver makes an [`Offer`] of what packets *to it* are encrypted with and says it over a TLS connection. From the
//! secret comes a key, from it after [`GENERATION`] packets the next one, which does not tell the one before.
//!
//! | bytes | of a sealed packet |
//! |---|---|
//! | 1 | version 1 in the upper two bits, below them the lowest six of the generation |
//! | 4 | the receiver's id of the key |
//! | 8 | counter: of packets under this offer, from 0 |
//! | n | ciphertext |
//! | 16 | tag, also of the 13 bytes above |
//!
//! Integers are big-endian. The nonce is the counter, combined with a part of the key as in TLS (RFC 8446, section 5.3). A packet is
//! of the generation `counter / GENERATION`. Keys come by HKDF with SHA-256 (RFC 5869).
//!
//! Invariants: no packet changes anything before its tag is verified; none is accepted twice; a stranger's costs one look-up, a
//! forged one that names a key one verification and at most one step to another key; no key is used beyond the limits of its
//! algorithm.

mod keyring;
mod window;

#[cfg(test)]
mod tests;

pub use keyring::{Keyring, KeyringCounters, KeyringError, OpenError};

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;

/// Packets under one key. A key of AES-GCM takes 2^23 packets of up to 2^16 bytes before what it encrypts can be told from
/// noise with a chance that matters (RFC 9001, section 6.6 and appendix B.1); this is half.
pub const GENERATION: u64 = 1 << 22;
/// How many forged packets end an offer: the least that any of the algorithms stands, `ChaCha20-Poly1305` (RFC 9001,
/// section 6.6).
pub const MAX_FORGERIES: u64 = 1 << 36;
/// How far behind the newest packet a late one may be: what eight levels of priority reorder, and more.
pub const WINDOW: u64 = window::BITS;

const VERSION: u8 = 1;
const HEADER: usize = 13;
const TAG: usize = 16;
const SECRET: usize = 32;
/// Lowest bits of the generation that a packet tells.
const GENERATION_BITS: u8 = 0x3f;
/// The salt of all keys: keeps them apart from those of other protocols.
const SALT: &[u8] = b"steadfast packets 1";

/// What packets are encrypted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// AES-GCM with 128 bits: the fastest where the processor has instructions for it.
    Aes128Gcm,
    /// AES-GCM with 256 bits.
    Aes256Gcm,
    /// The fastest anywhere else.
    ChaCha20Poly1305,
}

impl Algorithm {
    /// The fastest on this processor, of those that are never a weakness.
    #[must_use]
    pub fn fastest() -> Self {
        if has_aes() { Self::Aes128Gcm } else { Self::ChaCha20Poly1305 }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Aes128Gcm => 1,
            Self::Aes256Gcm => 2,
            Self::ChaCha20Poly1305 => 3,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Aes128Gcm,
            2 => Self::Aes256Gcm,
            3 => Self::ChaCha20Poly1305,
            _ => return None,
        })
    }

    fn aead(self) -> &'static ring::aead::Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Gcm => &AES_256_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }
}

fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has =
        std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}

/// What a receiver says to one sender, and to nobody else: how to encrypt what is sent to it.
#[derive(PartialEq, Eq)]
pub struct Offer {
    algorithm: Algorithm,
    key_id: u32,
    secret: [u8; SECRET],
}

impl fmt::Debug for Offer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Offer")
            .field("algorithm", &self.algorithm)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl Offer {
    /// Bytes of it as it is said.
    pub const LENGTH: usize = 1 + 4 + SECRET;

    fn random(algorithm: Algorithm) -> Result<Self, ring::error::Unspecified> {
        let random = SystemRandom::new();
        let (mut key_id, mut secret) = ([0; 4], [0; SECRET]);
        random.fill(&mut key_id)?;
        random.fill(&mut secret)?;
        Ok(Self { algorithm, key_id: u32::from_be_bytes(key_id), secret })
    }

    /// The receiver's name for it.
    pub const fn key_id(&self) -> u32 {
        self.key_id
    }

    /// What it encrypts with.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Algorithm, id, secret: to be said over a TLS connection.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[0] = self.algorithm.code();
        bytes[1..5].copy_from_slice(&self.key_id.to_be_bytes());
        bytes[5..].copy_from_slice(&self.secret);
        bytes
    }

    /// Reads one. None if its algorithm is unknown here.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::LENGTH]) -> Option<Self> {
        let mut offer = Self { algorithm: Algorithm::from_code(bytes[0])?, key_id: 0, secret: [0; SECRET] };
        offer.key_id = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
        offer.secret.copy_from_slice(&bytes[5..]);
        Some(offer)
    }
}

/// One key after another.
struct Chain {
    algorithm: Algorithm,
    key_id: u32,
    /// From which the next key comes, and the next of these.
    secret: Prk,
    /// The number of the next key.
    number: u64,
}

/// A key and what it is combined with to a nonce.
struct Generation {
    number: u64,
    key: LessSafeKey,
    mask: [u8; NONCE_LEN],
}

struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

impl Chain {
    fn new(offer: &Offer) -> Self {
        let secret = Salt::new(HKDF_SHA256, SALT).extract(&offer.secret);
        Self { algorithm: offer.algorithm, key_id: offer.key_id, secret, number: 0 }
    }

    fn derive<T>(&self, label: &[u8], length: usize, make: impl FnOnce(&[u8]) -> T) -> T {
        let mut bytes = [0; SECRET];
        let info = [label, &[self.algorithm.code()], &self.key_id.to_be_bytes()];
        let okm = self.secret.expand(&info, Bytes(length)).expect("less than HKDF gives");
        okm.fill(&mut bytes[..length]).expect("as long as was asked for");
        make(&bytes[..length])
    }

    /// The next key; the one before it cannot be made any more.
    fn step(&mut self) -> Generation {
        let aead = self.algorithm.aead();
        let key = self.derive(b"key", aead.key_len(), |bytes| {
            LessSafeKey::new(UnboundKey::new(aead, bytes).expect("as long as its algorithm wants it"))
        });
        let mut mask = [0; NONCE_LEN];
        self.derive(b"nonce", NONCE_LEN, |bytes| mask.copy_from_slice(bytes));
        let generation = Generation { number: self.number, key, mask };
        self.secret = self.derive(b"next", SECRET, |bytes| Prk::new_less_safe(HKDF_SHA256, bytes));
        self.number += 1;
        generation
    }
}

impl Generation {
    fn nonce(&self, counter: u64) -> Nonce {
        let mut nonce = self.mask;
        for (byte, mask) in nonce[NONCE_LEN - 8..].iter_mut().zip(counter.to_be_bytes()) {
            *byte ^= mask;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// The first byte of its packets.
    const fn tag(number: u64) -> u8 {
        VERSION << 6 | number as u8 & GENERATION_BITS
    }
}

/// Why a packet was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It has more bytes than a packet may have.
    #[error("a packet would have more than {} bytes; send less in one", super::MAX_PACKET)]
    TooLong,
    /// No counter is left.
    #[error("as many packets were sealed for this peer as can be counted; ask it for a new offer")]
    Exhausted,
}

/// Encrypts what is sent to the maker of an [`Offer`]. There must be one only for each offer.
pub struct Sealer {
    chain: Chain,
    current: Generation,
    counter: u64,
    generation: u64,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Sealer")
            .field("key_id", &self.chain.key_id)
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}

impl Sealer {
    /// How many bytes a sealed packet has more.
    pub const OVERHEAD: usize = HEADER + TAG;

    /// Takes up an offer. It is taken by value: two sealers of one would use nonces twice.
    #[must_use]
    pub fn new(offer: Offer) -> Self {
        Self::with_generation(&offer, GENERATION)
    }

    fn with_generation(offer: &Offer, generation: u64) -> Self {
        let mut chain = Chain::new(offer);
        let current = chain.step();
        Self { chain, current, counter: 0, generation }
    }

    /// The peer's name for the key.
    pub const fn key_id(&self) -> u32 {
        self.chain.key_id
    }

    /// Packets that were sealed.
    pub const fn sealed(&self) -> u64 {
        self.counter
    }

    /// Whether this may be the beginning of a packet that was sealed here. Who has seen none cannot guess the id of its key.
    #[must_use]
    pub fn may_have_sealed(&self, start: &[u8]) -> bool {
        let Some(&[first, a, b, c, d, ref counter @ ..]) = start.first_chunk::<HEADER>() else {
            return false;
        };
        first >> 6 == VERSION
            && u32::from_be_bytes([a, b, c, d]) == self.chain.key_id
            && u64::from_be_bytes(*counter) < self.counter
    }

    /// Appends a packet to `out` whose plaintext `write` appends, and which is encrypted where it lies. Nothing is
    /// appended if that fails.
    pub fn seal(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), SealError> {
        let counter = self.counter;
        self.counter = counter.checked_add(1).ok_or(SealError::Exhausted)?;
        while self.current.number < counter / self.generation {
            self.current = self.chain.step();
        }
        let mut header = [0; HEADER];
        header[0] = Generation::tag(self.current.number);
        header[1..5].copy_from_slice(&self.chain.key_id.to_be_bytes());
        header[5..].copy_from_slice(&counter.to_be_bytes());
        let start = out.len();
        out.extend_from_slice(&header);
        write(out);
        let body = &mut out[start + HEADER..];
        let nonce = self.current.nonce(counter);
        let sealed = self.current.key.seal_in_place_separate_tag(nonce, Aad::from(header), body);
        let Ok(tag) = sealed else {
            out.truncate(start);
            return Err(SealError::TooLong);
        };
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }
}
