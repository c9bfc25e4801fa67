//! Events into a file: a line of JSON each, put aside when it is long enough.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::settings::FileSettings;
use super::telling::json;
use super::{Feed, RETRY};

/// How many events and bytes are written at a time.
const BATCH_EVENTS: usize = 256;
const BATCH_BYTES: usize = 1 << 20;

/// Writes every event; while that fails, they wait in the queue.
pub(super) async fn run(feed: &mut Feed, settings: &FileSettings) {
    let mut writer = Writer { settings: settings.clone(), open: None };
    let mut lines = VecDeque::new();
    while let Some(delivery) = feed.next().await {
        let mut bytes = 0;
        let mut next = Some(delivery);
        while let Some(delivery) = next {
            let mut line = json(&delivery);
            line.push('\n');
            bytes += line.len();
            lines.push_back(line);
            let room = lines.len() < BATCH_EVENTS && bytes < BATCH_BYTES;
            next = if room { feed.poll() } else { None };
        }
        while !lines.is_empty() {
            // A disk may take its time, and nothing else is to wait for it.
            let written = tokio::task::spawn_blocking(move || {
                let written = writer.write(&mut lines);
                (writer, lines, written)
            });
            let Ok((same, left, (count, result))) = written.await else { return };
            (writer, lines) = (same, left);
            feed.state().delivered(count);
            if let Err(error) = result {
                let path = settings.path.display();
                feed.state()
                    .failed(format!("cannot write {path}: {error}; events wait, then the oldest give way"));
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

struct Writer {
    settings: FileSettings,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    length: u64,
    /// Which file it is.
    device: u64,
    inode: u64,
}

impl Writer {
    /// Writes lines and takes them away, and says how many. A line is written whole or not at all.
    fn write(&mut self, lines: &mut VecDeque<String>) -> (u64, io::Result<()>) {
        let before = lines.len();
        let mut result = Ok(());
        while !lines.is_empty() && result.is_ok() {
            result = self.write_some(lines);
        }
        if result.is_err() {
            // What is wrong may be this file.
            self.open = None;
        }
        ((before - lines.len()) as u64, result)
    }

    fn write_some(&mut self, lines: &mut VecDeque<String>) -> io::Result<()> {
        let size = self.settings.size;
        let first = lines.front().map_or(0, |line| line.len() as u64);
        let mut open = self.current()?;
        if open.length > 0 && open.length + first > size {
            self.open = None;
            self.put_aside()?;
            open = self.current()?;
        }
        let mut text = Vec::new();
        let mut count = 0;
        // A line that alone is longer than a file has one of its own.
        while let Some(line) = lines.get(count)
            && (count == 0 || open.length + (text.len() + line.len()) as u64 <= size)
        {
            text.extend_from_slice(line.as_bytes());
            count += 1;
        }
        if let Err(error) = open.file.write_all(&text) {
            // There was room for some of them. What stands there of the next is no line.
            let written = open.file.metadata().map_or(0, |now| now.len().saturating_sub(open.length));
            let (mut whole, mut done) = (0, 0);
            for line in lines.iter().take(count) {
                if whole + line.len() as u64 > written {
                    break;
                }
                whole += line.len() as u64;
                done += 1;
            }
            open.file.set_len(open.length + whole)?;
            lines.drain(..done);
            return Err(error);
        }
        open.length += text.len() as u64;
        lines.drain(..count);
        Ok(())
    }

    /// The file at this path, which others may have moved or removed.
    fn current(&mut self) -> io::Result<&mut Open> {
        let path = &self.settings.path;
        let there = |open: &Open| {
            fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (open.device, open.inode))
        };
        let open = match self.open.take().filter(there) {
            Some(open) => open,
            None => Open::new(path)?,
        };
        Ok(self.open.insert(open))
    }

    /// Makes room for a new file: each that was put aside gets the next number.
    fn put_aside(&self) -> io::Result<()> {
        let FileSettings { path, keep, .. } = &self.settings;
        if *keep == 0 {
            return fs::remove_file(path);
        }
        for number in (1..*keep).rev() {
            match fs::rename(aside(path, number), aside(path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(path, aside(path, 1))
    }
}

fn aside(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

impl Open {
    /// Opens it at its end; it is made if it is missing, also its directory, but not what that lies in.
    fn new(path: &Path) -> io::Result<Self> {
        // Without waiting, should it be a pipe.
        let mut options = OpenOptions::new();
        options
            .read(true)
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
        let file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = path.parent().unwrap_or(path);
                DirBuilder::new().mode(0o750).create(directory)?;
                options.open(path)
            }
            opened => opened,
        };
        let mut file = file?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file; name another"));
        }
        let mut length = found.len();
        // Somebody was killed in the middle of a line.
        let mut last = [b'\n'];
        if length > 0 {
            file.seek(SeekFrom::Start(length - 1))?;
            file.read_exact(&mut last)?;
        }
        if last != *b"\n" {
            file.write_all(b"\n")?;
            length += 1;
        }
        Ok(Self { file, length, device: found.dev(), inode: found.ino() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let own = format!("steadfast-sink-{name}-{}", std::process::id());
            // Somebody who was killed, or is in another PID namespace, may have had the same number.
            for number in 0.. {
                let path = std::env::temp_dir().join(format!("{own}-{number}"));
                match fs::create_dir(&path) {
                    Ok(()) => return Self(path),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{error}"),
                }
            }
            unreachable!("numbers have no end")
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _left_behind = fs::remove_dir_all(&self.0);
        }
    }

    fn lines(texts: &[&str]) -> VecDeque<String> {
        texts.iter().map(|text| format!("{text}\n")).collect()
    }

    #[test]
    fn put_aside_by_size_and_so_many_kept() {
        let directory = Directory::new("aside");
        let path = directory.0.join("logs/events.json");
        let settings = FileSettings { path: path.clone(), size: 10, keep: 2 };
        let mut writer = Writer { settings, open: None };
        let mut texts = lines(&["aaaa", "bbbb", "cccc", "a longer line than a file", "dd", "eeeeeeee", "f"]);
        let (count, result) = writer.write(&mut texts);
        result.unwrap();
        assert_eq!((count, texts.len()), (7, 0));
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(read(&path), "f\n");
        assert_eq!(read(&aside(&path, 1)), "eeeeeeee\n");
        assert_eq!(read(&aside(&path, 2)), "dd\n");
        assert!(!aside(&path, 3).exists());
        writer.settings.keep = 0;
        writer.write(&mut lines(&["gggggggg"])).1.unwrap();
        assert_eq!((read(&path), read(&aside(&path, 1))), ("gggggggg\n".into(), "eeeeeeee\n".into()));
    }

    #[test]
    fn what_others_do_with_the_file() {
        let directory = Directory::new("others");
        let path = directory.0.join("events.json");
        fs::write(&path, "half a li").unwrap();
        let mut writer = Writer { settings: FileSettings::new(path.clone()), open: None };
        writer.write(&mut lines(&["one"])).1.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "half a li\none\n");
        // As logrotate does.
        let moved = directory.0.join("moved");
        fs::rename(&path, &moved).unwrap();
        writer.write(&mut lines(&["two"])).1.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        assert!(fs::read_to_string(&moved).unwrap().ends_with("one\n"));
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut waiting = lines(&["three"]);
        let (count, result) = writer.write(&mut waiting);
        assert!(result.unwrap_err().to_string().contains("no regular file"));
        assert_eq!((count, waiting.len()), (0, 1));
    }
}
