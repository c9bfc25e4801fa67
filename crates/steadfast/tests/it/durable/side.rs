//! What one of the two processes does: sends numbers, and writes down which it took.

#![expect(clippy::print_stdout, reason = "the test reads it")]

use super::{AtomicBool, File, Labels, MultiSocket, OpenOptions, Ordering, Outcome, Path, Write, local};
use std::collections::VecDeque;
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Notify;

pub(super) const DIRECTORY: &str = "STEADFAST_TEST_DURABLE_DIRECTORY";
pub(super) const TRUSTED: &str = "STEADFAST_TEST_DURABLE_TRUSTED";
pub(super) const PORT: &str = "STEADFAST_TEST_DURABLE_PORT";
pub(super) const PEER: &str = "STEADFAST_TEST_DURABLE_PEER";

/// Messages without an outcome.
const OPEN: usize = 32;

#[test]
fn process() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(directory));
}

async fn run(directory: PathBuf) {
    let variable = |name| std::env::var(name).unwrap();
    let endpoint = local()
        .identity_file(directory.join("identity"))
        .trust(variable(TRUSTED).parse().unwrap())
        .port(variable(PORT).parse().unwrap())
        .store(directory.join("store"))
        .bind()
        .await
        .unwrap();
    println!("\nlistening {} {}", endpoint.port(), endpoint.contact());
    let peer = variable(PEER);
    let socket = match endpoint.restored().pop() {
        Some(socket) => socket,
        None if peer.is_empty() => endpoint.accept().await.unwrap(),
        None => endpoint.connect(peer).await.unwrap(),
    };
    let last = Arc::new((AtomicBool::new(false), Notify::new()));
    let orders = Arc::clone(&last);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            assert_eq!(line, "last");
            orders.0.store(true, Ordering::SeqCst);
            orders.1.notify_one();
        }
        // The end of the input is the end of the test.
        std::process::exit(0);
    });
    tokio::join!(send(&socket, &directory, &last.0), take(&socket, &directory));
}

fn append(directory: &Path, file: &str) -> File {
    OpenOptions::new().create(true).append(true).open(directory.join(file)).unwrap()
}

fn payload(number: u64) -> Vec<u8> {
    let mut text = format!("{number} ").into_bytes();
    text.resize(64 + (number % 7) as usize * 300, number as u8);
    text
}

async fn send(socket: &MultiSocket, directory: &Path, last: &AtomicBool) {
    let mut stored = append(directory, "stored");
    let mut open: VecDeque<_> = socket.unsettled().into();
    while !last.load(Ordering::SeqCst) {
        let number = socket.last_sent().map_or(1, |id| id.0 + 1);
        let Ok(receipt) = socket.send(payload(number), Labels::foreground()).await else { return };
        assert_eq!(receipt.id().0, number);
        if receipt.stored().await.is_ok() {
            // At once, or a kill may come between a number and its end of line.
            stored.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        open.push_back(receipt);
        while open.len() > OPEN {
            if let Some(receipt) = open.pop_front() {
                receipt.outcome().await;
            }
        }
    }
    for receipt in open {
        assert_eq!(receipt.outcome().await, Outcome::Delivered);
    }
    println!("sent {}", socket.last_sent().map_or(0, |id| id.0));
}

async fn take(socket: &MultiSocket, directory: &Path) {
    let before = std::fs::read_to_string(directory.join("taken")).unwrap_or_default();
    let mut known = before.lines().last().map_or(0, |line| line.parse().unwrap());
    let mut taken = append(directory, "taken");
    loop {
        let delivery = match socket.recv_held().await {
            Ok(Some(delivery)) => delivery,
            Ok(None) => return,
            Err(error) => {
                println!("ended {error}");
                return;
            }
        };
        let number = delivery.id().0;
        assert_eq!(delivery.payload().unwrap(), &payload(number));
        // What it has already is what it was killed over before it could acknowledge that.
        if number > known {
            taken.write_all(format!("{number}\n").as_bytes()).unwrap();
            known = number;
        }
        let acknowledged = delivery.acknowledge();
        if number == 1 {
            acknowledged.stored().await.unwrap();
            println!("up");
        }
        println!("took {number}");
    }
}
