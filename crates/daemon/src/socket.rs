//! The agent's Unix socket: who may connect, who the kernel says it is, and each connection's task.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use steadfast_backplane::{Flow, Process};
use steadfast_net::LocalStream;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::hub::{Connection, Hub};
use crate::process::start_of;

/// How much is read at a time.
const READ: usize = 32 * 1024;
/// How long a client has for its last answers, and the disk for what they wait for.
const LAST_WORDS: Duration = Duration::from_secs(1);
const OWED: Duration = Duration::from_secs(30);
/// How long nothing is accepted when there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// A Unix socket that was bound, and is removed with this.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

/// Why a socket is not bound.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error("another daemon answers at {0}; stop it first, or name another socket in the configuration")]
    Taken(PathBuf),
    /// There is something else.
    #[error("{0} is there and is no socket; remove it, or name another socket in the configuration")]
    NoSocket(PathBuf),
    /// The system refuses.
    #[error(
        "cannot make the socket {path}: {error}; run as a user who may write there, or name another socket in the configuration"
    )]
    Refused {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Bound {
    /// Makes the socket; one that a dead daemon left is replaced. `mode` says who may connect.
    pub(crate) fn new(path: &Path, mode: u32) -> Result<Self, SocketError> {
        let refused = |error| SocketError::Refused { path: path.into(), error };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(refused)?;
        }
        if is_left_behind(path)? {
            fs::remove_file(path).map_err(refused)?;
        }
        let listener = UnixListener::bind(path).map_err(refused)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(refused)?;
        let inode = inode(path).map_err(refused)?;
        Ok(Self { listener, path: path.into(), inode })
    }
}

/// Whether a dead daemon left its socket there; an error if there is anything else.
pub(crate) fn is_left_behind(path: &Path) -> Result<bool, SocketError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(SocketError::NoSocket(path.into())),
        Ok(_) => match steadfast_net::dial(path) {
            // Nobody listens.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
            // Somebody does, also one that is too busy to answer.
            Ok(_) => Err(SocketError::Taken(path.into())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::Taken(path.into())),
            Err(error) => Err(SocketError::Refused { path: path.into(), error }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(SocketError::Refused { path: path.into(), error }),
    }
}

fn inode(path: &Path) -> io::Result<u64> {
    Ok(std::os::unix::fs::MetadataExt::ino(&fs::symlink_metadata(path)?))
}

impl Drop for Bound {
    fn drop(&mut self) {
        // A daemon that took over has its own there.
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _gone = fs::remove_file(&self.path);
        }
    }
}

/// What the kernel says of the process at the other end, at the time when it connected.
pub(crate) fn process_of(stream: &UnixStream) -> io::Result<Process> {
    let who = stream.peer_cred()?;
    let pid = who.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
    Ok(Process { user: who.uid(), pid, start: start_of(pid), own: false })
}

