//! Directories of control sockets, of which a reboot leaves nothing: CRIU binds each socket where it was, so its directory has to
//! be there.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, mkdirat, openat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use crate::error::Error;
use crate::image;
use crate::participants::Participant;

/// Makes those that are missing, for the user whose socket it was.
pub(crate) fn prepare(participants: &[Participant], images: &Path) -> Result<(), Error> {
    for participant in participants {
        let socket = &participant.ready.place.path;
        // A relative one is in a directory that CRIU needs anyway.
        let Some(directory) = socket.parent().filter(|_| socket.is_absolute()) else { continue };
        let owner = image::owner_of_socket(images, socket)
            .map_or_else(|| (geteuid(), getegid()), |(uid, gid)| (Uid::from_raw(uid), Gid::from_raw(gid)));
        make(directory, owner)
            .map_err(|error| Error::io("make the directory of a control socket,", directory, error))?;
    }
    Ok(())
}

/// Makes a directory with all above it. Whoever may write above must not lead us elsewhere: where something is missing, no
/// symbolic link is followed.
fn make(directory: &Path, owner: (Uid, Gid)) -> io::Result<()> {
    if std::fs::symlink_metadata(directory).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(CWD, "/", flags, Mode::empty())?;
    let mut components =
        directory.components().filter(|component| *component != Component::RootDir).peekable();
    while let Some(component) = components.next() {
        let Component::Normal(name) = component else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "its name has `..` in it; make it yourself",
            ));
        };
        let last = components.peek().is_none();
        at = step(&at, name, last.then_some(owner))?;
    }
    Ok(())
}

/// One directory further down. The last one is private, as the program made it; those above are not.
fn step(at: &OwnedFd, name: &OsStr, owner: Option<(Uid, Gid)>) -> io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(if owner.is_some() { 0o700 } else { 0o755 });
    let down = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match mkdirat(at, name, mode) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            return openat(at, name, down | OFlags::PATH, Mode::empty()).map_err(|error| match error {
                Errno::LOOP | Errno::NOTDIR => {
                    let why =
                        format!("{} is a symbolic link or no directory; make it yourself", name.display());
                    io::Error::new(io::ErrorKind::NotADirectory, why)
                }
                other => other.into(),
            });
        }
        Err(error) => return Err(error.into()),
    }
    let made = openat(at, name, down | OFlags::RDONLY, Mode::empty())?;
    // Were another put there in this moment, that would not change hands.
    if fstat(&made)?.st_uid != geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "somebody else has changed it meanwhile",
        ));
    }
    fchmod(&made, mode)?;
    if let Some((uid, gid)) = owner.filter(|(uid, _)| *uid != geteuid()) {
        fchown(&made, Some(uid), Some(gid))?;
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn missing_directories_are_made_and_links_are_not_followed() {
        let base = std::env::temp_dir().join(format!("steadfast-sockets-{}", std::process::id()));
        fs::create_dir(&base).unwrap();
        let base = fs::canonicalize(&base).unwrap();
        let own = (geteuid(), getegid());
        let owner = if own.0.is_root() { (Uid::from_raw(65_534), Gid::from_raw(65_533)) } else { own };
        make(&base.join("run/user/control"), owner).unwrap();
        let seen = |name: &str| {
            let found = fs::symlink_metadata(base.join(name)).unwrap();
            (found.permissions().mode() & 0o7777, found.uid(), found.gid())
        };
        assert_eq!(seen("run/user/control"), (0o700, owner.0.as_raw(), owner.1.as_raw()));
        assert_eq!(seen("run/user"), (0o755, own.0.as_raw(), own.1.as_raw()));
        // What is there stays as it is.
        make(&base.join("run/user"), owner).unwrap();
        assert_eq!(seen("run/user").0, 0o755);

        fs::create_dir(base.join("elsewhere")).unwrap();
        symlink(base.join("elsewhere"), base.join("link")).unwrap();
        symlink(base.join("nothing"), base.join("dangling")).unwrap();
        for name in
            ["link", "link/control", "link/a/control", "dangling", "dangling/control", "run/../control"]
        {
            assert!(make(&base.join(name), owner).is_err(), "{name}");
        }
        assert_eq!(fs::read_dir(base.join("elsewhere")).unwrap().count(), 0);
        assert!(!base.join("nothing").exists() && !base.join("control").exists());
        fs::remove_dir_all(&base).unwrap();
    }
}
