//! Rust source told apart into code and comments, so that a rule about one is not set off by the other.

/// Two copies of a source, each as many lines as the source; whatever does not belong is blank.
pub(super) struct Source {
    /// Without comments and without what stands inside strings and characters.
    pub(super) code: String,
    /// Comments alone.
    pub(super) comments: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Comment,
    /// Inside of a string or a character.
    Literal,
}

impl Source {
    pub(super) fn new(text: &str) -> Self {
        let mut scanner = Scanner {
            text,
            at: 0,
            source: Self {
                code: String::with_capacity(text.len()),
                comments: String::with_capacity(text.len()),
            },
        };
        while scanner.at < text.len() {
            scanner.step();
        }
        scanner.source
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    source: Source,
}

impl Scanner<'_> {
    fn step(&mut self) {
        let rest = &self.text[self.at..];
        if rest.starts_with("//") {
            self.take(rest.find('\n').unwrap_or(rest.len()), Part::Comment);
        } else if rest.starts_with("/*") {
            self.take(block_comment(rest), Part::Comment);
        } else if let Some(inside) = rest.strip_prefix('"') {
            self.take(1, Part::Code);
            let end = match raw_hashes(&self.text[..self.at - 1]) {
                Some(hashes) => inside.find(&format!("\"{}", "#".repeat(hashes))),
                None => closing_quote(inside, '"'),
            };
            self.take(end.unwrap_or(inside.len()), Part::Literal);
            self.take(1, Part::Code);
        } else if let Some(inside) = character(rest) {
            self.take(1, Part::Code);
            self.take(inside, Part::Literal);
            self.take(1, Part::Code);
        } else {
            self.take(1, Part::Code);
        }
    }

    /// Moves on by `length` bytes, rounded up to a whole character.
    fn take(&mut self, length: usize, part: Part) {
        let mut end = (self.at + length).min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        for character in self.text[self.at..end].chars() {
            let kept_in = |wanted| if part == wanted || character == '\n' { character } else { ' ' };
            self.source.code.push(kept_in(Part::Code));
            self.source.comments.push(kept_in(Part::Comment));
        }
        self.at = end;
    }
}

/// The length of a block comment, which may hold others.
fn block_comment(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// How many `#` a raw string has, judged by what stands before its first quote; `None` for other strings.
fn raw_hashes(before: &str) -> Option<usize> {
    let prefix = before.trim_end_matches('#');
    let name = prefix.strip_suffix('r')?;
    let name = name.strip_suffix(['b', 'c']).unwrap_or(name);
    (!name.ends_with(is_word)).then_some(before.len() - prefix.len())
}

/// Where a literal ends that began before `text`, minding escapes.
fn closing_quote(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return Some(at),
            _ => {}
        }
    }
    None
}

/// The length between the quotes if a character begins here, and not a lifetime.
fn character(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    let first = inside.chars().next()?;
    if first == '\\' {
        return closing_quote(inside, '\'');
    }
    inside[first.len_utf8()..].starts_with('\'').then_some(first.len_utf8())
}

pub(super) fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Every place where `word` stands by itself.
pub(super) fn places<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| !text[..*at].ends_with(is_word) && !text[at + word.len()..].starts_with(is_word))
}

/// The line, from 1, of a place in a text.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::new(text).code
    }

    #[test]
    fn comments_and_literals_are_blank_in_code() {
        let blank = |length| " ".repeat(length);
        assert_eq!(code("a // b\nc"), format!("a {}\nc", blank(4)));
        assert_eq!(code("a /* b /* c */ d */ e"), format!("a {} e", blank(17)));
        assert_eq!(code(r#"f("{\"}") g"#), format!("f(\"{}\") g", blank(4)));
        assert_eq!(code(r##"r#"{"}"# g"##), format!("r#\"{}\"# g", blank(3)));
        assert_eq!(code(r#"br"\" g"#), "br\" \" g");
        assert_eq!(code("'{' '\\'' b'}'"), "' ' '  ' b' '");
        assert_eq!(code("'ä' x"), "' ' x");
    }

    #[test]
    fn lifetimes_are_no_characters() {
        assert_eq!(code("fn f<'a>(x: &'a str) { 'l: loop {} }"), "fn f<'a>(x: &'a str) { 'l: loop {} }");
    }

    #[test]
    fn a_name_that_ends_in_r_makes_no_raw_string() {
        assert_eq!(code(r#"var"\"" g"#), "var\"  \" g");
    }

    #[test]
    fn comments_keep_their_lines() {
        let source = Source::new("a // one\n\"// two\" /* three\nfour */");
        assert_eq!(
            source.comments.lines().map(str::trim).collect::<Vec<_>>(),
            ["// one", "/* three", "four */"]
        );
        assert_eq!(source.code.lines().count(), 3);
    }

    #[test]
    fn what_never_ends_is_no_endless_loop() {
        for text in ["\"a", "/* a", "r#\"a\"", "'\\", "'", "// a", "\"\\"] {
            assert_eq!(code(text).chars().count(), text.len(), "{text}");
        }
    }

    #[test]
    fn words_stand_by_themselves() {
        let text = "unsafe_code unsafe an_unsafe\nunsafe{";
        let lines: Vec<_> = places(text, "unsafe").map(|at| line_of(text, at)).collect();
        assert_eq!(lines, [1, 2]);
    }
}
