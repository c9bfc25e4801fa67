//! The testbed against the real kernel: every promise of a lab once, each test in a lab of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod faults;
mod hosts;
mod networks;
mod precision;
mod priorities;
mod switch;
mod traffic;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use steadfast_testbed::{Host, Lab, Link};

/// How long anything may take that does happen. Nothing here is meant to last a hundredth of it.
const GUARD: Duration = Duration::from_secs(20);

/// How long to listen for something that must not come, beyond the time it would take.
const SILENCE: Duration = Duration::from_millis(50);

struct Pair {
    lab: Lab,
    a: Host,
    b: Host,
}

fn pair() -> Pair {
    let lab = Lab::new().unwrap();
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    Pair { lab, a, b }
}

/// Waits for a state and returns what showed it; fails with `what` when it does not come.
fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let guard = Instant::now() + GUARD;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < guard, "{what} did not come about in {GUARD:?}");
        std::thread::yield_now();
    }
}

/// Two UDP sockets over a link, one on each host.
struct Wire {
    a: UdpSocket,
    b: UdpSocket,
}

fn wire(link: &Link) -> Wire {
    let [a, b] = link.hosts();
    wire_between((a, link.address_of(a)), (b, link.address_of(b)))
}

fn wire_between(a: (&Host, IpAddr), b: (&Host, IpAddr)) -> Wire {
    let bind = |(host, address): (&Host, IpAddr)| host.run(|| UdpSocket::bind((address, 0))).unwrap();
    let wire = Wire { a: bind(a), b: bind(b) };
    let join = |socket: &UdpSocket, to: &UdpSocket| -> io::Result<()> {
        let to: SocketAddr = to.local_addr()?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(GUARD))
    };
    join(&wire.a, &wire.b).unwrap();
    join(&wire.b, &wire.a).unwrap();
    wire
}

/// Sends a word and says how long it took to come out of the other socket.
fn pass(from: &UdpSocket, to: &UdpSocket) -> Duration {
    let mut buffer = [0; 64];
    let start = Instant::now();
    from.send(b"word").unwrap();
    let length = to.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"word");
    start.elapsed()
}

fn is_silent(socket: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let result = socket.recv(&mut [0; 64]);
    socket.set_read_timeout(Some(GUARD)).unwrap();
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
