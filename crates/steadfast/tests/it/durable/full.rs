//! An endpoint whose disk is full for long: whoever talks to it does not take it for dead.

use super::{Directory, Host, Labels, StoreSync, soon};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// More than may wait for a disk, in conversations that each hold a part of it.
const CONVERSATIONS: usize = 12;
const MESSAGE: usize = 1 << 20;
const WAITING: usize = 65;

fn mount(arguments: &[&str], at: &Path) -> bool {
    let done = Command::new(arguments[0]).args(&arguments[1..]).arg(at).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

/// A small file system, until the end of the test.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        mount(&["umount", "-l"], self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_full_disk_still_answers() {
    let place = Directory::new();
    let mut hosts = Host::pair(&place, StoreSync::Grouped);
    std::fs::create_dir_all(&hosts[0].directory).unwrap();
    let small = hosts[0].directory.clone();
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs"], &small) {
        assert!(std::env::var_os("CI").is_none(), "nothing may be skipped where CI is set");
        eprintln!(
            "SKIPPED who_waits_for_a_full_disk_still_answers: a small file system cannot be mounted here"
        );
        return;
    }
    let _mounted = Mounted(&small);
    let (a, b) = (hosts[0].start().await, hosts[1].start().await);
    let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
    for _ in 0..CONVERSATIONS {
        let (one, other) = super::converse(&a, &b).await;
        at_a.push(Arc::new(one));
        at_b.push(other);
    }
    let (sent, ends) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let senders = at_a.iter().map(|socket| {
        let (socket, sent, ends) = (Arc::clone(socket), Arc::clone(&sent), Arc::clone(&ends));
        tokio::spawn(async move {
            while !ends.load(Ordering::Acquire) {
                socket.send(vec![7; MESSAGE], Labels::background()).await.unwrap();
                sent.fetch_add(1, Ordering::AcqRel);
            }
        })
    });
    let senders: Vec<_> = senders.collect();
    soon("a disk that is full", async {
        while a.store_fault().is_none() || sent.load(Ordering::Acquire) < WAITING {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    // It takes in what comes, and says so.
    for _ in 0..200 {
        let receipt = at_b[0].send("still there?", Labels::foreground()).await.unwrap();
        soon("an acknowledgement", receipt.acked()).await.unwrap();
    }
    assert!(a.store_fault().is_some());
    ends.store(true, Ordering::Release);
    assert!(mount(&["mount", "-o", "remount,size=1g"], &small));
    let receivers = at_b.into_iter().map(|socket| {
        tokio::spawn(async move {
            let mut count = 0;
            while socket.recv().await.unwrap().is_some() {
                count += 1;
            }
            (count, socket)
        })
    });
    let receivers: Vec<_> = receivers.collect();
    for (sender, socket) in senders.into_iter().zip(&at_a) {
        soon("the end of what is sent", sender).await.unwrap();
        socket.finish().unwrap();
    }
    let mut came = 0;
    for receiver in receivers {
        came += soon("all that was sent", receiver).await.unwrap().0;
    }
    assert_eq!(came, sent.load(Ordering::Acquire));
    for number in 0..200 {
        let message = soon("what came meanwhile", at_a[0].recv()).await.unwrap();
        assert!(message.is_some(), "{number}");
    }
}
