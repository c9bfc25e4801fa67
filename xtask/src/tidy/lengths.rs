//! Files and functions that are too long to be one idea.

use super::exceptions::{self, Exceptions};
use super::source::{Source, is_word, line_of, places};
use super::{File, Finding};

const FILE_LINES: usize = 1_000;
const FUNCTION_LINES: usize = 100;

/// `excepted` is how many exceptions there are.
pub(super) fn check(files: &[File], excepted: usize, findings: &mut Vec<Finding>) {
    let mut exceptions = exceptions::read(files, excepted, findings);
    for file in files.iter().filter(|file| file.is_rust()) {
        let lines = file.text.lines().count();
        if lines > FILE_LINES && !exceptions.covers(&file.path, lines, findings) {
            let what = format!("{lines} lines, {FILE_LINES} at most");
            findings.push(Finding::new(&file.path, 1, what, "Split it by who owns the state or the timers"));
        }
        for function in functions(&Source::new(&file.text).code) {
            let key = format!("{}::{}", file.path, function.name);
            if function.lines > FUNCTION_LINES && !exceptions.covers(&key, function.lines, findings) {
                let what =
                    format!("`{}` has {} lines, {FUNCTION_LINES} at most", function.name, function.lines);
                let remedy = "Take out the steps that have a name of their own";
                findings.push(Finding::new(&file.path, function.line, what, remedy));
            }
        }
    }
    exceptions.report_unused(findings);
}

/// A function with a body.
#[derive(PartialEq, Eq, Debug)]
struct Function<'a> {
    name: &'a str,
    /// Of its `fn`, from 1.
    line: usize,
    /// From its `fn` to its last brace.
    lines: usize,
}

/// Finds functions by counting braces in code that holds no comments or literals.
fn functions(code: &str) -> Vec<Function<'_>> {
    places(code, "fn")
        .filter_map(|at| {
            let rest = code[at + 2..].trim_start();
            // A type `fn(..)` has no name.
            let name = &rest[..rest.find(|character| !is_word(character)).unwrap_or(rest.len())];
            let end = (!name.is_empty()).then(|| body_end(&code[at..]))??;
            let lines = code[at..at + end].matches('\n').count() + 1;
            Some(Function { name, line: line_of(code, at), lines })
        })
        .collect()
}

/// Where the body that begins somewhere in `code` ends; `None` for a declaration.
fn body_end(code: &str) -> Option<usize> {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (at, character) in code.char_indices() {
        match character {
            '(' | '[' => others += 1,
            ')' | ']' => others = others.saturating_sub(1),
            // The length of an array among the arguments is behind brackets.
            ';' if braces == 0 && others == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 && others == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// What `check` needs from the list of exceptions.
impl Exceptions {
    /// Whether a length that is over the limit is excepted; an exception that allows more than is needed is a finding.
    fn covers(&mut self, key: &str, lines: usize, findings: &mut Vec<Finding>) -> bool {
        let Some(allowed) = self.take(key) else { return false };
        if lines < allowed {
            let remedy = format!("Lower it to {lines}: the list only shrinks");
            findings.push(self.finding(
                key,
                format!("`{key}` is excepted with {allowed} lines, it has {lines}"),
                remedy,
            ));
        }
        lines <= allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{file, found};

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let code = "\
trait T { fn declared(&self, x: [u8; 4]); }
fn one() -> fn(u8) { [(); 3]; }
impl X {
    fn two<'a>(
        x: &'a str,
    ) where
        Y: Z,
    {
        fn inner() {
        }
    }
}
";
        let expected = [("one", 2, 1), ("two", 4, 8), ("inner", 9, 2)].map(|(name, line, lines)| Function {
            name,
            line,
            lines,
        });
        assert_eq!(functions(code), expected);
    }

    fn long_function(lines: usize) -> String {
        format!("fn long() {{{}}}\n", "\n".repeat(lines - 1))
    }

    fn findings(source: &str, exceptions: &str) -> Vec<String> {
        let files = [file("a.rs", source), file(exceptions::PATH, exceptions)];
        found(|findings| check(&files, exceptions.lines().count(), findings))
    }

    #[test]
    fn lengths_have_limits() {
        assert_eq!(findings(&long_function(100), ""), [""; 0]);
        assert_eq!(findings(&long_function(101), ""), ["a.rs:1: `long` has 101 lines, 100 at most"]);
        assert_eq!(findings(&"\n".repeat(1_000), ""), [""; 0]);
        assert_eq!(findings(&"\n".repeat(1_001), ""), ["a.rs:1: 1001 lines, 1000 at most"]);
    }

    #[test]
    fn exceptions_only_shrink() {
        let long = long_function(120);
        let excepted = |lines| format!("\"a.rs::long\" = {lines}\n");
        let place = exceptions::PATH;
        assert_eq!(findings(&long, &excepted(120)), [""; 0]);
        assert_eq!(
            findings(&long, &excepted(130)),
            [format!("{place}:1: `a.rs::long` is excepted with 130 lines, it has 120")]
        );
        assert_eq!(findings(&long, &excepted(110)), ["a.rs:1: `long` has 120 lines, 100 at most"]);
        assert_eq!(
            findings("", &excepted(110)),
            [format!("{place}:1: `a.rs::long` needs no exception, or is gone")]
        );
        let files = [file("a.rs", &long), file(place, &excepted(120))];
        for count in [0, 2] {
            let findings = found(|findings| check(&files, count, findings));
            assert_eq!(findings, [format!("{place}:1: 1 exceptions instead of {count}")]);
        }
    }
}
