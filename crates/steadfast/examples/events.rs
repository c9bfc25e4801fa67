//! What happens to a conversation while its networks come and go: connects, then prints events and paths for ever.
//!
//! `cargo run --example events -- CONTACT`, with the line that the other side's `Endpoint::contact` gives.

#![expect(clippy::print_stdout, reason = "a program that prints")]

use steadfast::{Endpoint, Event};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let contact = std::env::args().nth(1).ok_or("usage: events CONTACT")?;
    let endpoint = Endpoint::builder().bind().await?;
    let mut events = endpoint.events();
    let _socket = endpoint.connect(contact).await?;
    while let Some(event) = events.next().await {
        match event {
            Event::PathUp(path) => println!("up: {} to {}", path.local_name, path.remote),
            Event::PathSuspect(path) => println!("no progress: {} to {}", path.local_name, path.remote),
            Event::PathRecovered(path) => println!("again: {} to {}", path.local_name, path.remote),
            Event::PathDown(path, why) => println!("down: {} to {} ({why:?})", path.local_name, path.remote),
            Event::Parked { session } => println!("{session}: parked, what is sent waits"),
            Event::Resumed { session } => println!("{session}: goes on"),
            other => println!("{other:?}"),
        }
        println!("{} paths, {} bytes sent again", endpoint.paths().len(), endpoint.stats().bytes_resent);
    }
    Ok(())
}
