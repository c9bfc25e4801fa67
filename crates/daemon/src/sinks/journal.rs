//! Events into the system's journal: journald's own protocol, or syslog's where there is no journald.

use std::io;
use std::path::Path;
use std::time::Duration;

use steadfast_backplane::Delivery;
use tokio::net::UnixDatagram;

use super::settings::JournalPlaces;
use super::telling::{fields, line, severity};
use super::{Feed, RETRY};

/// How long the journal may take to have room.
const LIMIT: Duration = Duration::from_secs(5);
/// The most bytes of a payload where a whole one is more than the socket takes.
const CUT: usize = 4096;
/// `daemon` among syslog's facilities.
const FACILITY: u8 = 3;

enum Socket {
    Journald(UnixDatagram),
    Syslog(UnixDatagram),
}

/// Brings every event there, one after the other; while that fails, they wait in the queue.
pub(super) async fn run(feed: &mut Feed, places: &JournalPlaces) {
    let mut socket = None;
    while let Some(delivery) = feed.next().await {
        while let Err(fault) = send(&mut socket, places, &delivery).await {
            socket = None;
            feed.state().failed(fault);
            tokio::time::sleep(RETRY).await;
        }
        feed.state().delivered(1);
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

fn open(places: &JournalPlaces) -> Result<Socket, String> {
    let JournalPlaces { journald, syslog } = places;
    let first = match connect(journald) {
        Ok(socket) => return Ok(Socket::Journald(socket)),
        Err(error) => error,
    };
    connect(syslog).map(Socket::Syslog).map_err(|error| {
        format!(
            "no journal answers at {} ({first}) nor a syslog at {} ({error}); start one, or use a file",
            journald.display(),
            syslog.display()
        )
    })
}

/// Sends it; over a connection that is old perhaps a second time, because the journal may be another one by now.
async fn send(
    socket: &mut Option<Socket>,
    places: &JournalPlaces,
    delivery: &Delivery,
) -> Result<(), String> {
    if socket.is_some() && attempt(socket, places, delivery).await.is_ok() {
        return Ok(());
    }
    *socket = None;
    attempt(socket, places, delivery).await
}

async fn attempt(
    socket: &mut Option<Socket>,
    places: &JournalPlaces,
    delivery: &Delivery,
) -> Result<(), String> {
    let socket = match socket {
        Some(socket) => socket,
        None => socket.insert(open(places)?),
    };
    let sent = match socket {
        Socket::Journald(socket) => {
            let sent = within(socket.send(&entry(delivery, usize::MAX))).await;
            let too_long = |error: &io::Error| {
                let code = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
                matches!(code, Some(rustix::io::Errno::MSGSIZE | rustix::io::Errno::NOBUFS))
            };
            match sent {
                Err(error) if too_long(&error) => within(socket.send(&entry(delivery, CUT))).await,
                sent => sent,
            }
        }
        Socket::Syslog(socket) => within(socket.send(&message(delivery))).await,
    };
    sent.map(drop).map_err(|error| format!("the system's journal takes nothing: {error}"))
}

async fn within(send: impl Future<Output = io::Result<usize>>) -> io::Result<usize> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no room within {LIMIT:?}"));
    tokio::time::timeout(LIMIT, send).await.unwrap_or_else(|_| Err(late()))
}

/// As systemd's "Native Journal Protocol" has it: a line for each field, or its length before a value of any bytes.
fn entry(delivery: &Delivery, most: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |name: &str, value: &str| out.extend_from_slice(format!("{name}={value}\n").as_bytes());
    put("MESSAGE", &line(delivery));
    put("PRIORITY", &severity(delivery).1.to_string());
    put("SYSLOG_FACILITY", &FACILITY.to_string());
    put("SYSLOG_IDENTIFIER", "steadfast");
    for (name, value) in fields(delivery) {
        put(name, &value);
    }
    let payload = delivery.event.payload.bytes();
    let payload = &payload[..payload.len().min(most)];
    out.extend_from_slice(b"STEADFAST_PAYLOAD\n");
    out.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    out.extend_from_slice(payload);
    out.push(b'\n');
    out
}

/// As syslogs take it from programs (RFC 3164), without the time, which those that want one put there.
fn message(delivery: &Delivery) -> Vec<u8> {
    let priority = FACILITY * 8 + severity(delivery).1;
    format!("<{priority}>steadfast[{}]: {}", std::process::id(), line(delivery)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::telling::tests::delivery;

    #[test]
    fn severities_are_those_of_syslog() {
        for (name, number) in [("info", 6), ("WARNING", 4), ("Error", 3), ("fatal", 2)] {
            let delivery = delivery(name, b"x");
            let text = String::from_utf8(entry(&delivery, 10)).unwrap();
            assert!(text.contains(&format!("\nPRIORITY={number}\n")), "{text}");
            let expected = format!("<{}>steadfast[{}]: a.b.c DONE", 24 + number, std::process::id());
            assert!(String::from_utf8(message(&delivery)).unwrap().starts_with(&expected));
        }
    }

    #[test]
    fn a_payload_of_any_bytes() {
        let bytes = entry(&delivery("info", b"MESSAGE=forged\nPRIORITY=0\n\0\xff"), usize::MAX);
        let end = b"STEADFAST_PAYLOAD\n\x1c\0\0\0\0\0\0\0MESSAGE=forged\nPRIORITY=0\n\0\xff\n";
        assert!(bytes.ends_with(end), "{}", String::from_utf8_lossy(&bytes));
        let before = String::from_utf8(bytes[..bytes.len() - end.len()].to_vec()).unwrap();
        assert!(before.lines().all(|line| line.contains('=')), "{before}");
        assert_eq!(before.matches("\nPRIORITY=").count(), 1);
        assert!(entry(&delivery("info", &[7; 9000]), CUT).len() < CUT + 2048);
    }
}
