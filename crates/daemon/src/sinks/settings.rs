//! What the configuration says of sinks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use steadfast_backplane::{ClientName, MAX_CLIENT_NAME, Subscription};

use crate::settings::one_or_several;

/// The most sinks, and subscriptions of one.
const MAX_SINKS: usize = 32;
const MAX_WANTED: usize = 16;
/// The least and the most bytes of a file before it is put aside, and the most files that are kept.
const MIN_SIZE: u64 = 64 * 1024;
const MAX_SIZE: u64 = 1 << 40;
const MAX_KEPT: u32 = 1000;
/// The most commands of one sink at once, and the longest that one may take, in seconds.
const MAX_AT_ONCE: usize = 64;
const MAX_LIMIT: u64 = 24 * 3600;

/// The sections `[daemon.sinks.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sinks(pub BTreeMap<SinkName, SinkSettings>);

/// What a sink is called: 1 to 15 letters, digits, `-`, `_` and `.`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SinkName(pub(crate) ClientName);

/// One sink.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct SinkSettings {
    /// Which events go there, in FTB's language: those that one of these wants. All.
    pub events: Vec<Subscription>,
    /// Where they go.
    pub to: SinkTarget,
}

/// Where events go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SinkTarget {
    /// The system's journal.
    Journal(JournalPlaces),
    /// A command for each event.
    Command(CommandSettings),
    /// A file with a line for each event.
    File(FileSettings),
}

/// Where the system's journal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalPlaces {
    /// The socket of systemd-journald. `/run/systemd/journal/socket`.
    pub journald: PathBuf,
    /// The socket of a syslog, if there is no journald. `/dev/log`.
    pub syslog: PathBuf,
}

/// A command for each event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSettings {
    /// The program and its arguments; no shell reads them.
    pub argv: Vec<String>,
    /// How long it may take; then it is killed, with all that it started in its process group. 30 s.
    pub limit: Duration,
    /// How many run at a time. 4.
    pub at_once: usize,
}

/// A file with a line for each event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSettings {
    /// Where.
    pub path: PathBuf,
    /// With how many bytes it is put aside, as `PATH.1`. 67,108,864 (64 MiB).
    pub size: u64,
    /// How many of those that were put aside are kept. 5.
    pub keep: u32,
}

impl Default for JournalPlaces {
    fn default() -> Self {
        Self { journald: "/run/systemd/journal/socket".into(), syslog: "/dev/log".into() }
    }
}

impl CommandSettings {
    /// This command, with the usual limits.
    #[must_use]
    pub const fn new(argv: Vec<String>) -> Self {
        Self { argv, limit: Duration::from_secs(30), at_once: 4 }
    }
}

impl FileSettings {
    /// This file, with the usual size and number.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, size: 64 << 20, keep: 5 }
    }
}

impl SinkName {
    /// None if it cannot name a sink.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let fits = !name.is_empty() && name.bytes().all(letter);
        ClientName::new(name).ok().filter(|_| fits).map(Self)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl<'de> Deserialize<'de> for SinkName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::new(&name).ok_or_else(|| {
            D::Error::custom(format!(
                "`{name}` cannot name a sink: a name has 1 to {MAX_CLIENT_NAME} letters, digits, `-`, `_` and `.`"
            ))
        })
    }
}

impl<'de> Deserialize<'de> for Sinks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let sinks = BTreeMap::<SinkName, SinkSettings>::deserialize(deserializer)?;
        if sinks.len() > MAX_SINKS {
            return Err(D::Error::custom(format!(
                "there are {MAX_SINKS} sinks at most, not {}",
                sinks.len()
            )));
        }
        let mut files = BTreeSet::new();
        for settings in sinks.values() {
            if let SinkTarget::File(file) = &settings.to
                && !files.insert(&file.path)
            {
                return Err(D::Error::custom(format!(
                    "two sinks write to {}; give each a file of its own, or one sink both subscriptions",
                    file.path.display()
                )));
            }
        }
        Ok(Self(sinks))
    }
}

/// As it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    #[serde(default)]
    events: Wanted,
    journal: Option<bool>,
    command: Option<Vec<String>>,
    limit: Option<u64>,
    at_once: Option<usize>,
    file: Option<PathBuf>,
    size: Option<u64>,
    keep: Option<u32>,
}

/// Subscriptions: one or a list.
#[derive(Debug)]
struct Wanted(Vec<Subscription>);

impl Default for Wanted {
    fn default() -> Self {
        Self(vec![Subscription::default()])
    }
}

impl<'de> Deserialize<'de> for Wanted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = one_or_several(deserializer)?;
        if texts.is_empty() || texts.len() > MAX_WANTED {
            return Err(D::Error::custom(format!(
                "a sink has 1 to {MAX_WANTED} subscriptions; leave `events` out for all events"
            )));
        }
        let parse = |text: &String| {
            Subscription::new(text).map_err(|error| D::Error::custom(format!("`{text}`: {error}")))
        };
        Ok(Self(texts.iter().map(parse).collect::<Result<_, _>>()?))
    }
}