/// The thread that serves all clients. It is one, so that nobody else has to be woken to bring an event from one socket
/// to the next. It ends with this.
#[derive(Debug)]
pub(crate) struct Serving {
    runtime: Handle,
    /// Dropped to end it.
    goes_on: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Serving {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (goes_on, ended) = oneshot::channel();
        let serve = move || {
            let _ended = runtime.block_on(ended);
        };
        let thread = thread::Builder::new().name("agent".into()).spawn(serve)?;
        Ok(Self { runtime: handle, goes_on: Some(goes_on), thread: Some(thread) })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.goes_on = None;
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// Accepts for as long as the daemon runs.
pub(crate) async fn accept(hub: &Arc<Hub>, listener: &UnixListener, serving: &Serving) {
    loop {
        let accepted = listener.accept().await;
        match accepted.and_then(|(stream, _)| Ok((process_of(&stream)?, stream.into_std()?))) {
            Ok((process, stream)) => {
                let hub = Arc::clone(hub);
                serving.runtime.spawn(async move {
                    // From now on that thread waits for it.
                    let Ok(stream) = LocalStream::new(stream) else { return };
                    let connection = hub.connect(stream, process);
                    serve(&hub, &connection).await;
                    hub.disconnect(&connection);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a client is not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Serves one client until its end.
async fn serve(hub: &Hub, connection: &Connection) {
    let mut input = Input { bytes: BytesMut::new(), chunk: vec![0; READ].into() };
    let mut silent = false;
    // Whether its last answers wait for the disk, and until when it has time.
    let mut until: Option<(bool, Instant)> = None;
    // What became of what was read last, if that was taken in already.
    let mut taken = None;
    loop {
        if hub.has_ended() {
            return;
        }
        let mut flow = taken.take().unwrap_or_else(|| take_in(hub, connection, &mut input).0);
        if silent && flow == Flow::More {
            // It may have closed its side alone, and wait for answers.
            hub.with(|server, _| server.handle_end_of_input(connection.id));
            flow = Flow::Ended;
        }
        let Ok(all) = hub.write(connection) else {
            return take_in_rest(hub, connection, &mut input).await;
        };
        if flow == Flow::Again {
            tokio::task::yield_now().await;
            continue;
        }
        let last = flow == Flow::Ended;
        if last && hub.peek(|server| server.is_finished(connection.id)) && all {
            return;
        }
        if last {
            let owed = hub.peek(|server| server.is_owed(connection.id));
            if until.is_none_or(|(before, _)| before != owed) {
                until = Some((owed, Instant::now() + if owed { OWED } else { LAST_WORDS }));
            }
        }
        let close_at = until.map_or_else(Instant::now, |(_, at)| at);
        connection.held_up.store(true, Ordering::Release);
        let held_up = last || hub.peek(|server| server.is_held_up(connection.id));
        connection.held_up.store(held_up, Ordering::Release);
        if flow == Flow::Write && !held_up {
            // What was left in the buffer is perhaps all that the client says before it hears an answer.
            tokio::task::yield_now().await;
            continue;
        }
        let went_on = if flow == Flow::More && all && !held_up && !silent {
            attend(hub, connection, &mut input).await.map(|flow| taken = flow)
        } else {
            tokio::select! {
                () = connection.wake.notified() => Ok(()),
                ready = connection.stream.writable(), if !all => ready,
                read = input.read(&connection.stream), if !held_up && !silent => read.map(drop),
                () = sleep_until(close_at), if last => return,
            }
        };
        match went_on {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => silent = true,
            Err(_) => return take_in_rest(hub, connection, &mut input).await,
        }
    }
}

/// Takes in what comes, for as long as there is nothing else to do, which is nearly always: what the client is answered was
/// written with what others were told. Returns what became of what was read last, or nothing if something else is to be
/// looked at.
async fn attend(hub: &Hub, connection: &Connection, input: &mut Input) -> io::Result<Option<Flow>> {
    let mut wake = pin!(connection.wake.notified());
    loop {
        tokio::select! {
            biased;
            () = wake.as_mut() => return Ok(None),
            read = input.read(&connection.stream) => read?,
        };
        let (flow, held_up) = take_in(hub, connection, input);
        if flow != Flow::More || held_up || hub.has_ended() {
            return Ok(Some(flow));
        }
    }
}

/// The client is gone, or hears nothing any more: what it said before counts.
async fn take_in_rest(hub: &Hub, connection: &Connection, input: &mut Input) {
    loop {
        match take_in(hub, connection, input).0 {
            Flow::Again => tokio::task::yield_now().await,
            Flow::More => {
                // It may still be there, and silent.
                let more = tokio::time::timeout(LAST_WORDS, input.read(&connection.stream)).await;
                if !matches!(more, Ok(Ok(_))) {
                    return;
                }
            }
            Flow::Write | Flow::Ended => return,
        }
    }
}

/// Hands over what was read. Returns what to do next, and whether the client did not read enough for more to be taken in.
fn take_in(hub: &Hub, connection: &Connection, input: &mut Input) -> (Flow, bool) {
    let (id, input) = (connection.id, &mut input.bytes);
    if input.is_empty() && hub.peek(|server| !server.has_ended(id)) {
        return (Flow::More, false);
    }
    let (flow, held_up, published, waits) = hub.with(|server, now| {
        let before = server.agent().journal_place();
        let flow = server.handle_data(now, id, input);
        let published = server.agent().journal_place() != before;
        (flow, server.is_held_up(id), published, server.is_owed(id))
    });
    if published {
        hub.tell_published(waits);
    }
    (flow, held_up)
}

/// What was read, and room to read into.
struct Input {
    bytes: BytesMut,
    chunk: Box<[u8]>,
}

impl Input {
    /// Reads what there is. Cancel safe. An end of the stream is an error.
    async fn read(&mut self, stream: &LocalStream) -> io::Result<usize> {
        match stream.read(&mut self.chunk).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.bytes.extend_from_slice(&self.chunk[..count]);
                Ok(count)
            }
        }
    }
}
