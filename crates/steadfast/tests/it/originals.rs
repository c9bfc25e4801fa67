//! The acceptance cases of the original multi-socket, with today's API. Those that need no real network are in the
//! simulator, where every interleaving can be had.
//!
//! | original case | here |
//! |---|---|
//! | unit: insert, erase, holes, dependencies, lattice, removal, transitive drop | `sim` `lattice.rs` |
//! | unit: receive, receive across messages (`MSG_WAITALL`) | `sim` `lattice.rs::four_messages_..`; a program that wants a stream uses one streamed message |
//! | unit: chunks cut anew, one byte at a time | `sim` `lattice.rs::tiny_windows_..` |
//! | unit: estimation, flip-flop | `session` `estimate.rs`, `sim` `recovery.rs::a_slower_path_..` |
//! | `RandomBytesReceivedCorrectly` | [`random_bytes_arrive_unchanged`] |
//! | `OrderingSimple` | `conversation.rs::many_messages_in_order_..` |
//! | `OrderingReverse` | [`a_chain_filled_and_finished_in_reverse_arrives_in_order`], `sim` `lattice.rs` |
//! | `NoInterleaving` | [`a_thousand_streams_written_byte_by_byte_do_not_interleave`], `sim` `lattice.rs` |
//! | `PartialRecv` | [`a_partial_read_gives_what_is_there`], `sim` `lattice.rs` |
//! | `CMMPoll`, `ReceiveTimeout`, `Select` (timeout, interrupt) | [`a_wait_with_a_limit_ends_and_the_next_one_finds_the_message`] |
//! | `Select` (several) | [`a_select_over_two_conversations_finds_the_ready_one`] |
//! | `Peek` | no peeking: a dropped `recv` has taken nothing, `conversation.rs::a_dropped_send_..` |
//! | `HalfShutdown` | `ending.rs::half_close_..`, `sim` `closing.rs` |
//! | `DefaultIROBOrdering` over two hosts | [`alternating_urgencies_keep_their_order_across_networks`] |
//! | `Transfer`, `Fragmentation` without blocking | [`a_megabyte_passes_without_ever_waiting`] |
//! | `LabelsReturnedOnIROBBoundaries` | `conversation.rs::messages_both_ways_..`, [`alternating_urgencies_keep_their_order_across_networks`] |
//! | `DroppedIROBFailureCases` | [`what_was_dropped_takes_no_more_and_nothing_may_wait_for_it`] |
//! | `DroppedIROBWithDefaultIROBs` | `conversation.rs::a_cancelled_message_..`, [`what_was_dropped_takes_no_more_and_nothing_may_wait_for_it`] |
//! | `Buffers` (`SO_SNDBUF`) | sockets are the library's own; bounds are `Config::windows` and `send_buffers`, `sim` `credit.rs` |
//! | `Trickle` (its expectation, all foreground before all background, was that of an older policy) | [`foreground_passes_a_pipeline_of_background_on_one_socket`] |
//! | `multi_app_test`: same socket, two sockets, two processes | `foreground_passes_..` on one socket, on two, and on two endpoints |
//! | `OneNetworkFails` | `middle.rs::who_holds_everything_back_..` |
//! | `Thunks`, `BlockingSend`, failure timeouts | with deferral, which is not there yet |
//! | `shmem_test` (queues seen across processes) | with the daemon's arbitration, which is not there yet |
//! | `spotty_network`, scout up and down | `networks.rs`, `faults.rs` |
//! | Java wrapper (timeouts, several waiters, close wakes a waiter) | `ending.rs::a_blocked_reader_..`, here as above |

use crate::common::{meet, next, soon, talking};
use crate::world::{GUARD, block_on, close_after_peer, endpoint, two_networks};
use std::time::Duration;
use steadfast::{
    DropReason, Endpoint, Identity, Labels, MessageId, MultiSocket, OrderRequest, Ordering, Outcome,
    SendError, SessionConfig, Urgency,
};
use steadfast_testbed::{Lab, LinkBuilder, isolated};
use tokio::sync::oneshot;

type Links = for<'lab> fn(LinkBuilder<'lab>, LinkBuilder<'lab>) -> [LinkBuilder<'lab>; 2];

