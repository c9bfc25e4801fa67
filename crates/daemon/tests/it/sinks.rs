//! Where events go on their host besides clients: the system's journal, commands, files.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::disk::Disk;
use crate::outside::ask;
use crate::place::{GUARD, Host, a, soon};
use steadfast::backplane::Event;
use steadfast_daemon::{
    CommandSettings, FileSettings, JournalPlaces, SinkName, SinkSettings, SinkStatus, SinkTarget,
};

const NAME: &str = "one";

fn sink(to: SinkTarget) -> SinkSettings {
    // What the daemon itself sees, like its networks, comes at any time.
    SinkSettings { events: vec!["event_space=a.b.all".parse().unwrap()], to }
}

/// `sh` with a script whose `$0` is a path.
fn script(text: &str, path: &Path) -> CommandSettings {
    let words = ["/bin/sh", "-c", text, path.to_str().unwrap()];
    let settings = CommandSettings::new(words.map(String::from).to_vec());
    CommandSettings { limit: GUARD * 10, ..settings }
}

async fn host(to: SinkTarget) -> Host {
    let mut host = Host::new();
    host.settings.sinks.0.insert(SinkName::new(NAME).unwrap(), sink(to));
    host.start().await;
    host
}

fn status(host: &Host) -> SinkStatus {
    let status = ask(host, "{\"version\":1,\"ask\":\"status\"}\n");
    serde_json::from_value(status["status"]["sinks"][0].clone()).unwrap()
}

