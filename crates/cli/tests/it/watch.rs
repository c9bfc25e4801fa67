//! `steadfast watch`, and what `steadfast ping` says of a peer's process.

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Home, Peer, Running};

fn start(home: &Home, arguments: &[&str]) -> Running {
    Running::start(&mut home.command(arguments), |command| command.spawn().unwrap())
}

#[test]
fn a_farewell_ends_the_watch_well() {
    let home = Home::new();
    let peer = Peer::new(home.key(), "there");
    let mut watch = start(&home, &["watch", "--json", &peer.contact]);
    watch.until("a verdict", |object| object["verdict"] == "alive");
    peer.leave("good night");
    let left = watch.until("a farewell", |object| object["verdict"] == "left");
    assert_eq!(left["evidence"], "it said farewell: \"good night\"");
    let (rest, code) = watch.end();
    assert_eq!((rest.len(), code), (0, Some(0)), "{rest:?}");
}

#[test]
fn ctrl_c_ends_it_and_people_read_words() {
    let home = Home::new();
    let peer = Peer::new(home.key(), "there");
    let mut watch = start(&home, &["watch", &peer.contact]);
    assert_eq!(watch.line(), "alive: it answers\n");
    drop(watch);
    let mut watch = start(&home, &["watch", "--json", &peer.contact]);
    watch.until("a verdict", |object| object["verdict"] == "alive");
    assert_eq!(watch.interrupt().1, Some(0));
}

#[test]
fn a_ping_says_why_the_peer_is_gone() {
    let home = Home::new();
    let peer = Peer::new(home.key(), "there");
    let mut ping = start(&home, &["ping", "--json", &peer.contact]);
    ping.until("an answer", |object| object["type"] == "message");
    peer.leave("good night");
    ping.until("a verdict", |object| object["type"] == "peer" && object["verdict"] == "left");
}

#[test]
fn who_is_not_there_cannot_be_watched() {
    let home = Home::new();
    let contact = Peer::new(home.key(), "there").contact;
    home.run(&["watch", "--connect-limit", "300ms", &contact]).failed(4, &["check that"]);
}

#[test]
fn a_process_of_this_host_that_hangs_is_seen() {
    let two = crate::transfer::Two::new();
    let (receiver, contact) = two.receive(&[]);
    let mut watch = start(&two.a, &["watch", "--json", &contact]);
    watch.until("a verdict", |object| object["verdict"] == "alive");
    let pid = Pid::from_raw(receiver.pid().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    watch.until("that it hangs", |object| object["verdict"] == "hung");
    kill_process(pid, Signal::CONT).unwrap();
    watch.until("that it does not", |object| object["verdict"] == "alive");
    assert_eq!(watch.interrupt().1, Some(0));
}
