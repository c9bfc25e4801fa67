//! Tests that need namespaces, run by whoever may have them.

use std::env;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio, id};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Lab;

/// Set in the inner run to the file that it leaves as proof of having run the body.
const PROOF: &str = "STEADFAST_TESTBED_PROOF";

const UNSHARE: [&str; 3] = ["--user", "--map-root-user", "--net"];

/// Runs the body of a test that needs a [`Lab`], whatever this process is allowed.
///
/// Where namespaces can be made, it simply runs the body. Elsewhere it runs the present test binary once more, for the
/// one test `test_path` (as `cargo test` prints it, such as `"links::blackhole"`), in a user namespace through `unshare`
/// of util-linux; there the body runs. Where user namespaces are forbidden too, it prints `SKIPPED test: reason` to
/// stderr.
///
/// # Panics
/// When the body does, when the inner run fails or never reaches the body (as when `test_path` names no test), and
/// instead of skipping when the environment variable `CI` is set.
pub fn isolated(test_path: &str, body: impl FnOnce()) {
    let refusal = match Lab::available() {
        Ok(()) => {
            body();
            if let Some(proof) = env::var_os(PROOF) {
                fs::write(proof, test_path).expect("the proof of an inner run can be written");
            }
            return;
        }
        Err(refusal) => refusal,
    };
    assert!(
        env::var_os(PROOF).is_none(),
        "{test_path}: not even root of a user namespace may do it: {refusal}"
    );
    if let Err(reason) = user_namespaces() {
        let message = format!("{test_path}: {refusal}; nor is a user namespace: {reason}");
        assert!(env::var_os("CI").is_none(), "nothing may be skipped where CI is set: {message}");
        skipped(&message);
        return;
    }
    let proof = proof_file();
    let mut inner = Command::new("unshare");
    inner.args(UNSHARE).arg("--").arg(env::current_exe().expect("this program has a path"));
    inner.args(["--exact", test_path, "--include-ignored", "--nocapture", "--test-threads=1"]);
    let status = inner.env(PROOF, &proof).status().expect("unshare ran a moment ago");
    let reached = fs::remove_file(&proof).is_ok();
    assert!(status.success(), "{test_path} failed inside a user namespace: {status}");
    assert!(reached, "{test_path} did not run inside the user namespace: is this the test's full path?");
}

#[expect(clippy::print_stderr, reason = "a test that was skipped must say so in the output of the run")]
fn skipped(message: &str) {
    eprintln!("SKIPPED {message}");
}

/// Tries a user namespace; the error says why there is none.
fn user_namespaces() -> Result<(), String> {
    let output = Command::new("unshare").args(UNSHARE).arg("true").stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err("there is no `unshare`; install util-linux".to_owned())
        }
        Err(error) => Err(format!("`unshare` cannot be started: {error}")),
    }
}

fn proof_file() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    env::temp_dir().join(format!("steadfast-testbed-{}-{number}", id()))
}