/// Runs the two sides of a conversation on two hosts with two networks; the second only takes, and may leave first.
fn over_two_networks(
    test: &str,
    ordering: Ordering,
    links: Links,
    at_a: impl AsyncFnOnce(MultiSocket, Endpoint, String) + Send,
    at_b: impl AsyncFnOnce(MultiSocket, Endpoint) + Send,
) {
    isolated(&format!("originals::{test}"), || {
        crate::common::log();
        let lab = Lab::new().unwrap();
        let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
        let _links =
            links(lab.link("wifi", &a, &b), lab.link("lte", &a, &b)).map(|link| link.connect().unwrap());
        let (a_key, b_key) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let a_print = a_key.fingerprint();
        let mut config = SessionConfig::default();
        config.ordering = ordering;
        let (contact_out, contact_in) = oneshot::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                b.run(|| {
                    block_on(async {
                        let endpoint = endpoint()
                            .identity(b_key)
                            .trust(a_print)
                            .session_config(config)
                            .bind()
                            .await
                            .unwrap();
                        contact_out.send(endpoint.contact()).unwrap();
                        let socket = endpoint.accept().await.unwrap();
                        at_b(socket.clone(), endpoint.clone()).await;
                        close_after_peer(&socket).await;
                        endpoint.close("the test is over").await;
                    });
                });
            });
            a.run(|| {
                block_on(async {
                    let endpoint = endpoint().identity(a_key).session_config(config).bind().await.unwrap();
                    let contact = contact_in.await.unwrap();
                    let socket = endpoint.connect(&contact).await.unwrap();
                    let mut guard = tokio::time::interval(Duration::from_millis(1));
                    while endpoint.paths().len() < 2 {
                        guard.tick().await;
                    }
                    at_a(socket.clone(), endpoint.clone(), contact).await;
                    socket.close_within(GUARD).await.unwrap();
                    endpoint.close("the test is over").await;
                });
            });
        });
    });
}

