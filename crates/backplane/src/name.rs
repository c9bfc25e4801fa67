//! Names: event spaces, events, severities, clients, jobs, hosts. The sizes are those for which FTB has room, so that
//! every event fits a C program. Spelling is kept; comparing is without case (ASCII), as in FTB.

use crate::code::Code;
use crate::text::{self, Text, Unfit};
use bytes::BufMut;
use core::fmt;
use core::str::FromStr;
use steadfast_wire::{Reader, frame::DecodeError};

/// The most bytes of an event space.
pub const MAX_EVENT_SPACE: usize = 63;
/// The most bytes of the name of an event.
pub const MAX_EVENT_NAME: usize = 31;
/// The most bytes of a client's name and of its job.
pub const MAX_CLIENT_NAME: usize = 15;
/// The most bytes of a host's name.
pub const MAX_HOST_NAME: usize = 63;
/// The most bytes of a severity.
const MAX_SEVERITY: usize = 7;

/// The one known name that breaks FTB's own rule for event spaces; listed in its documentation.
const KNOWN_WITH_HYPHEN: &str = "bgl-cnk";

/// Which name was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// An event space.
    EventSpace,
    /// The name of an event.
    EventName,
    /// A severity.
    Severity,
    /// The name of a client.
    ClientName,
    /// The job of a client.
    JobId,
    /// The name of a host.
    HostName,
    /// The version of a schema.
    SchemaVersion,
    /// The description of a schema.
    SchemaDescription,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EventSpace => "event space",
            Self::EventName => "event name",
            Self::Severity => "severity",
            Self::ClientName => "client name",
            Self::JobId => "job id",
            Self::HostName => "host name",
            Self::SchemaVersion => "schema version",
            Self::SchemaDescription => "schema description",
        })
    }
}

/// Why a text cannot be a name of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is there.
    #[error("the {0} is empty; give one")]
    Empty(Field),
    /// More bytes than FTB has room for.
    #[error("the {0} has more than {1} bytes, which is all that FTB has room for; shorten it")]
    TooLong(Field, usize),
    /// A character that does not belong there.
    #[error("the {0} has a character that does not belong there; it may have {1}")]
    Letters(Field, &'static str),
    /// Not three parts.
    #[error("an event space has three parts, as in `region.category.component`; write all of them")]
    Parts,
    /// Not one of the four.
    #[error("this severity is unknown; there are info, warning, error and fatal")]
    Severity,
}

impl NameError {
    /// FTB's code for it.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Parts => Code::EventSpaceFormat,
            Self::Severity => Code::InvalidField,
            Self::Empty(field) | Self::TooLong(field, _) | Self::Letters(field, _) => match field {
                Field::EventSpace => Code::EventSpaceFormat,
                Field::EventName | Field::Severity => Code::InvalidField,
                _ => Code::InvalidValue,
            },
        }
    }
}

const WORD: &str = "letters, digits and underscores";

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

pub(crate) fn unfit(field: Field, max: usize) -> impl Fn(Unfit) -> NameError {
    move |unfit| match unfit {
        Unfit::TooLong => NameError::TooLong(field, max),
        Unfit::Control => NameError::Letters(field, "no control characters"),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:expr, $field:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Text<{ $max }>);

        impl $name {
            /// As it was written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }

            pub(crate) fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }

            /// Whether both are the same without case. (`==` compares the spelling, too.)
            #[must_use]
            pub fn same(&self, other: &Self) -> bool {
                self.0.as_bytes().eq_ignore_ascii_case(other.0.as_bytes())
            }

            pub(crate) fn encode(&self, out: &mut impl BufMut) {
                self.0.encode(out);
            }

            pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
                text::decode(reader, $max, concat!("no ", stringify!($name)), Self::new)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    };
}

name!(
    /// The name of an event: 1 to 31 letters, digits and underscores.
    EventName, MAX_EVENT_NAME, Field::EventName
);
name!(
    /// The name of a client, up to 15 bytes, or none. FTB's rule says letters, digits and underscores; real clients are
    /// called `mpich 3.x` or `ftb-watch`, so anything goes that can be printed.
    ClientName, MAX_CLIENT_NAME, Field::ClientName
);
name!(
    /// The job of a client, up to 15 bytes that can be printed, or none.
    JobId, MAX_CLIENT_NAME, Field::JobId
);
name!(
    /// The name of a host: 1 to 63 bytes that can be printed, without blanks.
    HostName, MAX_HOST_NAME, Field::HostName
);

impl EventName {
    /// Checks the rules of its kind.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty(Field::EventName));
        }
        let name = Text::new(text).map_err(unfit(Field::EventName, MAX_EVENT_NAME))?;
        if is_word(text) { Ok(Self(name)) } else { Err(NameError::Letters(Field::EventName, WORD)) }
    }

    /// What two names have in common that are the same without case.
    pub(crate) fn key(self) -> Self {
        Self(self.0.lowercase())
    }
}

