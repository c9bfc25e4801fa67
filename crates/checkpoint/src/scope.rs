//! Which processes are saved: CRIU takes a process with all its descendants, so that is what a scope has to be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::process::{Process, lives, started};

/// What a number names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// One process, which has no children.
    Pid,
    /// A process and all its descendants.
    Tree,
    /// A process group.
    Group,
    /// A session.
    Session,
}

/// The processes of a scope; the first is the ancestor of all others.
pub(crate) struct Tree {
    pub(crate) processes: Vec<Process>,
}

impl Tree {
    pub(crate) fn root(&self) -> &Process {
        &self.processes[0]
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(|process| process.pid).collect()
    }

    /// That this process is none of them: it would stop itself, and all that it is to do with them.
    pub(crate) fn spares_this(&self, verb: &str) -> Result<(), Error> {
        let own = std::process::id();
        if self.processes.iter().all(|process| process.pid != own) {
            return Ok(());
        }
        let Process { pid, name, .. } = self.root();
        let help = match pid {
            1 => "name one that this command does not descend from, as all do from process 1",
            _ => "start it where that is not so, from another login or with `setsid --fork`",
        };
        Err(Error::Scope(format!(
            "cannot {verb} process {pid} ({name}): this command is among its descendants; {help}"
        )))
    }

    /// Looks at what there is now.
    pub(crate) fn find(scope: Scope, id: u32) -> Result<Self, Error> {
        let all =
            Process::all().map_err(|error| Error::io("list the processes in", Path::new("/proc"), error))?;
        let tree = Self::of(scope, id, &all)?;
        if lives(tree.root().pid) { Ok(tree) } else { Err(Error::NoProcess { what: "living process", id }) }
    }

    fn of(scope: Scope, id: u32, all: &BTreeMap<u32, Process>) -> Result<Self, Error> {
        let what = match scope {
            Scope::Pid | Scope::Tree => "process",
            Scope::Group => "process group",
            Scope::Session => "session",
        };
        let is_member = |process: &Process| match scope {
            Scope::Pid | Scope::Tree => process.pid == id,
            Scope::Group => process.group == id,
            Scope::Session => process.session == id,
        };
        let members: BTreeSet<u32> =
            all.values().filter(|process| is_member(process)).map(|process| process.pid).collect();
        // Whoever has no parent among them; there must be one alone.
        let mut tops = members.iter().filter(|pid| !members.contains(&all[pid].parent));
        let Some(root) = tops.next().filter(|_| id != 0) else { return Err(Error::NoProcess { what, id }) };
        let said = |pid: &u32| format!("{pid} ({})", all[pid].name);
        if let Some(other) = tops.next() {
            return Err(Error::Scope(format!(
                "cannot save {what} {id}: process {} is no descendant of {}, and CRIU saves one process with its descendants; \
                 save each with --tree",
                said(other),
                said(root)
            )));
        }
        let mut tree = vec![*root];
        let mut next = 0;
        while let Some(pid) = tree.get(next).copied() {
            tree.extend(all.values().filter(|process| process.parent == pid).map(|process| process.pid));
            next += 1;
        }
        let stranger = tree.iter().find(|pid| !members.contains(pid));
        match (scope, stranger) {
            (Scope::Tree, _) | (_, None) => {}
            (Scope::Pid, Some(child)) => {
                return Err(Error::Scope(format!(
                    "cannot save process {id} alone: it has a child, {}; save both with --tree",
                    said(child)
                )));
            }
            (_, Some(stranger)) => {
                return Err(Error::Scope(format!(
                    "cannot save {what} {id}: process {} is a descendant of {} and not in it; save all of them with \
                     --tree {root}",
                    said(stranger),
                    said(root)
                )));
            }
        }
        Ok(Self { processes: tree.iter().map(|pid| all[pid].clone()).collect() })
    }
}

/// Processes that are saved again and again: not those who get their number after them.
#[derive(Debug)]
pub struct Same {
    scope: Scope,
    id: u32,
    /// By number, and when they were started.
    seen: BTreeSet<(u32, u64)>,
}

impl Same {
    /// Those that have it now.
    #[must_use]
    pub fn of(scope: Scope, id: u32) -> Self {
        let seen = Tree::find(scope, id).map(|tree| Self::marks(scope, &tree)).unwrap_or_default();
        Self { scope, id, seen }
    }

    /// A group or a session may outlive those who were in it first; a tree does not outlive its root.
    fn marks(scope: Scope, tree: &Tree) -> BTreeSet<(u32, u64)> {
        let count = match scope {
            Scope::Pid | Scope::Tree => 1,
            Scope::Group | Scope::Session => tree.processes.len(),
        };
        tree.pids().into_iter().take(count).filter_map(|pid| Some((pid, started(pid)?))).collect()
    }

    /// Whether there is still something to be saved.
    pub fn is_there(&mut self) -> bool {
        match Tree::find(self.scope, self.id).map(|tree| Self::marks(self.scope, &tree)) {
            Ok(now) if self.seen.is_disjoint(&now) => false,
            Ok(now) => {
                self.seen = now;
                true
            }
            Err(error) => !matches!(error, Error::NoProcess { .. }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> BTreeMap<u32, Process> {
        // init, a session leader with a child in a group of its own, whose child is in another session; two in group 20.
        let all = [
            (1, 0, 1, 1),
            (10, 1, 10, 10),
            (11, 10, 11, 10),
            (12, 11, 12, 12),
            (20, 1, 20, 20),
            (21, 1, 20, 20),
        ];
        all.into_iter()
            .map(|(pid, parent, group, session)| {
                (pid, Process { pid, name: format!("p{pid}"), parent, group, session })
            })
            .collect()
    }

    #[test]
    fn nobody_saves_itself() {
        let own = std::process::id();
        let of = |id| Tree::find(Scope::Tree, id).unwrap().spares_this("save");
        let parent = rustix::process::getppid().map(|parent| parent.as_raw_pid().cast_unsigned());
        for id in [Some(own), parent].into_iter().flatten() {
            let error = of(id).unwrap_err().to_string();
            assert!(error.contains("among its descendants") && error.contains(&id.to_string()), "{error}");
        }
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let other = of(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(other.is_ok(), "{other:?}");
    }

    #[test]
    fn who_gets_a_number_later_is_another() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let mut same = Same::of(Scope::Tree, child.id());
        assert!(same.is_there() && same.is_there());
        let mut other = Same::of(Scope::Tree, child.id());
        other.seen = [(child.id(), started(child.id()).unwrap() - 1)].into();
        let was_there = other.is_there();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!was_there && !same.is_there());
    }

    #[test]
    fn scopes_are_trees_or_say_why_not() {
        let of = |scope, id| Tree::of(scope, id, &world()).map(|tree| tree.pids());
        assert_eq!(of(Scope::Tree, 10).unwrap(), [10, 11, 12]);
        assert_eq!(of(Scope::Pid, 12).unwrap(), [12]);
        assert_eq!(of(Scope::Session, 12).unwrap(), [12]);
        for (scope, id, parts) in [
            (Scope::Pid, 11, &["p12", "--tree"][..]),
            (Scope::Group, 11, &["p12", "not in it", "--tree 11"]),
            (Scope::Session, 10, &["p12", "not in it"]),
            (Scope::Group, 20, &["p21", "no descendant of 20 (p20)"]),
            (Scope::Tree, 99, &["no process 99"]),
            (Scope::Group, 99, &["no process group 99"]),
            (Scope::Tree, 0, &["no process 0"]),
        ] {
            let error = of(scope, id).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
