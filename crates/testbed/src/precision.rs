//! What the emulation is worth on this machine, measured on a link as it stands.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::{LabError, Link};

const PROBES: u32 = 200;
const PROBE_BYTES: usize = 100;
/// What surrounds a probe on the wire: the headers of Ethernet, IPv6 and UDP.
const HEADERS_V6: usize = 14 + 40 + 8;
const HEADERS_V4: usize = 14 + 20 + 8;
/// A probe or a stream that takes this much longer than it should is lost.
const GUARD: Duration = Duration::from_secs(10);
/// Receive buffer, in bytes, of a stream that no rate holds back: a window beyond it would overflow what the kernel queues
/// for all interfaces of a processor, a thousand frames.
const UNLIMITED_WINDOW: usize = 1 << 20;
const STREAM_WARM_UP: Duration = Duration::from_millis(500);
const STREAM: Duration = Duration::from_secs(1);

/// How exactly a link does what its settings say, from its first host to its second.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Precision {
    /// What a probe should take: its serialisation and the delay.
    pub expected: Duration,
    /// Median of how much longer probes took, the time of two system calls and of waking a thread included.
    pub error_p50: Duration,
    /// The same, 99th percentile.
    pub error_p99: Duration,
    /// The rate set, in bits per second, with Ethernet headers; `None` for no limit.
    pub rate: Option<u64>,
    /// Bits per second that one TCP stream put through in a second, with all headers.
    pub rate_achieved: f64,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99) = (self.error_p50.as_secs_f64() * 1e6, self.error_p99.as_secs_f64() * 1e6);
        write!(f, "{:?} one way late by p50 {p50:.0} us, p99 {p99:.0} us; ", self.expected)?;
        match self.rate {
            Some(rate) => write!(f, "{:.1} of {:.1} Mbit/s", self.rate_achieved / 1e6, rate as f64 / 1e6),
            None => write!(f, "{:.0} Mbit/s without a limit", self.rate_achieved / 1e6),
        }
    }
}

impl Link {
    /// Sends probes and then a TCP stream from A to B and says how exactly they were delayed and limited. It takes some
    /// two seconds and wants the link to itself.
    ///
    /// [`LabError::Unmeasurable`] on a link that loses what it is given. Jitter counts as error.
    pub fn measure_precision(&self) -> Result<Precision, LabError> {
        let unmeasurable =
            |error: io::Error| LabError::Unmeasurable { link: self.name().into(), reason: error.to_string() };
        let errors = self.probe_sorted(None).map_err(unmeasurable)?;
        let [settings, _] = self.settings();
        let expected = self.expected();
        let rate_achieved = self.stream().map_err(unmeasurable)?;
        Ok(Precision {
            expected,
            error_p50: errors[errors.len() / 2],
            error_p99: errors[errors.len() * 99 / 100],
            rate: settings.rate,
            rate_achieved,
        })
    }

    /// What a probe should take.
    fn expected(&self) -> Duration {
        let [settings, _] = self.settings();
        let headers = if self.address_of(self.hosts()[1]).is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
        settings.delay + settings.serialisation(PROBE_BYTES + headers)
    }

    /// How much later than they should probes arrive, the quickest first; of a DSCP class selector if one is given (on
    /// a link with IPv4). One at a time, so that none waits for another.
    pub(crate) fn probe_sorted(&self, class: Option<u32>) -> io::Result<Vec<Duration>> {
        let expected = self.expected();
        let [a, b] = self.hosts();
        let receiver = b.run(|| UdpSocket::bind((self.address_of(b), 0)))?;
        let sender = a.run(|| UdpSocket::bind((self.address_of(a), 0)))?;
        sender.connect(receiver.local_addr()?)?;
        if let Some(class) = class {
            SockRef::from(&sender).set_tos_v4(class << 5)?;
        }
        receiver.set_read_timeout(Some(expected + GUARD))?;
        let mut buffer = [0; PROBE_BYTES];
        let mut errors = Vec::new();
        for _ in 0..PROBES {
            let sent = Instant::now();
            sender.send(&buffer)?;
            receiver.recv(&mut buffer)?;
            errors.push(sent.elapsed().saturating_sub(expected));
        }
        errors.sort_unstable();
        Ok(errors)
    }

    /// Lets the link's own counters tell what a stream that never pauses puts through.
    fn stream(&self) -> io::Result<f64> {
        let [a, b] = self.hosts();
        let listener = b.run(|| TcpListener::bind((self.address_of(b), 0)))?;
        if self.settings()[0].rate.is_none() {
            SockRef::from(&listener).set_recv_buffer_size(UNLIMITED_WINDOW)?;
        }
        let target = listener.local_addr()?;
        let sink = b.thread("tb-sink", move || -> io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(GUARD))?;
            let mut buffer = vec![0; 1 << 20];
            while stream.read(&mut buffer)? > 0 {}
            Ok(())
        });
        let source = a.run(|| TcpStream::connect_timeout(&target, GUARD))?;
        source.set_write_timeout(Some(GUARD))?;
        let rate = self.pour(&source);
        drop(source);
        // What the last window still holds may take long on a slow link; nobody needs it.
        drop(sink);
        rate
    }

    fn pour(&self, mut stream: &TcpStream) -> io::Result<f64> {
        let chunk = vec![0; 64 << 10];
        let mut pour_for = |time: Duration| {
            let start = Instant::now();
            while start.elapsed() < time {
                stream.write_all(&chunk)?;
            }
            Ok::<_, io::Error>((Instant::now(), self.counters().a_to_b.bytes))
        };
        let (start, bytes_before) = pour_for(STREAM_WARM_UP)?;
        let (end, bytes_after) = pour_for(STREAM)?;
        Ok((bytes_after - bytes_before) as f64 * 8.0 / (end - start).as_secs_f64())
    }
}
