//! Where the sockets lie.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The variable of the environment that names the directory of control sockets; `off` for none.
pub const CONTROL: &str = "STEADFAST_CONTROL";
/// How many processes of the same number share a directory: those of different pid namespaces.
const NAMESAKES: u32 = 16;
/// The longest directory in which the path of a socket fits (unix(7)).
const MAX_DIRECTORY: usize = 107 - "/4294967295-15.sock".len();
/// How many sockets are looked at whose process is perhaps gone.
const MAX_SWEPT: usize = 256;

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) listener: UnixListener,
    pub(crate) path: PathBuf,
}

impl Bound {
    /// Listens at a place of its own, in the directory of this user.
    pub(crate) fn open() -> io::Result<Self> {
        let uid = rustix::process::geteuid().as_raw();
        let directory =
            directory(env::var_os(CONTROL), env::var_os("XDG_RUNTIME_DIR"), uid).ok_or_else(|| {
                let why = "this process is to have no control socket: STEADFAST_CONTROL is `off`";
                io::Error::new(io::ErrorKind::Unsupported, why)
            })?;
        // The kernel tells others the path as it was bound.
        let directory = std::path::absolute(directory)?;
        if directory.as_os_str().len() > MAX_DIRECTORY {
            let why = format!("{} is too long for a socket; {CONTROL} can name another", directory.display());
            return Err(io::Error::new(io::ErrorKind::InvalidFilename, why));
        }
        Self::open_in(&directory, uid)
    }

    fn open_in(directory: &Path, uid: u32) -> io::Result<Self> {
        own_directory(directory, uid)?;
        sweep(directory);
        let pid = std::process::id();
        for namesake in 0..NAMESAKES {
            let name = if namesake == 0 { format!("{pid}.sock") } else { format!("{pid}-{namesake}.sock") };
            let path = directory.join(name);
            if UnixStream::connect(&path).is_ok() {
                continue;
            }
            let _not_there = fs::remove_file(&path);
            match UnixListener::bind(&path) {
                Ok(listener) => {
                    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
                    listener.set_nonblocking(true)?;
                    return Ok(Self { listener, path });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }
}

/// The directory of a user's control sockets.
fn directory(named: Option<OsString>, runtime: Option<OsString>, uid: u32) -> Option<PathBuf> {
    let named = named.filter(|value| !value.is_empty());
    if named.as_ref().is_some_and(|value| value == "off") {
        return None;
    }
    let runtime = runtime.map(PathBuf::from).filter(|path| path.is_absolute() && path.is_dir());
    Some(match (named, runtime) {
        (Some(directory), _) => directory.into(),
        (None, Some(runtime)) => runtime.join("steadfast"),
        (None, None) if uid == 0 => "/run/steadfast".into(),
        (None, None) => format!("/tmp/steadfast-{uid}").into(),
    })
}

/// Makes it if it is missing, and makes sure that nobody else can put something there.
fn own_directory(directory: &Path, uid: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let found = fs::symlink_metadata(directory)?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o022 != 0 {
        let why = format!("{} is not a directory that only this user may write", directory.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(())
}

/// Removes what processes left that were killed.
fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().take(MAX_SWEPT) {
        let name = entry.file_name();
        let gone =
            name.to_str().and_then(pid_of).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        // A process of another pid namespace may have that number.
        if gone && UnixStream::connect(entry.path()).is_err() {
            let _gone_already = fs::remove_file(entry.path());
        }
    }
}

/// Whose socket a file is, by its name.
pub(crate) fn pid_of(name: &str) -> Option<u32> {
    let stem = name.strip_suffix(".sock")?;
    stem.split_once('-').map_or(stem, |(pid, _)| pid).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_then_the_user_then_the_host() {
        let some = |text: &str| Some(OsString::from(text));
        for (named, runtime, uid, expected) in [
            (some("/x"), some("/tmp"), 7, Some("/x")),
            (some("off"), some("/tmp"), 7, None),
            (some(""), some("/tmp"), 7, Some("/tmp/steadfast")),
            (None, some("/nowhere at all"), 0, Some("/run/steadfast")),
            (None, some("relative"), 7, Some("/tmp/steadfast-7")),
            (None, None, 7, Some("/tmp/steadfast-7")),
        ] {
            assert_eq!(directory(named, runtime, uid).as_deref(), expected.map(Path::new));
        }
    }

    #[test]
    fn names() {
        assert_eq!(pid_of("71.sock"), Some(71));
        assert_eq!(pid_of("71-3.sock"), Some(71));
        for other in ["agent.sock", "71", "71.socket", "-1.sock", ".sock"] {
            assert_eq!(pid_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_place_of_ones_own() {
        let directory = env::temp_dir().join(format!("control-{}", std::process::id()));
        let uid = rustix::process::geteuid().as_raw();
        let first = Bound::open_in(&directory, uid).unwrap();
        assert_eq!(first.path, directory.join(format!("{}.sock", std::process::id())));
        // Somebody else of this number, in another pid namespace.
        let second = Bound::open_in(&directory, uid).unwrap();
        assert_ne!(second.path, first.path);
        drop((first, second));
        let left_behind = directory.join("4294967295.sock");
        drop(UnixListener::bind(&left_behind).unwrap());
        let again = Bound::open_in(&directory, uid).unwrap();
        assert!(!left_behind.exists(), "of a process that is gone");
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
        let error = Bound::open_in(&directory, uid).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        drop(again);
        fs::remove_dir_all(&directory).unwrap();
    }
}
