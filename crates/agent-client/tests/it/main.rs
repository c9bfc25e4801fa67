//! The client against the real core of an agent, over a real Unix socket.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers too")]

mod agent;
mod limits;
mod restarts;
mod talk;

use std::time::{Duration, Instant};

use agent::{Directory, TestAgent};
use bytes::Bytes;
use steadfast_agent_client::{Client, Settings};
use steadfast_backplane::{
    Client as Name, ClientName, Declaration, JobId, Kind, Payload, Publication, Style,
};

/// More than anything here takes.
const GUARD: Duration = Duration::from_secs(20);

struct Place {
    directory: Directory,
}

impl Place {
    fn new() -> Self {
        Self { directory: Directory::new() }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("agent.sock")
    }

    fn agent(&self) -> TestAgent {
        TestAgent::start(&self.path())
    }

    fn settings(&self) -> Settings {
        Settings { path: self.path(), limit: GUARD, style: Style::Both, queue: 0 }
    }

    fn client(&self, name: &str) -> Client {
        Client::connect(self.settings(), "FTB.apps.example".parse().ok(), named(name)).unwrap()
    }

    fn publisher(&self) -> Client {
        let mut client = self.client("publisher");
        let declared = ["A", "B", "C"].map(|name| Declaration::new(name, "info").unwrap());
        client.declare(None, declared.to_vec()).unwrap();
        client
    }
}

fn named(name: &str) -> Name {
    Name { name: ClientName::new(name).unwrap(), job: JobId::NONE, extension: 0 }
}

fn publication(name: &str) -> Publication {
    with(name, 0)
}

fn with(name: &str, bytes: usize) -> Publication {
    let payload = Payload::new(Bytes::from(vec![7; bytes])).unwrap();
    Publication { name: name.parse().unwrap(), kind: Kind::Plain, payload }
}

/// Waits for a state.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let guard = Instant::now() + GUARD;
    while !is_so() {
        assert!(Instant::now() < guard, "{what}: not within {GUARD:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
