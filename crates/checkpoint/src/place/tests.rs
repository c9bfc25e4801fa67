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
    assert!(matches!(Rotation::new(&base.0.join("000005")), Err(Error::Taken(_))));
}
