//! Reaching what lies in a directory, and nothing else.
//!
//! Every path is resolved by the kernel in one step (`openat2`), beneath the directory and through no symbolic link: one
//! that was planted, or that takes the place of a directory in the meantime, leads nowhere.

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// How often a resolution that a rename disturbed is tried again.
const ATTEMPTS: usize = 64;

/// Opens `path`, which is relative and of at least one component, or empty for `root` itself.
pub(crate) fn open(root: impl AsFd, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..ATTEMPTS {
        match openat2(&root, path, flags | OFlags::CLOEXEC, mode, resolve) {
            // Something was renamed meanwhile, so that the kernel cannot tell whether the path led out.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens a directory for looking things up and for syncing it.
pub(crate) fn directory(root: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    open(root, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
}

/// The path of the directory that holds `path`, and the last name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Directory;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_leads_out() {
        let directory = Directory::new();
        let inside = directory.path().join("inside");
        std::fs::create_dir_all(inside.join("sub")).unwrap();
        std::fs::write(directory.path().join("secret"), "s").unwrap();
        std::fs::write(inside.join("sub/file"), "f").unwrap();
        symlink("..", inside.join("up")).unwrap();
        symlink("/", inside.join("root")).unwrap();
        symlink("sub", inside.join("alias")).unwrap();
        let root = std::fs::File::open(&inside).unwrap();
        let read = |path: &str| open(&root, path.as_bytes(), OFlags::RDONLY, Mode::empty());
        assert!(read("sub/file").is_ok() && read("sub").is_ok() && read("").is_ok());
        for out in ["../secret", "up/secret", "root/etc", "alias/file", "/etc", "sub/../../secret", "up"] {
            let error = read(out).unwrap_err();
            assert!(matches!(error, Errno::XDEV | Errno::LOOP), "{out}: {error}");
        }
    }
}
