//! Streamed messages.

use crate::common::{next, soon, talking};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use steadfast::{DropReason, Labels, OrderRequest, Outcome, ReadError};

const PIECE: usize = 64 * 1024;
const TOTAL: usize = 20 << 20;

#[tokio::test]
async fn a_slow_reader_stops_the_writer() {
    let (_a, _b, at_a, at_b) = talking().await;
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let writer = tokio::spawn(async move {
        let mut message =
            at_a.begin_with(Labels::foreground(), OrderRequest::Default, Some(TOTAL as u64)).await.unwrap();
        for number in 0..TOTAL / PIECE {
            message.write(vec![number as u8; PIECE]).await.unwrap();
            count.fetch_add(PIECE, Ordering::Relaxed);
        }
        (message.finish().await.unwrap(), at_a)
    });
    let mut message = soon("recv", at_b.recv()).await.unwrap().unwrap();
    assert!(message.is_streamed() && message.payload().is_none());
    assert_eq!(message.len_hint(), Some(TOTAL as u64));
    let mut read = 0;
    let mut furthest = 0;
    while let Some(chunk) = soon("chunk", message.read_chunk()).await.unwrap() {
        for byte in &chunk {
            assert_eq!(*byte, (read / PIECE) as u8, "at {read}");
            read += 1;
        }
        // All others run until nobody can go on but the reader.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        furthest = furthest.max(written.load(Ordering::Relaxed) - read);
    }
    assert_eq!(read, TOTAL);
    // A window and a send buffer of 4 MiB, and what the sockets hold.
    assert!(furthest < 12 << 20, "the writer ran {furthest} bytes ahead");
    let (receipt, _at_a) = soon("writer", writer).await.unwrap();
    assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Delivered);
}

#[tokio::test]
async fn dropping_a_writer_cancels_and_dropping_a_reader_refuses() {
    let (_a, _b, at_a, at_b) = talking().await;
    let mut writer = at_a.begin(Labels::foreground()).await.unwrap();
    writer.write("half of it").await.unwrap();
    let mut message = soon("recv", at_b.recv()).await.unwrap().unwrap();
    assert_eq!(soon("chunk", message.read_chunk()).await.unwrap().unwrap(), "half of it");
    let receipt = writer.cancel();
    assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Dropped(DropReason::Cancelled));
    assert_eq!(soon("end", message.read_chunk()).await.unwrap_err(), ReadError::Dropped);
    drop(message);

    let mut writer = at_a.begin(Labels::foreground()).await.unwrap();
    writer.write("unwanted").await.unwrap();
    drop(soon("recv", at_b.recv()).await.unwrap().unwrap());
    let error = soon("refusal", async {
        loop {
            if let Err(error) = writer.write(Bytes::from_static(b"more")).await {
                break error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(error.to_string().contains("not open"), "{error}");
    assert_eq!(soon("outcome", writer.cancel().outcome()).await, Outcome::Dropped(DropReason::Refused));
    at_a.send("after", Labels::foreground()).await.unwrap();
    assert_eq!(next(&at_b).await.unwrap(), "after");
}

#[tokio::test]
async fn into_bytes_has_a_limit() {
    let (_a, _b, at_a, at_b) = talking().await;
    let mut writer = at_a.begin(Labels::foreground()).await.unwrap();
    writer.write(vec![0; 1000]).await.unwrap();
    writer.finish().await.unwrap();
    let message = soon("recv", at_b.recv()).await.unwrap().unwrap();
    let error = soon("bytes", message.into_bytes_within(999)).await.unwrap_err();
    assert_eq!(error, ReadError::TooLong { limit: 999 });
    let mut writer = at_a.begin(Labels::foreground()).await.unwrap();
    writer.write(vec![7; 1000]).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(next(&at_b).await.unwrap(), vec![7; 1000]);
}
