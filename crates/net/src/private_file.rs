//! Files that appear whole or not at all, and directories that only their owner may enter.

use rustix::fs::RenameFlags;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Creates `directory` and what is missing above it, all with mode 0700; what exists keeps its mode.
pub(crate) fn create_directories(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// The directory that holds `path`; the working directory for a bare name.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What happens if the file is already there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Keep,
    Replace,
}

/// Writes `content` to `path` so that a reader sees the old file or the whole new one, with `mode` from birth.
///
/// With [`Existing::Keep`] fails with `AlreadyExists` if there is a file, also one that appears meanwhile.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32, existing: Existing) -> io::Result<()> {
    let directory = parent(path);
    create_directories(directory)?;
    let temporary = Temporary::create(path, mode)?;
    (&temporary.file).write_all(content)?;
    temporary.file.sync_all()?;
    match existing {
        Existing::Replace => fs::rename(&temporary.path, path)?,
        Existing::Keep => rename_new(&temporary.path, path)?,
    }
    // Without it the rename may be lost with the power, after the caller was told that it succeeded.
    File::open(directory)?.sync_all()
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let cwd = rustix::fs::CWD;
    match rustix::fs::renameat_with(cwd, from, cwd, to, RenameFlags::NOREPLACE) {
        // Some network file systems know no flags; a hard link refuses to replace as well.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::hard_link(from, to),
        other => other.map_err(Into::into),
    }
}

/// A file next to the one that it will become, removed if it does not.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    fn create(target: &Path, mode: u32) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let mut name = target.file_name().unwrap_or_default().to_os_string();
            name.push(format!(".new-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
            let path = target.with_file_name(name);
            match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
                Ok(file) => return Ok(Self { path, file }),
                // Left behind by a process that had our number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A directory of a test's own, removed at its end.
#[cfg(test)]
pub(crate) mod testing {
    use super::{AtomicU64, Ordering, Path, PathBuf, fs};

    pub(crate) struct Directory(PathBuf);

    impl Directory {
        pub(crate) fn new() -> Self {
            static NEXT: AtomicU64 = AtomicU64::new(0);
            let name =
                format!("steadfast-net-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
