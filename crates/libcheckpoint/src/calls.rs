//! The functions that C programs call: pointers in and out, and nothing else.
//!
//! What all of them rely on is what the header asks of its callers: a pointer is NULL or leads to one whole, aligned object of
//! its type that nobody else changes during the call, and functions stay as long as they are registered.
#![expect(unsafe_code, reason = "the interface is C's: pointers and functions come from there")]

use std::ffi::{CStr, CString};
use std::os::raw::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use nix::errno::Errno;
use steadfast_control::{Phase, Requester, phase};

use crate::{callbacks, sections};

/// `steadfast_checkpoint_t`
#[derive(Debug)]
#[repr(C)]
pub struct Announced {
    requester_pid: u32,
    requester_uid: u32,
    silence_ms: u64,
    ready_ms: u64,
    images: *const c_char,
    goes_on: c_int,
}

/// `steadfast_before_t`
pub type Before = unsafe extern "C" fn(*const Announced, *mut c_void) -> c_int;
/// `steadfast_after_t`
pub type After = unsafe extern "C" fn(c_int, *const c_char, *mut c_void) -> c_int;

/// What a program registered.
#[derive(Clone, Copy)]
pub(crate) struct Functions {
    before: Option<Before>,
    after: Option<After>,
    argument: *mut c_void,
}

// SAFETY: the pointer is the program's and is only handed back to its functions, which by the header's word are called from a
// thread of the library.
unsafe impl Send for Functions {}

/// What `before` is told.
pub(crate) struct Words {
    pub(crate) requester: Requester,
    pub(crate) silence_ms: u64,
    pub(crate) ready_ms: u64,
    pub(crate) images: Option<CString>,
    pub(crate) goes_on: bool,
}

fn pointer(text: Option<&CStr>) -> *const c_char {
    text.map_or(ptr::null(), CStr::as_ptr)
}

impl Functions {
    pub(crate) fn before(self, words: &Words) -> c_int {
        let Some(before) = self.before else { return 0 };
        let announced = Announced {
            requester_pid: words.requester.pid,
            requester_uid: words.requester.uid,
            silence_ms: words.silence_ms,
            ready_ms: words.ready_ms,
            images: pointer(words.images.as_deref()),
            goes_on: words.goes_on.into(),
        };
        // SAFETY: the program gave this function for exactly this call, with this argument; `announced` and its text live
        // until it returns.
        unsafe { before(&raw const announced, self.argument) }
    }

    pub(crate) fn after(self, outcome: c_int, text: Option<&CStr>) -> c_int {
        let Some(after) = self.after else { return 0 };
        // SAFETY: the same; `text` lives until it returns.
        unsafe { after(outcome, pointer(text), self.argument) }
    }
}

/// Runs a call: 0 or a negative errno, and `errno` as it was. A panic is `EIO`.
fn guarded(call: impl FnOnce() -> Result<(), Errno>) -> c_int {
    let before = Errno::last_raw();
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(Errno::EIO));
    Errno::set_raw(before);
    result.map_or_else(|error| -(error as c_int), |()| 0)
}

fn functions(
    before: Option<Before>,
    after: Option<After>,
    argument: *mut c_void,
) -> Result<Functions, Errno> {
    if before.is_none() && after.is_none() {
        return Err(Errno::EINVAL);
    }
    Ok(Functions { before, after, argument })
}

/// See the header.
///
/// # Safety
/// `id` is NULL or leads to a number that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn steadfast_checkpoint_register(
    before: Option<Before>,
    after: Option<After>,
    argument: *mut c_void,
    id: *mut u64,
) -> c_int {
    guarded(|| {
        let functions = functions(before, after, argument)?;
        // Not while one is being taken: it would not be asked.
        sections::enter();
        let number = callbacks::register(functions);
        sections::leave()?;
        let number = number?;
        if !id.is_null() {
            // SAFETY: it leads to a number of the caller's.
            unsafe { id.write(number) };
        }
        Ok(())
    })
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn steadfast_checkpoint_replace(
    id: u64,
    before: Option<Before>,
    after: Option<After>,
    argument: *mut c_void,
) -> c_int {
    guarded(|| callbacks::replace(id, functions(before, after, argument)?))
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn steadfast_checkpoint_unregister(id: u64) -> c_int {
    guarded(|| callbacks::unregister(id))
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn steadfast_checkpoint_phase() -> c_int {
    match phase() {
        Phase::Idle => 0,
        Phase::Pending => 1,
        Phase::Active => 2,
    }
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn steadfast_section_enter() -> c_int {
    guarded(|| {
        sections::enter();
        Ok(())
    })
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn steadfast_section_try_enter() -> c_int {
    guarded(sections::try_enter)
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn steadfast_section_leave() -> c_int {
    guarded(sections::leave)
}
