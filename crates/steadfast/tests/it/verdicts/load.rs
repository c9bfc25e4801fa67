//! Load that is no death: full networks, a reader that is slow, and processors that others use.

use super::*;

/// Busy for no purpose; nothing unless the test below started it.
const BUSY: &str = "STEADFAST_TEST_BUSY";
/// How long the load lasts, in seconds: ten minutes in the soak.
const SECONDS: &str = "STEADFAST_LOAD_SECONDS";
/// What is sent at a time, in bytes.
const PIECE: usize = 200_000;

#[test]
fn busy_process() {
    if std::env::var_os(BUSY).is_some() {
        // Until it is killed.
        loop {
            std::hint::spin_loop();
        }
    }
}

pub(super) fn lasts() -> Duration {
    let seconds = std::env::var(SECONDS).ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(6))
}

/// Processes that would use every processor of this machine alone.
struct Busy(Vec<Child>);

impl Busy {
    fn start() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let start = |_| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["verdicts::load::busy_process", "--exact", "--nocapture"]).env(BUSY, "yes");
            command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
        };
        Self((0..processors).map(start).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// The peer's part: it sends as much as it can, reads little, and says every verdict that it hears.
#[expect(clippy::print_stdout, reason = "the test reads it")]
pub(super) async fn suffer(socket: MultiSocket) {
    tokio::spawn(flood(socket.clone()));
    let mut changes = socket.verdicts();
    let slowly = async {
        while let Ok(Some(taken)) = socket.recv().await {
            drop(taken);
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    let tell = async {
        while let Some(standing) = changes.next().await {
            println!("verdict {standing}");
        }
    };
    tokio::join!(slowly, tell);
}

/// Sends bulk and small urgent messages for as long as they are taken.
async fn flood(socket: MultiSocket) {
    loop {
        let urgent = socket.send(vec![1; 500], Labels::foreground()).await;
        if urgent.is_err() || socket.send(vec![7; PIECE], Labels::background()).await.is_err() {
            return;
        }
    }
}

#[test]
fn load_gives_no_verdict() {
    two_hosts("load::load_gives_no_verdict", |mut bench, bed| async move {
        let socket = bench.here.connect(bench.peer.contact.clone()).await.unwrap();
        socket.send(LOAD, Labels::foreground()).await.unwrap().outcome().await;
        let (mut ours, mut idle) = (socket.verdicts(), bench.socket.verdicts());
        let before = carried(&bed);
        let busy = Busy::start();
        let flooding = tokio::spawn(flood(socket.clone()));
        let reading = tokio::spawn({
            let socket = socket.clone();
            async move { while let Ok(Some(_taken)) = socket.recv().await {} }
        });
        tokio::select! {
            () = tokio::time::sleep(lasts()) => {}
            told = ours.next() => panic!("{told:?}, and there is nothing but load"),
            told = idle.next() => panic!("{told:?} where nothing is said, and there is nothing but load"),
            line = bench.peer.says("verdict ") => panic!("the peer says {line:?}, and there is nothing but load"),
        }
        let rate = (carried(&bed) - before) * 8 / lasts().as_secs().max(1);
        assert!(rate > 2_000_000, "{rate} bits a second are no load");
        flooding.abort();
        reading.abort();
        drop(busy);
        assert_eq!(
            (socket.verdict().verdict, bench.socket.verdict().verdict),
            (Verdict::Alive, Verdict::Alive)
        );
        bench.converses().await;
    });
}

/// Bytes on all networks, both ways.
fn carried(bed: &Bed) -> u64 {
    let of = |link: &Link| link.counters().a_to_b.bytes + link.counters().b_to_a.bytes;
    bed.links.iter().map(of).sum()
}
