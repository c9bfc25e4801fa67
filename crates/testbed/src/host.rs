//! A machine of the lab.

use std::fmt;
use std::io;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::LabError;
use crate::namespace::Namespace;

/// One machine: a network namespace with a loopback interface and one interface for each of its links.
///
/// It is a handle; clones mean the same machine. The namespace lives as long as a handle, a link of it, a process or a
/// socket in it.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    namespace: Namespace,
}

impl Host {
    pub(crate) fn new(name: &str) -> Result<Self, LabError> {
        Ok(Self { inner: Arc::new(Inner { name: name.into(), namespace: Namespace::new()? }) })
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The inode of its namespace, as `/proc/PID/ns/net` of a process in it shows it.
    pub fn namespace_id(&self) -> io::Result<u64> {
        self.inner.namespace.id()
    }

    /// Runs a closure on a new thread of this host and waits for it. Sockets opened there stay on this host, wherever
    /// they are used afterwards.
    ///
    /// # Panics
    /// With the closure's own panic, and when no thread can be started.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        self.inner.namespace.run(&self.inner.name, body)
    }

    /// Starts a closure on a named thread of this host, such as one that holds a runtime: threads started from it are on
    /// this host too.
    ///
    /// # Panics
    /// When no thread can be started.
    pub fn thread<T: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let host = self.clone();
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            host.inner.namespace.enter().expect("a process that made a namespace may enter it");
            // The thread itself keeps the namespace alive from here on.
            drop(host);
            body()
        });
        thread.expect("a thread can be started")
    }

    /// Starts a process on this host. It is the caller's to wait for and to kill; it outlives the lab if it is not.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.run(|| command.spawn())
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.inner.namespace
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("name", &self.inner.name).finish_non_exhaustive()
    }
}
