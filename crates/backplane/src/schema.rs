//! Schema files: which events a client will publish.

use crate::code::Code;
use crate::event::SchemaInfo;
use crate::name::{EventName, EventSpace, NameError, Severity};
use alloc::string::String;
use alloc::vec::Vec;

/// The most bytes of a schema file.
pub const MAX_SCHEMA: usize = 256 * 1024;
/// The most events that a client may declare. FTB has 100.
pub const MAX_DECLARED: usize = 256;

/// An event that a client may publish. Its severity is fixed with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declaration {
    /// Its name.
    pub name: EventName,
    /// Its severity.
    pub severity: Severity,
}

impl Declaration {
    /// Checks both texts.
    pub fn new(name: &str, severity: &str) -> Result<Self, NameError> {
        Ok(Self { name: EventName::new(name)?, severity: Severity::new(severity)? })
    }
}

/// What a schema file says.
///
/// ```
/// # use steadfast_backplane::Schema;
/// let text = "# version: 1.2\n# description: what the example tells\n\nstart\nFTB.apps.example\nDONE info\nend\n";
/// let schema = Schema::new(text, &"FTB.apps.example".parse().unwrap()).unwrap();
/// assert_eq!(schema.events[0].name.as_str(), "DONE");
/// assert_eq!(schema.info.unwrap().version(), "1.2");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// The events, each once, in the order of the file.
    pub events: Vec<Declaration>,
    /// What it says of itself, if it does.
    pub info: Option<SchemaInfo>,
    /// Whether an event was there twice; the first counts. FTB's code for it is [`Code::DuplicateEvent`].
    pub duplicates: bool,
}

/// Why a text is no schema. Lines count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// Longer than [`MAX_SCHEMA`].
    #[error("a schema file has at most {MAX_SCHEMA} bytes; split it")]
    TooLong,
    /// No line says `start`.
    #[error("a schema file begins its events with a line `start`; this has none")]
    NoStart,
    /// It stops within events.
    #[error("a schema file ends its events with a line `end`; this has none")]
    NoEnd,
    /// After `start` comes no event space.
    #[error("line {line} of the schema file should be an event space: {error}")]
    EventSpace {
        /// Where.
        line: usize,
        /// Why not.
        error: NameError,
    },
    /// The event space is another.
    #[error(
        "line {line} of the schema file names another event space than the client's; use one client for each"
    )]
    OtherSpace {
        /// Where.
        line: usize,
    },
    /// A name or a severity is none.
    #[error("line {line} of the schema file should say `NAME SEVERITY`: {error}")]
    Event {
        /// Where.
        line: usize,
        /// Why not.
        error: NameError,
    },
    /// A name without its severity.
    #[error("line {line} of the schema file gives an event no severity; write `NAME SEVERITY`")]
    NoSeverity {
        /// Where.
        line: usize,
    },
    /// More events than [`MAX_DECLARED`].
    #[error("a client declares at most {MAX_DECLARED} events, the schema file has more; use several clients")]
    TooMany,
    /// Its version or description is too long.
    #[error("line {line} of the schema file describes it: {error}")]
    Info {
        /// Where.
        line: usize,
        /// Why not.
        error: NameError,
    },
}

impl SchemaError {
    /// FTB's code for it.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Event { .. } => Code::InvalidField,
            Self::TooMany => Code::General,
            _ => Code::InvalidSchemaFile,
        }
    }
}

/// What is expected next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Start,
    Space,
    Name,
    Severity(EventName),
}

impl Schema {
    /// Reads the file of a client of an event space. Words are separated by blanks and line ends; `#` begins a comment. Before
    /// the first `start` nothing but two comments means anything: `# version: TEXT` and `# description: TEXT`.
    pub fn new(text: &str, space: &EventSpace) -> Result<Self, SchemaError> {
        if text.len() > MAX_SCHEMA {
            return Err(SchemaError::TooLong);
        }
        let mut schema = Self { events: Vec::new(), info: None, duplicates: false };
        let (mut expect, mut started) = (Expect::Start, false);
        let (mut version, mut description) = ("", "");
        for (line, content) in (1..).zip(text.lines()) {
            let (words, comment) = content.split_once('#').unwrap_or((content, ""));
            for word in words.split_ascii_whitespace() {
                expect = schema.take(expect, word, line, space)?;
                started |= expect == Expect::Space;
            }
            if let Some((key, value)) = comment.split_once(':').filter(|_| !started) {
                match key.trim() {
                    "version" => version = value.trim(),
                    "description" => description = value.trim(),
                    _ => continue,
                }
                SchemaInfo::new(version, description).map_err(|error| SchemaError::Info { line, error })?;
            }
        }
        match expect {
            Expect::Start if started => {}
            Expect::Start => return Err(SchemaError::NoStart),
            _ => return Err(SchemaError::NoEnd),
        }
        if !version.is_empty() || !description.is_empty() {
            schema.info = SchemaInfo::new(version, description).ok();
        }
        Ok(schema)
    }

