//! Where the agent listens.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The variable of the environment that names the agent's socket.
pub const AGENT: &str = "STEADFAST_AGENT";
/// The socket of the agent that serves a whole host.
pub const HOST_AGENT: &str = "/run/steadfast/agent.sock";

/// The socket of the agent: what `STEADFAST_AGENT` says; else [`HOST_AGENT`], if that is there; else `steadfast/agent.sock` in
/// `XDG_RUNTIME_DIR`, where a user's own daemon listens; [`HOST_AGENT`] if there is no such directory.
#[must_use]
pub fn agent() -> PathBuf {
    choose(env::var_os(AGENT), Path::new(HOST_AGENT).exists(), env::var_os("XDG_RUNTIME_DIR"))
}

fn choose(named: Option<OsString>, is_there: bool, runtime: Option<OsString>) -> PathBuf {
    let given = |value: Option<OsString>| value.filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = given(named) {
        return path;
    }
    match given(runtime) {
        Some(directory) if !is_there && directory.is_absolute() => directory.join("steadfast/agent.sock"),
        _ => PathBuf::from(HOST_AGENT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_then_the_host_then_the_user() {
        let some = |text: &str| Some(OsString::from(text));
        for (named, is_there, runtime, expected) in [
            (some("/x/a.sock"), true, some("/run/user/7"), "/x/a.sock"),
            (some(""), true, some("/run/user/7"), HOST_AGENT),
            (None, false, some("/run/user/7"), "/run/user/7/steadfast/agent.sock"),
            (None, false, some("relative"), HOST_AGENT),
            (None, false, None, HOST_AGENT),
        ] {
            assert_eq!(choose(named, is_there, runtime), Path::new(expected));
        }
    }
}
