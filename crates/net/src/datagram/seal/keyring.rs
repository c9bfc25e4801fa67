//! The receiving side: which key a packet is for, and whether it is what it claims to be.

use super::window::{self, Verdict, Window};
use super::{
    Algorithm, Chain, GENERATION, GENERATION_BITS, Generation, HEADER, MAX_FORGERIES, Offer, TAG, VERSION,
};
use ring::aead::Aad;
use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};

/// How many generations may be lost whole.
const AHEAD: u64 = 4;

/// Why a packet was not opened. Nothing has changed by it but a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No sealed packet is so short.
    #[error("too short to be a sealed packet")]
    Short,
    /// Not a version that is understood here.
    #[error("sealed in a version that is unknown here")]
    Version,
    /// No such key, or no longer.
    #[error("sealed with a key that is unknown here")]
    UnknownKey,
    /// It was opened before.
    #[error("the packet came before")]
    Replayed,
    /// Too many came since.
    #[error("the packet is too old to tell whether it came before")]
    TooOld,
    /// Its generation contradicts its counter, or is too far from what was seen.
    #[error("the packet is of a generation that is not expected")]
    Generation,
    /// It does not come from whom it claims, or was changed.
    #[error("the packet is forged or damaged")]
    Forged,
    /// So many were forged that the key is not used any more.
    #[error("too many packets were forged for this key; make a new offer")]
    Ended,
}

/// Why no offer was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// There are as many as there may be.
    #[error("there are {0} keys for packets already; remove those of peers that are gone")]
    Full(usize),
    /// The system gave no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// What came of packets so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyringCounters {
    /// Opened.
    pub opened: u64,
    /// Too short, of another version, or with a generation that is not expected.
    pub malformed: u64,
    /// For no key that there is.
    pub unknown: u64,
    /// Came before, or too late to tell.
    pub replayed: u64,
    /// Did not verify, or came for a key that was ended by those.
    pub forged: u64,
}

/// The keys of all who may send to us, each with what its owner is known by.
#[derive(Debug)]
pub struct Keyring<T> {
    keys: HashMap<u32, Key<T>>,
    max: usize,
    max_forgeries: u64,
    /// Keys that should be replaced; one may be here twice, and may be gone.
    worn: Vec<u32>,
    counters: KeyringCounters,
}

#[derive(Debug)]
struct Key<T> {
    owner: T,
    opener: Opener,
}

impl<T> Keyring<T> {
    /// Without keys; `max` is how many there may be. Each takes about 3 KiB.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self::with_forgeries(max, MAX_FORGERIES)
    }

    /// The same where fewer forged packets than [`MAX_FORGERIES`] end a key.
    #[must_use]
    pub fn with_forgeries(max: usize, forgeries: u64) -> Self {
        let max_forgeries = forgeries.clamp(2, MAX_FORGERIES);
        Self {
            keys: HashMap::new(),
            max,
            max_forgeries,
            worn: Vec::new(),
            counters: KeyringCounters::default(),
        }
    }

    /// Makes a key for what `owner` sends to us. The offer is for it alone, and for one [`Sealer`](super::Sealer).
    pub fn offer(&mut self, owner: T, algorithm: Algorithm) -> Result<Offer, KeyringError> {
        if self.keys.len() >= self.max {
            return Err(KeyringError::Full(self.max));
        }
        loop {
            let offer = Offer::random(algorithm).map_err(|_| KeyringError::Random)?;
            if let Entry::Vacant(place) = self.keys.entry(offer.key_id) {
                let mut opener = Opener::new(&offer);
                opener.max_forgeries = self.max_forgeries;
                place.insert(Key { owner, opener });
                return Ok(offer);
            }
        }
    }

    /// Removes a key: its packets are a stranger's from now on.
    pub fn remove(&mut self, key_id: u32) -> Option<T> {
        self.keys.remove(&key_id).map(|key| key.owner)
    }

    /// Whose key should be replaced by that of a new offer: it took half of the forged packets that end it. Told once, and again
    /// when it has ended.
    pub fn next_worn(&mut self) -> Option<T>
    where
        T: Clone,
    {
        while let Some(key_id) = self.worn.pop() {
            if let Some(key) = self.keys.get(&key_id) {
                return Some(key.owner.clone());
            }
        }
        None
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What came of packets so far.
    pub const fn counters(&self) -> KeyringCounters {
        self.counters
    }

    /// Decrypts a packet where it lies: whose it is, and what it says. If that fails its bytes are of no use any more.
    pub fn open<'p>(&mut self, packet: &'p mut [u8]) -> Result<(&T, &'p mut [u8]), OpenError> {
        let counters = &mut self.counters;
        let outcome = match split(packet) {
            Ok((header, body)) => match self.keys.get_mut(&header.key_id) {
                Some(key) => {
                    let before = key.opener.forgeries;
                    let opened = key.opener.open(&header, body);
                    let now = key.opener.forgeries;
                    if now != before && (now == self.max_forgeries / 2 || now == self.max_forgeries) {
                        self.worn.push(header.key_id);
                    }
                    opened.map(|plain| (&key.owner, plain))
                }
                None => Err(OpenError::UnknownKey),
            },
            Err(error) => Err(error),
        };
        match &outcome {
            Ok(_) => counters.opened += 1,
            Err(OpenError::Short | OpenError::Version | OpenError::Generation) => counters.malformed += 1,
            Err(OpenError::UnknownKey) => counters.unknown += 1,
            Err(OpenError::Replayed | OpenError::TooOld) => counters.replayed += 1,
            Err(OpenError::Forged | OpenError::Ended) => counters.forged += 1,
        }
        outcome
    }
}

