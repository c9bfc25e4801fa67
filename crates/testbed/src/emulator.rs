//! What the whole emulator is worth on this machine: each promise of a link measured once.

use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::{Host, Lab, LabError, Link, Loss, Precision};

/// Frames that a share of loss is measured with.
const LOSS_FRAMES: u64 = 20_000;
const LOSS_SHARE: f64 = 0.1;
const BURST: f64 = 5.0;
/// The link whose flood a higher class is to pass, and the classes.
const FLOODED_MBIT: f64 = 10.0;
const FLOOD_BYTES: usize = 1000;
/// As much as the link carries in 8 ms, every 2 ms.
const FLOOD_FRAMES: u32 = 10;
const FLOOD_PAUSE: Duration = Duration::from_millis(2);
const LOW: u32 = 0;
const HIGH: u32 = 6;
/// How long the relay is driven with as much as it takes.
const DRIVE: Duration = Duration::from_secs(1);
/// Frames sent at once; the kernel queues a thousand.
const VOLLEY: u64 = 128;
/// Frames that have no fate by then are lost in the kernel.
const GUARD: Duration = Duration::from_secs(10);

/// How exactly the emulator does what it is told, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct EmulatorPrecision {
    /// A link of 20 Mbit/s and 10 ms.
    pub link: Precision,
    /// Share of frames lost, where one in ten is asked for.
    pub loss_share: f64,
    /// The same, in bursts of five.
    pub bursty_share: f64,
    /// How much later than it should a frame of a high class arrives on an idle link of 10 Mbit/s: median and 99th
    /// percentile.
    pub priority_idle: [Duration; 2],
    /// The same through a flood of a low class; the frame on the wire, of 800 us, is not interrupted.
    pub priority_flooded: [Duration; 2],
    /// Small frames a second that one link without limits carries in one direction.
    pub frames_per_second: f64,
    /// Bits a second of one TCP stream with 1500-byte packets over such a link.
    pub bits_per_second: f64,
}

impl EmulatorPrecision {
    /// Builds a lab of its own and measures; it takes some seven seconds and wants the machine to itself.
    pub fn measure() -> Result<Self, LabError> {
        let lab = Lab::new()?;
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        let slow = lab.link("slow", &a, &b).rate_mbit(20.0).delay(Duration::from_millis(10)).connect()?;
        let open = lab.link("open", &a, &b).connect()?;
        let lossy = lab.link("lossy", &a, &b).connect()?;
        let flooded = lab.link("flooded", &a, &b).rate_mbit(FLOODED_MBIT).priorities(true).connect()?;
        let unmeasurable = |link: &Link| {
            let link = link.name().to_owned();
            move |error: io::Error| LabError::Unmeasurable { link, reason: error.to_string() }
        };
        let bursty = Loss::Bursty { share: LOSS_SHARE, mean_burst: BURST };
        let [priority_idle, priority_flooded] = pass_a_flood(&flooded)?;
        Ok(Self {
            link: slow.measure_precision()?,
            loss_share: lose(&lossy, Loss::Independent(LOSS_SHARE)).map_err(unmeasurable(&lossy))?,
            bursty_share: lose(&lossy, bursty).map_err(unmeasurable(&lossy))?,
            priority_idle,
            priority_flooded,
            frames_per_second: drive(&open).map_err(unmeasurable(&open))?,
            bits_per_second: open.measure_precision()?.rate_achieved,
        })
    }
}

