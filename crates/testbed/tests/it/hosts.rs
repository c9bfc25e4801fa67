//! Hosts: threads and processes in them, and what is left of them.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};

use steadfast_testbed::{Host, Lab, enter_user_namespace, isolated};

use super::{pair, pass, wait_for, wire};

#[test]
fn a_process_lives_on_its_host() {
    isolated("hosts::a_process_lives_on_its_host", || {
        let net = pair();
        let _link = net.lab.link("wifi", &net.a, &net.b).connect().unwrap();
        let mut command = Command::new("cat");
        command.arg("/proc/self/net/dev").stdout(Stdio::piped());
        let mut child = net.a.spawn(&mut command).unwrap();
        let mut output = String::new();
        child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        assert!(child.wait().unwrap().success());
        assert!(output.contains("wifi:"), "{output}");

        let mut idle = net.b.spawn(Command::new("sleep").arg("1000")).unwrap();
        let namespace = fs::metadata(format!("/proc/{}/ns/net", idle.id())).unwrap().ino();
        idle.kill().unwrap();
        idle.wait().unwrap();
        assert_eq!(namespace, net.b.namespace_id().unwrap());
    });
}

#[test]
fn threads_stay_on_their_host() {
    isolated("hosts::threads_stay_on_their_host", || {
        let net = pair();
        let own = |host: &Host| host.namespace_id().unwrap();
        let here = || fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
        assert_ne!(own(&net.a), own(&net.b));
        assert_ne!(own(&net.a), here());
        assert_eq!(net.a.run(here), own(&net.a));
        let nested = net.b.thread("outer", move || std::thread::spawn(here).join().unwrap());
        assert_eq!(nested.join().unwrap(), own(&net.b));
        let panic = catch_unwind(AssertUnwindSafe(|| net.a.run(|| panic!("of the closure")))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"of the closure"));
    });
}

#[test]
fn every_host_has_its_loopback() {
    isolated("hosts::every_host_has_its_loopback", || {
        let net = pair();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            net.a.run(|| {
                let socket = UdpSocket::bind(address).unwrap();
                socket.send_to(b"word", socket.local_addr().unwrap()).unwrap();
                socket.recv(&mut [0; 64]).unwrap();
            });
        }
    });
}

/// Network namespaces that some thread of the machine is in.
fn inhabited() -> HashSet<u64> {
    let entries = |path: &str| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    entries("/proc")
        .flat_map(|process| entries(&process.join("task").to_string_lossy()).collect::<Vec<_>>())
        .filter_map(|thread| Some(fs::metadata(thread.join("ns/net")).ok()?.ino()))
        .collect()
}

/// Network namespaces that a descriptor of this process keeps alive.
fn held() -> HashSet<u64> {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().flatten();
    descriptors
        .filter(|entry| {
            fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("net:"))
        })
        .filter_map(|entry| Some(fs::metadata(entry.path()).ok()?.ino()))
        .collect()
}

fn relays_of(link: &str) -> usize {
    let name = format!("tb-{link}\n");
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks.filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm == name)).count()
}

#[test]
fn nothing_is_left_behind() {
    isolated("hosts::nothing_is_left_behind", || {
        let net = pair();
        let link = net.lab.link("leftover", &net.a, &net.b).connect().unwrap();
        let wire = wire(&link);
        pass(&wire.a, &wire.b);
        let namespaces = HashSet::from([&net.a, &net.b].map(|host| host.namespace_id().unwrap()));
        assert_eq!(relays_of("leftover"), 1);
        assert!(namespaces.is_subset(&held()));
        let stay = net.a.spawn(Command::new("sleep").arg("1000")).unwrap();
        assert!(!namespaces.is_disjoint(&inhabited()));

        let mut stay = stay;
        stay.kill().unwrap();
        stay.wait().unwrap();
        drop(net.lab);
        assert_eq!(relays_of("leftover"), 0, "dropping the lab ends its threads");
        net.a.run(|| UdpSocket::bind((link.address_of(&net.a), 0))).unwrap_err();
        drop((wire, link, net.a, net.b));
        assert!(namespaces.is_disjoint(&held()));
        wait_for("the end of the last thread", || namespaces.is_disjoint(&inhabited()).then_some(()));
    });
}

#[test]
fn a_process_with_threads_cannot_enter_a_user_namespace() {
    // The refusal must come before anything has changed, so it is safe to provoke in a test of many threads.
    let refusal = enter_user_namespace().unwrap_err().to_string();
    assert!(refusal.contains("before any thread") || refusal.contains("is 0"), "{refusal}");
}

#[test]
fn isolated_notices_a_test_that_is_not_there() {
    let proof = "STEADFAST_TESTBED_PROOF";
    if std::env::var_os(proof).is_some() || Lab::available().is_ok() {
        // Only an ordinary user takes the way through an inner run.
        return;
    }
    let outcome = catch_unwind(|| isolated("hosts::no_such_test", || unreachable!("this process may not")));
    let message = outcome.err().and_then(|panic| panic.downcast_ref::<String>().cloned());
    // Where user namespaces are forbidden as well, the test was skipped and says so itself.
    assert!(
        message.is_none_or(
            |message| message.contains("did not run") || message.contains("nothing may be skipped")
        )
    );
}
