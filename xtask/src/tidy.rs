//! Rules about the text of the repository that no compiler checks, each finding with its place and its remedy.

mod documents;
mod exceptions;
mod lengths;
mod manifests;
mod rust;
mod source;
mod text;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::process;

/// One rule broken in one place.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Finding {
    /// From the root of the repository.
    path: String,
    /// From 1.
    line: usize,
    what: String,
    remedy: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}\n    {}", self.path, self.line, self.what, self.remedy)
    }
}

/// One file that git knows or would add, and whose content is text.
pub(crate) struct File {
    /// From the root of the repository, with `/` between its parts.
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|extension| extension == "rs")
    }
}

/// `cargo xtask tidy`.
pub(crate) fn run() -> Result<bool> {
    let files = files()?;
    let mut findings = Vec::new();
    text::check(&files, &mut findings);
    rust::check(&files, &mut findings);
    lengths::check(&files, exceptions::AT_MOST, &mut findings);
    manifests::check(&files, &mut findings);
    documents::check(&files, |path| process::root().join(path).exists(), &mut findings);
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {} files read, {} findings", files.len(), findings.len());
    Ok(findings.is_empty())
}

/// Every text file that is tracked, or new and not ignored, so that a finding comes before the commit.
fn files() -> Result<Vec<File>> {
    let mut git = std::process::Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(process::root());
    let Some(list) = process::answer(&mut git) else {
        bail!("cannot list the files with `git ls-files`; is git installed, and is this a clone?");
    };
    let mut files = Vec::new();
    for path in list.split('\0').filter(|path| !path.is_empty() && !is_raw(path)) {
        let whole = process::root().join(path);
        // Deleted and not yet committed, or a link to something that is listed itself.
        if !fs::symlink_metadata(&whole).is_ok_and(|metadata| metadata.is_file()) {
            continue;
        }
        let bytes = fs::read(&whole).with_context(|| format!("cannot read {path}"))?;
        if let Ok(text) = String::from_utf8(bytes)
            && !text.contains('\0')
        {
            files.push(File { path: path.to_owned(), text });
        }
    }
    Ok(files)
}

/// Inputs of fuzzers are bytes, even where they happen to be readable.
fn is_raw(path: &str) -> bool {
    path.split('/').any(|part| part == "corpus")
}

#[cfg(test)]
fn file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned() }
}

/// What a check finds, as `path:line: what`.
#[cfg(test)]
fn found(check: impl FnOnce(&mut Vec<Finding>)) -> Vec<String> {
    let mut findings = Vec::new();
    check(&mut findings);
    findings.sort();
    findings.iter().map(|finding| format!("{}:{}: {}", finding.path, finding.line, finding.what)).collect()
}