/// What stands in front of the ciphertext.
pub(super) struct Header {
    bytes: [u8; HEADER],
    key_id: u32,
    counter: u64,
}

pub(super) fn split(packet: &mut [u8]) -> Result<(Header, &mut [u8]), OpenError> {
    if packet.len() < HEADER + TAG {
        return Err(OpenError::Short);
    }
    let (bytes, body) = packet.split_first_chunk_mut::<HEADER>().ok_or(OpenError::Short)?;
    let bytes = *bytes;
    if bytes[0] >> 6 != VERSION {
        return Err(OpenError::Version);
    }
    let [_, key_id @ .., _, _, _, _, _, _, _, _] = bytes;
    let [_, _, _, _, _, counter @ ..] = bytes;
    Ok((Header { bytes, key_id: u32::from_be_bytes(key_id), counter: u64::from_be_bytes(counter) }, body))
}

/// Opens the packets of one sender.
pub(super) struct Opener {
    chain: Chain,
    current: Generation,
    /// For late packets, while the window reaches back to it.
    previous: Option<Generation>,
    /// Those that come next, as far as packets asked for them.
    ahead: VecDeque<Generation>,
    window: Window,
    pub(super) forgeries: u64,
    pub(super) max_forgeries: u64,
    generation: u64,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Opener")
            .field("end", &self.window.end())
            .field("forgeries", &self.forgeries)
            .finish_non_exhaustive()
    }
}

impl Opener {
    fn new(offer: &Offer) -> Self {
        Self::with_generation(offer, GENERATION)
    }

    pub(super) fn with_generation(offer: &Offer, generation: u64) -> Self {
        let mut chain = Chain::new(offer);
        let current = chain.step();
        Self {
            chain,
            current,
            previous: None,
            ahead: VecDeque::new(),
            window: Window::new(),
            forgeries: 0,
            max_forgeries: MAX_FORGERIES,
            generation,
        }
    }

    pub(super) fn open<'p>(
        &mut self,
        header: &Header,
        body: &'p mut [u8],
    ) -> Result<&'p mut [u8], OpenError> {
        if self.forgeries >= self.max_forgeries {
            return Err(OpenError::Ended);
        }
        let counter = header.counter;
        match self.window.check(counter) {
            // The last counter of all is not used.
            Verdict::New if counter < u64::MAX => {}
            Verdict::New | Verdict::TooOld => return Err(OpenError::TooOld),
            Verdict::Seen => return Err(OpenError::Replayed),
        }
        let number = counter / self.generation;
        if number as u8 & GENERATION_BITS != header.bytes[0] & GENERATION_BITS {
            return Err(OpenError::Generation);
        }
        let key = self.key(number)?;
        let nonce = key.nonce(counter);
        let Ok(plain) = key.key.open_in_place(nonce, Aad::from(header.bytes), body) else {
            self.forgeries += 1;
            return Err(OpenError::Forged);
        };
        self.window.mark(counter);
        self.follow(number);
        Ok(plain)
    }

    /// The key of a generation. Makes at most one that there was not.
    fn key(&mut self, number: u64) -> Result<&Generation, OpenError> {
        let Some(steps) = number.checked_sub(self.current.number) else {
            return self.previous.as_ref().filter(|key| key.number == number).ok_or(OpenError::TooOld);
        };
        if steps == 0 {
            return Ok(&self.current);
        }
        if steps <= AHEAD && (self.ahead.len() as u64) < steps {
            self.ahead.push_back(self.chain.step());
        }
        self.ahead.get(steps as usize - 1).filter(|_| steps <= AHEAD).ok_or(OpenError::Generation)
    }

    /// A packet of this generation is proved: those before the one before it are over.
    fn follow(&mut self, number: u64) {
        while self.current.number < number
            && let Some(next) = self.ahead.pop_front()
        {
            self.previous = Some(std::mem::replace(&mut self.current, next));
        }
        if self.window.end() >= (self.current.number * self.generation).saturating_add(window::BITS) {
            self.previous = None;
        }
    }

    /// How many keys are held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        1 + usize::from(self.previous.is_some()) + self.ahead.len()
    }
}