async fn until(what: &str, host: &Host, fits: impl Fn(&SinkStatus) -> bool) -> SinkStatus {
    let found = async {
        loop {
            let status = status(host);
            if fits(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(what, found).await
}

/// Payloads of the events in a file, each line a whole one of `CloudEvents`.
fn told(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let payload = |line| {
        let event = Event::from_cloud_event(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        String::from_utf8(event.payload.bytes().to_vec()).unwrap()
    };
    text.lines().map(payload).collect()
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn heard(socket: &UnixDatagram) -> String {
    let mut bytes = vec![0; 256 * 1024];
    let count = socket.recv(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

fn bind(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(GUARD)).unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_or_else_syslog() {
    let mut host = Host::new();
    let places =
        JournalPlaces { journald: host.place().join("journald"), syslog: host.place().join("syslog") };
    let to = SinkTarget::Journal(places.clone());
    host.settings.sinks.0.insert(SinkName::new(NAME).unwrap(), sink(to));
    let journald = bind(&places.journald);
    host.start().await;
    let client = host.client().await;
    let handle = client.publish(a("first")).await.unwrap();
    let entry = heard(&journald);
    let lines: Vec<_> = entry.lines().collect();
    let expected = [
        "PRIORITY=6".to_owned(),
        "SYSLOG_IDENTIFIER=steadfast".into(),
        format!("STEADFAST_EVENT_ID={}", handle.id),
        "STEADFAST_EVENT_SPACE=a.b.c".into(),
        "STEADFAST_EVENT_NAME=A".into(),
        "STEADFAST_SEVERITY=info".into(),
        format!("STEADFAST_PID={}", std::process::id()),
        "STEADFAST_PROVENANCE=local".into(),
    ];
    assert!(expected.iter().all(|field| lines.contains(&field.as_str())), "{entry}");
    assert!(lines[0].starts_with("MESSAGE=a.b.c A [") && lines[0].ends_with(" first"), "{entry}");
    let longest = "\u{1}".repeat(64 * 1024);
    client.publish(a(&longest)).await.unwrap();
    assert!(heard(&journald).contains(&longest), "whole, if the socket takes that much");

    // Without a journald syslog has it; without both it waits.
    drop(journald);
    fs::remove_file(&places.journald).unwrap();
    client.publish(a("second")).await.unwrap();
    let fault = until("a fault", &host, |status| status.fault.is_some()).await.fault.unwrap();
    assert!(fault.contains("journald") && fault.contains("nor a syslog"), "{fault}");
    let syslog = bind(&places.syslog);
    let message = heard(&syslog);
    assert!(message.starts_with("<30>steadfast[") && message.ends_with(" second"), "{message}");
    let status = until("its work", &host, |status| status.delivered == 3).await;
    assert!(status.fault.is_none() && status.failed > 0 && status.dropped == 0, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_the_event() {
    let place = Host::new();
    let path = place.place().join("told");
    let text = "cat > \"$0.new\"; env | sort | grep ^STEADFAST_ > \"$0.env\"; mv \"$0.new\" \"$0\"";
    let host = host(SinkTarget::Command(script(text, &path))).await;
    let handle = host.client().await.publish(a("a\nb")).await.unwrap();
    until("its end", &host, |status| status.delivered == 1).await;
    assert_eq!(told(&path), ["a\nb"]);
    assert!(fs::read_to_string(&path).unwrap().starts_with("{\"provenance\":\"local\","));
    let variables = fs::read_to_string(path.with_extension("env")).unwrap();
    assert!(variables.contains(&format!("STEADFAST_EVENT_ID={}\n", handle.id)), "{variables}");
    assert!(variables.contains("STEADFAST_EVENT_NAME=A\n"), "{variables}");
}

/// Whether a process is there and no zombie.
fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_hangs_is_killed_with_what_it_started() {
    let place = Host::new();
    let path = place.place().join("pids");
    // It does not read, and its child holds all that it has.
    let text = "sleep 100000 & echo $$ $! > \"$0.new\"; mv \"$0.new\" \"$0\"; wait";
    let settings = CommandSettings { limit: Duration::from_secs(3), ..script(text, &path) };
    let host = host(SinkTarget::Command(settings)).await;
    let client = host.client().await;
    client.publish(a("x".repeat(60_000))).await.unwrap();
    let status = until("it was killed", &host, |status| status.failed == 1).await;
    assert!(status.fault.unwrap().contains("killed"));
    let written = fs::read_to_string(&path).unwrap();
    let pids: Vec<_> = written.split_whitespace().collect();
    assert_eq!(pids.len(), 2);
    soon("their end", async {
        while pids.iter().any(|pid| lives(pid)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // The agent did not wait for it.
    client.publish(a(2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_hangs_ends_with_its_daemon() {
    let place = Host::new();
    let path = place.place().join("pids");
    let text = "sleep 100000 & echo $$ $! > \"$0.new\"; mv \"$0.new\" \"$0\"; wait";
    let mut host = host(SinkTarget::Command(script(text, &path))).await;
    host.client().await.publish(a("x")).await.unwrap();
    soon("its start", async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // It has some time, and not as much as it wants.
    host.end().await;
    let written = fs::read_to_string(&path).unwrap();
    soon("their end", async {
        while written.split_whitespace().any(lives) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_not_there_or_fails() {
    let host = host(SinkTarget::Command(CommandSettings::new(vec!["/nowhere/to/be/found".into()]))).await;
    let client = host.client().await;
    for number in 0..3 {
        client.publish(a(number)).await.unwrap();
    }
    let status = until("three attempts", &host, |status| status.failed == 3).await;
    let fault = status.fault.unwrap();
    assert!(fault.contains("cannot run `/nowhere/to/be/found`"), "{fault}");
    assert_eq!((status.delivered, status.waiting), (0, 0));

    let host = self::host(SinkTarget::Command(CommandSettings::new(vec!["false".into()]))).await;
    host.client().await.publish(a(1)).await.unwrap();
    let fault = until("its failure", &host, |status| status.failed == 1).await.fault.unwrap();
    assert!(fault.contains("exit status: 1"), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_bounded_and_what_gave_way_is_counted() {
    let place = Host::new();
    let path = place.place().join("go");
    let text =
        "touch \"$0.$STEADFAST_EVENT_ID\"; while [ ! -e \"$0\" ]; do sleep 0.05; done; cat >> \"$0.told\"";
    let mut host = Host::new();
    host.settings.limits.queue = 16;
    let to = SinkTarget::Command(CommandSettings { at_once: 2, ..script(text, &path) });
    host.settings.sinks.0.insert(SinkName::new(NAME).unwrap(), sink(to));
    host.start().await;
    let client = host.client().await;
    for number in 0..200 {
        client.publish(a(number)).await.unwrap();
    }
    let started = || {
        let entries = fs::read_dir(place.place()).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("go."))
            .count()
    };
    soon("two that run", async {
        while started() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let now = status(&host);
    assert!(now.waiting <= 16 + 3 && now.delivered == 0, "{now:?}");
    assert_eq!(started(), 2);
    fs::write(&path, "").unwrap();
    let all = until("its end", &host, |status| status.waiting == 0).await;
    assert_eq!((all.delivered + all.dropped, all.failed), (200, 0), "{all:?}");
    assert!(all.dropped >= 200 - 16 - 3 && all.delivered >= 16, "{all:?}");
    let told = told(&place.place().join("go.told"));
    assert_eq!(told.len() as u64, all.delivered);
    assert!(told.contains(&"199".to_owned()), "the newest are those that are left: {told:?}");
}

// One thread: what the end does not wait for is not there when it is looked at.
#[tokio::test]
async fn a_file_in_order_put_aside_and_whole_at_the_end() {
    let place = Host::new();
    let path = place.place().join("log/events.json");
    let settings = FileSettings { size: 20_000, keep: 1000, ..FileSettings::new(path.clone()) };
    let mut host = host(SinkTarget::File(settings)).await;
    let client = host.client().await;
    for number in 0..500 {
        client.publish(a(number)).await.unwrap();
    }
    // What waits then still gets there.
    host.end().await;
    let mut files: Vec<PathBuf> = Vec::new();
    while path.with_extension(format!("json.{}", files.len() + 1)).exists() {
        files.push(path.with_extension(format!("json.{}", files.len() + 1)));
    }
    assert!(files.len() > 3, "{files:?}");
    assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() <= 20_000));
    let mut all: Vec<_> = files.iter().rev().flat_map(|file| told(file)).collect();
    all.extend(told(&path));
    assert_eq!(all, numbers(0..500));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_directory_vanishes() {
    let place = Host::new();
    let above = place.place().join("above");
    let path = above.join("log/events.json");
    fs::create_dir(&above).unwrap();
    let host = host(SinkTarget::File(FileSettings::new(path.clone()))).await;
    let client = host.client().await;
    client.publish(a(1)).await.unwrap();
    until("the first", &host, |status| status.delivered == 1).await;
    // The directory itself is made again.
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    client.publish(a(2)).await.unwrap();
    until("the second", &host, |status| status.delivered == 2).await;
    assert_eq!(told(&path), ["2"]);
    // What it lies in is not: it may be a disk that is not mounted.
    fs::remove_dir_all(&above).unwrap();
    client.publish(a(3)).await.unwrap();
    let fault = until("a fault", &host, |status| status.fault.is_some()).await.fault.unwrap();
    assert!(fault.contains(path.to_str().unwrap()), "{fault}");
    client.publish(a(4)).await.unwrap();
    fs::create_dir(&above).unwrap();
    let status = until("its work", &host, |status| status.delivered == 4).await;
    assert!(status.fault.is_none() && status.dropped == 0, "{status:?}");
    assert_eq!(told(&path), ["3", "4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_on_a_full_disk() {
    let place = Host::new();
    let disk = place.place().join("disk");
    fs::create_dir(&disk).unwrap();
    let Some(small) = Disk::mount("a_file_on_a_full_disk", &disk, "64k") else { return };
    let path = disk.join("events.json");
    let mut host = host(SinkTarget::File(FileSettings::new(path.clone()))).await;
    let client = host.client().await;
    for _ in 0..20 {
        client.publish(a("x".repeat(5000))).await.unwrap();
    }
    let full = until("a full disk", &host, |status| status.fault.is_some()).await;
    assert!(full.delivered > 5 && full.delivered < 20, "{full:?}");
    assert_eq!(told(&path).len() as u64, full.delivered, "whole lines alone");
    small.resize("8m");
    let status = until("room", &host, |status| status.delivered == 20).await;
    assert!(status.fault.is_none() && status.dropped == 0, "{status:?}");
    assert_eq!(told(&path).len(), 20);
    host.end().await;
}

/// What the status says of the agent: how many clients of the sink's name there are, and how many there ever were of any.
fn clients(host: &Host) -> (usize, u64) {
    let status = &ask(host, "{\"version\":1,\"ask\":\"status\"}\n")["status"]["agent"];
    let all = status["clients"].as_array().unwrap();
    let of_it = all.iter().filter(|client| client["name"] == NAME).count();
    (of_it, status["counters"]["attached"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_replaced_leaves_nothing_but_its_counts() {
    let place = Host::new();
    let (nowhere, good) = (place.place().join("not/there/x.json"), place.place().join("good.json"));
    let file = |path: &Path| sink(SinkTarget::File(FileSettings::new(path.to_owned())));
    let mut host = Host::new();
    let name = SinkName::new(NAME).unwrap();
    host.settings.sinks.0.insert(name, file(&nowhere));
    let daemon = Arc::new(host.daemon().await.unwrap());
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let daemon = Arc::clone(&daemon);
        async move { daemon.run(async { drop(ended.await) }).await }
    });
    let client = host.client().await;
    for number in 0..3 {
        client.publish(a(number)).await.unwrap();
    }
    let before = until("a fault", &host, |status| status.fault.is_some()).await;
    assert_eq!((before.waiting, before.delivered, before.dropped), (3, 0, 0), "{before:?}");
    // The same settings are the same sink.
    let attached = clients(&host);
    assert!(daemon.reload(&host.settings).is_empty());
    assert_eq!(clients(&host), attached);
    let mut settings = host.settings.clone();
    settings.sinks.0.insert(name, file(&good));
    daemon.reload(&settings);
    client.publish(a("good")).await.unwrap();
    let after = until("the next", &host, |status| status.delivered == 1).await;
    assert_eq!((after.dropped, after.waiting, &after.fault), (3, 0, &None), "{after:?}");
    assert_eq!((told(&good), clients(&host).0), (vec!["good".to_owned()], 1));
    // With nothing to bring there, too, the next has no fault of the one before.
    settings.sinks.0.insert(name, file(&nowhere));
    daemon.reload(&settings);
    client.publish(a("lost")).await.unwrap();
    until("a fault", &host, |status| status.fault.is_some()).await;
    settings.sinks.0.insert(name, file(&good));
    daemon.reload(&settings);
    until("no fault", &host, |status| status.dropped == 4 && status.fault.is_none()).await;
    end.send(()).unwrap();
    running.await.unwrap();
    Arc::into_inner(daemon).unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_settings_count_at_once_and_lose_nothing() {
    let place = Host::new();
    let (one, other) = (place.place().join("one.json"), place.place().join("other.json"));
    let mut host = Host::new();
    let name = SinkName::new(NAME).unwrap();
    let file = |path: &Path, keep| {
        sink(SinkTarget::File(FileSettings { keep, ..FileSettings::new(path.to_owned()) }))
    };
    host.settings.sinks.0.insert(name, file(&one, 1));
    let daemon = Arc::new(host.daemon().await.unwrap());
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let daemon = Arc::clone(&daemon);
        async move { daemon.run(async { drop(ended.await) }).await }
    });
    let client = host.client().await;
    let mut settings = host.settings.clone();
    for number in 0..100 {
        client.publish(a(number)).await.unwrap();
        // Each time it is another sink, on the same file.
        settings.sinks.0.insert(name, file(&one, number));
        assert!(daemon.reload(&settings).is_empty());
    }
    settings.sinks.0.insert(name, file(&other, 1));
    daemon.reload(&settings);
    client.publish(a("more")).await.unwrap();
    let all = until("all of them", &host, |status| status.delivered == 101).await;
    assert_eq!((all.dropped, all.failed), (0, 0), "counted on: {all:?}");
    assert_eq!((told(&one), told(&other)), (numbers(0..100), vec!["more".to_owned()]));
    settings.sinks.0.clear();
    daemon.reload(&settings);
    client.publish(a("too late")).await.unwrap();
    end.send(()).unwrap();
    running.await.unwrap();
    Arc::into_inner(daemon).unwrap().close().await;
    assert_eq!(told(&other), ["more"]);
}
