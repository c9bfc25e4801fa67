//! What a carrier promises about bytes, limits and endings.

use crate::common::{carrier_pair, ending, guarded, loopback, receive, send};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use steadfast_net::carrier::{ReadState, WriteState, congestion};
use steadfast_net::{ConnectOptions, Listener, connect};

fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[tokio::test]
async fn bytes_arrive_in_order_both_ways_at_every_record_size() {
    let (mut one, mut other) = carrier_pair().await;
    for size in [0, 1400, 16 * 1024, 100_000, 256 * 1024, usize::MAX] {
        one.set_record_size(size);
        other.set_record_size(size);
        let bytes = pattern(3_000_001);
        guarded(async {
            // One after the other in each direction, since a single task holds each end.
            let (sent, got) = tokio::join!(send(&mut one, &bytes), receive(&mut other, bytes.len()));
            sent.unwrap();
            assert!(got.unwrap().0 == bytes, "record size {size}");
            let (sent, got) = tokio::join!(send(&mut other, &bytes), receive(&mut one, bytes.len()));
            sent.unwrap();
            assert!(got.unwrap().0 == bytes, "record size {size}, back");
        })
        .await;
    }
}

#[tokio::test]
async fn nothing_is_asked_for_while_the_kernel_has_enough() {
    const LIMIT: u32 = 256 * 1024;
    const RECORD: usize = 4096;
    let (mut carrier, _silent) = carrier_pair().await;
    carrier.set_unsent_limit(LIMIT).unwrap();
    carrier.set_record_size(RECORD);
    let socket = carrier.socket();
    let mut most = 0;
    loop {
        let mut asked = 0;
        // One record a call, so that the kernel can be looked at after each.
        let state = carrier
            .try_write(&mut |out, room| {
                asked += 1;
                if asked == 1 {
                    out.put_bytes(&vec![7; room]);
                }
                asked == 1
            })
            .unwrap();
        most = most.max(carrier.tcp_info().unwrap().unsent_bytes);
        if state == WriteState::Blocked {
            assert!(!carrier.wants_write(), "a record this small is taken whole");
            // The peer does not read: at last the socket stays full. Should this end too early, less is tested.
            if tokio::time::timeout(Duration::from_millis(500), socket.writable()).await.is_err() {
                break;
            }
        }
    }
    // Below half of the limit when it was last asked, then an eighth, and the last record.
    let bound = LIMIT / 2 + LIMIT / 8 + RECORD as u32 + 1024;
    assert!(most <= bound, "{most} bytes unsent, at most {bound} were allowed");
    assert!(most > LIMIT / 4, "the kernel never held much ({most}), nothing was tested");
    for _ in 0..10 {
        let state = carrier.try_write(&mut |_, _| panic!("asked although the kernel has enough")).unwrap();
        assert_eq!(state, WriteState::Blocked);
    }
}

/// On two threads, so that the kernel may become writable between any two steps of the writer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_writer_goes_on_when_the_peer_reads() {
    for limit in [1, 20_000, 300_000] {
        let (mut carrier, mut peer) = carrier_pair().await;
        carrier.set_unsent_limit(limit).unwrap();
        carrier.set_record_size(1400);
        let bytes = pattern(5_000_000);
        let sent = bytes.clone();
        let sending = tokio::spawn(async move {
            send(&mut carrier, &sent).await.unwrap();
            carrier
        });
        let receiving = tokio::spawn(async move { receive(&mut peer, 5_000_000).await.unwrap().0 });
        assert!(guarded(receiving).await.unwrap() == bytes);
        guarded(sending).await.unwrap();
    }
}

#[tokio::test]
async fn one_call_is_bounded() {
    let (mut carrier, mut peer) = carrier_pair().await;
    let bytes = pattern(300_000);
    let (sent, ()) = guarded(async {
        tokio::join!(send(&mut carrier, &bytes), async {
            let socket = peer.socket();
            let mut got = bytes::BytesMut::new();
            while got.len() < 300_000 {
                let before = got.len();
                let state = peer.try_read(&mut got, 1000).unwrap();
                // What one read of the socket gave goes out whole.
                assert!(got.len() - before <= 1000 + 128 * 1024);
                match state {
                    ReadState::Blocked if got.len() < 300_000 => socket.readable().await.unwrap(),
                    ReadState::Blocked | ReadState::More => tokio::task::yield_now().await,
                    over => panic!("{over:?}"),
                }
            }
        })
    })
    .await;
    sent.unwrap();
}

