//! Byte streams over one conversation.

use crate::common::{cut, meet, pair, soon, talking};
use bytes::Bytes;
use std::io::{self, ErrorKind};
use std::time::Duration;
use steadfast::{
    DropReason, Endpoint, Labels, NetworkClass, OrderRequest, Selector, Selectors, Stream, StreamError,
    Streams, Urgency,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// As many streams as a peer may have open.
const MAX_STREAMS: usize = 512;

async fn streams() -> (Endpoint, Endpoint, Streams, Streams) {
    let (a, b, at_a, at_b) = talking().await;
    (a, b, Streams::new(at_a), Streams::new(at_b))
}

async fn open(streams: &Streams, labels: Labels) -> Stream {
    soon("open", streams.open(labels)).await.unwrap()
}

async fn accept(streams: &Streams) -> Stream {
    soon("accept", streams.accept()).await.unwrap().unwrap()
}

fn pattern(salt: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 251 + at + salt) as u8).collect()
}

/// The reason that an error carries.
fn reason(error: &io::Error) -> &StreamError {
    let source = error.get_ref().unwrap();
    source.downcast_ref().unwrap_or_else(|| panic!("no reason: {error:?}"))
}

/// Reads until the end, which is an error.
async fn broken(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Error {
    soon("the end", stream.read_to_end(&mut Vec::new())).await.unwrap_err()
}

/// Writes until that fails.
async fn refused(stream: &mut (impl AsyncWriteExt + Unpin)) -> io::Error {
    soon("a refusal", async {
        loop {
            if let Err(error) = stream.write_all(&[7; 10_000]).await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn many_streams_at_once_each_with_its_labels() {
    let (_a, _b, at_a, at_b) = streams().await;
    tokio::spawn(async move {
        while let Ok(Some(mut stream)) = at_b.accept().await {
            tokio::spawn(async move {
                let avoids = stream.labels().rule.selectors().avoid.len() as u8;
                let urgency = stream.labels().urgency;
                stream.write_all(&[avoids, u8::from(urgency == Urgency::Foreground)]).await.unwrap();
                let (mut read, mut write) = stream.into_split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
    });
    let mut all = JoinSet::new();
    for number in 0..60 {
        let at_a = at_a.clone();
        all.spawn(async move {
            let avoid = vec![Selector::Class(NetworkClass::Cellular); number % 3];
            let labels = if number % 2 == 0 { Labels::foreground() } else { Labels::background() };
            let stream =
                at_a.open(labels.rule(Selectors { avoid, ..Selectors::default() }.into())).await.unwrap();
            let (mut read, mut write) = stream.into_split();
            let sent = pattern(number, number * 20_000);
            let copy = sent.clone();
            let writing = tokio::spawn(async move {
                write.write_all(&copy).await.unwrap();
                write.shutdown().await.unwrap();
            });
            let mut back = Vec::new();
            read.read_to_end(&mut back).await.unwrap();
            assert_eq!(back[..2], [(number % 3) as u8, u8::from(number % 2 == 0)], "labels of {number}");
            assert!(back[2..] == sent, "{number}: {} of {} bytes", back.len() - 2, sent.len());
            writing.await.unwrap();
        });
    }
    soon("all of them", async {
        while let Some(one) = all.join_next().await {
            one.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn either_direction_ends_by_itself() {
    let (_a, _b, at_a, at_b) = streams().await;
    for first in ["opener", "acceptor"] {
        let mut opened = open(&at_a, Labels::foreground()).await;
        let mut accepted = accept(&at_b).await;
        let (one, other) =
            if first == "opener" { (&mut opened, &mut accepted) } else { (&mut accepted, &mut opened) };
        one.write_all(b"question").await.unwrap();
        soon("shutdown", one.shutdown()).await.unwrap();
        assert_eq!(one.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        let mut text = String::new();
        soon("the question", other.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "question", "{first}");
        // Long after the other direction has ended.
        let answer = pattern(1, 700_000);
        let (mut read, mut back) = (Vec::new(), answer.clone());
        let (written, _) = soon("the answer", async {
            tokio::join!(
                async {
                    other.write_all(&answer).await?;
                    other.shutdown().await
                },
                one.read_to_end(&mut read)
            )
        })
        .await;
        written.unwrap();
        back.truncate(read.len());
        assert!(read == back && read.len() == answer.len(), "{first}: {} bytes", read.len());
    }
    // An end without a byte, in both directions.
    let mut opened = open(&at_a, Labels::background()).await;
    let mut accepted = accept(&at_b).await;
    for (one, other) in [(0, 1), (1, 0)] {
        let both = [&mut opened, &mut accepted];
        soon("shutdown", both[one].shutdown()).await.unwrap();
        assert_eq!(soon("end", both[other].read(&mut [0; 9])).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn dropping_is_a_reset_and_not_an_end() {
    let (_a, _b, at_a, at_b) = streams().await;
    // The opener, after some bytes.
    let mut opened = open(&at_a, Labels::foreground()).await;
    opened.write_all(b"half of it").await.unwrap();
    let mut accepted = accept(&at_b).await;
    let mut some = [0; 10];
    soon("some", accepted.read_exact(&mut some)).await.unwrap();
    drop(opened);
    let error = broken(&mut accepted).await;
    assert_eq!((error.kind(), reason(&error)), (ErrorKind::ConnectionReset, &StreamError::Reset));
    assert_eq!(refused(&mut accepted).await.kind(), ErrorKind::BrokenPipe);
    // The acceptor, which never said a word.
    let mut opened = open(&at_a, Labels::foreground()).await;
    drop(accept(&at_b).await);
    let error = broken(&mut opened).await;
    assert_eq!((error.kind(), reason(&error)), (ErrorKind::ConnectionReset, &StreamError::Reset));
    assert_eq!(refused(&mut opened).await.kind(), ErrorKind::BrokenPipe);
    // Only the half that is read: the other goes on.
    for opener_stops in [true, false] {
        let opened = open(&at_a, Labels::foreground()).await;
        let accepted = accept(&at_b).await;
        let (stops, goes) = if opener_stops { (opened, accepted) } else { (accepted, opened) };
        let (read, mut write) = stops.into_split();
        drop(read);
        let (mut other_read, mut other_write) = goes.into_split();
        let error = refused(&mut other_write).await;
        assert_eq!((error.kind(), reason(&error)), (ErrorKind::BrokenPipe, &StreamError::Refused));
        write.write_all(b"still here").await.unwrap();
        write.shutdown().await.unwrap();
        let mut text = String::new();
        soon("the rest", other_read.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "still here");
    }
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_up_no_other() {
    let (_a, _b, at_a, at_b) = streams().await;
    let mut stuck = Vec::new();
    for number in 0..100 {
        let labels = if number % 2 == 0 { Labels::foreground() } else { Labels::background() };
        let (read, mut write) = open(&at_a, labels).await.into_split();
        let writing = tokio::spawn(async move {
            write.write_all(&pattern(number, 1_000_000)).await.unwrap();
            write
        });
        stuck.push((read, writing, accept(&at_b).await));
    }
    for labels in [Labels::foreground(), Labels::background()] {
        let mut opened = open(&at_a, labels).await;
        let mut accepted = accept(&at_b).await;
        let sent = pattern(5, 10_000_000);
        let copy = sent.clone();
        let writing = tokio::spawn(async move {
            opened.write_all(&copy).await.unwrap();
            opened.shutdown().await.unwrap();
            opened
        });
        let mut read = Vec::new();
        soon("the stream that is read", accepted.read_to_end(&mut read)).await.unwrap();
        assert!(read == sent, "{} bytes", read.len());
        soon("writing", writing).await.unwrap();
    }
    // They are all still there, and go on when they are read.
    for (number, (_read, writing, accepted)) in stuck.iter_mut().enumerate().take(4) {
        assert!(!writing.is_finished(), "{number}: more was taken than a window");
        let mut read = vec![0; 1_000_000];
        soon("a stuck one", accepted.read_exact(&mut read)).await.unwrap();
        assert!(read == pattern(number, 1_000_000), "{number}");
    }
}

#[tokio::test]
async fn a_peer_may_open_so_many_and_no_more() {
    let (_a, _b, at_a, at_b) = streams().await;
    let mut opened = Vec::new();
    for _ in 0..MAX_STREAMS {
        opened.push(open(&at_a, Labels::foreground()).await);
    }
    let mut accepted = Vec::new();
    for _ in 0..MAX_STREAMS {
        accepted.push(accept(&at_b).await);
    }
    let mut one_more = open(&at_a, Labels::foreground()).await;
    let error = broken(&mut one_more).await;
    assert_eq!((error.kind(), reason(&error)), (ErrorKind::ConnectionRefused, &StreamError::TooMany));
    assert!(error.to_string().contains("try later"), "{error}");
    assert!(refused(&mut one_more).await.get_ref().is_some());
    // Where one goes there is room for another.
    drop((accepted.pop(), opened.pop()));
    let mut another = open(&at_a, Labels::foreground()).await;
    another.write_all(b"x").await.unwrap();
    assert_eq!(soon("a byte", accept(&at_b).await.read_u8()).await.unwrap(), b'x');
}

#[tokio::test]
async fn the_end_of_the_conversation_is_told_to_all() {
    let (a, _b, at_a, at_b) = streams().await;
    let (mut read, mut write) = open(&at_a, Labels::foreground()).await.into_split();
    let mut accepted = accept(&at_b).await;
    let waiting = at_b.clone();
    let accepting = tokio::spawn(async move { waiting.accept().await });
    let reading = tokio::spawn(async move { broken(&mut read).await });
    a.close("the end of the test").await;
    let error = soon("an error here", reading).await.unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
    let error = broken(&mut accepted).await;
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
    assert!(error.to_string().contains("the end of the test"), "{error}");
    assert!(matches!(reason(&error), StreamError::Ended(_)), "{error:?}");
    assert!(refused(&mut write).await.to_string().contains("ended"));
    assert!(refused(&mut accepted).await.to_string().contains("the end of the test"));
    let error = soon("accept", accepting).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("the end of the test"), "{error}");
    assert!(soon("open", at_b.open(Labels::foreground())).await.is_err());
}

#[tokio::test]
async fn a_conversation_lives_as_long_as_a_stream() {
    let (a, b) = pair().await;
    let (at_a, at_b) = meet(&a, &b).await;
    let (at_a, at_b) = (Streams::new(at_a), Streams::new(at_b));
    let mut opened = open(&at_a, Labels::foreground()).await;
    drop(at_a);
    opened.write_all(b"last words").await.unwrap();
    opened.shutdown().await.unwrap();
    let mut accepted = accept(&at_b).await;
    let mut text = String::new();
    soon("the words", accepted.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "last words");
    drop(opened);
    // With the last stream gone the conversation closes.
    assert!(soon("the end", at_b.accept()).await.unwrap().is_none());
}

#[tokio::test]
async fn who_finished_opens_no_more() {
    let (_a, _b, at_a, at_b) = streams().await;
    let mut opened = open(&at_a, Labels::foreground()).await;
    opened.write_all(b"x").await.unwrap();
    opened.shutdown().await.unwrap();
    at_a.socket().finish().unwrap();
    let mut accepted = accept(&at_b).await;
    soon("the byte", accepted.read_to_end(&mut Vec::new())).await.unwrap();
    assert!(soon("accept", at_b.accept()).await.unwrap().is_none());
    accepted.write_all(b"y").await.unwrap();
    accepted.shutdown().await.unwrap();
    let mut back = Vec::new();
    soon("the answer", opened.read_to_end(&mut back)).await.unwrap();
    assert_eq!(back, b"y");
    // Nobody can answer what is opened from the other side.
    let mut in_vain = open(&at_b, Labels::foreground()).await;
    assert_eq!(broken(&mut in_vain).await.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_is_no_stream_is_passed_over() {
    let (_a, _b, raw, at_b) = talking().await;
    let at_b = Streams::new(at_b);
    let unordered = || OrderRequest::Unordered;
    // Whole messages: of others, cut off, about streams that are not there.
    let key = |kind: u8, ours: u8, id: u64, rest: &[u8]| {
        [&b"STR\x01"[..], &[kind, ours], &id.to_be_bytes(), rest].concat()
    };
    for message in [
        b"hello".to_vec(),
        b"STR\x01\x02".to_vec(),
        key(2, 0, 99, &u64::MAX.to_be_bytes()),
        key(3, 1, 99, &[0]),
        key(3, 0, 99, &[9]),
    ] {
        raw.send_with(message, Labels::foreground(), unordered()).await.unwrap();
    }
    // Streamed ones that do not begin as streams do, and an answer to nothing.
    for begin in [&b"GET / HTTP/1.1"[..], b"STR\x01\x01\0\0\0\0\0\0\0\x63and more", b"STR\x01\x05"] {
        let mut writer = raw.begin_with(Labels::foreground(), unordered(), None).await.unwrap();
        writer.write(Bytes::copy_from_slice(begin)).await.unwrap();
        let error = soon("a refusal", async {
            loop {
                if let Err(error) = writer.write(Bytes::from_static(b"more")).await {
                    break error;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(error.to_string().contains("not open"), "{error}");
    }
    // More than the window.
    let mut writer = raw.begin_with(Labels::foreground(), unordered(), None).await.unwrap();
    writer.write(Bytes::from_static(b"STR\x01")).await.unwrap();
    writer.write(Bytes::from_static(b"\0first")).await.unwrap();
    let mut accepted = accept(&at_b).await;
    let mut first = [0; 5];
    soon("the first", accepted.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"first");
    // While nobody reads, so that there is no more credit.
    soon("a refusal", async { while writer.write(vec![1; 64 * 1024]).await.is_ok() {} }).await;
    let error = broken(&mut accepted).await;
    assert_eq!((error.kind(), reason(&error)), (ErrorKind::InvalidData, &StreamError::Violation));
    // And streams go on.
    let mut writer = raw.begin_with(Labels::foreground(), unordered(), None).await.unwrap();
    writer.write(Bytes::from_static(b"STR\x01\0good")).await.unwrap();
    writer.finish().await.unwrap();
    let mut text = String::new();
    soon("a stream", accept(&at_b).await.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "good");
}

#[tokio::test]
async fn a_stream_keeps_to_the_failure_timeout_of_its_labels() {
    let (a, _b, at_a, at_b) = streams().await;
    let patient = Labels::foreground().small();
    at_b.socket().set_failure_timeout(&patient, Some(Duration::from_secs(3600))).unwrap();
    at_b.socket().set_failure_timeout(&Labels::foreground(), Some(Duration::from_millis(30))).unwrap();
    let mut asked = Vec::new();
    for labels in [patient, Labels::foreground()] {
        let mut here = open(&at_a, labels).await;
        here.write_all(b"?").await.unwrap();
        let mut there = accept(&at_b).await;
        assert_eq!(soon("a question", there.read_u8()).await.unwrap(), b'?');
        asked.push((here, there));
    }
    let (mut hasty, mut hasty_there) = asked.pop().unwrap();
    let (mut calm, mut calm_there) = asked.pop().unwrap();
    cut(&a, at_b.socket()).await;
    // Writing does not fail at once: a network may come in time.
    calm_there.write_all(b"!").await.unwrap();
    hasty_there.write_all(b"!").await.unwrap();
    let error = refused(&mut hasty_there).await;
    assert_eq!(
        (error.kind(), reason(&error)),
        (ErrorKind::TimedOut, &StreamError::Dropped(DropReason::NoNetwork))
    );
    let error = broken(&mut hasty_there).await;
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    drop(hasty_there);
    a.revive().await.unwrap();
    // What steers streams is under no such limit, though its labels are the same.
    let error = broken(&mut hasty).await;
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    assert_eq!(soon("an answer", calm.read_u8()).await.unwrap(), b'!');
}

#[tokio::test]
async fn what_nobody_can_accept_any_more_is_given_up() {
    let (_a, _b, at_a, at_b) = streams().await;
    let mut kept = open(&at_a, Labels::foreground()).await;
    let mut kept_there = accept(&at_b).await;
    let mut waited = open(&at_a, Labels::foreground()).await;
    waited.write_all(b"anybody?").await.unwrap();
    drop(at_b);
    let mut later = open(&at_a, Labels::foreground()).await;
    for stream in [&mut waited, &mut later] {
        let error = broken(stream).await;
        assert_eq!((error.kind(), reason(&error)), (ErrorKind::ConnectionReset, &StreamError::Reset));
        assert_eq!(refused(stream).await.kind(), ErrorKind::BrokenPipe);
    }
    // Those that were accepted go on.
    kept.write_all(b"x").await.unwrap();
    assert_eq!(soon("a byte", kept_there.read_u8()).await.unwrap(), b'x');
}

#[tokio::test]
async fn halves_tell_what_broke_while_nobody_uses_them() {
    let (_a, _b, at_a, at_b) = streams().await;
    let (_read, mut write) = open(&at_a, Labels::foreground()).await.into_split();
    let (there_reads, there_writes) = accept(&at_b).await.into_split();
    write.write_all(b"that nobody reads").await.unwrap();
    let (no_end, nobody) = (there_reads.broken(), write.broken());
    drop(there_reads);
    assert_eq!(soon("nobody reads", nobody).await, StreamError::Refused);
    drop(there_writes);
    drop(no_end);
    let (read, write) = open(&at_a, Labels::foreground()).await.into_split();
    let (there_reads, _there_writes) = accept(&at_b).await.into_split();
    drop((read, write));
    assert_eq!(soon("no end comes", there_reads.broken()).await, StreamError::Reset);
}

#[tokio::test]
async fn only_so_many_may_be_without_a_head() {
    let (_a, _b, raw, at_b) = talking().await;
    let at_b = Streams::new(at_b);
    let mut writers = Vec::new();
    for _ in 0..65 {
        let mut writer = raw.begin_with(Labels::foreground(), OrderRequest::Unordered, None).await.unwrap();
        writer.write(Bytes::from_static(b"STR")).await.unwrap();
        writers.push(writer);
    }
    let said = soon("a refusal", raw.recv()).await.unwrap().unwrap();
    let last = writers.pop().unwrap();
    let expected = [&b"STR\x01\x03\0"[..], &last.id().0.to_be_bytes(), &[1]].concat();
    assert_eq!(said.payload().unwrap(), &expected);
    let error = soon("it ends", last.finish()).await.unwrap_err();
    assert!(error.to_string().contains("not open"), "{error}");
    for mut writer in writers {
        writer.write(Bytes::from_static(b"\x01\0ok")).await.unwrap();
        writer.finish().await.unwrap();
        let mut text = String::new();
        soon("a stream", accept(&at_b).await.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "ok");
    }
}
