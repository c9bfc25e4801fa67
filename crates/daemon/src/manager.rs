//! What a service manager is told (systemd's `Type=notify-reload`); nothing where there is none.

use sd_notify::NotifyState;

/// How far the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Clients can connect.
    Ready,
    /// The configuration is read again.
    Reloading,
    /// It ends.
    Stopping,
}

/// Tells the service manager, if there is one.
pub fn tell_manager(told: Told) {
    let nanos = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
    };
    let result = match told {
        Told::Ready => sd_notify::notify(false, &[NotifyState::Ready]),
        Told::Reloading => {
            sd_notify::notify(false, &[NotifyState::Reloading, NotifyState::MonotonicUsec(nanos() / 1000)])
        }
        Told::Stopping => sd_notify::notify(false, &[NotifyState::Stopping]),
    };
    if let Err(error) = result {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
