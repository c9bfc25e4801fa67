//! The nine functions that C programs call: pointers in and out, and nothing else.
//!
//! What all of them rely on is what FTB asks of its callers: a pointer is NULL or leads to one whole, aligned object of its
//! type that nobody else changes during the call; texts end with a NUL. Structs hold numbers and bytes only, so that any
//! content of them is valid here, even if C never set it.
#![expect(unsafe_code, reason = "the interface is C's: pointers and functions come from there")]

use std::ffi::CStr;
use std::os::raw::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, slice};

use nix::errno::Errno;
use nix::libc;
use steadfast_backplane::Code;

use crate::abi::{
    ClientHandle, ClientInfo, EventHandleBytes, EventInfo, EventProperties, ReceiveEvent, SubscribeHandle,
};
use crate::{convert, process};

type Function = unsafe extern "C" fn(*mut ReceiveEvent, *mut c_void) -> c_int;

/// A program's function and what it wants to be called with.
#[derive(Clone, Copy)]
pub(crate) struct Callback {
    function: Function,
    argument: *mut c_void,
}

// SAFETY: the pointer is the program's and is only handed back to its function. FTB has always called that from a thread of
// its own, and its programs are written for it.
unsafe impl Send for Callback {}

impl Callback {
    pub(crate) fn call(self, event: &mut ReceiveEvent) {
        // SAFETY: the program gave this function for exactly this call, with this argument; `event` lives until it returns.
        unsafe { (self.function)(event, self.argument) };
    }
}

/// From now on a forked child lets go of its parent's connections at once, whether or not it calls anything here: as
/// long as it held them, the agent would not notice the parent's end.
pub(crate) fn watch_forks() {
    static WATCHED: Once = Once::new();
    // SAFETY: the functions stay as long as the library, with which the C library forgets them. If they are not taken
    // for want of memory, children let go when they call.
    WATCHED.call_once(|| _ = unsafe { libc::pthread_atfork(Some(before), Some(after), Some(in_child)) });
}

extern "C" fn before() {
    let errno = Errno::last_raw();
    steadfast_agent_client::before_fork();
    Errno::set_raw(errno);
}

extern "C" fn after() {
    steadfast_agent_client::after_fork();
}

/// Puts something that says nothing in the place of each connection; they stay what this process owns.
extern "C" fn in_child() {
    let errno = Errno::last_raw();
    // SAFETY: these calls may be made in the child of a process with threads (signal-safety(7)), and nothing else here
    // takes a lock or memory. `dup3` replaces descriptors that are open and owned by this library alone, by one that is
    // as good to close.
    unsafe {
        let inherited = steadfast_agent_client::inherited();
        let nothing = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        if nothing >= 0 {
            for connection in inherited {
                libc::dup3(nothing, connection, libc::O_CLOEXEC);
            }
            libc::close(nothing);
        }
    }
    Errno::set_raw(errno);
}

/// Runs a call: what it returns, a panic as a general error, and `errno` as it was.
fn guarded(call: impl FnOnce() -> Result<(), Code>) -> c_int {
    let errno = Errno::last_raw();
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(Code::General));
    Errno::set_raw(errno);
    result.map_or_else(|code| code as c_int, |()| 0)
}

/// What a pointer leads to.
///
/// # Safety
/// As the head of this file says.
unsafe fn behind<'a, T>(pointer: *const T) -> Result<&'a T, Code> {
    // SAFETY: NULL is asked for; otherwise it leads to a whole `T` that does not change during the call, by this function's own
    // condition.
    unsafe { pointer.as_ref() }.ok_or(Code::NullPointer)
}

/// A text; `None` for NULL.
///
/// # Safety
/// As the head of this file says.
unsafe fn text<'a>(pointer: *const c_char) -> Option<&'a CStr> {
    // SAFETY: it is not NULL, and the text ends with a NUL, by this function's own condition.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) })
}

/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn FTB_Connect(info: *const ClientInfo, handle: *mut ClientHandle) -> c_int {
    guarded(|| {
        // SAFETY: this function's own condition.
        let info = unsafe { behind(info) }?;
        if handle.is_null() {
            return Err(Code::NullPointer);
        }
        let made = process::connect(info)?;
        // SAFETY: not NULL, and room for one whole handle, by this function's own condition.
        unsafe { handle.write(made) };
        Ok(())
    })
}

