//! The parts of each thread that must not be interrupted.

use std::cell::RefCell;

use nix::errno::Errno;
use steadfast_control::{Section, enter as wait_to_enter, try_enter as enter_now};

thread_local! {
    /// The outermost first.
    static HELD: RefCell<Vec<Section>> = const { RefCell::new(Vec::new()) };
}

/// One inside the innermost, which never waits; `None` if there is none.
fn nested() -> Option<Section> {
    HELD.with_borrow(|held| held.last().map(Section::again))
}

fn hold(section: Section) {
    HELD.with_borrow_mut(|held| held.push(section));
}

pub(crate) fn enter() {
    hold(nested().unwrap_or_else(wait_to_enter));
}

pub(crate) fn try_enter() -> Result<(), Errno> {
    nested().or_else(enter_now).map(hold).ok_or(Errno::EBUSY)
}

pub(crate) fn leave() -> Result<(), Errno> {
    let innermost = HELD.with_borrow_mut(Vec::pop).ok_or(Errno::EPERM)?;
    innermost.leave();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_nest() {
        assert_eq!(leave(), Err(Errno::EPERM));
        enter();
        try_enter().unwrap();
        enter();
        for _ in 0..3 {
            leave().unwrap();
        }
        assert_eq!(leave(), Err(Errno::EPERM));
    }
}
