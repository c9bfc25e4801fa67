//! Events on the disk, so that what was acknowledged outlasts the daemon: an append-only log in segments.
//!
//! A segment begins with [`MAGIC`]. A record is its length and CRC-32 (four bytes each, little-endian) and its body: a byte that
//! says what follows. A segment is read up to its first record that is not whole: that is where a crash was.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;
use steadfast_backplane::{Delivery, Event, EventId, Fingerprint, Incarnation, Provenance};
use steadfast_wire::Reader;

const MAGIC: &[u8; 8] = b"STDFEVT1";
/// Length and checksum.
const HEAD: usize = 8;
/// The longest record: an event at its longest is less.
const MAX_RECORD: usize = 128 * 1024;
/// The longest name of a way out of the host.
const MAX_WAY: usize = 255;
/// A segment that has so many bytes is the last one's predecessor.
const SEGMENT: u64 = 8 << 20;
/// So many segments are kept: more than all that waits to leave the host and all that can be replayed.
const KEPT: usize = 8;

const EVENT: u8 = 1;
const LEFT: u8 = 2;

/// When what was written is forced to the disk. Without that it outlasts the daemon, but not a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sync {
    /// When the system thinks fit.
    Never,
    /// Once a second.
    #[default]
    Second,
    /// Before each acknowledgement.
    Each,
}

/// A log that is written.
#[derive(Debug)]
pub(crate) struct Journal {
    directory: PathBuf,
    /// Numbers of the segments there are.
    segments: Vec<u64>,
    file: Arc<File>,
    /// Segments that are full and perhaps not yet forced to the disk.
    done: Vec<Arc<File>>,
    size: u64,
    /// What was half written could not be taken back: this segment is done.
    torn: bool,
    /// Held for as long as this daemon writes here.
    _lock: File,
}

/// What an earlier run left.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// The oldest first.
    pub(crate) deliveries: Vec<Delivery>,
    /// By the name of a way out of the host: so many of them, from the first on, went there or had not to.
    pub(crate) left: BTreeMap<String, usize>,
}

impl Journal {
    /// Opens the log of a directory, and reads what an earlier run wrote.
    pub(crate) fn open(directory: &Path) -> io::Result<(Self, Past)> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let lock = File::open(directory)?;
        // Two would remove each other's segments.
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => io::Error::other("another daemon writes there"),
            error => error.into(),
        })?;
        let mut segments = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".log")).map(str::parse::<u64>);
            if let Some(Ok(number)) = number
                && path(directory, number).file_name() == Some(&name)
            {
                segments.push(number);
            }
        }
        segments.sort_unstable();
        let mut past = Past::default();
        let mut last = None;
        for number in &segments {
            let bytes = fs::read(path(directory, *number))?;
            let whole = read(&bytes, &mut past);
            last = whole.then_some((*number, bytes.len() as u64));
        }
        // A daemon that is started often would soon have only empty segments.
        let (file, size) = match last {
            Some((number, size)) if size < SEGMENT => {
                (OpenOptions::new().append(true).open(path(directory, number))?, size)
            }
            _ => {
                let next = segments.last().map_or(1, |last| last + 1);
                segments.push(next);
                (create(directory, next)?, MAGIC.len() as u64)
            }
        };
        let mut journal = Self {
            directory: directory.into(),
            segments,
            file: Arc::new(file),
            done: Vec::new(),
            size,
            torn: false,
            _lock: lock,
        };
        journal.remove_old();
        Ok((journal, past))
    }

    /// Writes records, all or none of them.
    pub(crate) fn append(&mut self, records: &[u8]) -> io::Result<()> {
        if self.size >= SEGMENT || self.torn {
            let next = self.segments.last().map_or(1, |last| last + 1);
            let file = Arc::new(create(&self.directory, next)?);
            if self.done.len() == KEPT {
                self.done.remove(0);
            }
            self.done.push(std::mem::replace(&mut self.file, file));
            self.size = MAGIC.len() as u64;
            self.torn = false;
            self.segments.push(next);
            self.remove_old();
        }
        if let Err(error) = (&*self.file).write_all(records) {
            // Half a record would hide what comes behind it.
            self.torn = self.file.set_len(self.size).is_err();
            return Err(error);
        }
        self.size += records.len() as u64;
        Ok(())
    }

    /// What was written since this was last asked for, to be forced to the disk.
    pub(crate) fn written(&mut self) -> Vec<Arc<File>> {
        let mut files = std::mem::take(&mut self.done);
        files.push(Arc::clone(&self.file));
        files
    }

    fn remove_old(&mut self) {
        while self.segments.len() > KEPT {
            // One that cannot be removed is read again, and then its events are duplicates.
            let _removed = fs::remove_file(path(&self.directory, self.segments.remove(0)));
        }
    }
}

fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016}.log"))
}

fn create(directory: &Path, number: u64) -> io::Result<File> {
    let path = path(directory, number);
    let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
    // A power cut must not take the name away from what is behind it.
    if let Err(error) = (&file).write_all(MAGIC).and_then(|()| File::open(directory)?.sync_all()) {
        let _removed = fs::remove_file(path);
        return Err(error);
    }
    Ok(file)
}

/// Appends the record of an event.
pub(crate) fn put_event(out: &mut Vec<u8>, delivery: &Delivery) {
    record(out, |body| {
        body.put_u8(EVENT);
        body.put_u8(delivery.provenance as u8);
        delivery.event.encode(body);
    });
}

/// Appends the record that says that everything up to an event has left the host on a way, whose name has at most [`MAX_WAY`] bytes.
pub(crate) fn put_left(out: &mut Vec<u8>, way: &str, id: EventId) {
    debug_assert!(way.len() <= MAX_WAY);
    record(out, |body| {
        body.put_u8(LEFT);
        body.extend_from_slice(&id.origin.0);
        body.put_u64(id.incarnation.0);
        body.put_u64(id.sequence);
        body.extend_from_slice(way.as_bytes());
    });
}

fn record(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    write(out);
    let body = &out[start + HEAD..];
    let (length, sum) = (body.len() as u32, crc32fast::hash(body));
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + HEAD].copy_from_slice(&sum.to_le_bytes());
}

/// Adds the events of a segment, and what it says has left the host. Whether all of it can be read.
fn read(segment: &[u8], past: &mut Past) -> bool {
    let Some(mut rest) = segment.strip_prefix(MAGIC) else { return false };
    while let Some((length, behind)) = rest.split_first_chunk::<4>()
        && let Some((sum, behind)) = behind.split_first_chunk::<4>()
    {
        let (length, sum) = (u32::from_le_bytes(*length) as usize, u32::from_le_bytes(*sum));
        let Some(body) =
            behind.get(..length).filter(|body| length <= MAX_RECORD && crc32fast::hash(body) == sum)
        else {
            return false;
        };
        rest = &behind[length..];
        match body.split_first() {
            Some((&EVENT, event)) => past.deliveries.extend(read_event(event)),
            Some((&LEFT, words)) => left(words, past),
            // A later version's.
            _ => {}
        }
    }
    rest.is_empty()
}

fn read_event(bytes: &[u8]) -> Option<Delivery> {
    let (provenance, event) = bytes.split_first()?;
    let provenance = match provenance {
        0 => Provenance::Local,
        1 => Provenance::Signed,
        2 => Provenance::Unsigned,
        _ => return None,
    };
    let event = Event::decode(&mut Reader::new(Bytes::copy_from_slice(event))).ok()?;
    Some(Delivery { event: Arc::new(event), provenance, replay: None })
}