/// # Safety
/// As the head of this file says; `event_info` leads to `num_events` of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn FTB_Declare_publishable_events(
    handle: ClientHandle,
    schema_file: *const c_char,
    event_info: *const EventInfo,
    num_events: c_int,
) -> c_int {
    guarded(|| {
        let client = process::find(&handle)?;
        // SAFETY: this function's own condition.
        if let Some(path) = unsafe { text(schema_file) } {
            return client.declare_file(Path::new(OsStr::from_bytes(path.to_bytes())));
        }
        let count = usize::try_from(num_events).map_err(|_| Code::InvalidParameter)?;
        if event_info.is_null() {
            return Err(Code::NullPointer);
        }
        // SAFETY: not NULL, and the program says that there are so many, by this function's own condition.
        client.declare(unsafe { slice::from_raw_parts(event_info, count) })
    })
}

/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn FTB_Publish(
    handle: ClientHandle,
    event_name: *const c_char,
    properties: *const EventProperties,
    event_handle: *mut EventHandleBytes,
) -> c_int {
    guarded(|| {
        if event_handle.is_null() {
            return Err(Code::NullPointer);
        }
        // SAFETY: this function's own condition, for both.
        let (name, properties) = unsafe { (text(event_name), properties.as_ref()) };
        let name = name.ok_or(Code::NullPointer)?;
        let published = process::find(&handle)?.publish(name.to_bytes(), properties)?;
        // SAFETY: not NULL, and room for one whole handle, by this function's own condition.
        unsafe { event_handle.write(EventHandleBytes::from_array(&published.to_ftb())) };
        Ok(())
    })
}

/// # Safety
/// As the head of this file says; `callback` may be called with `argument` until the subscription has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn FTB_Subscribe(
    subscribe_handle: *mut SubscribeHandle,
    handle: ClientHandle,
    subscription: *const c_char,
    callback: Option<Function>,
    argument: *mut c_void,
) -> c_int {
    guarded(|| {
        if subscribe_handle.is_null() {
            return Err(Code::NullPointer);
        }
        let client = process::find(&handle)?;
        // SAFETY: this function's own condition.
        let text = unsafe { text(subscription) }.ok_or(Code::SubscriptionString)?;
        let text = text.to_str().map_err(|_| Code::SubscriptionString)?;
        let callback = callback.map(|function| Callback { function, argument });
        let made = client.subscribe(text, callback)?;
        // SAFETY: not NULL, and room for one whole handle, by this function's own condition.
        unsafe { subscribe_handle.write(made) };
        Ok(())
    })
}

/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn FTB_Unsubscribe(subscribe_handle: *mut SubscribeHandle) -> c_int {
    guarded(|| {
        // SAFETY: this function's own condition. The copy ends the borrow before anything else can run.
        let handle = *unsafe { behind(subscribe_handle.cast_const()) }?;
        process::find_subscriber(&handle)?.unsubscribe(&handle)?;
        // SAFETY: not NULL, as was asked above.
        unsafe { (*subscribe_handle).valid = 0 };
        Ok(())
    })
}

/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn FTB_Poll_event(
    subscribe_handle: SubscribeHandle,
    event: *mut ReceiveEvent,
) -> c_int {
    guarded(|| {
        if event.is_null() {
            return Err(Code::NullPointer);
        }
        let polled = process::find_subscriber(&subscribe_handle)?.poll(&subscribe_handle)?;
        // SAFETY: not NULL, and room for one whole event, by this function's own condition.
        unsafe { event.write(polled) };
        Ok(())
    })
}

/// Has no conditions of its own: all it gets is a copy.
#[unsafe(no_mangle)]
pub extern "C" fn FTB_Disconnect(handle: ClientHandle) -> c_int {
    guarded(|| process::disconnect(&handle))
}

/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn FTB_Get_event_handle(
    event: ReceiveEvent,
    event_handle: *mut EventHandleBytes,
) -> c_int {
    guarded(|| {
        if event_handle.is_null() {
            return Err(Code::NullPointer);
        }
        // SAFETY: not NULL, and room for one whole handle, by this function's own condition.
        unsafe { event_handle.write(convert::handle_of(&event)) };
        Ok(())
    })
}

/// Has no conditions of its own: all it gets are copies.
#[unsafe(no_mangle)]
pub extern "C" fn FTB_Compare_event_handles(one: EventHandleBytes, other: EventHandleBytes) -> c_int {
    guarded(|| if convert::same(&one, &other) { Ok(()) } else { Err(Code::Failure) })
}
