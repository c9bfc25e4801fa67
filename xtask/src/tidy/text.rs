//! Rules for every text file.

use super::{File, Finding};

pub(super) fn check(files: &[File], findings: &mut Vec<Finding>) {
    for file in files {
        let mut add =
            |line, what: &str, remedy: &str| findings.push(Finding::new(&file.path, line, what, remedy));
        let mut lines = 0;
        for (number, line) in (1..).zip(file.text.lines()) {
            lines = number;
            if line.ends_with([' ', '\t', '\r']) {
                add(number, "whitespace at the end of the line", "Remove it");
            }
            if line.contains(concat!("/wo", "rk/")) {
                add(number, "a path of one machine", "Name the place from the root of the repository");
            }
            if names_an_issue(line) {
                add(
                    number,
                    "the number of an issue",
                    "Say what it was about: numbers mean nothing elsewhere",
                );
            }
        }
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            add(lines, "no newline at the end of the file", "Add one");
        }
        if file.text.ends_with("\n\n") || file.text == "\n" {
            add(lines, "an empty line at the end of the file", "Remove it: a file ends with one newline");
        }
    }
}

/// Whether a line gives the number of an issue, behind that word in the singular or the plural.
fn names_an_issue(line: &str) -> bool {
    let line = line.to_lowercase();
    line.match_indices("issue").any(|(at, word)| {
        let rest = &line[at + word.len()..];
        let rest = rest.strip_prefix('s').unwrap_or(rest).trim_start_matches([' ', ':', '(']);
        rest.strip_prefix('#').is_some_and(|number| number.starts_with(|digit: char| digit.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{file, found};

    fn findings(text: &str) -> Vec<String> {
        found(|findings| check(&[file("f", text)], findings))
    }

    #[test]
    fn ends_of_lines_and_files() {
        assert_eq!(findings("a\nb\n"), [""; 0]);
        assert_eq!(findings(""), [""; 0]);
        assert_eq!(
            findings("a \nb\t\nc"),
            [
                "f:1: whitespace at the end of the line",
                "f:2: whitespace at the end of the line",
                "f:3: no newline at the end of the file"
            ]
        );
        assert_eq!(findings("a\n\n"), ["f:2: an empty line at the end of the file"]);
    }

    #[test]
    fn numbers_of_issues() {
        let number = 12;
        for line in
            [format!("see issue #{number}"), format!("Issues: #{number}"), format!("(issue #{number})")]
        {
            assert!(names_an_issue(&line), "{line}");
        }
        for line in ["an issue of #[cfg]", "issue 12", "colour #12", "# Issues"] {
            assert!(!names_an_issue(line), "{line}");
        }
    }

    #[test]
    fn paths_of_one_machine() {
        assert_eq!(findings(concat!("cd /wo", "rk/x\n")), ["f:1: a path of one machine"]);
        assert_eq!(findings("the network/workload\n"), [""; 0]);
    }
}