impl fmt::Display for EmulatorPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let Precision { expected, error_p50, error_p99, rate, rate_achieved } = self.link;
        let rate_error = rate.map_or(0.0, |rate| (rate_achieved / rate as f64 - 1.0) * 100.0);
        writeln!(
            f,
            "delay     {expected:?} one way: late by p50 {:.0} us, p99 {:.0} us",
            micros(error_p50),
            micros(error_p99)
        )?;
        writeln!(f, "rate      20 Mbit/s, one TCP stream: {rate_error:+.2} %")?;
        writeln!(
            f,
            "loss      10 %: {:.2} %; in bursts of 5: {:.2} %",
            self.loss_share * 100.0,
            self.bursty_share * 100.0
        )?;
        writeln!(
            f,
            "priority  CS6 on 10 Mbit/s: late by p50 {:.0} us, p99 {:.0} us; through a flood of CS0 by {:.0} us, {:.0} us",
            micros(self.priority_idle[0]),
            micros(self.priority_idle[1]),
            micros(self.priority_flooded[0]),
            micros(self.priority_flooded[1])
        )?;
        write!(
            f,
            "relay     {:.0} kframe/s of 60 bytes, {:.2} Gbit/s of TCP, one link, one direction",
            self.frames_per_second / 1e3,
            self.bits_per_second / 1e9
        )
    }
}

/// Two sockets, the first of which sends to the second.
fn sockets(link: &Link) -> io::Result<(UdpSocket, UdpSocket)> {
    let [a, b] = link.hosts();
    let bind = |host: &Host| host.run(|| UdpSocket::bind((link.address_of(host), 0)));
    let (from, to) = (bind(a)?, bind(b)?);
    from.connect(to.local_addr()?)?;
    Ok((from, to))
}

/// The share that was lost of what was sent.
fn lose(link: &Link, loss: Loss) -> io::Result<f64> {
    let (from, _to) = sockets(link)?;
    link.set(|settings| settings.loss = loss);
    let before = link.counters().a_to_b.dropped_loss;
    send_through(link, &from, LOSS_FRAMES)?;
    // Changing it takes in what was sent.
    link.set(|settings| settings.loss = Loss::NONE);
    let lost = link.counters().a_to_b.dropped_loss - before;
    Ok(lost as f64 / LOSS_FRAMES as f64)
}

/// Median and 99th percentile of a high class, on the idle link and through a flood.
fn pass_a_flood(link: &Link) -> Result<[[Duration; 2]; 2], LabError> {
    let unmeasurable =
        |error: io::Error| LabError::Unmeasurable { link: link.name().into(), reason: error.to_string() };
    let (from, _to) = sockets(link).map_err(unmeasurable)?;
    SockRef::from(&from).set_tos_v4(LOW << 5).map_err(unmeasurable)?;
    let idle = link.probe_sorted(Some(HIGH)).map_err(unmeasurable)?;
    let stop = AtomicBool::new(false);
    let flooded = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..FLOOD_FRAMES {
                    // What the socket does not take has flooded it, too.
                    let _full = from.send(&[0; FLOOD_BYTES - 42]);
                }
                thread::sleep(FLOOD_PAUSE);
            }
        });
        let flooded = link.probe_sorted(Some(HIGH));
        stop.store(true, Ordering::Relaxed);
        flooded
    });
    let flooded = flooded.map_err(unmeasurable)?;
    Ok([idle, flooded].map(|late| [50, 99].map(|percent| late[late.len() * percent / 100])))
}

/// Frames a second that come through, in one direction.
fn drive(link: &Link) -> io::Result<f64> {
    let (from, _to) = sockets(link)?;
    let (start, before) = (Instant::now(), settled(link));
    while start.elapsed() < DRIVE {
        send_through(link, &from, VOLLEY)?;
    }
    Ok((settled(link) - before) as f64 / start.elapsed().as_secs_f64())
}

/// Frames that have arrived or were lost.
fn settled(link: &Link) -> u64 {
    let way = link.counters().a_to_b;
    way.frames + way.dropped_loss + way.dropped_relay
}

/// Sends small frames in volleys, so that what the kernel queues for all interfaces of a processor, other tests' too, never
/// overflows.
fn send_through(link: &Link, from: &UdpSocket, frames: u64) -> io::Result<()> {
    let mut sent = 0;
    let before = settled(link);
    let guard = Instant::now() + GUARD;
    while sent < frames {
        let volley = VOLLEY.min(frames - sent);
        for _ in 0..volley {
            from.send(b"a small frame.....")?;
        }
        sent += volley;
        while settled(link) - before + VOLLEY / 2 < sent {
            if Instant::now() > guard {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::yield_now();
        }
    }
    Ok(())
}
