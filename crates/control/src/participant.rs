//! Who is asked in a process, and what it is told.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Who asked for a checkpoint, as the kernel says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requester {
    /// Its number; 0 if it is not seen from the process's pid namespace.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
}

/// A checkpoint that is about to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// Who asks.
    pub requester: Requester,
    /// How long the process may be silent; after that it goes on by itself.
    pub silence: Duration,
    /// When everybody has to be ready; whoever is later is not waited for, and the checkpoint is not taken.
    pub deadline: Instant,
    /// The directory of the images, if there is one.
    pub images: Option<PathBuf>,
    /// Whether the process is to go on after it, beside its image.
    pub goes_on: bool,
}

/// How a checkpoint went for a process that had prepared for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The image was taken, and this is the process that it was taken of. Whether it can be read back and is on the disk,
    /// only whoever took it knows later.
    Continued,
    /// This is the process that the image became, perhaps much later, perhaps on another host, perhaps one of several.
    Restored {
        /// The directory that it came from, if that is known.
        images: Option<PathBuf>,
    },
    /// There is no image, or nobody said in time that there is one.
    Abandoned(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Continued => f.write_str("goes on after its image was taken"),
            Self::Restored { images: Some(images) } => write!(f, "restored from {}", images.display()),
            Self::Restored { images: None } => f.write_str("restored"),
            Self::Abandoned(why) => write!(f, "goes on without an image: {why}"),
        }
    }
}

/// Why no checkpoint may be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Veto {
    /// Not now; later it may be.
    #[error("{0}")]
    Temporary(String),
    /// Never of this process.
    #[error("{0}")]
    Permanent(String),
}

/// Somebody in this process who has to do something before it is frozen and after it runs again.
pub trait Participant: Send {
    /// Before: lets go of what no image can hold. A veto ends the attempt, and those who had prepared before are told.
    /// Runs on the thread of the control socket; other threads go on meanwhile.
    fn prepare(&mut self, checkpoint: &Checkpoint) -> Result<(), Veto>;

    /// After: takes everything up again. An error is what the requester is told; the process goes on all the same.
    fn go_on(&mut self, outcome: &Outcome) -> Result<(), String>;
}
