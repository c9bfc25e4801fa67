//! Why an agent refuses something: for programs, where FTB has one code for many things.

/// Why an agent refuses something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[repr(u8)]
pub enum Reason {
    /// What the code says, or the agent is older than this, or newer and has reasons of its own.
    #[default]
    Other = 0,
    /// A rule of the host does not allow it.
    Denied = 1,
    /// It comes too fast; later it may go.
    TooFast = 2,
    /// There are as many as there may be.
    TooMany = 3,
    /// It cannot be stored, and so not be acknowledged.
    NotStored = 4,
    /// What waits to leave the host fills its room, so it cannot be acknowledged.
    OutboxFull = 5,
}

impl Reason {
    /// The reason with this number; those that are not known here are [`Other`](Self::Other).
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        let known = [Self::Denied, Self::TooFast, Self::TooMany, Self::NotStored, Self::OutboxFull];
        known.into_iter().find(|reason| *reason as u8 == number).unwrap_or_default()
    }
}
