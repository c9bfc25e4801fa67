//! A stream on this host in a process that has no descriptor left.

use rustix::process::{Resource, Rlimit, setrlimit};
use std::io;
use std::os::unix::net::UnixStream;
use std::process::Command;
use steadfast_net::LocalStream;

const WHERE: &str = "STEADFAST_TEST_DESCRIPTORS";
const BYTES: usize = 3_000_000;

#[test]
fn who_reads_slowly_is_waited_for_without_a_descriptor() {
    // In a process of its own, or other tests would have none either.
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "local::writer_without_descriptors", "--nocapture"]).env(WHERE, "1");
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && said.contains("it waited"), "{said}{done:?}");
}

/// No test by itself: the process of the one above.
#[test]
fn writer_without_descriptors() {
    if std::env::var_os(WHERE).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        let (one, other) = (LocalStream::new(one).unwrap(), LocalStream::new(other).unwrap());
        setrlimit(Resource::Nofile, Rlimit { current: Some(5), maximum: Some(5) }).unwrap();
        let (bytes, mut written) = (vec![7; BYTES], 0);
        // Nobody reads before there is no room.
        while let Ok(count) = one.try_write(&bytes[written..]) {
            written += count;
        }
        let reader = tokio::spawn(async move {
            let (mut came, mut chunk) = (0, vec![0; 5000]);
            while came < BYTES {
                let count = other.read(&mut chunk).await.unwrap();
                assert!(count > 0, "it was cut");
                came += count;
            }
        });
        while written < BYTES {
            one.writable().await.unwrap();
            match one.try_write(&bytes[written..]) {
                Ok(count) => written += count,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        reader.await.unwrap();
        eprintln!("it waited");
    });
}
