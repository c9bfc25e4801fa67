use super::*;
use crate::testing::Directory;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

const SENDER: Fingerprint = Fingerprint([7; 32]);

fn goal(path: &str, size: u64) -> Goal {
    let modified = Time { seconds: 1_000_000_000, nanoseconds: 5 };
    Goal { sender: SENDER, path: path.into(), size, mode: 0o4777, modified }
}

fn put(store: &Store, goal: &Goal, content: &[u8]) -> Result<(), Fault> {
    let mut partial = store.append(goal, Found::default())?;
    partial.write(content)?;
    let mut hasher = crate::digest::Hasher::default();
    hasher.update(content);
    store.commit(partial.verify(goal.clone(), hasher.digest()).expect("the right checksum"))
}

#[test]
fn a_file_appears_whole_with_mode_and_time() {
    let directory = Directory::new();
    let store = Store::open(&directory.path().join("new"), false).unwrap();
    store.make_directory(SENDER, b"sub").unwrap();
    put(&store, &goal("sub/f", 3), b"abc").unwrap();
    store.finish_directory(SENDER, b"sub", 0o707, Time { seconds: 7, nanoseconds: 0 }, false).unwrap();
    let file = store.path().join("sub/f");
    let metadata = file.metadata().unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"abc");
    assert_eq!(
        (metadata.mode() & 0o7777, metadata.mtime(), metadata.mtime_nsec()),
        (0o777 & !umask(), 1_000_000_000, 5)
    );
    let sub = store.path().join("sub").metadata().unwrap();
    assert_eq!((sub.mode() & 0o7777, sub.mtime()), (0o707 & !umask(), 7));
    let path = store.path().to_path_buf();
    drop(store);
    assert!(!path.join(PARTIAL_DIRECTORY).exists(), "nothing is left");
}

#[test]
fn what_is_there_stays_unless_it_may_be_overwritten() {
    let directory = Directory::new();
    std::fs::write(directory.path().join("f"), "old").unwrap();
    std::fs::create_dir(directory.path().join("d")).unwrap();
    symlink("f", directory.path().join("l")).unwrap();
    let store = Store::open(directory.path(), false).unwrap();
    let fault = put(&store, &goal("f", 3), b"new").unwrap_err();
    assert!(fault.0.contains("appeared"), "{fault:?}");
    assert_eq!(std::fs::read(directory.path().join("f")).unwrap(), b"old");
    drop(store);
    let store = Store::open(directory.path(), true).unwrap();
    put(&store, &goal("f", 3), b"new").unwrap();
    assert_eq!(std::fs::read(directory.path().join("f")).unwrap(), b"new");
    for name in ["d", "l"] {
        let fault = put(&store, &goal(name, 3), b"new").unwrap_err();
        assert!(fault.0.contains("in the way"), "{fault:?}");
    }
    assert!(directory.path().join("l").is_symlink());
}

#[test]
fn what_did_not_come_to_its_name_can_be_resumed_and_removed() {
    let directory = Directory::new();
    let store = Store::open(directory.path(), false).unwrap();
    let wanted = Goal { mode: 0o444, ..goal("f", 100_000) };
    std::fs::write(directory.path().join("f"), "in the way").unwrap();
    put(&store, &wanted, &[1; 100_000]).unwrap_err();
    let name = String::from_utf8(hidden_name(SENDER, b"f", ".data")).unwrap();
    let data = directory.path().join(PARTIAL_DIRECTORY).join(name);
    assert_eq!(data.metadata().unwrap().mode() & 0o777, 0o600);
    // As after a kill just before the rename.
    let kill = || std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o000)).unwrap();
    kill();
    let found = store.find(&wanted, &Work::default()).unwrap();
    assert_eq!(found.have, 100_000);
    kill();
    drop(store.append(&wanted, found).unwrap());
    kill();
    assert!(discard_partial(directory.path()).unwrap() >= 100_000);
    assert!(!data.exists());
}

#[test]
fn a_directory_that_was_there_keeps_its_mode() {
    let directory = Directory::new();
    let there = directory.path().join("there");
    std::fs::create_dir(&there).unwrap();
    std::fs::set_permissions(&there, std::fs::Permissions::from_mode(0o711)).unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    symlink("there", directory.path().join("link")).unwrap();
    let store = Store::open(directory.path(), true).unwrap();
    store.make_directory(SENDER, b"there").unwrap();
    store.finish_directory(SENDER, b"there", 0o777, Time::default(), false).unwrap();
    assert_eq!(there.metadata().unwrap().mode() & 0o7777, 0o711);
    assert!(store.make_directory(SENDER, b"file").unwrap_err().0.contains("file of that name"));
    assert!(store.make_directory(SENDER, b"link").unwrap_err().0.contains("symbolic link"));
    assert!(store.make_directory(SENDER, b"link/sub").unwrap_err().0.contains("symbolic link"));
    assert!(!there.join("sub").exists());
}

#[test]
fn a_directory_in_which_something_failed_stays_open() {
    let directory = Directory::new();
    let store = Store::open(directory.path(), false).unwrap();
    let mode = || directory.path().join("d").metadata().unwrap().mode() & 0o700;
    for (failed, wanted) in [(true, 0o700), (false, 0o500)] {
        store.make_directory(SENDER, b"d").unwrap();
        store.finish_directory(SENDER, b"d", 0o555, Time::default(), failed).unwrap();
        assert_eq!(mode(), wanted, "{failed}");
    }
    let fault = Fault::within("make the directory", Errno::ACCESS, b"d");
    assert!(fault.0.contains("chmod u+w d"), "{fault:?}");
}

