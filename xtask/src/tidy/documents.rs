//! The documents that people start from: present, short enough, and right about what exists.

use std::path::{Component, Path, PathBuf};

use super::{File, Finding};

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const ARCHITECTURE_LINES: usize = 150;
const DOCUMENTS: [&str; 3] = [ARCHITECTURE, "README.md", "CONTRIBUTING.md"];

/// What a path in backticks begins with if it means this repository.
const PLACES: [&str; 3] = ["crates/", "xtask/", ".ci/"];

/// `exists` is asked about paths from the root of the repository.
pub(super) fn check(files: &[File], exists: impl Fn(&str) -> bool, findings: &mut Vec<Finding>) {
    for document in DOCUMENTS {
        let Some(file) = files.iter().find(|file| file.path == document) else {
            findings.push(Finding::new(document, 1, "there is no such file", "Write it: people look for it"));
            continue;
        };
        for (line, target) in paths(&file.text) {
            if !exists(&target) {
                let remedy = "Name what there is now, from the root of the repository";
                findings.push(Finding::new(document, line, format!("`{target}` does not exist"), remedy));
            }
        }
        let lines = file.text.lines().count();
        if document == ARCHITECTURE && lines > ARCHITECTURE_LINES {
            let what = format!("{lines} lines, {ARCHITECTURE_LINES} at most");
            findings.push(Finding::new(document, lines, what, "Move detail to the crate that it is about"));
        }
    }
    let library = |file: &&File| file.path.starts_with("crates/steadfast/src/") && file.is_rust();
    if !files.iter().filter(library).any(|file| file.text.contains("include_str!(\"../../../README.md\")")) {
        let remedy = "In crates/steadfast/src/lib.rs: #[cfg(doctest)] #[doc = include_str!(\"../../../README.md\")] \
                      struct Readme;";
        findings.push(Finding::new("README.md", 1, "its examples are not compiled", remedy));
    }
}

/// Every path that a document names, with its line: targets of relative links, and places in backticks.
fn paths(document: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    let mut fenced = false;
    for (number, line) in (1..).zip(document.lines()) {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if fenced {
            continue;
        }
        // Even pieces stand outside of backticks.
        let mut outside = String::new();
        for (index, piece) in line.split('`').enumerate() {
            if index % 2 == 0 {
                outside.push_str(piece);
            } else if let Some(path) = named(piece) {
                paths.push((number, path));
            }
        }
        paths.extend(outside.split("](").skip(1).filter_map(linked).map(|path| (number, path)));
    }
    paths
}

/// The path in a piece of code, unless it is a pattern.
fn named(code: &str) -> Option<String> {
    let is_path = PLACES.iter().any(|place| code.starts_with(place)) && !code.contains(['*', '<', '{', ' ']);
    is_path.then(|| code.trim_end_matches('/').to_owned())
}

/// The file that a link leads to, given what follows its `](`; `None` if it leads out of the repository or nowhere.
fn linked(rest: &str) -> Option<String> {
    let target = rest.split([')', ' ', '#']).next()?;
    let is_address = target.contains("://") || target.starts_with("mailto:");
    (!target.is_empty() && !is_address).then(|| normal(target))
}

/// All documents stand at the root, so that a link is a path from there.
fn normal(path: &str) -> String {
    let parts = Path::new(path).components().filter(|part| *part != Component::CurDir);
    parts.collect::<PathBuf>().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{file, found};

    #[test]
    fn links_and_places_are_found() {
        let document = "\
[a](ARCHITECTURE.md#floors) and [b](./crates/wire/ \"title\"), [c](https://example.org/x), [d](#here)
`crates/wire/src/` `crates/*` `cargo xtask test` `wire/src` [`e`](xtask/src/main.rs)
```
[f](not/checked.md) `crates/nothing`
```
[g](LICENSE-MIT)
";
        let expected = [
            (1, "ARCHITECTURE.md"),
            (1, "crates/wire"),
            (2, "crates/wire/src"),
            (2, "xtask/src/main.rs"),
            (6, "LICENSE-MIT"),
        ];
        assert_eq!(paths(document), expected.map(|(line, path)| (line, path.to_owned())));
    }

    #[test]
    fn what_is_named_exists() {
        let included = "#[doc = include_str!(\"../../../README.md\")]";
        let files = [
            file(ARCHITECTURE, &"\n".repeat(151)),
            file("README.md", "a\n[b](gone.md)\n"),
            file("crates/steadfast/src/lib.rs", included),
        ];
        assert_eq!(
            found(|findings| check(&files, |path| path != "gone.md", findings)),
            [
                "ARCHITECTURE.md:151: 151 lines, 150 at most",
                "CONTRIBUTING.md:1: there is no such file",
                "README.md:2: `gone.md` does not exist",
            ]
        );
        let findings = found(|findings| check(&files[..2], |_| true, findings));
        assert!(findings.contains(&"README.md:1: its examples are not compiled".to_owned()), "{findings:?}");
    }
}
