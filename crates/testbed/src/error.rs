//! What can go wrong while a lab is built or changed.

use std::io;

/// Why the testbed could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// The kernel or its policy does not let this process make network namespaces, veth pairs or packet sockets.
    #[error("{attempted} is not allowed here: {reason}. {remedy}")]
    Forbidden {
        /// What was tried.
        attempted: String,
        /// What stands in the way, as precisely as can be told.
        reason: String,
        /// What would help.
        remedy: String,
    },
    /// The kernel refused a change to a namespace's interfaces, addresses or routes.
    #[error("cannot {attempted}: {source}")]
    Refused {
        /// The change, with the names of the interface and the host.
        attempted: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A name, an address or a combination that cannot work; the message says what to give instead.
    #[error("{0}")]
    Misuse(String),
    /// The link did not carry what a measurement needs.
    #[error(
        "cannot measure link {link}: {reason}. Measure a link that is up, without loss and without a blackhole"
    )]
    Unmeasurable {
        /// The link's name.
        link: String,
        /// What was missing.
        reason: String,
    },
}

impl LabError {
    pub(crate) fn refused(attempted: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Refused { attempted: attempted.into(), source: source.into() }
    }
}
