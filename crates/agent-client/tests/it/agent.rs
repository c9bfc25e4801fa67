//! An agent for tests: the real core behind a real Unix socket, in one thread. It can stop answering, and be restarted.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use steadfast_backplane::{
    Agent, Config, ConnectionId, Fingerprint, Flow, Host, Incarnation, Instant, Metrics, Process, Rules,
    Server, Timestamp,
};

/// A directory of its own that goes with it.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // Somebody who was killed, or is in another PID namespace, may have had the same number.
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("steadfast-agent-{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Self(path),
                Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// A running agent.
pub(crate) struct TestAgent {
    stop: Arc<AtomicBool>,
    paused: Arc<AtomicBool>,
    /// Whether its thread has seen that.
    resting: Arc<AtomicBool>,
    metrics: Arc<Mutex<Metrics>>,
    thread: Option<JoinHandle<()>>,
}

impl TestAgent {
    pub(crate) fn start(path: &Path) -> Self {
        Self::with(path, Config::default())
    }

    pub(crate) fn with(path: &Path, config: Config) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(1);
        let _gone = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let host = Host {
            origin: Fingerprint([7; 32]),
            incarnation: Incarnation(RUNS.fetch_add(1, Ordering::Relaxed)),
            name: "node7".parse().unwrap(),
            address: None,
        };
        let server = Server::new(Agent::new(config, Rules::default(), host));
        let (stop, paused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let resting = Arc::new(AtomicBool::new(false));
        let metrics = Arc::new(Mutex::new(Metrics::default()));
        let mut running =
            Running { server, listener, connections: BTreeMap::new(), start: std::time::Instant::now() };
        let thread = thread::spawn({
            let (stop, paused, metrics) = (Arc::clone(&stop), Arc::clone(&paused), Arc::clone(&metrics));
            let resting = Arc::clone(&resting);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let rests = paused.load(Ordering::Relaxed);
                    resting.store(rests, Ordering::Relaxed);
                    if rests {
                        thread::sleep(Duration::from_millis(1));
                    } else {
                        running.turn();
                        *metrics.lock().unwrap() = running.server.agent().metrics();
                    }
                }
            }
        });
        Self { stop, paused, resting, metrics, thread: Some(thread) }
    }

    /// Reads, writes and accepts nothing from now on, as a process that was stopped.
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
        while self.resting.load(Ordering::Relaxed) != paused {
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn metrics(&self) -> Metrics {
        *self.metrics.lock().unwrap()
    }
}

impl Drop for TestAgent {
    /// As a process that is killed: its socket stays in the directory.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

struct Running {
    server: Server,
    listener: UnixListener,
    connections: BTreeMap<ConnectionId, Connection>,
    start: std::time::Instant,
}

struct Connection {
    stream: UnixStream,
    input: BytesMut,
    out: Vec<u8>,
}

impl Running {
    fn turn(&mut self) {
        let mut descriptors = vec![PollFd::new(&self.listener, PollFlags::IN)];
        for connection in self.connections.values() {
            let mut wanted = PollFlags::IN;
            wanted.set(PollFlags::OUT, !connection.out.is_empty());
            descriptors.push(PollFd::new(&connection.stream, wanted));
        }
        let tick = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        let _interrupted = poll(&mut descriptors, Some(&tick));
        let ready: Vec<bool> = descriptors.iter().map(|one| !one.revents().is_empty()).collect();
        let now = Instant(1_000_000_000 + self.start.elapsed().as_nanos() as u64);
        if ready[0] {
            self.accept(now);
        }
        let ids: Vec<_> = self.connections.keys().copied().zip(ready[1..].iter().copied()).collect();
        for (id, is_ready) in ids {
            if is_ready {
                self.serve(now, id);
            }
        }
        while let Some(id) = self.server.poll_ready() {
            self.write(id);
        }
        let late: Vec<_> =
            self.connections.iter().filter(|(_, one)| !one.out.is_empty()).map(|(id, _)| *id).collect();
        for id in late {
            self.write(id);
        }
        let finished =
            |id: &ConnectionId, one: &Connection| self.server.is_finished(*id) && one.out.is_empty();
        let gone: Vec<_> =
            self.connections.iter().filter(|(id, one)| finished(id, one)).map(|(id, _)| *id).collect();
        for id in gone {
            self.close(id);
        }
        self.server.handle_timeout(now);
    }

    fn accept(&mut self, now: Instant) {
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true).unwrap();
            let peer = socket_peercred(&stream).unwrap();
            let process = Process {
                user: peer.uid.as_raw(),
                pid: peer.pid.as_raw_nonzero().get().unsigned_abs(),
                start: Timestamp(100),
                own: false,
            };
            let id = self.server.handle_connected(now, process);
            self.connections.insert(id, Connection { stream, input: BytesMut::new(), out: Vec::new() });
        }
    }

    fn serve(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let mut chunk = [0; 16 * 1024];
        let read = connection.stream.read(&mut chunk);
        if let Ok(count) = read {
            connection.input.extend_from_slice(&chunk[..count]);
        }
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            match self.server.handle_data(now, id, &mut connection.input) {
                Flow::Again => {}
                Flow::Write => self.write(id),
                Flow::More | Flow::Ended => break,
            }
        }
        self.write(id);
        match read {
            Ok(0) => self.close(id),
            Err(error) if error.kind() != ErrorKind::WouldBlock => self.close(id),
            _ => {}
        }
    }

    fn write(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        loop {
            if connection.out.is_empty() && !self.server.poll_transmit(id, &mut connection.out, 64 * 1024) {
                return;
            }
            match connection.stream.write(&connection.out) {
                Ok(count) => _ = connection.out.drain(..count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return connection.out.clear(),
            }
        }
    }

    fn close(&mut self, id: ConnectionId) {
        self.connections.remove(&id);
        self.server.handle_closed(id);
    }
}