    fn take(
        &mut self,
        expect: Expect,
        word: &str,
        line: usize,
        space: &EventSpace,
    ) -> Result<Expect, SchemaError> {
        match expect {
            Expect::Start => Ok(if word == "start" { Expect::Space } else { Expect::Start }),
            Expect::Severity(_) if word == "end" => Err(SchemaError::NoSeverity { line }),
            _ if word == "end" => Ok(Expect::Start),
            Expect::Space => {
                let there = EventSpace::new(word).map_err(|error| SchemaError::EventSpace { line, error })?;
                if there.same(space) { Ok(Expect::Name) } else { Err(SchemaError::OtherSpace { line }) }
            }
            Expect::Name => {
                let name = EventName::new(word).map_err(|error| SchemaError::Event { line, error })?;
                Ok(Expect::Severity(name))
            }
            Expect::Severity(name) => {
                let severity = Severity::new(word).map_err(|error| SchemaError::Event { line, error })?;
                if self.events.iter().any(|event| event.name.same(&name)) {
                    self.duplicates = true;
                } else if self.events.len() == MAX_DECLARED {
                    return Err(SchemaError::TooMany);
                } else {
                    self.events.push(Declaration { name, severity });
                }
                Ok(Expect::Name)
            }
        }
    }

    /// A schema in the form of its file, for a client of an event space.
    #[must_use]
    pub fn to_text(&self, space: &EventSpace) -> String {
        use core::fmt::Write as _;
        let mut text = String::new();
        let mut write = |line: core::fmt::Arguments<'_>| {
            let _infallible = writeln!(text, "{line}");
        };
        if let Some(info) = &self.info {
            write(format_args!("# version: {}", info.version()));
            write(format_args!("# description: {}", info.description()));
        }
        write(format_args!("start\n{space}"));
        for Declaration { name, severity } in &self.events {
            write(format_args!("{name} {severity}"));
        }
        write(format_args!("end"));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn space() -> EventSpace {
        EventSpace::new("FTB.mpi.openmpi").unwrap()
    }

    fn read(text: &str) -> Result<Schema, SchemaError> {
        Schema::new(text, &space())
    }

    /// The shape of the files that are out there.
    #[test]
    fn a_real_file() {
        let text = "#\n# Copyright: nobody\n#\n\nstart   # here\nftb.MPI.OpenMPI\nMPI_ABORT\tfatal\n\n\
                    MPI_COMM INFO # a comment\r\nA info B\nwarning\nend\nleft over start\nFTB.mpi.openmpi\nC error end\n";
        let schema = read(text).unwrap();
        let events: Vec<_> =
            schema.events.iter().map(|event| format!("{} {}", event.name, event.severity)).collect();
        assert_eq!(events, ["MPI_ABORT fatal", "MPI_COMM INFO", "A info", "B warning", "C error"]);
        assert_eq!((schema.info, schema.duplicates), (None, false));
        assert_eq!(read("start end").unwrap().events, []);
    }

    #[test]
    fn it_says_what_it_is() {
        let text =
            "#description: a: b \n  # version:7\nstart FTB.mpi.openmpi # version: 8\nend\n# author: me";
        let info = read(text).unwrap().info.unwrap();
        assert_eq!((info.version(), info.description()), ("7", "a: b"));
        let long = format!("\n# version: {}\nstart end", "1".repeat(32));
        assert!(matches!(read(&long), Err(SchemaError::Info { line: 2, .. })));
    }

    #[test]
    fn errors_have_their_line_and_code() {
        for (text, code, part) in [
            ("", -11, "`start`"),
            ("start", -11, "`end`"),
            ("end", -11, "`start`"),
            ("start\nFTB.mpi.openmpi\nA info", -11, "`end`"),
            ("\nstart\nFTB.mpi\nend", -11, "line 3"),
            ("start\nFTB.mpi.mpich2\nend", -11, "line 2"),
            ("start\nFTB.mpi.openmpi\nEV-X info\nend", -8, "line 3"),
            ("start\nFTB.mpi.openmpi\nA debug\nend", -8, "line 3"),
            ("start\nFTB.mpi.openmpi\nA, info\nend", -8, "line 3"),
            ("start\nFTB.mpi.openmpi\nA\nend", -11, "line 4"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.code() as i32, code, "{text:?}");
            assert!(error.to_string().contains(part), "{error}");
        }
        let body: Vec<_> = (0..=MAX_DECLARED).map(|number| format!("E{number} info")).collect();
        let many = read(&format!("start {} {} end", space(), body.join(" "))).unwrap_err();
        assert_eq!((many, many.code()), (SchemaError::TooMany, Code::General));
        assert_eq!(read(&" ".repeat(MAX_SCHEMA + 1)), Err(SchemaError::TooLong));
    }

    #[test]
    fn twice_is_told_and_nothing_is_lost() {
        let schema = read("start FTB.mpi.openmpi A info a fatal B error end").unwrap();
        assert!(schema.duplicates);
        assert_eq!(schema.events.len(), 2);
        assert_eq!(schema.events[0].severity, Severity::INFO);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            words in proptest::collection::vec("start|end|FTB.mpi.openmpi|[A-C]|info|FATAL|#|\n|version: x|.{0,5}", 0..40),
            separator in "[ \n]",
        ) {
            if let Ok(schema) = read(&words.join(&separator)) {
                prop_assert!(schema.events.len() <= MAX_DECLARED);
                let mut once = schema.clone();
                once.duplicates = false;
                prop_assert_eq!(read(&schema.to_text(&space())), Ok(once));
            }
        }
    }
}
