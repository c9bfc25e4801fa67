//! `steadfast tunnel` between two users of one machine.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::common::{Home, Running, skip};
use crate::transfer::{Two, contact_of, start};

/// Nothing that works takes this long, on however slow a machine.
const GUARD: Duration = Duration::from_secs(60);

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(GUARD)).unwrap();
    stream
}

fn serve(home: &Home, more: &[&str]) -> (Running, String) {
    let mut server = start(home, &[&["tunnel", "--json", "--serve"], more].concat());
    let contact = contact_of(&mut server);
    (server, contact)
}

/// Starts a client; where programs connect.
fn forward(home: &Home, words: &[&str]) -> (Running, Vec<String>) {
    let mut client = start(home, &[&["tunnel", "--json"], words].concat());
    let listening = client.until("its ports", |object| object["event"] == "listening");
    let listen = |forward: &Value| forward["listen"].as_str().unwrap().to_owned();
    let ports = listening["forwards"].as_array().unwrap().iter().map(listen).collect();
    (client, ports)
}

fn is(event: &'static str) -> impl Fn(&Value) -> bool {
    move |object| object["event"] == event
}

#[test]
fn what_is_allowed_is_connected_and_nothing_else() {
    let two = Two::new();
    let (target, address) = listener();
    let (nobody, closed) = listener();
    drop(nobody);
    let key = two.a.key().to_string();
    let (mut server, contact) = serve(&two.b, &["--allow", &address, "--allow", &closed, "--trust", &key]);
    let forwards = [format!("0={address},background"), format!("0={closed}"), "0=localhost:1".to_owned()];
    let (mut client, ports) = forward(&two.a, &[&contact, &forwards[0], &forwards[1], &forwards[2]]);
    let mut program = connect(&ports[0]);
    program.write_all(b"question").unwrap();
    program.shutdown(Shutdown::Write).unwrap();
    let (mut there, _) = target.accept().unwrap();
    let mut text = String::new();
    there.read_to_string(&mut text).unwrap();
    there.write_all(b"answer").unwrap();
    drop(there);
    program.read_to_string(&mut text).unwrap();
    assert_eq!(text, "questionanswer");
    for side in [&mut client, &mut server] {
        let closed = side.until("its end", is("closed"));
        assert_eq!((&closed["to_target"], &closed["from_target"]), (&8.into(), &6.into()), "{closed}");
        assert_eq!(closed["reason"], Value::Null);
    }
    for (port, part) in [(1, "refused"), (2, "localhost:1 is not allowed")] {
        let error = connect(&ports[port]).read(&mut [0; 9]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        for side in [&mut client, &mut server] {
            let closed = side.until("its end", is("closed"));
            assert!(closed["reason"].as_str().unwrap().contains(part), "{closed}");
        }
    }
    let (rest, code) = client.interrupt();
    let last = rest.last().unwrap();
    assert_eq!((code, &last["event"], &last["connections"]), (Some(0), &"stopped".into(), &3.into()));
    let (_, code) = server.interrupt();
    assert_eq!(code, Some(0));
}

#[test]
fn the_configuration_names_forwards_and_targets() {
    let two = Two::new();
    let (target, address) = listener();
    two.b.configure(&format!("[tunnel]\nallow = ['{address}']\n"));
    let key = two.a.key().to_string();
    let (_server, contact) = serve(&two.b, &["--trust", &key]);
    two.a.configure(&format!(
        "[hosts]\nboat = '{contact}'\n[tunnel.forwards]\nboat = ['0={address},small,never=metered']\n"
    ));
    let (_client, ports) = forward(&two.a, &["boat"]);
    let mut program = connect(&ports[0]);
    program.write_all(b"x").unwrap();
    let mut byte = [0];
    target.accept().unwrap().0.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

#[test]
fn what_cannot_be_used_is_said_at_once() {
    let home = Home::new();
    home.run(&["tunnel"]).ended(2);
    home.run(&["tunnel", "--serve"]).failed(2, &["--allow localhost:22"]);
    let contact = format!("{}@127.0.0.1:9", Two::new().a.key());
    home.run(&["tunnel", &contact]).failed(2, &["2222=localhost:22", "[tunnel.forwards]"]);
    for (words, part) in [
        (&["tunnel", "boat", "2222"][..], "no `=`"),
        (&["tunnel", "boat", "1=localhost:22,loud"], "`loud`"),
        (&["tunnel", "--serve", "--allow", "22"], "HOST:PORT"),
        (&["tunnel", "boat", "1=a:1", "--allow", "a:1"], "cannot be used with"),
    ] {
        let run = home.run(words).ended(2);
        assert!(run.err.contains(part), "{run:?}");
    }
    let (_taken, address) = listener();
    let port = address.rsplit_once(':').unwrap().1;
    let forward = format!("{port}=localhost:22");
    home.run(&["tunnel", &contact, &forward]).failed(1, &[&address, "choose another port"]);
    // Nobody is there, and then somebody who does not know this side.
    let forward = "0=localhost:22";
    let words = ["tunnel", "--json", "--connect-limit", "300ms", &contact, forward];
    assert_eq!(home.run(&words).failed(4, &["cannot tunnel to"]).object()["exit"], 4);
    let (_server, contact) = serve(&Home::new(), &["--allow", "localhost:22"]);
    home.run(&["tunnel", &contact, forward]).failed(3, &["steadfast trust add"]);
}

#[test]
fn a_server_that_was_started_anew_is_found_again() {
    let two = Two::new();
    let (target, address) = listener();
    let key = two.a.key().to_string();
    let arguments = ["--allow", &address, "--trust", &key];
    let (server, contact) = serve(&two.b, &arguments);
    let (mut client, ports) = forward(&two.a, &[&contact, &format!("0={address}")]);
    client.until("a conversation", is("connected"));
    let mut before = connect(&ports[0]);
    before.write_all(b"x").unwrap();
    let (mut there, _) = target.accept().unwrap();
    there.read_exact(&mut [0]).unwrap();
    let (_, code) = server.interrupt();
    assert_eq!(code, Some(0));
    assert_eq!(before.read(&mut [0; 9]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    client.until("the loss", is("lost"));
    let port = contact.rsplit_once(':').unwrap().1.to_owned();
    let (_server, again) = serve(&two.b, &[&arguments[..], &["--port", &port]].concat());
    if again != contact {
        return skip(
            "tunnel::a_server_that_was_started_anew_is_found_again",
            "its addresses changed meanwhile",
        );
    }
    client.until("the next conversation", is("connected"));
    let mut after = connect(&ports[0]);
    after.write_all(b"y").unwrap();
    let mut byte = [0];
    target.accept().unwrap().0.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"y");
}
