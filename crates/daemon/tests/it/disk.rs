//! A disk that is soon full.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file system in memory, at a directory that is there.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// `None`, and a word of that, where this user may mount nothing. `size` is the kernel's: a number with `k` or `m`.
    #[expect(clippy::print_stderr, reason = "whoever runs the tests is to know what did not run")]
    pub(crate) fn mount(test: &str, at: &Path, size: &str) -> Option<Self> {
        let disk = Self(at.to_owned());
        if run(&["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], at) {
            return Some(disk);
        }
        std::mem::forget(disk);
        assert!(std::env::var_os("CI").is_none(), "nothing may be skipped where CI is set");
        eprintln!("SKIPPED {test}: a small file system cannot be mounted here");
        None
    }

    pub(crate) fn resize(&self, size: &str) {
        assert!(run(&["mount", "-o", &format!("remount,size={size}")], &self.0));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Also while somebody has a file on it.
        run(&["umount", "--lazy"], &self.0);
    }
}

fn run(command: &[&str], at: &Path) -> bool {
    let done = Command::new(command[0]).args(&command[1..]).arg(at).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}
