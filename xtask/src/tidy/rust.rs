//! Rules for Rust sources.

use super::source::{Source, line_of, places};
use super::{File, Finding};

/// The files that talk to the kernel where no safe wrapper exists, and to C programs.
const UNSAFE_IN: [&str; 3] =
    ["crates/testbed/src/sys.rs", "crates/libftb/src/calls.rs", "crates/libcheckpoint/src/calls.rs"];

/// Macros that say that something is not done yet.
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// Notes to oneself; spelt so that this file holds none.
const NOTES: [&str; 2] = [concat!("FIX", "ME"), concat!("XX", "X")];

pub(super) fn check(files: &[File], findings: &mut Vec<Finding>) {
    for file in files.iter().filter(|file| file.is_rust()) {
        let source = Source::new(&file.text);
        let code = source.code.as_str();
        let mut add = |text: &str, at, what: &str, remedy: &str| {
            findings.push(Finding::new(&file.path, line_of(text, at), what, remedy));
        };
        if file.path.starts_with("crates/")
            && file.path.ends_with("/src/lib.rs")
            && !file.text.starts_with("//!")
        {
            let remedy =
                "Begin with `//!`: what the crate is for, its invariants, what it deliberately lacks";
            add(code, 0, "a crate without its description", remedy);
        }
        if !UNSAFE_IN.contains(&file.path.as_str()) {
            for at in places(code, "unsafe") {
                let remedy = format!("It lives in {} alone; use a safe wrapper", UNSAFE_IN.join(" and "));
                add(code, at, "`unsafe`", &remedy);
            }
        }
        for name in UNFINISHED {
            for at in places(code, name).filter(|at| code[at + name.len()..].starts_with('!')) {
                add(
                    code,
                    at,
                    &format!("`{name}!`"),
                    "Finish it, or return an error that says what is not supported",
                );
            }
        }
        for text in [code, &source.comments] {
            for note in NOTES {
                for at in places(text, note) {
                    add(text, at, &format!("`{note}`"), "Do it, or say in prose why it is as it is");
                }
            }
        }
        for (at, attribute) in attributes(code) {
            if calls(attribute, "allow") {
                add(
                    code,
                    at,
                    "`allow` as an attribute",
                    "Use `expect` with a reason: it tells when it is needed no more",
                );
            }
            if calls(attribute, "expect") && places(attribute, "reason").next().is_none() {
                add(code, at, "`expect` without a reason", "Add `reason = \"...\"`");
            }
        }
    }
}

/// Every attribute with its place: `#[...]` and `#![...]`.
fn attributes(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.match_indices('#').filter_map(|(at, _)| {
        let rest = &code[at + 1..];
        let inside = rest.strip_prefix('!').unwrap_or(rest).strip_prefix('[')?;
        let mut depth = 1;
        let end = inside.find(|character| {
            match character {
                '[' => depth += 1,
                ']' => depth -= 1,
                _ => {}
            }
            depth == 0
        })?;
        Some((at, &inside[..end]))
    })
}

fn calls(attribute: &str, name: &str) -> bool {
    places(attribute, name).any(|at| attribute[at + name.len()..].trim_start().starts_with('('))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{file, found};

    fn findings(path: &str, text: &str) -> Vec<String> {
        found(|findings| check(&[file(path, text)], findings))
    }

    #[test]
    fn each_rule_finds_and_spares() {
        let path = "crates/a/src/b.rs";
        let marks = [
            ("unsafe {}", Some("`unsafe`")),
            ("#![forbid(unsafe_code)]", None),
            ("// unsafe, todo!()", None),
            ("todo!()", Some("`todo!`")),
            ("std::dbg!(1)", Some("`dbg!`")),
            ("fn todo() {}", None),
            (concat!("// FIX", "ME later"), Some(concat!("`FIX", "ME`"))),
            ("#[allow(dead_code)]", Some("`allow` as an attribute")),
            ("#![ allow (dead_code)]", Some("`allow` as an attribute")),
            ("#[cfg_attr(test, allow(dead_code))]", Some("`allow` as an attribute")),
            ("#[expect(dead_code)]", Some("`expect` without a reason")),
            ("#[expect(dead_code, reason = \"because\")]", None),
            ("fn allow(x: u8) { x.expect(\"a reason\") }", None),
            ("\"#[allow(x)] todo!() unsafe\"", None),
        ];
        for (text, what) in marks {
            let expected: Vec<String> = what.iter().map(|what| format!("{path}:1: {what}")).collect();
            assert_eq!(findings(path, text), expected, "{text}");
        }
    }

    #[test]
    fn few_files_may_be_unsafe() {
        for path in UNSAFE_IN {
            assert_eq!(findings(path, "unsafe {}"), [""; 0]);
        }
    }

    #[test]
    fn crates_describe_themselves() {
        let path = "crates/a/src/lib.rs";
        assert_eq!(findings(path, "#![no_std]"), [format!("{path}:1: a crate without its description")]);
        assert_eq!(findings(path, "//! It is for this."), [""; 0]);
    }
}
