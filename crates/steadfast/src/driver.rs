//! The one task of an endpoint that waits for the clock, the networks, those who connect, and the trust file.

use crate::checkpoint::Registration;
use crate::error::BindError;
use crate::homa::sealed_sockets;
use crate::kernel::{Kernel, News, Plan, tell_networks};
use crate::lock;
use crate::process::this_process;
use crate::shared::Shared;
use ring::rand::{SecureRandom, SystemRandom};
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use steadfast_net::Carrier;
use steadfast_net::tls::TlsError;
use steadfast_session::SessionConfig;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant as Wall, sleep_until};

/// How long what came in may wait for the scout to know the network that it came in on.
pub(crate) const MOMENT: Duration = Duration::from_secs(1);
/// How long saying goodbye may take when the endpoint closes.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long peers may take to hear that this process falls silent.
const LAST_WORD: Duration = Duration::from_secs(1);
/// When to look again at what is not watched.
const MEND: Duration = Duration::from_secs(1);
/// Carriers on networks that are not known yet.
const MAX_STRANDED: usize = 64;

/// What the handles ask of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    /// For how long at most, as far as the application knows.
    /// Answered with whether it was open until now.
    Quiesce(Duration, oneshot::Sender<bool>),
    Revive(oneshot::Sender<Result<(), BindError>>),
    /// The same after a checkpoint, in this process or in one that it was restored as. If it fails it is tried again.
    GoOn(oneshot::Sender<Result<(), BindError>>),
    Close(String, oneshot::Sender<()>),
    /// Falls silent without ending anything, for how long at most, as far as the application knows.
    Detach(Duration, oneshot::Sender<()>),
}

pub(crate) struct Driver {
    shared: Arc<Shared>,
    plan: Plan,
    /// `None` while quiesced.
    kernel: Option<Kernel>,
    addresses: Arc<Mutex<Vec<SocketAddr>>>,
    commands: mpsc::UnboundedReceiver<Command>,
    stranded: Vec<(Carrier, Wall)>,
    mend_at: Option<Wall>,
    /// When to try again what failed after a checkpoint.
    revive_at: Option<Wall>,
    /// While it is quiesced nobody tells the daemon anything.
    untold: Option<OwnedSemaphorePermit>,
    /// It is asked before checkpoints.
    _registration: Option<Registration>,
    /// No handle is left: once the conversations are over so is this.
    abandoned: bool,
}