impl HostName {
    /// Checks the rules of its kind.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty(Field::HostName));
        }
        if text.contains(char::is_whitespace) {
            return Err(NameError::Letters(Field::HostName, "no blanks"));
        }
        Ok(Self(Text::new(text).map_err(unfit(Field::HostName, MAX_HOST_NAME))?))
    }
}

macro_rules! printable {
    ($name:ident, $field:expr) => {
        impl $name {
            /// None given.
            pub const NONE: Self = Self(Text::EMPTY);

            /// Checks the rules of its kind.
            pub fn new(text: &str) -> Result<Self, NameError> {
                Ok(Self(Text::new(text).map_err(unfit($field, MAX_CLIENT_NAME))?))
            }

            /// From a C program's field, up to the first NUL. Some clients never set theirs: what cannot be printed
            /// becomes `?` instead of an error; without a NUL within 16 bytes it is too long, as in FTB.
            pub fn from_c(field: &[u8]) -> Result<Self, NameError> {
                let length = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
                let bytes = field.get(..length).unwrap_or_default();
                if bytes.len() > MAX_CLIENT_NAME {
                    return Err(NameError::TooLong($field, MAX_CLIENT_NAME));
                }
                if let Some(name) = core::str::from_utf8(bytes).ok().and_then(|text| Self::new(text).ok()) {
                    return Ok(name);
                }
                let mut clean = [b'?'; MAX_CLIENT_NAME];
                for (clean, byte) in clean.iter_mut().zip(bytes) {
                    if byte.is_ascii_graphic() || *byte == b' ' {
                        *clean = *byte;
                    }
                }
                Self::new(core::str::from_utf8(&clean[..length]).unwrap_or_default())
            }
        }
    };
}

printable!(ClientName, Field::ClientName);
printable!(JobId, Field::JobId);

/// Where events live: `region.category.component`, each of letters, digits and underscores, 63 bytes in all.
///
/// One exception: the component `bgl-cnk`, which FTB's documentation lists although it breaks its rule.
///
/// ```
/// use steadfast_backplane::EventSpace;
/// let space: EventSpace = "FTB.checkpoint_sw.blcr".parse().unwrap();
/// assert_eq!((space.region(), space.category(), space.component()), ("FTB", "checkpoint_sw", "blcr"));
/// assert!("FTB.T".parse::<EventSpace>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventSpace {
    text: Text<MAX_EVENT_SPACE>,
    first_dot: u8,
    second_dot: u8,
}

impl EventSpace {
    /// Checks the rules.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty(Field::EventSpace));
        }
        let whole = Text::new(text).map_err(unfit(Field::EventSpace, MAX_EVENT_SPACE))?;
        let mut parts = text.split('.');
        let (Some(region), Some(category), Some(component), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NameError::Parts);
        };
        if [region, category, component].contains(&"") {
            return Err(NameError::Parts);
        }
        let known = component.eq_ignore_ascii_case(KNOWN_WITH_HYPHEN);
        if !is_word(region) || !is_word(category) || !(known || is_word(component)) {
            return Err(NameError::Letters(Field::EventSpace, WORD));
        }
        let first_dot = region.len() as u8;
        Ok(Self { text: whole, first_dot, second_dot: first_dot + 1 + category.len() as u8 })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.text.as_str()
    }

    /// The first part.
    #[must_use]
    pub fn region(&self) -> &str {
        self.as_str().get(..usize::from(self.first_dot)).unwrap_or_default()
    }

    /// The second part.
    #[must_use]
    pub fn category(&self) -> &str {
        self.as_str().get(usize::from(self.first_dot) + 1..usize::from(self.second_dot)).unwrap_or_default()
    }

    /// The third part.
    #[must_use]
    pub fn component(&self) -> &str {
        self.as_str().get(usize::from(self.second_dot) + 1..).unwrap_or_default()
    }

    /// The three parts as bytes, for who compares them with many.
    pub(crate) fn parts(&self) -> [&[u8]; 3] {
        let (first, second) = (usize::from(self.first_dot), usize::from(self.second_dot));
        let part = |from, to| self.text.as_bytes().get(from..to).unwrap_or_default();
        [part(0, first), part(first + 1, second), part(second + 1, self.text.as_bytes().len())]
    }

    /// Whether both are the same without case. (`==` compares the spelling, too.)
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.text.as_bytes().eq_ignore_ascii_case(other.text.as_bytes())
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        self.text.encode(out);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        text::decode(reader, MAX_EVENT_SPACE, "no event space", Self::new)
    }
}

impl FromStr for EventSpace {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl fmt::Display for EventSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for EventSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// How bad it is. FTB gives them no order; neither does this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// Worth knowing.
    Info,
    /// May become an error.
    Warning,
    /// Something failed.
    Error,
    /// Something is gone.
    Fatal,
}

