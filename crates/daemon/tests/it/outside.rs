//! What others see of the daemon: status, figures, a full disk.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use crate::disk::Disk;
use crate::place::{Host, a, payloads, soon};
use serde_json::Value;
use steadfast::backplane::Subscribing;

pub(crate) fn ask(host: &Host, question: &str) -> Value {
    let mut stream = UnixStream::connect(host.place().join("daemon.sock")).unwrap();
    stream.write_all(question.as_bytes()).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_who_is_there() {
    let host = Host::started().await;
    let client = host.client().await;
    let _events = client.subscribe("", Subscribing::default()).await.unwrap();
    client.publish(a(1)).await.unwrap();
    let status = ask(&host, "{\"version\":1,\"ask\":\"status\"}\n");
    let status = &status["status"];
    assert_eq!(status["agent"]["counters"]["published"], 1);
    let clients = status["agent"]["clients"].as_array().unwrap();
    let own = clients.iter().find(|client| client["space"] == "FTB.network.steadfast").unwrap();
    assert_eq!(own["subscriptions"], 0, "the daemon itself");
    let other = clients.iter().find(|client| client["space"] == "a.b.c").unwrap();
    assert_eq!((&other["pid"], &other["published"]), (&std::process::id().into(), &1.into()));
    assert!(status["agent"]["storage_fault"].is_null());
    assert!(ask(&host, "{\"version\":1,\"ask\":\"networks\"}\n")["networks"].is_array());
    for (wrong, part) in
        [("{\"version\":2,\"ask\":\"status\"}\n", "version"), ("{}\n", "ask"), ("GET /\n", "ask")]
    {
        let error = ask(&host, wrong)["error"].as_str().unwrap().to_owned();
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_for_prometheus() {
    let mut host = Host::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    host.settings.metrics = Some(port);
    let sinks = toml::from_str("[nobody]\ncommand = ['true']\nevents = 'event_name=NOTHING'").unwrap();
    host.settings.sinks = sinks;
    host.start().await;
    host.client().await.publish(a(1)).await.unwrap();
    let get = |path: &str| {
        let mut stream = TcpStream::connect(port).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = get("/metrics");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer
            .contains("# TYPE steadfast_agent_published_total counter\nsteadfast_agent_published_total 1\n")
    );
    assert!(answer.contains("# TYPE steadfast_agent_clients gauge\n"), "{answer}");
    assert!(answer.contains("\nsteadfast_sink_dropped_total{sink=\"nobody\"} 0\n"), "{answer}");
    assert!(get("/").starts_with("HTTP/1.1 404"));
}

/// Where the journal cannot be written, nothing is acknowledged; what is not acknowledged goes on, and so does all when there
/// is room again.
#[tokio::test]
async fn a_disk_that_is_full() {
    let mut host = Host::new();
    let events = host.place().join("events");
    std::fs::create_dir_all(&events).unwrap();
    let Some(disk) = Disk::mount("a_disk_that_is_full", &events, "256k") else { return };
    host.start().await;
    let (client, mut all) = (host.client().await, host.all().await);
    let filler = "x".repeat(8000);
    let mut acknowledged = 0;
    let error = soon("the disk to be full", async {
        loop {
            match client.publish(a(&filler)).await {
                Ok(_) => acknowledged += 1,
                Err(error) => return error,
            }
        }
    })
    .await;
    assert!(error.to_string().contains("store"), "{error}");
    assert!(acknowledged > 5, "{acknowledged}");
    // What was refused came, too: it says that it was not stored, and no more.
    assert_eq!(payloads(&mut all, acknowledged + 1).await.len(), acknowledged + 1);
    client.publish_unacknowledged(a("still")).unwrap();
    assert_eq!(payloads(&mut all, 1).await, ["still"]);
    // What is in the way goes; the daemon notices by itself.
    disk.resize("8m");
    soon("room", async {
        while client.publish(a("again")).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    host.end().await;
}

/// What befalls a process is told by the daemon, with what the kernel says of the process.
#[tokio::test(flavor = "multi_thread")]
async fn faults_of_processes_are_events() {
    use std::net::{IpAddr, Ipv4Addr};
    use steadfast::backplane::Notice;
    use steadfast::{Endpoint, Identity, ScoutConfig};
    let host = Host::started().await;
    let watcher = host.builder(None).connect().await.unwrap();
    let own = "event_space=FTB.network.steadfast";
    let mut events = watcher.subscribe(own, Subscribing::default()).await.unwrap();
    let identities = [Identity::generate().unwrap(), Identity::generate().unwrap()];
    let keys = identities.each_ref().map(Identity::fingerprint);
    let endpoint = async |identity: Identity, trust| {
        let builder = Endpoint::builder().identity(identity).trust(trust);
        let scout = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
        let builder = builder.scout(scout).addresses([IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        builder.daemon(Some(host.place().join("daemon.sock"))).bind().await.unwrap()
    };
    let [one, other] = identities;
    let (one, other) = (endpoint(one, keys[1]).await, endpoint(other, keys[0]).await);
    let socket = soon("connecting", one.connect(other.contact())).await.unwrap();
    other.close("good night").await;
    let mut next = async |name: &str| loop {
        let Some(Notice::Event(delivery)) = soon(name, events.next()).await else { panic!("it ended") };
        if delivery.event.name.to_string() == name {
            return serde_json::from_slice::<Value>(delivery.event.payload.bytes()).unwrap();
        }
    };
    let left = next("PEER_LEFT").await;
    assert_eq!(left["peer"], keys[1].to_string());
    assert_eq!(left["pid"], std::process::id());
    assert!(left["evidence"].as_str().unwrap().contains("good night"), "{left}");
    drop(socket);

    // Nobody else speaks there, and nobody tells without end or what there is not.
    let error = ask(&host, "{\"version\":1,\"tell\":{\"event\":\"NETWORK_DOWN\"}}\n")["error"].to_string();
    assert!(error.contains("PATH_DOWN"), "{error}");
    let mut flood = UnixStream::connect(host.place().join("daemon.sock")).unwrap();
    for number in 0..500 {
        writeln!(
            flood,
            "{{\"version\":1,\"tell\":{{\"event\":\"PATH_DOWN\",\"network\":\"n{number}\",\"x\":\"y\"}}}}"
        )
        .unwrap();
    }
    let path = next("PATH_DOWN").await;
    assert_eq!((&path["network"], &path["x"]), (&Value::from("n0"), &Value::Null));
    // What was not told is told when there is room for something again.
    let again = async {
        loop {
            writeln!(flood, "{{\"version\":1,\"tell\":{{\"event\":\"PATH_DOWN\",\"network\":\"last\"}}}}")
                .unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let lost = tokio::select! {
        lost = next("FAULTS_LOST") => lost,
        () = again => unreachable!("it never ends"),
    };
    assert!(lost["count"].as_u64() > Some(300));
}
