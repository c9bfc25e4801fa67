//! `steadfast daemon`, `status` and `events`, as a person and a script use them.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{Home, Running};

/// A home whose daemon keeps everything there.
pub(crate) fn home() -> Home {
    let home = Home::new();
    let place = home.path().display();
    home.configure(&format!("[daemon]\nsocket = \"{place}/agent.sock\"\nstate = \"{place}/state\"\n"));
    home
}

pub(crate) fn command(home: &Home, arguments: &[&str]) -> std::process::Command {
    let mut command = home.command(arguments);
    command.env_remove("STEADFAST_AGENT").env_remove("XDG_RUNTIME_DIR");
    command
}

fn start(home: &Home, arguments: &[&str]) -> Running {
    Running::start(&mut command(home, arguments), |command| command.spawn().unwrap())
}

pub(crate) fn daemon(home: &Home) -> (Running, Pid) {
    let mut daemon = start(home, &["daemon", "--json"]);
    let ready = daemon.until("a socket", |object| object["type"] == "ready");
    let pid = i32::try_from(ready["pid"].as_i64().unwrap()).unwrap();
    (daemon, Pid::from_raw(pid).unwrap())
}

fn publish(home: &Home, payload: &str) -> Value {
    let run = ["events", "publish", "--json", "site.apps.backup", "DONE", payload];
    crate::common::Run::of(&mut command(home, &run)).ended(0).object()
}

#[test]
fn events_come_once_whatever_happens_to_the_daemon() {
    let home = home();
    let (first, pid) = daemon(&home);
    let mut subscriber = start(&home, &["events", "subscribe", "--json", "event_space=site.all.all"]);
    // It stands when the first comes.
    let mut number = 0;
    loop {
        number += 1;
        publish(&home, &number.to_string());
        let tail = ["events", "tail", "--json", "-n", "1", "event_space=site.all.all"];
        let last = crate::common::Run::of(&mut command(&home, &tail)).ended(0).object();
        assert_eq!(last["data"], number.to_string());
        let status = crate::common::Run::of(&mut command(&home, &["status", "--json"])).ended(0).object();
        if status["status"]["agent"]["counters"]["queued"].as_u64() > Some(number) {
            break;
        }
    }
    let came = subscriber.until("an event", |object| object["data"].is_string());
    assert_eq!(came["type"], "site.apps.backup.DONE");

    kill_process(pid, Signal::KILL).unwrap();
    drop(first);
    crate::common::Run::of(&mut command(&home, &["status"])).failed(4, &["steadfast daemon"]);
    let (second, _) = daemon(&home);
    publish(&home, "after");
    let mut seen = Vec::new();
    loop {
        let event = subscriber.until("an event", |object| object["data"].is_string());
        seen.push(event["id"].as_str().unwrap().to_owned());
        if event["data"] == "after" {
            break;
        }
    }
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), seen.len(), "{seen:?}");
    let all = ["events", "tail", "--json", "-n", "100000", "event_space=site.all.all"];
    let all = crate::common::Run::of(&mut command(&home, &all)).ended(0).objects();
    assert_eq!(all.len() as u64, number + 1, "what was acknowledged is there");
    assert_eq!(subscriber.interrupt().1, Some(0));
    assert_eq!(second.interrupt().1, Some(0));
}

