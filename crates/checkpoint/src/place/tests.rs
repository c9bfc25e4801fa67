use std::fs;
use std::path::PathBuf;

use super::*;

/// A directory of a test's own, removed at its end.
struct Base(PathBuf);

impl Base {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("steadfast-place-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Puts a checkpoint there whose manifest holds this text.
    fn put(&self, name: &str, existing: Existing, text: &str) -> Result<Option<PathBuf>, Error> {
        let mut draft = Draft::begin(&self.0.join(name), existing)?;
        fs::write(draft.directory().join(FILE), text).unwrap();
        draft.commit()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name).join(FILE)).unwrap()
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let _left_behind = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn only_a_whole_one_takes_the_place() {
    let base = Base::new("whole");
    base.put("a", Existing::Refuse, "one").unwrap();
    assert!(matches!(base.put("a", Existing::Refuse, "two"), Err(Error::Exists(_))));
    // Given up: nothing of it is left.
    drop(Draft::begin(&base.0.join("a"), Existing::Replace).unwrap());
    assert_eq!((base.text("a"), base.names()), ("one".to_owned(), vec!["a".to_owned()]));
    base.put("a", Existing::Replace, "two").unwrap();
    assert_eq!((base.text("a"), base.names()), ("two".to_owned(), vec!["a".to_owned()]));
    // Somebody was faster while this one was written.
    let mut late = Draft::begin(&base.0.join("b"), Existing::Refuse).unwrap();
    base.put("b", Existing::Refuse, "first").unwrap();
    assert!(matches!(late.commit(), Err(Error::Exists(_))));
    drop(late);
    assert_eq!((base.text("b"), base.names().len()), ("first".to_owned(), 2));
}

#[test]
fn backups_never_overwrite() {
    let base = Base::new("backups");
    let keep = || Existing::Keep(None);
    assert_eq!(base.put("a", keep(), "one").unwrap(), None);
    fs::write(base.0.join("a.~1~"), "somebody's").unwrap();
    assert_eq!(base.put("a", keep(), "two").unwrap(), Some(base.0.join("a.~2~")));
    assert_eq!(base.put("a", keep(), "three").unwrap(), Some(base.0.join("a.~3~")));
    assert_eq!(
        (base.text("a.~2~"), base.text("a.~3~"), base.text("a")),
        ("one".into(), "two".into(), "three".into())
    );
    assert_eq!(fs::read_to_string(base.0.join("a.~1~")).unwrap(), "somebody's");
    // A name that something else has is not taken away from it.
    fs::create_dir(base.0.join("other")).unwrap();
    assert_eq!(
        base.put("a", Existing::Keep(Some("other".into())), "four").unwrap(),
        Some(base.0.join("a.~4~"))
    );
}

#[test]
fn a_backup_that_cannot_be_is_refused_before_anything_is_saved() {
    let base = Base::new("refused");
    base.put("a", Existing::Refuse, "one").unwrap();
    let absolute = base.0.join("a").display().to_string();
    let names = ["a", "./a", "a/", "a/.", "a/inside", "", "..", "nowhere/b", ".a.new-1-0", absolute.as_str()];
    for name in names {
        let refused = Draft::begin(&base.0.join("a"), Existing::Keep(Some(name.into())));
        assert!(matches!(refused, Err(Error::Backup { .. })), "{name}: {refused:?}");
        assert_eq!((base.text("a"), base.names()), ("one".to_owned(), vec!["a".to_owned()]));
    }
    // `/proc` is on no other's file system.
    let refused = Draft::begin(&base.0.join("a"), Existing::Keep(Some("/proc/b".into()))).unwrap_err();
    assert!(refused.to_string().contains("another file system"), "{refused}");
}

#[test]
fn a_backup_that_has_become_impossible_gets_a_number() {
    let base = Base::new("became");
    base.put("a", Existing::Refuse, "one").unwrap();
    fs::create_dir(base.0.join("beside")).unwrap();
    let keep = Existing::Keep(Some("beside/b".into()));
    let mut draft = Draft::begin(&base.0.join("a"), keep).unwrap();
    fs::write(draft.directory().join(FILE), "two").unwrap();
    fs::remove_dir(base.0.join("beside")).unwrap();
    assert_eq!(draft.commit().unwrap(), Some(base.0.join("a.~1~")));
    drop(draft);
    assert_eq!((base.text("a"), base.text("a.~1~")), ("two".into(), "one".into()));
    assert_eq!(base.names(), ["a", "a.~1~"]);
}

#[test]
fn what_others_put_beside_is_left_alone() {
    let base = Base::new("beside");
    let fifo = base.0.join(".a.new-x");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(base.0.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(base.0.join("elsewhere"), base.0.join(".a.new-y")).unwrap();
    // It does not wait for somebody to write.
    base.put("a", Existing::Refuse, "one").unwrap();
    assert_eq!(base.names(), [".a.new-x", ".a.new-y", "a", "elsewhere"]);
}

#[test]
fn what_a_dead_writer_left_is_swept_and_a_living_one_is_not() {
    let base = Base::new("sweep");
    fs::create_dir(base.0.join(".a.new-1-0")).unwrap();
    fs::write(base.0.join(".a.new-1-0/pages-1.img"), "half").unwrap();
    let living = Draft::begin(&base.0.join("a"), Existing::Refuse).unwrap();
    base.put("a", Existing::Refuse, "one").unwrap();
    let left = base.names();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(living.directory().exists());
}

#[test]
fn rotation_counts_on_and_keeps_the_newest() {
    let base = Base::new("rotation");
    let rotation = Rotation::new(&base.0).unwrap();
    for number in 1..=5 {
        let next = rotation.next();
        assert_eq!(next, base.0.join(format!("{number:06}")));
        base.put(next.file_name().unwrap().to_str().unwrap(), Existing::Refuse, &number.to_string()).unwrap();
        rotation.turn(&next, 2).unwrap();
        assert_eq!(fs::canonicalize(base.0.join(LATEST)).unwrap(), fs::canonicalize(&next).unwrap());
    }
    assert_eq!(base.names(), ["000004", "000005", LATEST]);
    assert_eq!(resolve(&base.0).file_name().unwrap(), "000005");
    // One that failed has used its number.
    fs::write(base.0.join("000006.failed.log"), "").unwrap();
    assert_eq!(rotation.next(), base.0.join("000007"));
    assert!(matches!(Rotation::new(&base.0.join("000005")), Err(Error::Single(_))));
}

#[test]
fn rotation_leaves_alone_what_it_did_not_make() {
    let base = Base::new("others");
    let rotation = Rotation::new(&base.0).unwrap();
    for name in ["other", "7", "20260101", "18446744073709551615", "0000002"] {
        base.put(name, Existing::Refuse, "somebody's").unwrap();
    }
    std::os::unix::fs::symlink("other", base.0.join("000001")).unwrap();
    let mut before = base.names();
    for number in [2, 3] {
        let next = rotation.next();
        assert_eq!(next, base.0.join(format!("{number:06}")));
        base.put(&format!("{number:06}"), Existing::Refuse, "").unwrap();
        rotation.turn(&next, 1).unwrap();
    }
    before.extend(["000003".to_owned(), LATEST.to_owned()]);
    before.sort();
    assert_eq!((base.names(), base.text("other")), (before, "somebody's".to_owned()));
}

#[test]
fn rotation_goes_on_when_six_digits_are_used_up() {
    let base = Base::new("digits");
    let rotation = Rotation::new(&base.0).unwrap();
    base.put("999998", Existing::Refuse, "").unwrap();
    for name in ["999999", "1000000", "1000001"] {
        let next = rotation.next();
        assert_eq!(next, base.0.join(name));
        base.put(name, Existing::Refuse, "").unwrap();
        rotation.turn(&next, 2).unwrap();
    }
    assert_eq!(base.names(), ["1000000", "1000001", LATEST]);
}