#[test]
fn what_was_cut_off_is_found_again_if_it_is_the_same() {
    let directory = Directory::new();
    let store = Store::open(directory.path(), false).unwrap();
    let wanted = goal("big", 1 << 20);
    let mut partial = store.append(&wanted, Found::default()).unwrap();
    partial.write(&[1; 1000]).unwrap();
    let other = store.append(&wanted, Found::default()).unwrap_err();
    assert!(other.0.contains("another transfer"), "{other:?}");
    drop(partial);
    let work = Work::default();
    let found = store.find(&wanted, &work).unwrap();
    let mut hasher = crate::digest::Hasher::default();
    hasher.update(&[1; 1000]);
    assert_eq!((found.have, found.hasher.digest()), (1000, hasher.digest()));
    let changed = Goal { modified: Time::default(), ..wanted.clone() };
    assert_eq!(store.find(&changed, &work).unwrap().have, 0);
    let of_another = Goal { sender: Fingerprint([8; 32]), ..wanted.clone() };
    assert_eq!(store.find(&of_another, &work).unwrap().have, 0);
    // Changed between finding and appending.
    std::fs::write(
        directory
            .path()
            .join(PARTIAL_DIRECTORY)
            .join(String::from_utf8(hidden_name(SENDER, b"big", ".data")).unwrap()),
        "x",
    )
    .unwrap();
    assert!(store.append(&wanted, found).unwrap_err().0.contains("meanwhile"));
}

#[test]
fn a_file_that_has_its_name_is_not_written_to() {
    let directory = Directory::new();
    let store = Store::open(directory.path(), false).unwrap();
    let name = String::from_utf8(hidden_name(SENDER, b"f", ".data")).unwrap();
    let data = directory.path().join(PARTIAL_DIRECTORY).join(name);
    // A link that stayed, as where renaming is linking.
    std::fs::write(&data, "whole").unwrap();
    std::fs::hard_link(&data, directory.path().join("whole")).unwrap();
    store.append(&goal("f", 3), Found::default()).unwrap().write(b"new").unwrap();
    assert_eq!(std::fs::read(directory.path().join("whole")).unwrap(), b"whole");
    assert_eq!(std::fs::read(&data).unwrap(), b"new");
}

#[test]
fn a_wrong_checksum_or_length_is_no_file() {
    let directory = Directory::new();
    let store = Store::open(directory.path(), false).unwrap();
    let mut hasher = crate::digest::Hasher::default();
    hasher.update(b"abc");
    for (content, size) in [(&b"abd"[..], 3), (b"abc", 4)] {
        let mut partial = store.append(&goal("f", size), Found::default()).unwrap();
        partial.write(content).unwrap();
        assert!(partial.verify(goal("f", size), hasher.digest()).is_none());
    }
}

#[test]
fn old_remains_are_removed_and_all_on_demand() {
    let directory = Directory::new();
    let hidden = directory.path().join(PARTIAL_DIRECTORY);
    let store = Store::open(directory.path(), false).unwrap();
    let (old, young) = (hidden.join("old.data"), hidden.join("young.data"));
    std::fs::write(&old, "12345").unwrap();
    std::thread::sleep(Duration::from_secs(3));
    std::fs::write(&young, "123").unwrap();
    // The time of the content is the sender's, and says nothing.
    let then = SystemTime::now() - DISCARD_AFTER - Duration::from_secs(60);
    File::options().write(true).open(&young).unwrap().set_modified(then).unwrap();
    store.remove_old();
    assert!(old.exists() && young.exists());
    assert_eq!(cleaning::remove(&store.partial, Duration::from_secs(3)).unwrap(), 5);
    assert!(!old.exists() && young.exists());
    assert_eq!(hidden.metadata().unwrap().mode() & 0o777, 0o700);
    let _being_received = store.append(&goal("f", 3), Found::default()).unwrap();
    assert_eq!(discard_partial(directory.path()).unwrap(), 3);
    assert!(!young.exists() && hidden.exists());
    store.discard(&goal("f", 3));
    drop(store);
    assert!(!hidden.exists());
    assert_eq!(discard_partial(directory.path()).unwrap(), 0);
}

#[test]
fn the_note_lives_as_long_as_the_data() {
    let directory = Directory::new();
    let store = Store::open(directory.path(), false).unwrap();
    let wanted = goal("big", 1 << 20);
    store.append(&wanted, Found::default()).unwrap().write(&[1; 1000]).unwrap();
    let name = String::from_utf8(hidden_name(SENDER, b"big", ".what")).unwrap();
    let note = directory.path().join(PARTIAL_DIRECTORY).join(name);
    let changed = || note.metadata().map(|note| (note.ctime(), note.ctime_nsec())).unwrap();
    let before = changed();
    std::thread::sleep(Duration::from_millis(20));
    let found = store.find(&wanted, &Work::default()).unwrap();
    store.append(&wanted, found).unwrap();
    assert!(changed() > before);
}

#[test]
fn a_pipe_in_the_way_is_not_opened() {
    let directory = Directory::new();
    rustix::fs::mknodat(rustix::fs::CWD, directory.path().join("pipe"), FileType::Fifo, Mode::RWXU, 0)
        .unwrap();
    let store = Store::open(directory.path(), true).unwrap();
    assert!(matches!(store.look(b"pipe").unwrap(), Standing::Other(_)));
    assert!(matches!(store.look(b"none").unwrap(), Standing::Nothing));
    assert!(store.look(b"none/at/all").is_err());
}
