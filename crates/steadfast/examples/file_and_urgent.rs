//! A background file beside urgent messages, between two processes.
//!
//! On one machine: `cargo run --example file_and_urgent -- receive`, which prints its own key, the line to connect to,
//! and takes the key of the sender: `... receive SENDER_KEY`. On the other: `... send CONTACT FILE`; run it without
//! arguments to see the sender's key.

#![expect(clippy::print_stdout, reason = "a program that prints")]

use std::time::{Duration, Instant};
use steadfast::{Bytes, Endpoint, Labels, Urgency};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["receive", sender] => receive(sender).await,
        ["send", contact, file] => send(contact, file).await,
        _ => {
            println!("my key: {}", Endpoint::builder().bind().await?.fingerprint());
            println!("usage: file_and_urgent receive SENDER_KEY | send CONTACT FILE");
            Ok(())
        }
    }
}

async fn send(contact: &str, file: &str) -> Result<()> {
    let content = Bytes::from(std::fs::read(file)?);
    let endpoint = Endpoint::builder().bind().await?;
    let socket = endpoint.connect(contact).await?;
    let mut writer = socket.begin(Labels::background()).await?;
    let upload = async {
        for start in (0..content.len()).step_by(64 * 1024) {
            writer.write(content.slice(start..content.len().min(start + 64 * 1024))).await?;
        }
        Result::Ok(writer.finish().await?.outcome().await)
    };
    let alarms = async {
        loop {
            let start = Instant::now();
            let receipt = socket.send("stop!", Labels::foreground()).await?;
            println!("urgent message: {:?} after {:?}", receipt.outcome().await, start.elapsed());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        outcome = upload => println!("the file: {:?}", outcome?),
        failure = alarms => return failure,
    }
    socket.close().await?;
    Ok(())
}

async fn receive(sender: &str) -> Result<()> {
    let endpoint = Endpoint::builder().trust(sender.parse()?).bind().await?;
    println!("connect to: {}", endpoint.contact());
    let socket = endpoint.accept().await.ok_or("closed")?;
    while let Some(mut message) = socket.recv().await? {
        if message.labels.urgency == Urgency::Foreground {
            println!("urgent: {:?}", message.payload());
            continue;
        }
        // The file is read beside what follows it.
        tokio::spawn(async move {
            let mut length = 0;
            while let Ok(Some(chunk)) = message.read_chunk().await {
                length += chunk.len();
            }
            println!("the file had {length} bytes");
        });
    }
    Ok(())
}
