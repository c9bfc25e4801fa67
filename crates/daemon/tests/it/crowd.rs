//! Users who take all that there is of something: others have theirs all the same.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustix::process::Uid;
use rustix::thread::set_thread_uid;
use serde_json::Value;
use steadfast_backplane::protocol::{Frame, Hello, VERSION};
use steadfast_backplane::{Client, JobId};

use crate::attached::{NOBODY, may_be_others};
use crate::place::{GUARD, Host};

/// Does something as another user, in a thread.
fn as_user<T: Send + 'static>(user: u32, act: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::spawn(move || {
        set_thread_uid(Uid::from_raw(user)).unwrap();
        act()
    })
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(GUARD)).unwrap();
    stream
}

/// Asks on a connection that stays.
fn ask(stream: &UnixStream, subject: &str) -> std::io::Result<Value> {
    let mut stream = stream;
    writeln!(stream, "{{\"version\":1,\"ask\":\"{subject}\"}}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

/// Has many connections of which each asks again and again; tells when all were answered.
fn hog(path: &Path, ends: &AtomicBool, answered: &Sender<()>) {
    let all: Vec<_> = (0..32).map(|_| connect(path)).collect();
    let mut answered = Some(answered);
    while !ends.load(Ordering::Acquire) {
        for stream in &all {
            assert!(ask(stream, "networks").unwrap()["networks"].is_array());
        }
        if let Some(answered) = answered.take() {
            answered.send(()).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_who_ask_without_end_keep_nobody_from_asking() {
    if !may_be_others("crowd::users_who_ask_without_end_keep_nobody_from_asking") {
        return;
    }
    let host = Host::started().await;
    let path = host.place().join("daemon.sock");
    let ends = Arc::new(AtomicBool::new(false));
    let (answered, all_answered) = channel();
    let hogs = [NOBODY - 1, NOBODY - 2].map(|user| {
        let (path, ends, answered) = (path.clone(), Arc::clone(&ends), answered.clone());
        as_user(user, move || hog(&path, &ends, &answered))
    });
    let asked = tokio::task::spawn_blocking(move || {
        for _ in 0..hogs.len() {
            all_answered.recv_timeout(GUARD).expect("those who hog are answered, too");
        }
        let asks = |path: PathBuf| move || ask(&connect(&path), "status").unwrap()["status"]["pid"].clone();
        let answers = [0, NOBODY].map(|user| as_user(user, asks(path.clone())).join());
        ends.store(true, Ordering::Release);
        for hog in hogs {
            hog.join().unwrap();
        }
        answers.map(|answer| answer.expect("an answer"))
    });
    assert_eq!(asked.await.unwrap(), [(); 2].map(|()| Value::from(std::process::id())));
}

/// What the agent says first to somebody who says who he is; none if it let go of him.
fn greet(stream: &UnixStream) -> Option<Frame> {
    let (mut stream, mut said) = (stream, Vec::new());
    let client = Client { name: "polite".parse().unwrap(), job: JobId::NONE, extension: 0 };
    Frame::Hello(Hello { lowest: VERSION, highest: VERSION, space: None, client }).encode(&mut said);
    // It may be gone.
    let _written = stream.write_all(&said);
    let (mut input, mut part) = (BytesMut::new(), [0; 1024]);
    loop {
        if let Some(frame) = Frame::decode(&mut input).unwrap() {
            return Some(frame);
        }
        match stream.read(&mut part) {
            Ok(count @ 1..) => input.extend_from_slice(&part[..count]),
            _ => return None,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_floods_the_agent_ends_nobody_elses_connection() {
    /// Who says nothing is let go after five seconds in any case.
    const IN_TIME: Duration = Duration::from_secs(4);
    if !may_be_others("crowd::a_user_who_floods_the_agent_ends_nobody_elses_connection") {
        return;
    }
    let host = Host::started().await;
    let path = host.place().join("agent.sock");
    let flooded = tokio::task::spawn_blocking(move || {
        let begin = Instant::now();
        loop {
            let (polite, since) = (connect(&path), Instant::now());
            let at = path.clone();
            let flood = as_user(NOBODY, move || {
                let mut all: Vec<_> = (0..100).map(|_| connect(&at)).collect();
                // Once the last are there the first are told, and let go.
                all[35].read_to_string(&mut String::new()).unwrap();
                all
            });
            let flood = flood.join().unwrap();
            let answer = greet(&polite);
            drop(flood);
            if matches!(answer, Some(Frame::Welcome(_))) {
                return;
            }
            assert!(since.elapsed() > IN_TIME, "{answer:?}");
            assert!(begin.elapsed() < GUARD, "this machine is too slow for the test");
        }
    });
    flooded.await.unwrap();
}
