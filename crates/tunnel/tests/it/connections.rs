//! What passes through a tunnel.

use std::io::ErrorKind;
use std::time::Duration;

use steadfast::Labels;
use steadfast_tunnel::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{World, listener, soon};

fn pattern(salt: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 251 + at + salt) as u8).collect()
}

async fn world() -> (World, tokio::net::TcpListener) {
    let (target, address) = listener().await;
    let targets = [(address.to_string(), Labels::foreground()), (address.to_string(), Labels::background())];
    (World::new(&targets, &[address.to_string()]).await, target)
}

async fn through(world: &World, target: &tokio::net::TcpListener, forward: usize) -> (TcpStream, TcpStream) {
    let program = world.connect(forward).await;
    let (at_target, _) = soon("the target's connection", target.accept()).await.unwrap();
    (program, at_target)
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let (mut world, target) = world().await;
    for program_first in [true, false] {
        let (program, at_target) = through(&world, &target, 0).await;
        let (mut one, mut other) = if program_first { (program, at_target) } else { (at_target, program) };
        one.write_all(b"question").await.unwrap();
        one.shutdown().await.unwrap();
        let mut text = String::new();
        soon("the question", other.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "question");
        let answer = pattern(0, 3_000_000);
        let copy = answer.clone();
        let writing = tokio::spawn(async move { other.write_all(&copy).await.unwrap() });
        let mut back = Vec::new();
        soon("the answer", one.read_to_end(&mut back)).await.unwrap();
        assert!(back == answer, "{} bytes", back.len());
        soon("writing", writing).await.unwrap();
        assert_eq!(world.closed(0).await, None);
        assert_eq!(world.closed(1).await, None);
    }
    let counters = world.forwards[0].counters();
    assert_eq!((counters.all(), counters.open()), (2, 0));
    assert_eq!((counters.to_target(), counters.from_target()), (3_000_008, 3_000_008));
}

#[tokio::test]
async fn what_breaks_is_a_reset_on_the_other_side() {
    let (mut world, target) = world().await;
    for program_breaks in [true, false] {
        let (program, at_target) = through(&world, &target, 0).await;
        let (mut breaks, mut other) =
            if program_breaks { (program, at_target) } else { (at_target, program) };
        breaks.write_all(b"half of it").await.unwrap();
        let mut some = [0; 10];
        soon("some", other.read_exact(&mut some)).await.unwrap();
        rustix::net::sockopt::set_socket_linger(&breaks, Some(Duration::ZERO)).unwrap();
        drop(breaks);
        let error = soon("the reset", other.read(&mut some)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(world.closed(0).await.is_some() && world.closed(1).await.is_some());
    }
}

#[tokio::test]
async fn a_connection_that_nobody_reads_holds_up_no_other() {
    let (world, target) = world().await;
    let mut stuck = Vec::new();
    for forward in [0, 1, 0, 1] {
        let (mut program, at_target) = through(&world, &target, forward).await;
        let writing = tokio::spawn(async move { program.write_all(&vec![1; 30_000_000]).await });
        stuck.push((writing, at_target));
    }
    for forward in [0, 1] {
        let (mut program, mut at_target) = through(&world, &target, forward).await;
        let sent = pattern(forward, 8_000_000);
        let copy = sent.clone();
        let writing = tokio::spawn(async move {
            at_target.write_all(&copy).await.unwrap();
            at_target
        });
        let mut read = vec![0; sent.len()];
        soon("the one that is read", program.read_exact(&mut read)).await.unwrap();
        assert!(read == sent);
        soon("writing", writing).await.unwrap();
    }
    assert!(stuck.iter().all(|(writing, _)| !writing.is_finished()), "more was taken than fits");
}

#[tokio::test]
async fn a_conversation_that_ends_is_opened_again() {
    let (mut world, target) = world().await;
    let (mut program, _at_target) = through(&world, &target, 0).await;
    world.restart_server(&[target.local_addr().unwrap().to_string()]).await;
    // What it carried is broken, and the next connection waits for the new conversation.
    let error = soon("the reset", program.read(&mut [0; 9])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let (mut program, mut at_target) = through(&world, &target, 0).await;
    program.write_all(b"x").await.unwrap();
    assert_eq!(soon("a byte", at_target.read_u8()).await.unwrap(), b'x');
    world.until(0, "the loss", |event| matches!(event, Event::Lost { .. }).then_some(())).await;
    world.until(0, "the next one", |event| matches!(event, Event::Connected { .. }).then_some(())).await;
}

#[tokio::test]
async fn a_quiet_target_keeps_nothing_of_a_program_that_is_gone() {
    let (mut world, target) = world().await;
    let (mut program, _quiet) = through(&world, &target, 0).await;
    program.shutdown().await.unwrap();
    rustix::net::sockopt::set_socket_linger(&program, Some(Duration::ZERO)).unwrap();
    drop(program);
    assert!(world.closed(1).await.is_some());
}

#[tokio::test]
async fn a_target_that_reads_nothing_keeps_nothing_of_a_peer_that_is_gone() {
    let (mut world, target) = world().await;
    let (mut program, _reads_nothing) = through(&world, &target, 0).await;
    let (full, piece) = (Duration::from_millis(500), vec![1; 65_536]);
    let mut written = 0;
    while let Ok(more) = tokio::time::timeout(full, program.write(&piece)).await {
        written += more.unwrap();
    }
    assert!(written > 65_536);
    world.client.close("it goes").await;
    assert!(world.closed(1).await.is_some());
    world.until(1, "the end", |event| matches!(event, Event::Lost { .. }).then_some(())).await;
}

#[tokio::test]
async fn what_is_stopped_in_the_middle_did_not_end_in_order() {
    let (mut world, target) = world().await;
    let (_program, _at_target) = through(&world, &target, 0).await;
    world.stop_client();
    let reason = world.closed(0).await.unwrap();
    assert!(reason.contains("stopped on this side"), "{reason}");
    assert!(world.closed(1).await.is_some());
}

#[tokio::test]
async fn both_sides_tell_of_whom_they_wait_for_a_network() {
    let (mut world, target) = world().await;
    let _connection = through(&world, &target, 0).await;
    let (client, server) = (world.client.fingerprint(), world.server.fingerprint());
    world.client.quiesce().await;
    for (side, other) in [(0, server), (1, client)] {
        world.until(side, "parking", |event| (event == Event::Parked { peer: other }).then_some(())).await;
    }
    world.client.revive().await.unwrap();
    for (side, other) in [(0, server), (1, client)] {
        world.until(side, "going on", |event| (event == Event::Resumed { peer: other }).then_some(())).await;
    }
}
