//! A table whose entries keep their place, with a generation that tells a new entry from an old one there.

use alloc::vec::Vec;

#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    /// Entries without a value that are not free yet.
    retired: usize,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new(), retired: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len() - self.retired
    }

    /// One more than the largest index that was ever used.
    pub(crate) fn end(&self) -> u32 {
        self.entries.len() as u32
    }

    /// The index and generation that the next entry gets.
    pub(crate) fn insert(&mut self, value: T) -> (u32, u32) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 0, value: None });
            self.entries.len() as u32 - 1
        });
        let entry = &mut self.entries[index as usize];
        entry.value = Some(value);
        (index, entry.generation)
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.retire(index)?;
        self.release(index);
        Some(value)
    }

    /// Takes an entry out; its place is used again once it is released.
    pub(crate) fn retire(&mut self, index: u32) -> Option<T> {
        let entry = self.entries.get_mut(index as usize)?;
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.retired += 1;
        Some(value)
    }

    /// A retired place may be used again.
    pub(crate) fn release(&mut self, index: u32) {
        self.retired -= 1;
        self.free.push(index);
    }

    pub(crate) fn generation(&self, index: u32) -> u32 {
        self.entries.get(index as usize).map_or(0, |entry| entry.generation)
    }

    /// The entry that has this generation, not a later one in its place.
    pub(crate) fn index_of(&self, index: u32, generation: u32) -> Option<u32> {
        let entry = self.entries.get(index as usize)?;
        (entry.generation == generation && entry.value.is_some()).then_some(index)
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.entries.get(index as usize)?.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index as usize)?.value.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.entries).filter_map(|(index, entry)| Some((index, entry.value.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::Slab;

    #[test]
    fn a_place_that_is_used_again_has_another_generation() {
        let mut slab = Slab::new();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first.0), Some('a'));
        let second = slab.insert('b');
        assert_eq!(first.0, second.0);
        assert_eq!(slab.index_of(first.0, first.1), None);
        assert_eq!(slab.index_of(second.0, second.1), Some(second.0));
        assert_eq!((slab.len(), slab.end()), (1, 1));
        assert_eq!(slab.retire(second.0), Some('b'));
        assert_eq!(slab.insert('c').0, 1);
        assert_eq!((slab.len(), slab.end()), (1, 2));
        slab.release(second.0);
        assert_eq!(slab.insert('d').0, second.0);
        assert_eq!((slab.len(), slab.end()), (2, 2));
    }
}
