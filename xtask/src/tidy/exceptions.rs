//! The ratchet: what was too long when the limit came. The list only shrinks.

use std::collections::BTreeMap;

use super::{File, Finding};

pub(super) const PATH: &str = "xtask/tidy.toml";

/// How many exceptions there are. Lower it with each one that goes; raising it is a decision to defend in a review.
pub(super) const AT_MOST: usize = 0;

/// Lengths that are allowed, by `path` or `path::function`.
pub(super) struct Exceptions {
    text: String,
    unused: BTreeMap<String, usize>,
    used: BTreeMap<String, usize>,
}

/// Reads the list, and checks that it has not grown.
pub(super) fn read(files: &[File], at_most: usize, findings: &mut Vec<Finding>) -> Exceptions {
    let text = files.iter().find(|file| file.path == PATH).map_or("", |file| &file.text);
    let mut exceptions = Exceptions { text: text.to_owned(), unused: BTreeMap::new(), used: BTreeMap::new() };
    match text.parse::<toml::Table>() {
        Ok(table) => {
            for (key, value) in table {
                match value.as_integer().and_then(|lines| usize::try_from(lines).ok()) {
                    Some(lines) => _ = exceptions.unused.insert(key, lines),
                    None => findings.push(exceptions.finding(
                        &key,
                        format!("`{key}` is no number of lines"),
                        "Write \"path\" = LINES or \"path::function\" = LINES",
                    )),
                }
            }
        }
        Err(error) => {
            findings.push(Finding::new(PATH, 1, format!("cannot be read: {error}"), "Write it in TOML"));
        }
    }
    let count = exceptions.unused.len();
    if count != at_most {
        let what = format!("{count} exceptions instead of {at_most}");
        let remedy = if count > at_most {
            "Shorten what is too long instead of excepting it"
        } else {
            "Lower AT_MOST in xtask/src/tidy/exceptions.rs: the list only shrinks"
        };
        findings.push(Finding::new(PATH, 1, what, remedy));
    }
    exceptions
}

impl Exceptions {
    /// The lines allowed for `key`, if it is listed. Functions of one name in one file share an entry.
    pub(super) fn take(&mut self, key: &str) -> Option<usize> {
        if let Some(lines) = self.unused.remove(key) {
            self.used.insert(key.to_owned(), lines);
        }
        self.used.get(key).copied()
    }

    pub(super) fn report_unused(&self, findings: &mut Vec<Finding>) {
        for key in self.unused.keys() {
            let what = format!("`{key}` needs no exception, or is gone");
            findings.push(self.finding(key, what, "Remove the entry: the list only shrinks"));
        }
    }

    pub(super) fn finding(&self, key: &str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        let line = self.text.lines().position(|line| line.contains(key)).map_or(1, |index| index + 1);
        Finding::new(PATH, line, what, remedy)
    }
}
