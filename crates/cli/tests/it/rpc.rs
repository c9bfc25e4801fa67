//! `steadfast rpc`: calls between programs on the loopback, and as IP protocol 146 between the hosts of a lab.

use std::fs;
use std::process::Command;

use serde_json::Value;
use steadfast_testbed::{Lab, isolated};

use crate::common::{Home, Run, Running, skip};

/// A server, and the contact that it prints.
fn serve(home: &Home, arguments: &[&str]) -> (Running, String) {
    let mut command = home.command(&[&["rpc", "serve", "--json"], arguments].concat());
    listening(Running::start(&mut command, |command| command.spawn().unwrap()))
}

fn listening(mut running: Running) -> (Running, String) {
    let listening = running.until("its address", |object| object["event"] == "listening");
    let contact = listening["contact"].as_str().unwrap().to_owned();
    assert!(listening["command"].as_str().unwrap().contains(&contact), "{listening}");
    (running, contact)
}

fn plain(home: &Home, more: &[&str]) -> (Running, String) {
    serve(home, &[&["--carrier", "plain"], more].concat())
}

fn stopped(running: Running) -> Value {
    let (rest, code) = running.interrupt();
    assert_eq!(code, Some(0), "{rest:?}");
    let last = rest.last().unwrap().clone();
    assert_eq!(last["event"], "stopped");
    last
}

/// All calls of it were answered, and rightly.
fn all_answered(run: &Run, calls: u64) -> Value {
    let summary = run.object();
    for (key, count) in
        [("calls", calls), ("delivered", calls), ("dropped", 0), ("unknown", 0), ("changed", 0)]
    {
        assert_eq!(summary[key], count, "{key}: {summary}");
    }
    let [p50, p99, most] = ["p50_us", "p99_us", "max_us"].map(|key| summary[key].as_f64().unwrap());
    assert!(0.0 < p50 && p50 <= p99 && p99 <= most, "{summary}");
    summary
}

