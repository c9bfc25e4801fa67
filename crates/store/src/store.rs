//! Opening a store, appending to it, and beginning a new segment when the old one is mostly rubbish.

use crate::error::StoreError;
use crate::files::{Directory, Files};
use crate::segment::{self, Batch, Header};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::path::Path;
use steadfast_session::{Digest, Record};
use steadfast_wire::{Fingerprint, SessionId};

/// How much longer than twice what is open a segment may become before a new one is begun, in bytes.
pub const SLACK: u64 = 8 << 20;
/// How much of a digest is written at a time.
const PART: usize = 1 << 20;

/// The journal of one endpoint.
#[derive(Debug)]
pub struct Store<F: Files = Directory> {
    files: F,
    digest: Digest,
    header: Header,
    batch: Batch,
    /// The number of the next batch.
    next: u64,
    /// Bytes in the segment, all forced to the disk.
    length: u64,
    /// At which length to ask again whether a new segment is worth it.
    look_at: u64,
    /// Nobody knows what is on the disk.
    failed: bool,
    /// How many batches of how many bytes were appended.
    appended: (u64, u64),
}

impl Store {
    /// Opens the store in a directory, which is made if it is missing. Reads all of it, and begins a new segment.
    pub fn open(path: &Path, identity: Fingerprint) -> Result<Self, StoreError> {
        let place = path.display().to_string();
        let files = Directory::open(path).map_err(|error| StoreError::io("open", &place, error))?;
        Self::open_on(files, identity)
    }
}

impl<F: Files> Store<F> {
    /// Opens the store on a disk.
    pub fn open_on(mut files: F, identity: Fingerprint) -> Result<Self, StoreError> {
        let place = files.place();
        let failed = |error| StoreError::io("read", &place, error);
        let mut segments = files.list().map_err(failed)?;
        segments.sort_unstable();
        let (mut header, mut digest) =
            (Header { number: 0, generation: 0, identity, salt: 0 }, Digest::default());
        if let Some(last) = segments.last().copied() {
            let bytes = files.read(last).map_err(failed)?;
            let explain = |fault: segment::Fault| fault.explain(place.clone(), last);
            header = segment::header(&bytes).map_err(explain)?;
            if header.identity != identity {
                return Err(StoreError::Identity { place, stored: header.identity, given: identity });
            }
            if header.number != last {
                let fault = segment::Fault::Damaged { offset: 12, why: "it has the name of another one" };
                return Err(explain(fault));
            }
            digest = segment::read(&bytes, &header).map_err(explain)?;
        }
        header.generation += 1;
        let batch = Batch::default();
        let mut store = Self {
            files,
            digest,
            header,
            batch,
            next: 0,
            length: 0,
            look_at: 0,
            failed: false,
            appended: (0, 0),
        };
        store
            .write_segment()
            .and_then(|()| store.name_segment())
            .map_err(|error| store.explain("write", error))?;
        // What a crash left beside the last one.
        for old in segments.iter().rev().skip(1) {
            store.files.remove(*old).map_err(|error| store.explain("clean up", error))?;
        }
        Ok(store)
    }

    /// What the journal comes to.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// How often the store was opened, this time included.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.header.generation
    }

    /// How long the segment is, in bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// How many batches were appended since it was opened, and their bytes.
    #[must_use]
    pub const fn appended(&self) -> (u64, u64) {
        self.appended
    }

    /// Which disk it is on.
    pub const fn files(&self) -> &F {
        &self.files
    }

    /// Appends records and forces them to the disk: they are there when this returns. After
    /// [`StoreError::Full`] nothing was appended, and the same may be tried again; after any other error the store takes
    /// nothing more.
    pub fn append<'a>(
        &mut self,
        records: impl Iterator<Item = (SessionId, &'a Record)> + Clone,
    ) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Failed { place: self.files.place() });
        }
        self.batch.clear();
        for (session, record) in records.clone() {
            self.batch.put(session, record);
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        self.append_batch()?;
        for (session, record) in records {
            self.digest.take(session, record);
        }
        if self.length >= self.look_at {
            self.make_room()?;
        }
        Ok(())
    }

    fn append_batch(&mut self) -> Result<(), StoreError> {
        let written = self.files.append(self.batch.seal(self.header.salt, self.next));
        if let Err(error) = written {
            // A part of it may be there, before which the next batch would not be found. A file whose end is known can
            // be cut; one that was forced in vain holds nobody knows what.
            let cut = self.files.truncate(self.length).and_then(|()| self.files.force());
            let error = self.explain("write", error);
            return Err(if cut.is_ok() && error.is_full() { error } else { self.fail(error) });
        }
        if let Err(error) = self.files.force() {
            // Even a full disk: what was accepted may be lost now, and that is no state to go on from.
            let error = self.explain("force to the disk", error);
            return Err(self.fail(error));
        }
        self.length += self.batch.len() as u64;
        self.next += 1;
        self.appended.0 += 1;
        self.appended.1 += self.batch.len() as u64;
        Ok(())
    }

    /// Begins a new segment if the old one is mostly rubbish.
    fn make_room(&mut self) -> Result<(), StoreError> {
        if self.length < 2 * self.digest.size() + SLACK {
            self.look_at = self.length + SLACK / 8;
            return Ok(());
        }
        // The old segment is whole; without room for another one it serves on.
        let (header, next, length) = (self.header, self.next, self.length);
        if let Err(error) = self.write_segment() {
            (self.header, self.next, self.length) = (header, next, length);
            self.look_at = length + SLACK;
            self.failed = self.files.abandon().is_err();
            let error = self.explain("begin anew", error);
            return if error.is_full() && !self.failed { Ok(()) } else { Err(self.fail(error)) };
        }
        self.name_segment().map_err(|error| {
            // Which of the two the next process would find is open.
            let error = self.explain("begin anew", error);
            self.fail(error)
        })
    }

    /// Writes all that the journal comes to into a new segment.
    fn write_segment(&mut self) -> io::Result<()> {
        let old = self.header;
        let salt = RandomState::new().hash_one((old.number, old.generation, old.salt));
        self.header = Header { number: old.number + 1, salt, ..old };
        self.files.begin()?;
        let header = self.header.encode();
        self.files.append(&header)?;
        (self.next, self.length) = (0, header.len() as u64);
        self.batch.clear();
        let mut records = self.digest.records().peekable();
        loop {
            let next = records.next();
            if let Some((session, record)) = &next {
                self.batch.put(*session, record);
            }
            // There is always a first batch, so that a missing one can be told.
            if self.batch.len() >= PART || records.peek().is_none() {
                self.files.append(self.batch.seal(self.header.salt, self.next))?;
                self.length += self.batch.len() as u64;
                self.next += 1;
                self.batch.clear();
            }
            if records.peek().is_none() {
                break;
            }
        }
        self.files.force()
    }

    /// The new segment takes the place of the old one.
    fn name_segment(&mut self) -> io::Result<()> {
        let number = self.header.number;
        self.files.name(number)?;
        if number > 1 {
            self.files.remove(number - 1)?;
        }
        self.look_at = self.length + SLACK;
        Ok(())
    }

    fn fail(&mut self, error: StoreError) -> StoreError {
        self.failed = true;
        match error {
            StoreError::Full { place, source } => StoreError::Io { what: "write", place, source },
            other => other,
        }
    }

    fn explain(&self, what: &'static str, error: io::Error) -> StoreError {
        StoreError::io(what, &self.files.place(), error)
    }
}