/// A severity in its declarer's spelling (`INFO`, `Info`); equal without case.
///
/// ```
/// use steadfast_backplane::Severity;
/// let loud: Severity = "FATAL".parse().unwrap();
/// assert_eq!(loud.as_str(), "FATAL");
/// assert_eq!(loud, Severity::FATAL);
/// ```
#[derive(Clone, Copy)]
pub struct Severity {
    level: Level,
    text: Text<MAX_SEVERITY>,
}

impl Severity {
    /// `info`
    pub const INFO: Self = Self::plain(Level::Info, *b"info\0\0\0", 4);
    /// `warning`
    pub const WARNING: Self = Self::plain(Level::Warning, *b"warning", 7);
    /// `error`
    pub const ERROR: Self = Self::plain(Level::Error, *b"error\0\0", 5);
    /// `fatal`
    pub const FATAL: Self = Self::plain(Level::Fatal, *b"fatal\0\0", 5);

    const fn plain(level: Level, bytes: [u8; MAX_SEVERITY], length: u8) -> Self {
        Self { level, text: Text::constant(bytes, length) }
    }

    /// One of the four words, in any case.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let known = [Self::INFO, Self::WARNING, Self::ERROR, Self::FATAL];
        let found = known.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(text));
        let level = found.ok_or(NameError::Severity)?.level;
        Ok(Self { level, text: Text::new(text).map_err(|_| NameError::Severity)? })
    }

    /// Which of the four.
    #[must_use]
    pub const fn level(self) -> Level {
        self.level
    }

    /// In its declarer's spelling.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.text.as_str()
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        self.text.encode(out);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        text::decode(reader, MAX_SEVERITY, "no severity", Self::new)
    }
}

impl PartialEq for Severity {
    fn eq(&self, other: &Self) -> bool {
        self.level == other.level
    }
}

impl Eq for Severity {}

impl FromStr for Severity {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn event_spaces_as_in_the_golden_table() {
        for good in ["FTB.MPI.mpich2", "a.b.c", "ftb.os.bgl-cnk", "FTB.OS.BGL-CNK", "_._.0"] {
            let space = EventSpace::new(good).unwrap();
            assert_eq!(format!("{}.{}.{}", space.region(), space.category(), space.component()), good);
        }
        let long = format!("{}.b.c", "a".repeat(59));
        assert_eq!(EventSpace::new(&long).unwrap().as_str(), long);
        for bad in [
            "FTB.T.T.T",
            "FTB.T-x.T",
            "a.b",
            "FTB.T",
            "",
            "a",
            "a..c",
            ".b.c",
            "a.b.",
            "a.b c.d",
            "bgl-cnk.b.c",
            "a.b.bgl-cnk2",
            "a.b.ü",
            &format!("{}.b.c", "a".repeat(60)),
        ] {
            assert_eq!(EventSpace::new(bad).unwrap_err().code(), Code::EventSpaceFormat, "{bad}");
        }
        assert!(EventSpace::new("FTB.a.B").unwrap().same(&EventSpace::new("ftb.A.b").unwrap()));
    }

    #[test]
    fn events_and_severities() {
        for bad in ["EV-X", "", "a b", "ü", &"a".repeat(32)] {
            assert_eq!(EventName::new(bad).unwrap_err().code(), Code::InvalidField, "{bad}");
        }
        assert_eq!(EventName::new(&"a".repeat(31)).unwrap().as_str().len(), 31);
        for bad in ["debug", "", "inf", "information"] {
            assert_eq!(Severity::new(bad).unwrap_err().code(), Code::InvalidField, "{bad}");
        }
        for (text, level) in [
            ("INFO", Level::Info),
            ("Warning", Level::Warning),
            ("erroR", Level::Error),
            ("fatal", Level::Fatal),
        ] {
            let severity = Severity::new(text).unwrap();
            assert_eq!((severity.level(), severity.as_str()), (level, text));
        }
        assert_eq!(Severity::new("WARNING"), Ok(Severity::WARNING));
    }

    #[test]
    fn names_of_real_clients() {
        for name in ["", "mpich 3.x", "hydra 3.x", "ftb-watch", "trial-watchdog", "fünfzehn Bytes"] {
            assert_eq!(ClientName::new(name).unwrap().as_str(), name);
        }
        assert_eq!(ClientName::new("sixteen letters!").unwrap_err().code(), Code::InvalidValue);
        assert_eq!(JobId::from_c(b"job\0garbage\xff\x01").unwrap().as_str(), "job");
        assert_eq!(JobId::from_c(b"\x01\xffA \0").unwrap().as_str(), "??A ");
        assert_eq!(JobId::from_c("zwölf\0".as_bytes()).unwrap().as_str(), "zwölf");
        assert_eq!(JobId::from_c(b"").unwrap(), JobId::NONE);
        assert_eq!(JobId::from_c(&[1; 16]).unwrap_err().code(), Code::InvalidValue);
        assert!(HostName::new("a b").is_err() && HostName::new("").is_err());
    }
}