#[test]
fn a_configuration_is_read_again() {
    let home = home();
    let (mut running, pid) = daemon(&home);
    publish(&home, "allowed");
    let place = home.path().display();
    let rules = "[[daemon.rules]]\nspace = \"site.all.all\"\nwho = \"anyone\"\npublish = false\n";
    let sink = format!(
        "[daemon.sinks.archive]\nevents = \"event_space=other.all.all\"\nfile = \"{place}/events.json\"\n"
    );
    home.configure(&format!(
        "[daemon]\nsocket = \"{place}/agent.sock\"\nstate = \"{place}/state\"\n{rules}{sink}"
    ));
    kill_process(pid, Signal::HUP).unwrap();
    running.until("new rules", |object| object["type"] == "reloaded");
    let run = ["events", "publish", "site.apps.backup", "DONE"];
    crate::common::Run::of(&mut command(&home, &run)).failed(3, &["may not publish", "site.apps.backup"]);
    let run = ["events", "publish", "other.apps.backup", "DONE", "into the file"];
    crate::common::Run::of(&mut command(&home, &run)).ended(0);
    loop {
        let status = crate::common::Run::of(&mut command(&home, &["status", "--json"])).ended(0).object();
        let sink = &status["status"]["sinks"][0];
        assert_eq!(
            (&sink["name"], &sink["dropped"], &sink["fault"]),
            (&"archive".into(), &0.into(), &Value::Null)
        );
        if sink["delivered"] == 1 {
            break;
        }
    }
    let line = std::fs::read_to_string(home.path().join("events.json")).unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&event["data"], &event["provenance"]), (&"into the file".into(), &"local".into()));
    // A broken one changes nothing.
    home.configure("[daemon]\nsocked = 1\n");
    kill_process(pid, Signal::HUP).unwrap();
    running.until("a fault", |object| object["type"] == "not reloaded");
    assert_eq!(running.interrupt().1, Some(0));
}

#[test]
fn what_cannot_be_done_says_what_would_help() {
    let home = home();
    let run = |arguments: &[&str]| crate::common::Run::of(&mut command(&home, arguments));
    run(&["events", "publish", "a.b.c", "X"]).failed(4, &["steadfast daemon"]);
    let (running, _) = daemon(&home);
    run(&["daemon"]).failed(1, &["another daemon"]);
    run(&["events", "publish", "a.b", "X"]).failed(2, &["three parts"]);
    run(&["events", "publish", "a.b.c", "X Y"]).failed(2, &["underscores"]);
    run(&["events", "publish", "a.b.c", "X", "--severity", "bad"]).failed(2, &["fatal"]);
    run(&["events", "subscribe", "colour=red"]).failed(2, &["severity"]);
    run(&["events", "publish", "a.b.c", "X", "--file", "/nowhere/at all"]).failed(1, &["/nowhere/at all"]);
    run(&["events", "publish", "a.b.c", "X", "--answers", "nobody-1-2"])
        .failed(2, &["nobody-1-2", "events tail"]);
    drop(running);
    let place = home.path().display();
    home.configure(&format!(
        "[daemon]\nsocket = \"{place}/agent.sock\"\nstate = \"{place}/state\"\n[daemon.exchange]\nhosts = [\"boat\"]\n"
    ));
    run(&["daemon"]).failed(2, &["boat", "steadfast trust add KEY"]);
}

#[test]
fn a_daemon_tells_what_is_to_be_mended() {
    let home = home();
    let place = home.path().display();
    home.configure(&format!(
        "[daemon]\nsocket = \"{place}/agent.sock\"\nstate = \"{place}/state\"\n\
         [daemon.sinks.lost]\nfile = \"{place}/nowhere/at/all.json\"\n"
    ));
    let mut told = Running::start(&mut command(&home, &["daemon"]), |command| {
        command.stderr(std::process::Stdio::piped()).spawn().unwrap()
    });
    let errors = std::io::BufReader::new(told.stderr());
    assert!(told.line().contains("agent.sock"));
    publish(&home, "x");
    let line = std::io::BufRead::lines(errors).next().unwrap().unwrap();
    assert!(line.contains("WARN") && line.contains("nowhere/at/all.json"), "{line}");
}

#[test]
fn an_answer_names_what_it_answers() {
    let home = home();
    let (running, _) = daemon(&home);
    let run = |arguments: &[&str]| crate::common::Run::of(&mut command(&home, arguments)).ended(0);
    // Ids are printed as they are elsewhere, whatever digits the number of the agent's run begins with.
    let id = publish(&home, "question")["id"].as_str().unwrap().to_owned();
    publish(&home, "another");
    run(&["events", "publish", "site.ops.pager", "SEEN", "--answers", &id]);
    let tail = run(&["events", "tail", "--json", "-n", "3", "event_space=site.all.all"]).objects();
    assert_eq!(tail[0]["id"], id.as_str());
    let answer = &tail[2];
    assert_eq!((&answer["causationid"], &answer["provenance"]), (&id.as_str().into(), &"local".into()));
    let shown = run(&["events", "tail", "-n", "1", "event_name=SEEN"]).out;
    assert!(shown.contains("SEEN in answer to site.apps.backup DONE ["), "{shown}");
    drop(running);
}