#[tokio::test]
async fn a_farewell_is_told_from_a_crash_and_a_reset() {
    let (mut carrier, mut peer) = carrier_pair().await;
    assert_eq!(guarded(async { carrier.try_close() }).await.unwrap(), WriteState::Idle);
    assert_eq!(ending(&mut peer).await, ReadState::Closed);
    assert_eq!(ending(&mut peer).await, ReadState::Closed, "it stays over");
    let state = carrier.try_write(&mut |_, _| panic!("asked after the farewell")).unwrap();
    assert_eq!(state, WriteState::Idle);
    send(&mut peer, b"still").await.unwrap();
    assert_eq!(
        &guarded(receive(&mut carrier, 5)).await.unwrap().0[..],
        b"still",
        "the other direction is open"
    );

    let (carrier, mut peer) = carrier_pair().await;
    drop(carrier);
    assert_eq!(ending(&mut peer).await, ReadState::Truncated);
    assert_eq!(ending(&mut peer).await, ReadState::Truncated, "it stays over");

    let (mut carrier, mut peer) = carrier_pair().await;
    carrier.reset();
    assert_eq!(ending(&mut peer).await, ReadState::Reset);
}

#[tokio::test]
async fn a_reset_discards_and_wakes_although_the_socket_is_shared() {
    let (mut carrier, mut peer) = carrier_pair().await;
    let bytes = vec![7; 64 * 1024 * 1024];
    let socket = carrier.socket();
    // Until the kernel is full, since the peer does not read.
    let sending = tokio::time::timeout(Duration::from_millis(200), send(&mut carrier, &bytes)).await;
    assert!(sending.is_err(), "64 MiB went into a connection that nobody reads");
    let waiter = tokio::spawn(async move { socket.readable().await });
    tokio::task::yield_now().await;
    carrier.reset();
    guarded(waiter).await.unwrap().unwrap();
    let (got, state) = guarded(receive(&mut peer, usize::MAX)).await.unwrap();
    assert_eq!(state, ReadState::Reset);
    assert!(got.len() < bytes.len());
}

#[tokio::test]
async fn closing_waits_for_the_peer() {
    let (carrier, mut peer) = carrier_pair().await;
    let closing = tokio::spawn(carrier.close(crate::common::GUARD));
    assert_eq!(ending(&mut peer).await, ReadState::Closed);
    drop(peer);
    guarded(closing).await.unwrap().unwrap();
    let (carrier, _peer) = carrier_pair().await;
    let error = guarded(carrier.close(Duration::from_millis(20))).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn the_kernel_tells_of_the_connection() {
    let (mut carrier, mut peer) = carrier_pair().await;
    let bytes = pattern(100_000);
    let (sent, got) =
        guarded(async { tokio::join!(send(&mut carrier, &bytes), receive(&mut peer, bytes.len())) }).await;
    sent.unwrap();
    got.unwrap();
    let (sender, receiver) = (carrier.tcp_info().unwrap(), peer.tcp_info().unwrap());
    assert!(receiver.received_bytes > 100_000, "{receiver:?}");
    assert!(sender.acknowledged_bytes > 0 && sender.rtt > Duration::ZERO, "{sender:?}");
    assert!(sender.segment_size > 500 && sender.congestion_window > 0, "{sender:?}");
}

#[tokio::test]
async fn sockets_are_tuned_and_close_on_exec() {
    let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap();
    let (one, other) = carrier_pair().await;
    for carrier in [&one, &other] {
        let socket = carrier.socket();
        assert!(socket.nodelay().unwrap());
        let flags = rustix::io::fcntl_getfd(&*socket).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let used = congestion(&socket).unwrap();
        if known.split_whitespace().any(|name| name == "cubic") {
            assert_eq!(used, "cubic");
        } else {
            eprintln!("SKIPPED congestion control: this kernel has {known}, no cubic");
        }
    }
}

#[tokio::test]
async fn connecting_over_a_device_and_from_an_address() {
    let mut listener = Listener::bind(&[loopback()]).unwrap();
    let remote = listener.local_addrs()[0];
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    let options = ConnectOptions { remote, device: Some("lo".into()), source: Some(source) };
    let stream = guarded(connect(&options)).await.unwrap();
    assert_eq!(stream.local_addr().unwrap().ip(), source);
    assert_eq!(socket2::SockRef::from(&stream).device().unwrap().unwrap(), b"lo");
    assert_eq!(guarded(listener.accept()).await.1.ip(), source);

    let options = ConnectOptions { device: Some("nosuchdevice".into()), ..ConnectOptions::to(remote) };
    let error = guarded(connect(&options)).await.unwrap_err().to_string();
    assert!(error.contains(&format!("{remote} over nosuchdevice")), "{error}");
    drop(listener);
    let error = guarded(connect(&ConnectOptions::to(remote))).await.unwrap_err().to_string();
    assert!(error.contains("check that Steadfast listens there"), "{error}");
}