impl TryFrom<Written> for SinkSettings {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { events, journal, command, limit, at_once, file, size, keep } = written;
        let of_commands = limit.is_some() || at_once.is_some();
        let of_files = size.is_some() || keep.is_some();
        let to = match (journal, command, file) {
            (Some(true), None, None) => SinkTarget::Journal(JournalPlaces::default()),
            (None, Some(argv), None) => {
                let mut settings = CommandSettings::new(argv);
                if settings.argv.first().is_none_or(String::is_empty) {
                    return Err(
                        "`command` is a program and its arguments, like [\"/usr/local/bin/page\", \"ops\"]"
                            .into(),
                    );
                }
                if settings.argv.iter().any(|word| word.contains('\0')) {
                    return Err("no word of `command` can have a NUL in it".into());
                }
                settings.limit = limit.map_or(settings.limit, Duration::from_secs);
                settings.at_once = at_once.unwrap_or(settings.at_once);
                if !(1..=MAX_LIMIT).contains(&settings.limit.as_secs()) {
                    return Err(format!("`limit` is 1 to {MAX_LIMIT} seconds"));
                }
                if !(1..=MAX_AT_ONCE).contains(&settings.at_once) {
                    return Err(format!("`at-once` is 1 to {MAX_AT_ONCE} commands"));
                }
                SinkTarget::Command(settings)
            }
            (None, None, Some(path)) => {
                if !path.is_absolute() || path.file_name().is_none() {
                    return Err(format!(
                        "`{}` is no file's whole path; write one that begins with `/`",
                        path.display()
                    ));
                }
                let mut settings = FileSettings::new(path);
                settings.size = size.unwrap_or(settings.size);
                settings.keep = keep.unwrap_or(settings.keep);
                if !(MIN_SIZE..=MAX_SIZE).contains(&settings.size) {
                    return Err(format!("`size` is {MIN_SIZE} to {MAX_SIZE} bytes"));
                }
                if settings.keep > MAX_KEPT {
                    return Err(format!("`keep` is {MAX_KEPT} files at most"));
                }
                SinkTarget::File(settings)
            }
            _ => return Err("a sink has one of `journal = true`, `command` and `file`".into()),
        };
        if of_commands && !matches!(to, SinkTarget::Command(_)) {
            return Err("`limit` and `at-once` go with `command`; remove them".into());
        }
        if of_files && !matches!(to, SinkTarget::File(_)) {
            return Err("`size` and `keep` go with `file`; remove them".into());
        }
        Ok(Self { events: events.0, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Sinks, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_meant() {
        let sinks = read(
            "[a]\njournal = true\n[b]\nevents = 'severity=fatal'\ncommand = ['page', 'ops']\nat-once = 1\n\
             [c]\nevents = ['severity=error', 'severity=fatal']\nfile = '/var/log/x'\nkeep = 0",
        );
        let sinks: Vec<_> = sinks.unwrap().0.into_values().collect();
        let wanted = |index: usize| sinks[index].events.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            (wanted(0), sinks[0].to.clone()),
            (vec![String::new()], SinkTarget::Journal(JournalPlaces::default()))
        );
        let command =
            CommandSettings { at_once: 1, ..CommandSettings::new(vec!["page".into(), "ops".into()]) };
        assert_eq!(
            (wanted(1), sinks[1].to.clone()),
            (vec!["severity=fatal".into()], SinkTarget::Command(command))
        );
        let file = FileSettings { keep: 0, ..FileSettings::new("/var/log/x".into()) };
        assert_eq!((wanted(2).len(), sinks[2].to.clone()), (2, SinkTarget::File(file)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, words) in [
            ("[a]", "one of `journal = true`, `command` and `file`"),
            ("[a]\njournal = false", "one of"),
            ("[a]\njournal = true\nfile = '/x'", "one of"),
            ("[a]\njournal = true\ncolour = 'red'", "colour"),
            ("[a]\njournal = true\nlimit = 3", "go with `command`"),
            ("[a]\ncommand = ['x']\nkeep = 3", "go with `file`"),
            ("[a]\ncommand = []", "a program and its arguments"),
            ("[a]\ncommand = 'page ops'", "sequence"),
            ("[a]\ncommand = ['x']\nlimit = 0", "seconds"),
            ("[a]\ncommand = ['x']\nat-once = 65", "1 to 64"),
            ("[a]\nfile = 'x'", "begins with `/`"),
            ("[a]\nfile = '/'", "whole path"),
            ("[a]\nfile = '/x'\nsize = 10", "bytes"),
            ("[a]\nfile = '/x'\nkeep = 1001", "1000"),
            ("[a]\nfile = '/x'\n[b]\nfile = '/x'", "two sinks"),
            ("[a]\njournal = true\nevents = 'colour=red'", "severity, event_space"),
            ("[a]\njournal = true\nevents = []", "leave `events` out"),
            ("['a b']\njournal = true", "cannot name a sink"),
            ("[a-name-of-16-xxx]\njournal = true", "cannot name a sink"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(words), "{text}: {refused}");
        }
    }
}
