//! What few conversations need: there may be thousands, and most have none of it.

use alloc::boxed::Box;
use core::ops::Deref;

/// What there is of something while there is nothing of it.
pub(crate) trait Blank: Default + 'static {
    fn blank() -> &'static Self;
}

/// Something that takes room only once it was changed.
#[derive(Debug)]
pub(crate) struct Seldom<T>(Option<Box<T>>);

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Blank> Deref for Seldom<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(some) => some,
            None => T::blank(),
        }
    }
}

impl<T: Blank> Seldom<T> {
    /// To add something: from now on it takes room.
    pub(crate) fn make(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }

    /// To change or remove something, if there ever was anything.
    pub(crate) fn existing(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }
}
