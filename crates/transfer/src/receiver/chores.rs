//! What is done with the file system before a content comes and after all have come: in order, on a thread.

use super::directories::Settled;
use crate::digest::{Digest, Work};
use crate::store::{Fault, Found, Goal, Standing, Store};
use steadfast::Fingerprint;

/// Something to be done.
#[derive(Debug)]
pub(crate) enum Chore {
    /// Make a directory.
    Make { entry: u64, path: Vec<u8> },
    /// Look what is here of a file. `compared` if what stands there is known to be other content.
    Prepare { entry: u64, goal: Goal, compared: bool },
    /// Give a directory its mode and time.
    Finish(Settled),
    /// Throw away what has come of a file.
    Discard(Goal),
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Finding {
    Made(u64),
    /// A file may come, after what is here already.
    Want(u64, Found),
    /// A file of this size and checksum stands there.
    Stands(u64, Digest),
    Failed(u64, Fault),
    /// A directory has not got its mode and time.
    Unfinished(Vec<u8>, Fault),
}

/// Does some chores; blocks.
pub(crate) fn run(store: &Store, sender: Fingerprint, chores: Vec<Chore>, work: &Work) -> Vec<Finding> {
    let mut findings = Vec::new();
    for chore in chores {
        if work.is_stopped() {
            break;
        }
        match chore {
            Chore::Make { entry, path } => {
                let made = store.make_directory(sender, &path);
                findings.push(match made {
                    Ok(()) => Finding::Made(entry),
                    Err(fault) => Finding::Failed(entry, fault),
                });
            }
            Chore::Prepare { entry, goal, compared } => {
                let found = prepare(store, entry, &goal, compared, work);
                findings.push(found.unwrap_or_else(|fault| Finding::Failed(entry, fault)));
            }
            Chore::Finish(Settled { path, mode, modified, failed }) => {
                if let Err(fault) = store.finish_directory(sender, &path, mode, modified, failed) {
                    findings.push(Finding::Unfinished(path, fault));
                }
            }
            Chore::Discard(goal) => store.discard(&goal),
        }
    }
    findings
}

fn prepare(store: &Store, entry: u64, goal: &Goal, compared: bool, work: &Work) -> Result<Finding, Fault> {
    let other = || {
        Fault(
            "a file of that name and other content is there: `receive --overwrite` replaces such files"
                .into(),
        )
    };
    match store.look(&goal.path)? {
        Standing::Nothing => {}
        Standing::File(mut file, size) if size == goal.size && !compared => {
            // One that became shorter meanwhile is another one.
            if let Some(digest) = Store::digest_of(&mut file, size, work)? {
                return Ok(Finding::Stands(entry, digest));
            }
        }
        Standing::File(..) | Standing::Unreadable if store.overwrites() => {}
        Standing::File(..) => return Err(other()),
        Standing::Unreadable => return Err(Fault("a file that may not be read has that name".into())),
        Standing::Other(what) => return Err(Fault(format!("{what} of that name is in the way"))),
    }
    Ok(Finding::Want(entry, store.find(goal, work)?))
}
