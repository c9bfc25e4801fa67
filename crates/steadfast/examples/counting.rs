//! Two processes that count to each other, for as long as they run, and check that no number is lost, doubled or out of order.
//! What they say survives that one of them is frozen, moved and started again:
//!
//! ```text
//! cargo build --release --example counting
//! steadfast checkpoint run target/release/examples/counting serve
//! target/release/examples/counting KEY@ADDRESS:PORT
//! steadfast checkpoint save --kill --dir /tmp/counting PID
//! steadfast checkpoint restore /tmp/counting
//! ```

#![expect(clippy::print_stdout, reason = "a program that prints")]

use std::env;
use std::time::Duration;
use steadfast::{Endpoint, Identity, Labels, MultiSocket};

type Anything = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Anything> {
    let to = env::args().nth(1).ok_or("usage: counting serve | KEY@ADDRESS:PORT")?;
    let _heard = steadfast::checkpoint::register(
        async |_| {
            println!("about to be frozen");
            Ok(())
        },
        async |outcome| {
            println!("process {} {outcome}", std::process::id());
            Ok(())
        },
    )?;
    let identity = Identity::generate()?;
    let endpoint = Endpoint::builder().identity(identity).bind().await?;
    let socket = if to == "serve" {
        println!("process {}: {}", std::process::id(), endpoint.contact());
        let stranger = endpoint.next_stranger().await.ok_or("closed")?;
        endpoint.trust(stranger.key);
        endpoint.accept().await.ok_or("closed")?
    } else {
        connect(&endpoint, &to).await?
    };
    let mut verdicts = socket.verdicts();
    tokio::spawn(async move {
        while let Some(standing) = verdicts.next().await {
            println!("the other side: {:?}, {:?}", standing.verdict, standing.evidence);
        }
    });
    let (sent, received) = tokio::join!(count(&socket), check(&socket));
    sent.and(received)
}

/// The other side lets a stranger in when it came a second time.
async fn connect(endpoint: &Endpoint, to: &str) -> Result<MultiSocket, Anything> {
    for _ in 0..5 {
        if let Ok(socket) = endpoint.connect(to).await {
            return Ok(socket);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(endpoint.connect(to).await?)
}

async fn count(socket: &MultiSocket) -> Result<(), Anything> {
    for number in 0_u64.. {
        socket.send(number.to_be_bytes().to_vec(), Labels::foreground()).await?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

async fn check(socket: &MultiSocket) -> Result<(), Anything> {
    let mut expected = 0_u64;
    while let Some(message) = socket.recv().await? {
        if message.payload().is_none_or(|payload| payload[..] != expected.to_be_bytes()) {
            return Err(format!("{:?} instead of {expected}", message.payload()).into());
        }
        expected += 1;
        if expected.is_multiple_of(500) {
            println!("{expected} numbers came");
        }
    }
    Ok(())
}
