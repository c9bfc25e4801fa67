//! Where words for people go: lines that stay and, on a terminal, a few below them that change.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use rustix::termios::tcgetwinsize;

/// Assumed where the terminal does not tell.
const WIDTH: usize = 80;
const HEIGHT: usize = 24;

/// Codes of ANSI terminals (ECMA-48).
const CLEAR_BELOW: &str = "\x1b[J";

/// How a piece of text looks on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Bold,
    Dim,
    Red,
    Green,
    Cyan,
}

/// Standard output, or standard error while that is for something else.
pub(crate) struct Screen {
    out: Option<Box<dyn Write>>,
    live: bool,
    color: bool,
    width: usize,
    height: usize,
    /// Changing lines that stand below the last one that stays.
    drawn: usize,
    /// The first error of writing, until somebody asks.
    failed: Option<io::Error>,
}

impl Screen {
    /// Lines on standard output; on a terminal, with changing ones and colours.
    pub(crate) fn stdout() -> Self {
        Self::of(io::stdout())
    }

    /// The same on standard error.
    pub(crate) fn stderr() -> Self {
        Self::of(io::stderr())
    }

    fn of(out: impl Write + IsTerminal + AsFd + 'static) -> Self {
        let live = out.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let color = live && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let size = tcgetwinsize(&out).ok();
        let width = size.map_or(WIDTH, |size| usize::from(size.ws_col).max(20));
        let height = size.map_or(HEIGHT, |size| usize::from(size.ws_row).max(2));
        Self { out: Some(Box::new(out)), live, color, width, height, drawn: 0, failed: None }
    }

    /// Lines on standard error for a person who waits there, otherwise none.
    pub(crate) fn aside() -> Self {
        let out = io::stderr();
        let out = out.is_terminal().then(|| Box::new(out) as Box<dyn Write>);
        Self { out, live: false, color: false, width: WIDTH, height: HEIGHT, drawn: 0, failed: None }
    }

    /// The text, styled where that is possible.
    pub(crate) fn paint(&self, style: Style, text: impl AsRef<str>) -> String {
        let text = text.as_ref();
        let code = match style {
            Style::Bold => 1,
            Style::Dim => 2,
            Style::Red => 31,
            Style::Green => 32,
            Style::Cyan => 36,
        };
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Writes lines that stay.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) {
        let erase = self.erase();
        self.write(&format!("{erase}{}\n", text.as_ref()));
    }

    /// Writes the beginning of a line that somebody else completes.
    pub(crate) fn line_start(&mut self, text: &str) {
        let erase = self.erase();
        self.write(&format!("{erase}{text}"));
    }

    /// Writes a long text that stays, broken between words, each line after `indent` spaces.
    pub(crate) fn paragraph(&mut self, indent: usize, text: &str) {
        for line in wrap(text, self.width.min(100).saturating_sub(indent)) {
            self.line(format!("{:indent$}{line}", ""));
        }
    }

    /// Replaces the changing lines; does nothing where lines cannot change. They must not be styled, since they are cut to
    /// the width. Those that have no room on the screen are left out, or they could never be taken away.
    pub(crate) fn status(&mut self, lines: &[String]) {
        if !self.live {
            return;
        }
        let mut text = self.erase();
        let lines = &lines[..lines.len().min(self.height - 1)];
        for line in lines {
            text.extend(line.chars().take(self.width - 1));
            text.push('\n');
        }
        self.write(&text);
        self.drawn = lines.len();
    }

    /// Takes the changing lines away.
    pub(crate) fn end_status(&mut self) {
        let erase = self.erase();
        self.write(&erase);
    }

    /// Whether lines can change.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// The first error of writing since the last call. For some commands the exit code is the result and nobody has to
    /// read, the others end.
    pub(crate) fn check(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r{CLEAR_BELOW}"),
        }
    }

    fn write(&mut self, text: &str) {
        if let Some(out) = &mut self.out
            && let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush())
        {
            self.failed.get_or_insert(error);
        }
    }
}

/// Breaks a text between words into lines of at most `width` characters, or of one word.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is a line from the start");
        let fits = line.is_empty() || line.chars().count() + 1 + word.chars().count() <= width;
        if fits {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("unbreakable", 3), ["unbreakable"]);
        assert_eq!(wrap("", 3), [""]);
    }
}
