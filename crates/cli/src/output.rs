//! What commands print: lines and tables for people, or JSON objects, one a line, for programs.

mod table;

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde::Serialize;

use crate::screen::Screen;
pub(crate) use table::Table;

/// Standard output, in one of its two forms. An error of writing ends the command.
pub(crate) struct Output {
    json: bool,
    screen: Screen,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, screen: if json { Screen::aside() } else { Screen::stdout() } }
    }

    /// Whether objects are printed, and no lines.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints one object on a line of its own; does nothing for people.
    pub(crate) fn object(&mut self, object: &impl Serialize) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        let mut line = json_line(object)?;
        line.push('\n');
        let mut out = io::stdout().lock();
        out.write_all(line.as_bytes())?;
        out.flush()
    }

    /// Prints a line for people; does nothing for programs. Strings of others in it went through [`clean`].
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        self.screen.line(text);
        self.screen.check()
    }

    /// Prints a table for people; does nothing for programs.
    pub(crate) fn table(&mut self, table: &Table) -> io::Result<()> {
        table.lines().iter().try_for_each(|line| self.line(line))
    }

    /// The screen: for colours, and for lines that change. With JSON it is standard error, if that is a terminal.
    pub(crate) fn screen(&mut self) -> &mut Screen {
        &mut self.screen
    }

    /// Takes the changing lines away.
    pub(crate) fn end_status(&mut self) {
        self.screen.end_status();
    }
}

/// The object as one line of JSON in which nothing controls a terminal.
fn json_line(object: &impl Serialize) -> io::Result<String> {
    let text = serde_json::to_string(object)?;
    if !text.contains(is_dangerous) {
        return Ok(text);
    }
    // Outside of strings there are none, and within strings JSON has this way to write them.
    let mut line = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_dangerous(letter) {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                write!(line, "\\u{unit:04x}").map_err(io::Error::other)?;
            }
        } else {
            line.push(letter);
        }
    }
    Ok(line)
}

/// A text of somebody else, on one line, without what moves the cursor, colours, or turns the direction of writing.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_dangerous(letter) { clean.extend(letter.escape_unicode()) } else { clean.push(letter) }
    }
    clean
}

/// The same for a text of several lines.
pub(crate) fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// Control characters, line separators, and what changes the direction of writing (`Bidi_Control` of Unicode).
fn is_dangerous(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_others_controls_a_terminal() {
        let evil = "a\x1b[31m\n\u{9b}2J\u{202e}b\u{7f}";
        assert_eq!(clean(evil), "a\\u{1b}[31m\\u{a}\\u{9b}2J\\u{202e}b\\u{7f}");
        assert_eq!(clean_lines("a\nb\r\x1bc\n"), "a\nb\\u{d}\\u{1b}c");
        assert_eq!(clean("größer 船"), "größer 船");
        let line = json_line(&serde_json::json!({ "name": evil })).unwrap();
        assert!(!line.contains(is_dangerous), "{line}");
        let back: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(back["name"], evil);
    }
}
