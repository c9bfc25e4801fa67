//! What the output of `cargo test` amounts to.

use std::collections::BTreeSet;

/// A tests' own word that it could not do what it is for.
const SKIPPED: &str = "SKIPPED";

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

/// Which part of a test binary's output is being read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Progress,
    /// What tests that passed have printed.
    Successes,
    /// What tests that failed have printed.
    Failures,
}

/// Reads the output line by line.
pub(crate) struct Tally {
    hides_successes: bool,
    total: Counts,
    /// The counts of the binary being read.
    binary: Counts,
    binary_number: usize,
    /// Documentation tests report once for each way they were compiled, other binaries once.
    is_documentation: bool,
    part: Part,
    test: String,
    reasons: Vec<String>,
    skipped_lines: usize,
    /// Tests that passed and said that they skipped something, by binary and name.
    skipped_tests: BTreeSet<(usize, String)>,
}

impl Tally {
    /// `hides_successes` leaves the words of tests that passed out of what is shown, except for skips.
    pub(crate) fn new(hides_successes: bool) -> Self {
        Self {
            hides_successes,
            total: Counts::default(),
            binary: Counts::default(),
            binary_number: 0,
            is_documentation: false,
            part: Part::Progress,
            test: String::new(),
            reasons: Vec::new(),
            skipped_lines: 0,
            skipped_tests: BTreeSet::new(),
        }
    }

    /// Takes one line without its end; true if it is worth showing.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        if line.starts_with("     Running ") || line.starts_with("   Doc-tests ") {
            self.end();
            self.binary_number += 1;
            self.is_documentation = line.starts_with("   Doc-tests ");
            return true;
        }
        if let Some(counts) = result(line) {
            self.part = Part::Progress;
            if self.is_documentation {
                self.binary.passed += counts.passed;
                self.binary.failed += counts.failed;
                self.binary.ignored += counts.ignored;
            } else {
                // A test may start its own binary again, in a namespace say; the last word is the outer run's.
                self.binary = counts;
            }
            return true;
        }
        match line {
            "successes:" => self.part = Part::Successes,
            "failures:" => self.part = Part::Failures,
            _ => {}
        }
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            name.clone_into(&mut self.test);
        }
        if let Some(reason) = skip(line) {
            self.skipped(reason);
            return true;
        }
        if self.part == Part::Progress
            && let Some((name, why)) = ignored(line)
        {
            self.reasons.push(format!("ignored {name}{why}"));
        }
        !(self.hides_successes && self.part == Part::Successes)
    }

    fn skipped(&mut self, reason: &str) {
        self.reasons.push(reason.to_owned());
        self.skipped_lines += 1;
        let test = match self.part {
            Part::Successes => self.test.clone(),
            // Shown as it was printed, nothing tells which test it was.
            Part::Progress => format!("line {}", self.skipped_lines),
            Part::Failures => return,
        };
        self.skipped_tests.insert((self.binary_number, test));
    }

    /// The present binary has said all it will say.
    pub(crate) fn end(&mut self) {
        self.total.passed += self.binary.passed;
        self.total.failed += self.binary.failed;
        self.total.ignored += self.binary.ignored;
        self.binary = Counts::default();
        self.part = Part::Progress;
    }

    /// How many tests passed, failed, and were skipped, by their own word or by an attribute.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let skipped = self.skipped_tests.len();
        (self.total.passed.saturating_sub(skipped), self.total.failed, self.total.ignored + skipped)
    }

    /// The reason of each skip.
    pub(crate) fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// Whether a test said that this machine kept it from its work.
    pub(crate) fn has_skipped_lines(&self) -> bool {
        self.skipped_lines > 0
    }
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; ...`
fn result(line: &str) -> Option<Counts> {
    let (_, figures) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = Counts::default();
    for figure in figures.split("; ") {
        let Some((number, what)) = figure.split_once(' ') else { continue };
        let Ok(number) = number.parse() else { continue };
        match what {
            "passed" => counts.passed = number,
            "failed" => counts.failed = number,
            "ignored" => counts.ignored = number,
            _ => {}
        }
    }
    Some(counts)
}

/// The skip that a line tells of: at its start, or after the name of the test where output is not held back.
fn skip(line: &str) -> Option<&str> {
    let line =
        line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")).map_or(line, |(_, tail)| tail);
    let rest = line.strip_prefix(SKIPPED)?;
    (rest.is_empty() || rest.starts_with([' ', ':'])).then_some(line)
}

/// `test NAME ... ignored` or `test NAME ... ignored, REASON`: the name, and the reason with its comma.
fn ignored(line: &str) -> Option<(&str, &str)> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let why = verdict.strip_prefix("ignored")?;
    (why.is_empty() || why.starts_with(", ")).then_some((name, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(hides_successes: bool, output: &str) -> (Tally, Vec<&str>) {
        let mut tally = Tally::new(hides_successes);
        let shown = output.lines().filter(|line| tally.line(line)).collect();
        tally.end();
        (tally, shown)
    }

    const TWO_BINARIES: &str = "\
     Running unittests src/lib.rs (target/debug/deps/wire-1)

running 2 tests
test a ... ok
test slow ... ignored, takes a day

successes:

---- a stdout ----
chatter
SKIPPED a: no namespace
SKIPPED a: nor a second one

successes:
    a

test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/it/main.rs (target/debug/deps/it-1)

running 2 tests
test b ... FAILED

failures:

---- b stdout ----
SKIPPED half of b
thread panicked

failures:
    b

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn a_test_that_skipped_has_not_passed() {
        let (tally, shown) = read(true, TWO_BINARIES);
        assert_eq!(tally.counts(), (1, 1, 2));
        assert!(tally.has_skipped_lines());
        let reasons = [
            "ignored slow, takes a day",
            "SKIPPED a: no namespace",
            "SKIPPED a: nor a second one",
            "SKIPPED half of b",
        ];
        assert_eq!(tally.reasons(), reasons);
        assert!(!shown.contains(&"chatter"));
        assert!(shown.contains(&"thread panicked") && shown.contains(&"SKIPPED a: no namespace"));
    }

    #[test]
    fn an_inner_run_is_not_counted() {
        let (tally, _) = read(
            true,
            "     Running tests/it/main.rs (x)\nrunning 7 tests\nrunning 1 test\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 6 filtered out; finished in 0.00s\n\
             test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(tally.counts(), (7, 0, 0));
    }

    #[test]
    fn documentation_reports_in_parts() {
        let (tally, _) = read(
            true,
            "   Doc-tests wire\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(tally.counts(), (5, 0, 0));
    }

    #[test]
    fn skips_are_seen_where_output_is_not_held_back() {
        let (tally, _) = read(
            false,
            "     Running x (y)\ntest a ... SKIPPED a: why\nok\nSKIPPED b\nSKIPPEDNESS is no word\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(tally.reasons(), ["SKIPPED a: why", "SKIPPED b"]);
        assert_eq!(tally.counts(), (1, 0, 2));
    }

    #[test]
    fn nothing_is_counted_without_a_result() {
        let (tally, _) = read(true, "error: could not compile `wire`\n");
        assert_eq!(tally.counts(), (0, 0, 0));
    }
}