#[test]
fn two_hosts_exchange_events_by_their_names() {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (one, other) = (Home::new(), Home::new());
    let port = free();
    for (home, hosts, port, peer) in [
        (&one, format!("boat = \"{}@127.0.0.1:1\"", other.key()), port, "boat"),
        (&other, format!("shore = \"{}@127.0.0.1:{port}\"", one.key()), free(), "shore"),
    ] {
        let place = home.path().display();
        home.configure(&format!(
            "[hosts]\n{hosts}\n[daemon]\nsocket = \"{place}/agent.sock\"\nstate = \"{place}/state\"\n\
             [daemon.exchange]\nhosts = [\"{peer}\"]\nport = {port}\naddresses = [\"127.0.0.1\"]\n"
        ));
    }
    let (first, _) = daemon(&one);
    let (_second, _) = daemon(&other);
    let mut subscriber = start(&other, &["events", "subscribe", "--json", "event_space=site.all.all"]);
    // What is published before the two have met goes there, too; before somebody subscribed it does not come here.
    let came = loop {
        publish(&one, "over there");
        let tail = ["events", "tail", "--json", "event_space=site.all.all"];
        if let Some(event) = crate::common::Run::of(&mut command(&other, &tail)).ended(0).objects().pop() {
            break event;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert_eq!(came["data"], "over there");
    assert!(came["id"].as_str().unwrap().starts_with(&one.key().to_string()), "{came}");
    publish(&one, "again");
    let again = subscriber.until("the event", |object| object["data"] == "again");
    assert_eq!(again["provenance"], "signed", "a program can tell it from one that anybody made up");
    let shown = crate::common::Run::of(&mut command(&other, &["status"])).ended(0).out;
    let way = format!("host {}  yes ", one.key());
    for part in ["WAY", "RECEIVED", &way, "[daemon.exchange] as ", &format!("{}@", other.key())] {
        assert!(shown.contains(part), "no {part} in:\n{shown}");
    }
    drop(first);
    loop {
        let shown = crate::common::Run::of(&mut command(&other, &["status"])).ended(0).out;
        if shown.contains(&format!("host {}  no ", one.key())) {
            // With the reason.
            assert!(shown.contains(&format!("Way host {}: ", one.key())), "{shown}");
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn the_status_shows_who_talks_to_whom() {
    let home = home();
    let (running, _) = daemon(&home);
    let peer = crate::common::Peer::new(home.key(), "there");
    let mut watch = start(&home, &["watch", "--json", &peer.contact]);
    watch.until("a verdict", |object| object["verdict"] == "alive");
    let status = |arguments: &[&str]| crate::common::Run::of(&mut command(&home, arguments)).ended(0);
    let process = loop {
        let status = status(&["status", "--json"]).object();
        let processes = status["status"]["processes"].as_array().unwrap().clone();
        let found = processes.into_iter().find(|process| process["sessions"][0]["verdict"] == "alive");
        if let Some(found) = found {
            break found;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    let key = peer.contact.split('@').next().unwrap();
    assert_eq!(process["sessions"][0]["peer"], key);
    assert_eq!(
        (&process["sessions"][0]["state"], &process["sessions"][0]["queued"]),
        (&"open".into(), &0.into())
    );
    assert_eq!(process["peers"][0]["evidence"], "it answers");
    let shown = status(&["status"]).out;
    for part in ["SESSION", "QUEUED", "VERDICT", "EVIDENCE", key, "it answers", "open"] {
        assert!(shown.contains(part), "no {part} in:\n{shown}");
    }
    drop(watch);
    drop(running);
}