fn left(bytes: &[u8], past: &mut Past) {
    let Some((origin, rest)) = bytes.split_first_chunk::<32>() else { return };
    let Some((incarnation, rest)) = rest.split_first_chunk::<8>() else { return };
    let Some((sequence, way)) = rest.split_first_chunk::<8>() else { return };
    let id = EventId {
        origin: Fingerprint(*origin),
        incarnation: Incarnation(u64::from_be_bytes(*incarnation)),
        sequence: u64::from_be_bytes(*sequence),
    };
    let last = past.deliveries.iter().rposition(|delivery| delivery.event.id == id);
    if let (Some(last), Ok(way)) = (last, std::str::from_utf8(way)) {
        let left = past.left.entry(way.to_owned()).or_default();
        *left = (*left).max(last + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_backplane::{
        Agent, Client, Config, Declaration, Host, Instant, JobId, Kind, Payload, Process, Publication, Rules,
        Timestamp,
    };

    fn events(count: usize) -> Vec<Delivery> {
        let host = Host {
            origin: Fingerprint([7; 32]),
            incarnation: Incarnation(9),
            name: "node7".parse().unwrap(),
            address: None,
        };
        let mut config = Config::default();
        config.journal = true;
        let mut agent = Agent::new(config, Rules::default(), host);
        let now = Instant(1 << 40);
        let process = Process { user: 1, pid: 2, start: Timestamp(3), own: false };
        let client = Client { name: "one".parse().unwrap(), job: JobId::NONE, extension: 0 };
        let one = agent.attach(now, process, Some("a.b.c".parse().unwrap()), client).unwrap();
        agent.declare(one, &[Declaration::new("A", "info").unwrap()], None).unwrap();
        for number in 0..count {
            let payload = Payload::new(vec![number as u8; 600].into()).unwrap();
            let publication = Publication { name: "A".parse().unwrap(), kind: Kind::Plain, payload };
            agent.publish(now, one, publication, true).unwrap();
        }
        std::iter::from_fn(|| agent.poll_journal()).map(|record| record.delivery).collect()
    }

    struct Place(PathBuf);

    impl Place {
        fn new() -> Self {
            use std::sync::atomic::{AtomicU32, Ordering};
            static LAST: AtomicU32 = AtomicU32::new(0);
            let name =
                format!("steadfast-journal-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _removed = fs::remove_dir_all(&self.0);
        }
    }

    fn sequences(past: &Past) -> Vec<u64> {
        past.deliveries.iter().map(|delivery| delivery.event.id.sequence).collect()
    }

    #[test]
    fn what_was_written_is_read_up_to_where_it_broke() {
        let place = Place::new();
        let events = events(4);
        let (mut journal, none) = Journal::open(&place.0).unwrap();
        assert!(none.deliveries.is_empty());
        let mut records = Vec::new();
        put_event(&mut records, &events[0]);
        put_event(&mut records, &events[1]);
        journal.append(&records).unwrap();
        records.clear();
        put_left(&mut records, "one", events[0].event.id);
        put_left(&mut records, "two", events[1].event.id);
        put_left(&mut records, "two", events[0].event.id);
        put_left(&mut records, "three", events[3].event.id);
        put_event(&mut records, &events[2]);
        journal.append(&records).unwrap();
        drop(journal);

        let first = path(&place.0, 1);
        let whole = fs::read(&first).unwrap();
        for cut in 0..whole.len() {
            let mut past = Past::default();
            read(&whole[..cut], &mut past);
            assert!(past.deliveries.len() <= 2, "half a record was read");
            let mut changed = whole.clone();
            changed[cut] ^= 1;
            read(&changed, &mut Past::default());
        }
        // A power cut in the middle of the last record; the next run goes on in another segment.
        fs::write(&first, &whole[..whole.len() - 1]).unwrap();
        let (mut journal, past) = Journal::open(&place.0).unwrap();
        assert_eq!(sequences(&past), [1, 2]);
        assert_eq!(past.left, [("one".to_owned(), 1), ("two".to_owned(), 2)].into());
        assert_eq!(*past.deliveries[1].event, *events[1].event);
        records.clear();
        put_event(&mut records, &events[3]);
        journal.append(&records).unwrap();
        let second = Journal::open(&place.0).unwrap_err();
        assert!(second.to_string().contains("another daemon"), "{second}");
        drop(journal);
        let (_, past) = Journal::open(&place.0).unwrap();
        assert_eq!(sequences(&past), [1, 2, 4]);
    }

    #[test]
    fn many_starts_lose_nothing() {
        let place = Place::new();
        for (number, event) in (0..).zip(&events(3 * KEPT)) {
            let (mut journal, past) = Journal::open(&place.0).unwrap();
            assert_eq!(past.deliveries.len(), number);
            let mut record = Vec::new();
            put_event(&mut record, event);
            journal.append(&record).unwrap();
        }
        assert_eq!(fs::read_dir(&place.0).unwrap().count(), 1);
    }

    #[test]
    fn segments_are_few() {
        let place = Place::new();
        let (mut journal, _) = Journal::open(&place.0).unwrap();
        let mut records = Vec::new();
        let event = &events(1)[0];
        while records.len() < SEGMENT as usize / 2 {
            put_event(&mut records, event);
        }
        for _ in 0..4 * KEPT {
            journal.append(&records).unwrap();
        }
        assert_eq!(fs::read_dir(&place.0).unwrap().count(), KEPT);
    }
}
