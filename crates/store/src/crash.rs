//! A disk in memory that behaves as badly as a real one may, for tests: at a power cut, what was not forced to it is lost,
//! torn or there in any order, sector by sector and name by name. It can be full, and it can refuse.

use crate::files::Files;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use steadfast_wire::rng::Rng;

/// What is written at once or not at all, in bytes.
const SECTOR: usize = 512;

/// A disk. Clones are the same one, so that a test keeps it when a store that was opened on it is gone.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone, Default)]
struct State {
    /// Files by a number of their own.
    files: BTreeMap<u64, Content>,
    next: u64,
    names: BTreeMap<Name, u64>,
    /// What was done to names since they were last forced.
    pending: Vec<Change>,
    forced_names: BTreeMap<Name, u64>,
    current: Option<u64>,
    begun: Option<u64>,
    /// After so many more calls the power goes.
    fuse: Option<u64>,
    /// How many more bytes there is room for.
    room: Option<usize>,
    refuses_force: bool,
}

#[derive(Debug, Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    forced: Vec<u8>,
}

/// A segment, or the one that was begun.
type Name = Option<u64>;

#[derive(Debug, Clone, Copy)]
enum Change {
    Put(Name, u64),
    Remove(Name),
    Rename(Name, Name, u64),
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes at the so many-th call from now on, in the middle of it.
    pub fn cut_power_after(&self, calls: u64) {
        self.state().fuse = Some(calls);
    }

    /// There is room for so many bytes more, or for any number.
    pub fn set_room(&self, bytes: Option<usize>) {
        self.state().room = bytes;
    }

    /// Whether forcing fails.
    pub fn refuse_force(&self, refuses: bool) {
        self.state().refuses_force = refuses;
    }

    /// The power is back: what is on the disk now. What was forced is there; of everything else, whatever the dice say.
    pub fn recover(&self, seed: u64) {
        let mut whole = [0; 32];
        whole[..8].copy_from_slice(&seed.to_be_bytes());
        let mut rng = Rng::new(whole);
        let mut state = self.state();
        let state = &mut *state;
        let mut names = std::mem::take(&mut state.forced_names);
        for change in std::mem::take(&mut state.pending) {
            if rng.bits() & 1 == 1 {
                apply(&mut names, change);
            }
        }
        for content in state.files.values_mut() {
            content.bytes = survived(content, &mut rng);
            content.forced.clone_from(&content.bytes);
        }
        let names_now = names.clone();
        *state = State {
            files: std::mem::take(&mut state.files),
            next: state.next,
            forced_names: names,
            names: names_now,
            ..State::default()
        };
    }

    /// Changes one byte of the newest segment; whether there is such a byte.
    pub fn damage(&self, at: usize) -> bool {
        let mut state = self.state();
        let newest = state.names.iter().next_back().map(|(_, file)| *file);
        let content = newest.and_then(|file| state.files.get_mut(&file));
        let byte = content.and_then(|content| content.bytes.get_mut(at));
        byte.map(|byte| *byte ^= 0x55).is_some()
    }

    /// How long the newest segment is, in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        let state = self.state();
        let newest = state.names.iter().next_back().and_then(|(_, file)| state.files.get(file));
        newest.map_or(0, |content| content.bytes.len())
    }

    /// A copy of all that is on it now, as a backup of a running system has it.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self.state().clone();
        Self { state: Arc::new(Mutex::new(state)) }
    }
}

fn apply(names: &mut BTreeMap<Name, u64>, change: Change) {
    match change {
        Change::Put(name, file) => drop(names.insert(name, file)),
        Change::Remove(name) => drop(names.remove(&name)),
        Change::Rename(from, to, file) => {
            names.remove(&from);
            names.insert(to, file);
        }
    }
}

/// Sector by sector what was there before or what was written since.
fn survived(content: &Content, rng: &mut Rng) -> Vec<u8> {
    if content.bytes == content.forced {
        return content.bytes.clone();
    }
    let mut now = content.forced.clone();
    for start in (0..content.bytes.len()).step_by(SECTOR) {
        let end = content.bytes.len().min(start + SECTOR);
        let new = &content.bytes[start..end];
        if content.forced.get(start..end) == Some(new) || rng.bits() & 1 == 1 {
            continue;
        }
        if now.len() < end {
            now.resize(end, 0);
        }
        now[start..end].copy_from_slice(new);
    }
    now
}

impl State {
    /// Counts a call; whether the power goes in it.
    fn call(&mut self) -> io::Result<bool> {
        match &mut self.fuse {
            None => Ok(false),
            Some(0) => Err(off()),
            Some(left) => {
                *left -= 1;
                Ok(*left == 0)
            }
        }
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, change);
        self.pending.push(change);
    }

    /// Removes a file by its name, which gives its room back.
    fn free(&mut self, name: Name) {
        let file = self.names.get(&name).and_then(|file| self.files.get(file));
        let length = file.map_or(0, |content| content.bytes.len());
        if let Some(room) = &mut self.room {
            *room += length;
        }
        self.change(Change::Remove(name));
    }

    fn content(&mut self) -> io::Result<&mut Content> {
        let file = self.begun.or(self.current);
        file.and_then(|file| self.files.get_mut(&file)).ok_or_else(|| io::Error::other("no such file"))
    }
}

fn off() -> io::Error {
    io::Error::other("the power is off")
}

impl Files for Disk {
    fn place(&self) -> String {
        "in memory".into()
    }

    fn list(&mut self) -> io::Result<Vec<u64>> {
        let mut state = self.state();
        state.call()?;
        Ok(state.names.keys().copied().flatten().collect())
    }

    fn read(&mut self, segment: u64) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        state.call()?;
        let file = state.names.get(&Some(segment)).and_then(|file| state.files.get(file));
        file.map(|content| content.bytes.clone()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn begin(&mut self) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        let file = state.next;
        state.next += 1;
        state.files.insert(file, Content::default());
        state.change(Change::Put(None, file));
        state.begun = Some(file);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let cut = state.call()?;
        let part = if cut { bytes.len() / 2 } else { bytes.len() };
        let fits = state.room.map_or(part, |room| part.min(room));
        if let Some(room) = &mut state.room {
            *room -= fits;
        }
        state.content()?.bytes.extend_from_slice(&bytes[..fits]);
        match fits {
            _ if cut => Err(off()),
            fits if fits < bytes.len() => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        state.content()?.bytes.truncate(length as usize);
        Ok(())
    }

    fn force(&mut self) -> io::Result<()> {
        let mut state = self.state();
        if state.call()? {
            return Err(off());
        }
        if state.refuses_force {
            return Err(io::Error::other("the disk refuses"));
        }
        let content = state.content()?;
        content.forced.clone_from(&content.bytes);
        Ok(())
    }

    fn name(&mut self, segment: u64) -> io::Result<()> {
        let mut state = self.state();
        let cut = state.call()?;
        let Some(file) = state.begun.take() else { return Err(io::Error::other("no such file")) };
        state.change(Change::Rename(None, Some(segment), file));
        state.current = Some(file);
        if cut {
            return Err(off());
        }
        state.pending.clear();
        state.forced_names = state.names.clone();
        let state = &mut *state;
        let named: Vec<u64> = state.names.values().copied().collect();
        state.files.retain(|file, _| named.contains(file));
        Ok(())
    }

    fn abandon(&mut self) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        state.begun = None;
        state.free(None);
        Ok(())
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        state.free(Some(segment));
        Ok(())
    }
}
