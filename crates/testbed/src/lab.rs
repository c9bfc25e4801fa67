//! The room in which hosts and links stand.

use std::fmt;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::namespace::Namespace;
use crate::{Host, LabError, Link, LinkBuilder, Switch, SwitchBuilder, access};

/// A set of hosts, links and switches that come and go together.
///
/// Dropping it ends every relay, so links go silent and their interfaces vanish, even if handles of hosts and links are
/// still about. The namespaces die with the last of those handles.
pub struct Lab {
    /// Where the relays' ends of all links are, apart from every host.
    middle: Arc<Namespace>,
    host_names: Mutex<Vec<String>>,
    links: Mutex<Vec<Link>>,
    switches: Mutex<Vec<Switch>>,
    next_link: AtomicU16,
}

impl Lab {
    /// Makes an empty lab. [`LabError::Forbidden`] says what is missing when this process may not make namespaces, and
    /// what would help.
    pub fn new() -> Result<Self, LabError> {
        Ok(Self {
            middle: Arc::new(Namespace::new()?),
            host_names: Mutex::default(),
            links: Mutex::default(),
            switches: Mutex::default(),
            next_link: AtomicU16::new(1),
        })
    }

    /// Whether this process may make all that a lab needs; it tries each thing once, in some milliseconds.
    pub fn available() -> Result<(), LabError> {
        access::available()
    }

    /// Makes a host. Names serve threads and messages, and no two hosts of a lab have the same:
    /// [`LabError::Misuse`] otherwise.
    pub fn host(&self, name: &str) -> Result<Host, LabError> {
        let mut names = self.host_names.lock().unwrap_or_else(PoisonError::into_inner);
        if name.is_empty() || name.contains('\0') || names.iter().any(|taken| taken == name) {
            let message = format!("{name:?} cannot name a host: give each host of a lab a name of its own");
            return Err(LabError::Misuse(message));
        }
        let host = Host::new(name)?;
        names.push(name.into());
        Ok(host)
    }

    /// Begins a link between two hosts; [`LinkBuilder::connect`] makes it. `name` is the interface's name on both hosts,
    /// of at most 15 bytes, unless [`LinkBuilder::interfaces`] says otherwise.
    pub fn link(&self, name: &str, a: &Host, b: &Host) -> LinkBuilder<'_> {
        LinkBuilder::new(self, name, a, b)
    }

    /// Begins a switch between hosts; [`SwitchBuilder::connect`] makes it. `name` is the interface's name on each, of at
    /// most 15 bytes.
    pub fn switch(&self, name: &str, hosts: &[&Host]) -> SwitchBuilder<'_> {
        SwitchBuilder::new(self, name, hosts)
    }

    pub(crate) fn middle(&self) -> &Arc<Namespace> {
        &self.middle
    }

    pub(crate) fn next_link_number(&self) -> u16 {
        self.next_link.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn adopt(&self, link: Link) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).push(link);
    }

    pub(crate) fn adopt_switch(&self, switch: Switch) {
        self.switches.lock().unwrap_or_else(PoisonError::into_inner).push(switch);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for link in self.links.get_mut().unwrap_or_else(PoisonError::into_inner) {
            // An interface that is gone already, as after its host's end, is what was wanted.
            let _ = link.remove();
        }
        for switch in self.switches.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let _ = switch.remove();
        }
    }
}

impl fmt::Debug for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lab")
            .field("hosts", &self.host_names)
            .field("links", &self.links)
            .field("switches", &self.switches)
            .finish_non_exhaustive()
    }
}