enum Input {
    Nothing,
    Command(Option<Command>),
    Time,
    News(News),
    Mend,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        plan: Plan,
        kernel: Kernel,
        addresses: Arc<Mutex<Vec<SocketAddr>>>,
        commands: mpsc::UnboundedReceiver<Command>,
        registration: Option<Registration>,
    ) -> Self {
        let kernel = Some(kernel);
        Self {
            shared,
            plan,
            kernel,
            addresses,
            commands,
            stranded: Vec::new(),
            mend_at: None,
            revive_at: None,
            untold: None,
            _registration: registration,
            abandoned: false,
        }
    }

    /// Runs until the endpoint is closed, or all handles are gone and all conversations over.
    pub(crate) async fn run(mut self) {
        loop {
            if self.shared.is_stopped() {
                return Box::pin(self.end()).await;
            }
            let deserted = |shared: &Shared| shared.peek(|inner, _| inner.sessions.is_empty());
            if self.abandoned && self.shared.journal.is_some() && !deserted(&self.shared) {
                // They are there for whoever opens the store next.
                return Box::pin(self.detach(LAST_WORD)).await;
            }
            if self.abandoned {
                self.refuse_incoming();
            }
            if self.abandoned && deserted(&self.shared) {
                return Box::pin(self.close("the program has no further use for this endpoint")).await;
            }
            let input = self.wait().await;
            match input {
                Input::Command(None) => self.abandoned = true,
                Input::Command(Some(Command::Close(reason, done))) => {
                    Box::pin(self.close(&reason)).await;
                    let _nobody_waits = done.send(());
                    return;
                }
                Input::Command(Some(Command::Detach(limit, done))) => {
                    Box::pin(self.detach(limit)).await;
                    let _nobody_waits = done.send(());
                    return;
                }
                Input::Command(Some(Command::Quiesce(limit, done))) => {
                    let was_open = self.quiesce(limit).await;
                    let _nobody_waits = done.send(was_open);
                }
                Input::Command(Some(Command::Revive(done))) => {
                    let _nobody_waits = done.send(self.revive().await);
                }
                Input::Command(Some(Command::GoOn(done))) => {
                    let _nobody_waits = done.send(self.go_on().await);
                }
                Input::Time => self.shared.call(|inner, now| inner.core.handle_timeout(now)),
                Input::News(news) => self.hear(news).await,
                Input::Mend => self.mend().await,
                Input::Nothing => {}
            }
        }
    }

    async fn hear(&mut self, news: News) {
        match news {
            News::Incoming(incoming) => match *incoming {
                Ok(carrier) => self.admit(carrier, Wall::now() + MOMENT),
                Err(error) => {
                    if let Some(TlsError::Stranger(key)) = error.tls() {
                        self.shared.strangers.note(*key, error.remote());
                    }
                    tracing::debug!(%error, "a connection was refused");
                }
            },
            News::Networks(Some(networks)) => {
                tell_networks(&self.shared, &self.plan, &networks);
                for (carrier, until) in std::mem::take(&mut self.stranded) {
                    self.admit(carrier, until);
                }
            }
            News::Networks(None) => {}
            News::Trust => self.trust_changed().await,
        }
        if self.mend_at.is_none() && self.kernel.as_ref().is_some_and(|kernel| kernel.is_blind(&self.shared))
        {
            self.mend_at = Some(Wall::now() + MEND);
        }
    }

    async fn wait(&mut self) -> Input {
        let quiesced = self.kernel.is_none();
        let timeout = self.shared.arm().filter(|_| !quiesced);
        let wall = timeout.map(|at| Wall::now() + at.since(self.shared.clock.now()));
        if wall.is_some_and(|at| at <= Wall::now()) {
            // Expiry is decided by the clock; others had their turn since the last one.
            tokio::task::yield_now().await;
            return Input::Time;
        }
        let Self { kernel, commands, shared, mend_at, revive_at, abandoned, stranded, .. } = self;
        let news = async {
            match kernel {
                Some(kernel) => kernel.next().await,
                None => pending().await,
            }
        };
        let waits = stranded.iter().map(|(_, until)| *until).chain(*mend_at).chain(*revive_at).min();
        tokio::select! {
            command = commands.recv(), if !*abandoned => Input::Command(command),
            () = shared.timers.notified() => Input::Nothing,
            () = sleep(wall) => Input::Time,
            news = news => Input::News(news),
            () = sleep(waits) => Input::Mend,
        }
    }

    /// Gives a carrier that came in to the core, once its network is known.
    fn admit(&mut self, carrier: Carrier, until: Wall) {
        let Some((network, local)) = self.shared.network_of(&carrier) else {
            if Wall::now() < until && self.stranded.len() < MAX_STRANDED {
                self.stranded.push((carrier, until));
            } else {
                tracing::debug!(?carrier, "refused: it came in on no network that is known");
            }
            return;
        };
        // It may have been removed since the handshake began.
        if !self.shared.trusted.contains(&carrier.peer()) {
            return;
        }
        let (remote, peer) = (carrier.remote_addr(), carrier.peer());
        let path =
            self.shared.call(|inner, now| inner.core.handle_accepted(now, network, local, remote, peer));
        if let Some(path) = path {
            self.shared.accepted(path, carrier);
        }
    }

    async fn trust_changed(&mut self) {
        let trusted = Arc::clone(&self.shared.trusted);
        match tokio::task::spawn_blocking(move || trusted.reload()).await {
            Ok(Ok(gone)) => {
                for peer in gone {
                    tracing::info!(%peer, "no longer trusted");
                    self.shared
                        .call(|inner, now| inner.core.forget(now, peer, "this peer is no longer trusted"));
                }
            }
            Ok(Err(error)) => tracing::info!(%error, "the trusted peers stay as they were"),
            Err(_) => {}
        }
    }

    async fn mend(&mut self) {
        if self.revive_at.is_some_and(|at| at <= Wall::now())
            && let Err(error) = self.revive().await
        {
            tracing::debug!(%error, "still quiet after a checkpoint");
            self.revive_at = Some(Wall::now() + MEND);
        }
        for (carrier, until) in std::mem::take(&mut self.stranded) {
            self.admit(carrier, until);
        }
        if self.mend_at.is_some_and(|at| at <= Wall::now()) {
            self.mend_at = None;
            let Some(kernel) = &mut self.kernel else { return };
            kernel.mend(&self.shared, &self.plan).await;
            if kernel.is_blind(&self.shared) {
                self.mend_at = Some(Wall::now() + MEND);
            }
            // What changed meanwhile was not told.
            self.trust_changed().await;
        }
    }

    /// The last handle is gone: what no one can accept any more is refused, whenever it comes.
    fn refuse_incoming(&self) {
        self.shared.call(|inner, now| {
            while let Some((session, _)) = inner.core.accept(now, SessionConfig::default()) {
                let _ended_already = inner.core.abort(now, session);
            }
        });
    }

    /// Whether it was open until now.
    async fn quiesce(&mut self, limit: Duration) -> bool {
        self.revive_at = None;
        let Some(kernel) = self.kernel.take() else { return false };
        if let Some(homa) = self.shared.homa() {
            homa.engine.quiesce();
        }
        self.stranded.clear();
        self.mend_at = None;
        // Before the listener closes, or peers could take the refusal for a crash.
        self.shared.abort_connecting();
        self.shared.call(|inner, now| inner.core.suspend(now, limit));
        let _unheard = tokio::time::timeout(LAST_WORD, self.shared.carriers.gone()).await;
        kernel.close(&self.shared).await;
        // Without networks the core has no paths and opens none.
        self.shared.call(|inner, now| inner.core.handle_networks(now, Vec::new()));
        self.shared.reset_all();
        self.shared.clock.freeze();
        self.shared.stop_tasks().await;
        // What is being told to the daemon is told, and then no more.
        self.untold = Arc::clone(&self.shared.telling_daemon).acquire_owned().await.ok();
        tracing::debug!("quiesced");
        true
    }

    /// Revives it in a process that was perhaps copied.
    async fn go_on(&mut self) -> Result<(), BindError> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| BindError::Random)?;
        self.shared.call(|inner, _| inner.core.renew(seed, this_process()));
        let mut revived = self.revive().await;
        if matches!(&revived, Err(BindError::Listen(error)) if is_taken(error)) {
            // Peers are told of the new one.
            tracing::info!(port = self.plan.port, "the port is taken here: another one is listened on");
            self.plan.port = 0;
            revived = self.revive().await;
        }
        if revived.is_err() {
            self.revive_at = Some(Wall::now() + MEND);
        }
        revived
    }

    async fn revive(&mut self) -> Result<(), BindError> {
        if self.kernel.is_some() {
            return Ok(());
        }
        self.revive_at = None;
        self.shared.clock.thaw();
        self.shared.call(|inner, now| inner.core.wake(now));
        match Kernel::open(&self.shared, &mut self.plan).await {
            Ok(kernel) => {
                *lock(&self.addresses) = kernel.local_addresses();
                self.kernel = Some(kernel);
            }
            Err(error) => {
                self.shared.clock.freeze();
                return Err(error);
            }
        }
        // The file may have been edited while nobody looked.
        self.trust_changed().await;
        if let Some(homa) = self.shared.homa() {
            match sealed_sockets(&lock(&self.addresses), &homa.config) {
                Ok(sockets) => homa.engine.revive(sockets),
                Err(error) => tracing::info!(%error, "calls over Homa end here"),
            }
        }
        self.shared.watch_again();
        self.untold = None;
        tracing::debug!("revived");
        Ok(())
    }

    /// Tells every peer, and closes everything within a limit.
    async fn close(self, reason: &str) {
        if let Some(homa) = self.shared.homa() {
            homa.engine.close();
        }
        // At one go: whoever hears that there is nothing more to accept may drop its conversations, and that is no farewell.
        self.shared.call(|inner, now| {
            self.shared.closed.store(true, Ordering::Release);
            inner.core.leave(now, reason);
        });
        self.shared.abort_connecting();
        let _late = tokio::time::timeout(FAREWELL, self.shared.carriers.gone()).await;
        // What was said is written down: ended conversations are not to come back.
        if let Some(journal) = &self.shared.journal {
            journal.close().await;
        }
        Box::pin(self.end()).await;
    }

    /// Peers are told of a silence; what is to be remembered is stored, and nothing ends.
    async fn detach(mut self, limit: Duration) {
        self.quiesce(limit).await;
        let journal = self.shared.journal.clone();
        // What the application still does counts until here.
        self.shared.stop("it was detached, and its conversations go on when the store is opened again");
        if let Some(journal) = journal {
            journal.close().await;
        }
        Box::pin(self.end()).await;
    }

    /// Closes all that the system has of it.
    async fn end(mut self) {
        self.shared.reset_all();
        self.stranded.clear();
        if let Some(kernel) = self.kernel.take() {
            kernel.close(&self.shared).await;
        }
        self.shared.stop_tasks().await;
        self.shared.incoming.notify_waiters();
        self.shared.strangers.changed.notify_waiters();
        self.shared.hub.close();
        tracing::debug!("closed");
    }
}

/// Whether somebody else has the port.
fn is_taken(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
            return true;
        }
        cause = error.source();
    }
    false
}

async fn sleep(until: Option<Wall>) {
    match until {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}