/// Bytes without a pattern, the same each time.
fn random(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let step = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

#[test]
fn random_bytes_arrive_unchanged() {
    over_two_networks(
        "random_bytes_arrive_unchanged",
        Ordering::PerUrgency,
        two_networks,
        async |socket, _, _| {
            for labels in [Labels::foreground(), Labels::background()] {
                socket.send(random(4096), labels).await.unwrap();
            }
            socket.finish().unwrap();
            assert!(next(&socket).await.is_none());
        },
        async |socket, _| {
            for _ in 0..2 {
                assert_eq!(next(&socket).await.unwrap(), random(4096));
            }
            assert!(next(&socket).await.is_none());
            socket.finish().unwrap();
        },
    );
}

#[test]
fn alternating_urgencies_keep_their_order_across_networks() {
    const COUNT: u32 = 400;
    let labels =
        |number: u32| if number.is_multiple_of(2) { Labels::foreground() } else { Labels::background() };
    over_two_networks(
        "alternating_urgencies_keep_their_order_across_networks",
        Ordering::Total,
        two_networks,
        async |socket, _, _| {
            for number in 0..COUNT {
                // The background ones take long enough to be on both networks.
                let length = if number.is_multiple_of(2) { 4 } else { 8000 };
                let mut bytes = vec![0; length];
                bytes[..4].copy_from_slice(&number.to_be_bytes());
                socket.send(bytes, labels(number)).await.unwrap();
            }
            socket.finish().unwrap();
            assert!(next(&socket).await.is_none());
        },
        async |socket, _| {
            for number in 0..COUNT {
                let message = soon("recv", socket.recv()).await.unwrap().unwrap();
                assert_eq!(message.labels, labels(number));
                assert_eq!(message.into_bytes().await.unwrap()[..4], number.to_be_bytes());
            }
            assert!(next(&socket).await.is_none());
            socket.finish().unwrap();
        },
    );
}

#[test]
fn a_chain_filled_and_finished_in_reverse_arrives_in_order() {
    const COUNT: u8 = 10;
    over_two_networks(
        "a_chain_filled_and_finished_in_reverse_arrives_in_order",
        Ordering::PerUrgency,
        two_networks,
        async |socket, _, _| {
            let mut writers = Vec::new();
            for _ in 0..COUNT {
                let last: Option<MessageId> = writers.last().map(steadfast::MessageWriter::id);
                let order = last.map_or(OrderRequest::Unordered, |id| OrderRequest::After(vec![id]));
                writers.push(socket.begin_with(Labels::foreground(), order, None).await.unwrap());
            }
            for (number, mut writer) in writers.into_iter().enumerate().rev() {
                writer.write(vec![number as u8; 5000]).await.unwrap();
                writer.finish().await.unwrap();
            }
            socket.finish().unwrap();
            assert!(next(&socket).await.is_none());
        },
        async |socket, _| {
            for number in 0..COUNT {
                assert_eq!(next(&socket).await.unwrap(), vec![number; 5000]);
            }
            socket.finish().unwrap();
        },
    );
}

#[test]
fn a_thousand_streams_written_byte_by_byte_do_not_interleave() {
    const STREAMS: usize = 1024;
    const LENGTH: usize = 12;
    let bytes = random(STREAMS * LENGTH);
    over_two_networks(
        "a_thousand_streams_written_byte_by_byte_do_not_interleave",
        Ordering::PerUrgency,
        two_networks,
        async |socket, _, _| {
            let mut writers = Vec::new();
            for number in 0..STREAMS {
                let labels =
                    if number.is_multiple_of(2) { Labels::foreground() } else { Labels::background() };
                writers.push(socket.begin_with(labels, OrderRequest::Unordered, None).await.unwrap());
            }
            for place in 0..LENGTH {
                for (number, writer) in writers.iter_mut().enumerate() {
                    writer.write(vec![bytes[number * LENGTH + place]]).await.unwrap();
                }
            }
            for writer in writers {
                writer.finish().await.unwrap();
            }
            socket.finish().unwrap();
            assert!(next(&socket).await.is_none());
        },
        async |socket, _| {
            let mut seen = vec![false; STREAMS];
            while let Some(message) = soon("recv", socket.recv()).await.unwrap() {
                let number = message.id.0 as usize - 1;
                assert!(!std::mem::replace(&mut seen[number], true), "stream {number} came twice");
                let got = soon("its bytes", message.into_bytes()).await.unwrap();
                assert_eq!(got, bytes[number * LENGTH..][..LENGTH], "stream {number}");
            }
            assert!(!seen.contains(&false), "all came");
            socket.finish().unwrap();
        },
    );
}

#[tokio::test]
async fn a_partial_read_gives_what_is_there() {
    let (_a, _b, at_a, at_b) = talking().await;
    for round in 0..3_u8 {
        let mut writer = at_a.begin(Labels::foreground()).await.unwrap();
        writer.write(vec![round; 3]).await.unwrap();
        let mut message = soon("recv", at_b.recv()).await.unwrap().unwrap();
        assert_eq!(soon("three bytes", message.read_chunk()).await.unwrap().unwrap(), vec![round; 3]);
        writer.write(vec![round + 1; 3]).await.unwrap();
        assert_eq!(soon("three more", message.read_chunk()).await.unwrap().unwrap(), vec![round + 1; 3]);
        writer.finish().await.unwrap();
        assert!(soon("the end", message.read_chunk()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_wait_with_a_limit_ends_and_the_next_one_finds_the_message() {
    let (_a, _b, at_a, at_b) = talking().await;
    for number in 0..20_u8 {
        // Nothing was sent, so nothing can come, however long the limit.
        tokio::time::timeout(Duration::from_millis(1), at_b.recv()).await.unwrap_err();
        at_a.send(vec![number], Labels::foreground()).await.unwrap();
        assert_eq!(next(&at_b).await.unwrap(), vec![number]);
    }
    // A wait that is given up at any moment loses nothing.
    let sender = tokio::spawn(async move {
        for number in 0..500_u32 {
            at_a.send(number.to_be_bytes().to_vec(), Labels::foreground()).await.unwrap();
            tokio::task::yield_now().await;
        }
        at_a
    });
    let mut received = 0_u32;
    while received < 500 {
        tokio::select! {
            biased;
            message = soon("recv", at_b.recv()) => {
                let bytes = message.unwrap().unwrap().into_bytes().await.unwrap();
                assert_eq!(bytes, received.to_be_bytes().to_vec());
                received += 1;
            }
            () = tokio::task::yield_now() => {}
        }
    }
    drop(soon("sender", sender).await.unwrap());
}

#[tokio::test]
async fn a_select_over_two_conversations_finds_the_ready_one() {
    let (a, b, first_a, first_b) = talking().await;
    let (second_a, second_b) = meet(&a, &b).await;
    for number in 0..20_u8 {
        let (from, expected) = if number.is_multiple_of(3) { (&first_a, 1) } else { (&second_a, 2) };
        from.send(vec![number], Labels::foreground()).await.unwrap();
        let (which, message) = tokio::select! {
            message = soon("recv", first_b.recv()) => (1, message),
            message = soon("recv", second_b.recv()) => (2, message),
        };
        assert_eq!(which, expected);
        assert_eq!(message.unwrap().unwrap().payload().unwrap(), &vec![number]);
    }
}

#[tokio::test]
async fn a_megabyte_passes_without_ever_waiting() {
    let (_a, _b, at_a, at_b) = talking().await;
    assert!(at_b.try_recv().unwrap().is_none());
    // One message as large as they come, which takes many records, and then more than the buffers hold.
    let whole = bytes::Bytes::from(random(1 << 20));
    let (mut sent, mut received, mut full) = (0, 0, false);
    soon("all of it", async {
        while received < 12 {
            if sent < 12 {
                match at_a.try_send(whole.clone(), Labels::foreground()) {
                    Ok(_) => sent += 1,
                    Err(SendError::Full(Urgency::Foreground)) => full = true,
                    Err(error) => panic!("{error}"),
                }
            }
            // The buffers fill before anything is taken.
            if full && let Some(message) = at_b.try_recv().unwrap() {
                assert!(message.payload().unwrap() == &whole, "message {received} is wrong");
                received += 1;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(full, "a buffer that never fills stops nobody");
}

#[tokio::test]
async fn what_was_dropped_takes_no_more_and_nothing_may_wait_for_it() {
    let (_a, _b, at_a, at_b) = talking().await;
    let mut writer = at_a.begin_with(Labels::foreground(), OrderRequest::Unordered, None).await.unwrap();
    writer.write("half").await.unwrap();
    let dropped = writer.id();
    at_a.cancel(dropped).unwrap();
    assert_eq!(writer.write("more").await, Err(SendError::NotOpen(dropped)));
    let receipt = writer.cancel();
    assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Dropped(DropReason::Cancelled));
    let refused = at_a.send_with("waits", Labels::foreground(), OrderRequest::After(vec![dropped])).await;
    assert!(refused.is_err(), "{refused:?}");
    // Those that say nothing wait for nothing that was dropped.
    let receipts = [Labels::foreground(), Labels::background()].map(|labels| at_a.send("goes on", labels));
    for receipt in receipts {
        let receipt = receipt.await.unwrap();
        loop {
            let message = soon("recv", at_b.recv()).await.unwrap().unwrap();
            // The beginning of the one that was dropped may have come.
            if message.id != dropped {
                assert_eq!(message.id, receipt.id());
                assert_eq!(message.payload().unwrap(), "goes on");
                break;
            }
        }
        assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Delivered);
    }
}

/// Some two seconds of the networks.
const PIECES: u32 = 24;
const PIECE: usize = 256 * 1024;
const QUESTIONS: u32 = 20;

/// Keeps four pieces under way, as an upload does.
async fn pipeline(socket: &MultiSocket) {
    let mut receipts = std::collections::VecDeque::new();
    for number in 0..PIECES {
        let piece = vec![number as u8; PIECE];
        receipts.push_back(socket.send(piece, Labels::background()).await.unwrap());
        if receipts.len() == 4
            && let Some(oldest) = receipts.pop_front()
        {
            assert_eq!(soon("outcome", oldest.outcome()).await, Outcome::Delivered);
        }
    }
    for receipt in receipts {
        assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Delivered);
    }
}

/// Asks one question after the other.
async fn questions(socket: &MultiSocket) {
    for number in 0..QUESTIONS {
        socket.send(vec![number as u8; 128], Labels::foreground()).await.unwrap();
        let message = soon("an answer", socket.recv()).await.unwrap().unwrap();
        assert_eq!(message.payload().unwrap(), &vec![number as u8; 128]);
    }
}

/// Takes pieces and answers questions, each once and in order.
async fn serve(socket: &MultiSocket) -> [u32; 2] {
    let mut next = [0; 2];
    while let Some(message) = soon("recv", socket.recv()).await.unwrap() {
        let urgency = message.labels.urgency;
        let bytes = message.into_bytes().await.unwrap();
        let number = next[urgency.index()];
        next[urgency.index()] += 1;
        let length = if urgency == Urgency::Foreground { 128 } else { PIECE };
        assert!(bytes == vec![number as u8; length], "{urgency:?} {number}");
        if urgency == Urgency::Foreground {
            socket.send(bytes, Labels::foreground()).await.unwrap();
        }
    }
    socket.finish().unwrap();
    next
}

/// All questions are answered before the pipeline, which began first and never stops, is through.
async fn race(background: MultiSocket, foreground: MultiSocket) {
    let pipeline = async {
        pipeline(&background).await;
        "background"
    };
    let questions = async {
        questions(&foreground).await;
        "foreground"
    };
    let (mut pipeline, mut questions) = (std::pin::pin!(pipeline), std::pin::pin!(questions));
    let first = tokio::select! {
        biased;
        first = &mut pipeline => first,
        first = &mut questions => first,
    };
    assert_eq!(first, "foreground", "background went first");
    pipeline.await;
}

#[test]
fn foreground_passes_a_pipeline_of_background_on_one_socket() {
    over_two_networks(
        "foreground_passes_a_pipeline_of_background_on_one_socket",
        Ordering::PerUrgency,
        two_networks,
        async |socket, _, _| {
            race(socket.clone(), socket.clone()).await;
            socket.finish().unwrap();
            assert!(next(&socket).await.is_none());
        },
        async |socket, _| assert_eq!(serve(&socket).await, [QUESTIONS, PIECES]),
    );
}

#[test]
fn foreground_passes_a_pipeline_of_background_on_two_sockets() {
    over_two_networks(
        "foreground_passes_a_pipeline_of_background_on_two_sockets",
        Ordering::PerUrgency,
        two_networks,
        async |socket, endpoint, contact| {
            let urgent = endpoint.connect(contact).await.unwrap();
            race(socket.clone(), urgent.clone()).await;
            for socket in [&socket, &urgent] {
                socket.finish().unwrap();
                assert!(next(socket).await.is_none());
            }
        },
        async |socket, endpoint| {
            let urgent = endpoint.accept().await.unwrap();
            let (background, foreground) = tokio::join!(serve(&socket), serve(&urgent));
            assert_eq!((background, foreground), ([0, PIECES], [QUESTIONS, 0]));
        },
    );
}

/// Two processes: until the daemon arbitrates between them, what they share is the wire.
#[test]
fn foreground_passes_a_pipeline_of_background_on_two_endpoints() {
    let (key_out, key_in) = oneshot::channel();
    let (second_out, second_in) = oneshot::channel();
    over_two_networks(
        "foreground_passes_a_pipeline_of_background_on_two_endpoints",
        Ordering::PerUrgency,
        two_networks,
        async |socket, _, _| {
            let identity = Identity::generate().unwrap();
            key_out.send(identity.fingerprint()).unwrap();
            let contact: String = second_in.await.unwrap();
            let second = endpoint().identity(identity).bind().await.unwrap();
            let urgent = second.connect(contact).await.unwrap();
            race(socket.clone(), urgent.clone()).await;
            for socket in [&socket, &urgent] {
                socket.finish().unwrap();
                assert!(next(socket).await.is_none());
            }
            urgent.close_within(GUARD).await.unwrap();
            second.close("the test is over").await;
        },
        async |socket, _| {
            let key = key_in.await.unwrap();
            let second = endpoint().identity(Identity::generate().unwrap()).trust(key).bind().await.unwrap();
            second_out.send(second.contact()).unwrap();
            let urgent = second.accept().await.unwrap();
            let (background, foreground) = tokio::join!(serve(&socket), serve(&urgent));
            assert_eq!((background, foreground), ([0, PIECES], [QUESTIONS, 0]));
            close_after_peer(&urgent).await;
            second.close("the test is over").await;
        },
    );
}