#[test]
fn calls_within_a_host_come_back() {
    let home = Home::empty();
    let (server, contact) = plain(&home, &[]);
    let call = |more: &[&str]| home.run(&[&["rpc", "call", &contact, "--carrier", "plain"], more].concat());
    for (size, count, open) in [("1", 20, "1"), ("100", 300, "16"), ("300000", 20, "4"), ("16777216", 2, "1")]
    {
        let text = count.to_string();
        let run = call(&["--json", "--size", size, "--count", &text, "--outstanding", open]).ended(0);
        assert_eq!(all_answered(&run, count)["size"].to_string(), size);
    }
    let text = call(&["--count", "10"]).ended(0).out;
    for part in ["P50 us", "P99 us", "delivered     10", "dropped        0", "unknown        0"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let stopped = stopped(server);
    assert_eq!(
        (&stopped["requests"], &stopped["bytes"]),
        (&352.into(), &(20 + 30_000 + 6_000_000 + (32 << 20) + 1000).into())
    );
}

#[test]
fn what_is_not_answered_says_why() {
    let home = Home::empty();
    let (_server, contact) = plain(&home, &["--port", "7"]);
    let call = |contact: &str, port: &str| {
        home.run(&["rpc", "call", contact, "--carrier", "plain", "--port", port, "--json"])
    };
    all_answered(&call(&contact, "7").ended(0), 1000);
    let run = call(&contact, "8").failed(1, &["nothing was answered", "nobody serves that port"]);
    // After a few it is over.
    let summary = &run.objects()[0];
    assert_eq!((&summary["dropped"], &summary["delivered"]), (&5.into(), &0.into()), "{summary}");
    assert_eq!(run.object()["exit"], 1);
    let (gone, nowhere) = plain(&home, &[]);
    stopped(gone);
    call(&nowhere, "4000").failed(4, &[&nowhere, "nothing was answered"]);
}

#[test]
fn calls_between_keys_are_sealed() {
    let (home, other) = (Home::new(), Home::new());
    let (server, contact) = serve(&home, &["--trust", &other.key().to_string(), "--listen", "127.0.0.1"]);
    assert!(contact.starts_with(&format!("{}@", home.key())), "{contact}");
    let run = other.run(&["rpc", "call", &contact, "--count", "50", "--size", "70000", "--json"]).ended(0);
    assert_eq!(all_answered(&run, 50)["carrier"], "udp");
    let stranger = Home::new();
    let own = format!("steadfast trust add {}", stranger.key());
    stranger.run(&["rpc", "call", &contact]).failed(3, &[&own]);
    assert_eq!(stopped(server)["requests"], 50);
    other.run(&["rpc", "call", "--connect-limit", "300ms", &contact]).failed(4, &["check that"]);
}

#[test]
fn who_runs_no_server_says_so() {
    let home = Home::new();
    let peer = crate::common::Peer::new(home.key(), "there");
    let run = home.run(&["rpc", "call", "--connect-limit", "2s", &peer.contact]);
    run.failed(1, &["offers no Homa", "steadfast rpc serve"]);
}

#[test]
fn what_cannot_be_meant() {
    let home = Home::new();
    for (arguments, part) in [
        (&["call", "10.0.0.1:5", "--carrier", "plain"][..], "loopback"),
        (&["call", "127.0.0.1", "--carrier", "plain"], "UDP port"),
        (&["call", "10.0.0.1:5", "--carrier", "raw"], "--port"),
        (&["call", "10.0.0.1", "--carrier", "raw", "--size", "1000001"], "1000000"),
        (&["call", "x", "--port", "40000"], "--port"),
        (&["serve", "--carrier", "plain", "--listen", "10.0.0.1:5"], "within this host"),
        (&["serve", "--carrier", "raw", "--listen", "10.0.0.1:5"], "--listen without"),
        (&["serve", "--carrier", "plain", "--trust", &home.key().to_string()], "--trust means nothing"),
        (&["serve", "--port", "32767", "--ports", "2"], "32,767"),
        (&["bench", "--carrier", "raw"], "name a HOST"),
        (&["bench", "--workload", "w9"], "W1 to W5"),
        (&["bench", "--gbps", "1001"], "Gbit/s"),
        (&["bench", "--gbps", "1", "--load", "0.5"], "--load"),
    ] {
        let run = home.run(&[&["rpc"], arguments].concat()).ended(2);
        assert!(run.err.contains(part), "{part}: {run:?}");
    }
}

#[test]
fn a_bench_calls_a_server_of_its_own() {
    let home = Home::empty();
    let file = home.path().join("lengths");
    fs::write(&file, "# length part\n50 0.5\n5000 0.9\n200000 1\n").unwrap();
    let times = home.path().join("times");
    let bench = |more: &[&str]| {
        let run = home.run(&[&["rpc", "bench", "--json", "--seconds", "200ms"], more].concat()).ended(0);
        let object = run.object();
        assert_eq!(object["bench"], "rpc-bench");
        object
    };
    let found = bench(&["--workload", file.to_str().unwrap(), "--dump-times", times.to_str().unwrap()]);
    let found = &found["scenarios"]["file"]["homa_plain"];
    let delivered = found["delivered"].as_u64().unwrap();
    assert!(
        delivered > 0 && found["changed"] == 0 && found["to_50_p50_us"].as_f64().unwrap() > 0.0,
        "{found}"
    );
    let rows = fs::read_to_string(&times).unwrap();
    assert!(rows.starts_with("# Length   RTT (usec)\n      "), "{rows}");
    assert_eq!(rows.lines().count() as u64, delivered + 1);
    let open =
        bench(&["--workload", "w1", "--gbps", "0.002", "--clients", "2", "--server-ports", "3", "--one-way"]);
    assert_eq!(
        (&open["conditions"]["loop"], &open["conditions"]["offered_gbps"]),
        (&"open, Poisson".into(), &0.002.into())
    );
    let found = &open["scenarios"]["w1"]["homa_plain"];
    // About 264 are due.
    let delivered = found["delivered"].as_u64().unwrap();
    assert!((150..400).contains(&delivered) && found["changed"] == 0, "{found}");
    let text = home.run(&["rpc", "bench", "--seconds", "100ms"]).ended(0).out;
    assert!(text.contains("to 100") && text.contains("calls/s"), "{text}");
    home.run(&["rpc", "bench", "--dump-times", "/nowhere/x"]).failed(1, &["/nowhere/x"]);
}

#[test]
fn protocol_146_between_hosts() {
    isolated("rpc::protocol_146_between_hosts", || {
        let lab = Lab::new().unwrap();
        let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
        let link = lab.link("net", &a, &b).connect().unwrap();
        let home = Home::empty();
        let arguments = ["rpc", "serve", "--carrier", "raw", "--json"];
        let (server, contact) =
            listening(Running::start(&mut home.command(&arguments), |command| b.spawn(command).unwrap()));
        assert_eq!(contact, "ADDRESS");
        let address = link.address_of(&b).to_string();
        let call = |more: &[&str]| {
            let arguments = [&["rpc", "call", &address, "--carrier", "raw", "--json"], more].concat();
            Running::start(&mut home.command(&arguments), |command| a.spawn(command).unwrap()).end()
        };
        for (size, count) in [("100", 200_u64), ("200000", 10)] {
            let (objects, code) = call(&["--size", size, "--count", &count.to_string()]);
            assert_eq!(code, Some(0), "{objects:?}");
            assert_eq!(objects[0]["delivered"], count, "{objects:?}");
        }
        assert_eq!(stopped(server)["requests"], 210);
        // A kernel without the protocol says so at once.
        let (objects, code) = call(&[]);
        assert_eq!(code, Some(4), "{objects:?}");
    });
}

#[test]
fn the_privilege_that_is_missing_is_named() {
    let home = Home::empty();
    let serve = home.command(&["rpc", "serve", "--carrier", "raw"]);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_raw", "--inh-caps=-net_raw", "--"]).arg(serve.get_program());
    command.args(serve.get_args()).env("HOME", home.path());
    let root = rustix::process::geteuid().is_root();
    let run =
        if root { command.output() } else { home.command(&["rpc", "serve", "--carrier", "raw"]).output() };
    match run {
        Ok(output) => drop(Run::from(output).failed(1, &["IP protocol 146", "CAP_NET_RAW"])),
        Err(error) => skip("rpc::the_privilege_that_is_missing_is_named", &format!("no setpriv: {error}")),
    }
}
