//! A host that passes TCP connections on, as long as it pleases and as it pleases.

use crate::world::GUARD;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use steadfast_testbed::Host;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// What is done once to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// One bit of a chunk is another.
    Flip,
    /// Bytes that nobody sent come before a chunk.
    Inject,
    /// The last byte of a chunk is missing, and what follows comes.
    Shorten,
    /// Half of a chunk comes, and then the end of the connection.
    Cut,
    /// A chunk comes twice.
    Replay,
    /// Two chunks come in the other order.
    Reorder,
}

impl Harm {
    pub(crate) const ALL: [Self; 6] =
        [Self::Flip, Self::Inject, Self::Shorten, Self::Cut, Self::Replay, Self::Reorder];
}

#[derive(Default)]
struct Plan {
    /// What is to be done next, and whether on the way to the target.
    harm: Mutex<Option<(Harm, bool)>>,
    harmed: AtomicBool,
    /// Bytes that were read and not passed on.
    held: AtomicU64,
}

impl Plan {
    fn take(&self, towards_target: bool) -> Option<Harm> {
        let (harm, _) = self.harm.lock().unwrap().take_if(|(_, way)| *way == towards_target)?;
        Some(harm)
    }
}

/// Runs until it is dropped.
pub(crate) struct Proxy {
    port: u16,
    plan: Arc<Plan>,
    holds: watch::Sender<bool>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    pub(crate) fn start(host: &Host, address: IpAddr, target: SocketAddr) -> Self {
        let plan = Arc::new(Plan::default());
        let (holds, held) = watch::channel(false);
        let (stop, stopped) = oneshot::channel();
        let (port_out, port_in) = std::sync::mpsc::channel();
        let shared = Arc::clone(&plan);
        let thread = host.thread("proxy", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind((address, 0)).await.unwrap();
                port_out.send(listener.local_addr().unwrap().port()).unwrap();
                tokio::select! {
                    () = serve(listener, target, shared, held) => {}
                    _ = stopped => {}
                }
            });
        });
        let port = port_in.recv_timeout(GUARD).unwrap();
        Self { port, plan, holds, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing passes; every connection stays open.
    pub(crate) fn hold(&self) {
        self.holds.send_replace(true);
    }

    pub(crate) fn let_go(&self) {
        self.holds.send_replace(false);
    }

    /// Bytes that came while everything was held back.
    pub(crate) fn held(&self) -> u64 {
        self.plan.held.load(Ordering::Relaxed)
    }

    /// Harms the next bytes of one direction.
    pub(crate) fn harm(&self, harm: Harm, towards_target: bool) {
        self.plan.harmed.store(false, Ordering::Relaxed);
        *self.plan.harm.lock().unwrap() = Some((harm, towards_target));
    }

    pub(crate) fn has_harmed(&self) -> bool {
        self.plan.harmed.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _panic_was_printed = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, plan: Arc<Plan>, held: watch::Receiver<bool>) {
    while let Ok((near, _)) = listener.accept().await {
        let (plan, held) = (Arc::clone(&plan), held.clone());
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(target).await else { return };
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let (near_in, near_out) = near.into_split();
            let (far_in, far_out) = far.into_split();
            // Whichever direction ends first ends the connection.
            tokio::select! {
                () = pass(near_in, far_out, &plan, held.clone(), true) => {}
                () = pass(far_in, near_out, &plan, held, false) => {}
            }
        });
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    plan: &Plan,
    mut held: watch::Receiver<bool>,
    towards_target: bool,
) {
    let mut buffer = vec![0; 16 * 1024];
    let mut kept: Option<Vec<u8>> = None;
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if *held.borrow() {
            plan.held.fetch_add(length as u64, Ordering::Relaxed);
        }
        if held.wait_for(|holds| !holds).await.is_err() {
            return;
        }
        let chunk = &buffer[..length];
        let out = match (kept.take(), plan.take(towards_target)) {
            (Some(earlier), _) => [chunk, &earlier].concat(),
            (None, None) => chunk.to_vec(),
            (None, Some(harm)) => {
                plan.harmed.store(true, Ordering::Relaxed);
                match harm {
                    Harm::Flip => {
                        let mut chunk = chunk.to_vec();
                        chunk[length / 2] ^= 1;
                        chunk
                    }
                    // A whole record of TLS, as far as its head tells.
                    Harm::Inject => [&[23, 3, 3, 0, 20][..], &[0; 20], chunk].concat(),
                    Harm::Shorten => chunk[..length - 1].to_vec(),
                    Harm::Cut => {
                        let _gone = to.write_all(&chunk[..length / 2]).await;
                        return;
                    }
                    Harm::Replay => [chunk, chunk].concat(),
                    Harm::Reorder => {
                        kept = Some(chunk.to_vec());
                        continue;
                    }
                }
            }
        };
        if to.write_all(&out).await.is_err() {
            return;
        }
    }
}
