//! Heads and bodies as messages of a conversation, both ways. All that calls know of their transport's messages is here.

use super::body::Body;
use super::error::BodyError;
use crate::message::Message;
use crate::receipt::Receipt;
use crate::socket::MultiSocket;
use crate::writer::MessageWriter;
use bytes::{Bytes, BytesMut};
use std::future::Future;
use std::pin::Pin;
use steadfast_session::{Patience, SendError, SendOptions};
use steadfast_wire::Labels;
use steadfast_wire::call::{Head, MAX_HEAD, MAX_WHOLE_BODY, MAX_WORDS};

/// How much of a body that is already here is given to the conversation at once, in bytes.
const PIECE: usize = 64 * 1024;

/// Streamed messages of one side that have not yet said what they are, at most; then no others are taken until they do.
/// Each is asked whenever something comes. A head is here with its message, or the network died between the two.
pub(super) const MAX_HEADLESS: usize = 64;

/// What is left to be done for a body that is streamed.
pub(super) type Upload = Pin<Box<dyn Future<Output = Result<(), SayError>> + Send>>;

/// Why a body did not get to its end.
#[derive(Debug)]
pub(super) enum SayError {
    Send(SendError),
    Body(BodyError),
}

/// A message that is on its way.
pub(super) struct Said {
    pub(super) receipt: Receipt,
    /// The rest of a streamed one; dropping it cancels the message.
    pub(super) upload: Option<Upload>,
}

/// A whole message of a head and what follows it.
pub(super) fn whole(head: Head, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(MAX_HEAD + body.len());
    head.encode(&mut out);
    out.extend_from_slice(body);
    out.freeze()
}

/// What is said to people, cut where it would be too long.
pub(super) fn words(text: &str) -> &[u8] {
    let end = (0..=text.len().min(MAX_WORDS)).rev().find(|at| text.is_char_boundary(*at));
    &text.as_bytes()[..end.unwrap_or(0)]
}

/// Says what is owed and needs no upload; waits while the send buffer is full, and for a network whatever the failure
/// timeout of its labels is: the other side counts on it. Cancel safe.
pub(super) async fn send(socket: &MultiSocket, labels: Labels, message: Bytes) -> Result<Receipt, SendError> {
    socket.send_with(message, labels, options(Patience::Endless)).await
}

pub(super) fn options(patience: Patience) -> SendOptions {
    SendOptions::new().unordered().patience(patience)
}

/// Begins a message; waits while the send buffer is full. Cancel safe: a future that is dropped has begun nothing.
pub(super) async fn begin(
    socket: &MultiSocket,
    labels: Labels,
    head: Head,
    body: Body,
    patience: Patience,
) -> Result<Said, SendError> {
    let start = whole(head, &[]);
    let mut length = None;
    if let Some(bytes) = body.whole() {
        if bytes.len() <= MAX_WHOLE_BODY {
            match socket.send_with(whole(head, bytes), labels.clone(), options(patience)).await {
                // The peer takes only smaller messages whole.
                Err(SendError::TooLarge { .. }) => {}
                sent => return sent.map(|receipt| Said { receipt, upload: None }),
            }
        }
        length = Some((start.len() + bytes.len()) as u64);
    }
    let writer = socket.begin_with(labels, options(patience), length).await?;
    let receipt = writer.receipt().clone();
    Ok(Said { receipt, upload: Some(Box::pin(upload(writer, start, body))) })
}

async fn upload(mut writer: MessageWriter, head: Bytes, mut body: Body) -> Result<(), SayError> {
    writer.write(head).await.map_err(SayError::Send)?;
    while let Some(mut chunk) = body.read_chunk().await.map_err(SayError::Body)? {
        while !chunk.is_empty() {
            let piece = chunk.split_to(chunk.len().min(PIECE));
            writer.write(piece).await.map_err(SayError::Send)?;
        }
    }
    writer.finish().await.map_err(SayError::Send)?;
    Ok(())
}

/// Why a message says nothing.
#[derive(Debug)]
pub(super) enum HearError {
    /// It breaks the rules.
    Violation(String),
    /// It was given up, or the conversation ended, before it said what it is.
    Gone,
}

/// A message that was understood.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) labels: Labels,
    pub(super) head: Head,
    pub(super) body: Body,
}

/// Understands a whole message.
pub(super) fn hear(labels: Labels, mut message: Bytes) -> Result<Heard, HearError> {
    let violation = |what: &str| HearError::Violation(what.into());
    let head = Head::decode(&mut message).map_err(|error| HearError::Violation(error.to_string()))?;
    let head = head.ok_or_else(|| violation("a message that is shorter than its head"))?;
    let most = match head {
        Head::Request { .. } | Head::Response { .. } | Head::Foreign { .. } => MAX_WHOLE_BODY,
        Head::Fault { .. } => MAX_WORDS,
        Head::Cancel { .. } | Head::Limits(_) => 0,
    };
    if message.len() > most {
        return Err(violation("a whole message that is longer than its kind allows"));
    }
    Ok(Heard { labels, head, body: message.into() })
}

/// Reads as much of a streamed message as says what it is.
pub(super) async fn hear_streamed(mut message: Message) -> Result<Heard, HearError> {
    let mut start = Bytes::new();
    loop {
        let chunk = match message.read_chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Err(HearError::Violation("a message that is shorter than its head".into())),
            Err(_) => return Err(HearError::Gone),
        };
        start = if start.is_empty() { chunk } else { [start, chunk].concat().into() };
        match Head::decode(&mut start) {
            Ok(None) => {}
            Ok(Some(head @ (Head::Request { .. } | Head::Response { .. } | Head::Foreign { .. }))) => {
                // A call may wait for its turn: it keeps one payload of a frame, and not the buffer that it was read into.
                let start = Bytes::copy_from_slice(&start);
                return Ok(Heard {
                    labels: message.labels.clone(),
                    head,
                    body: Body::arriving(start, message),
                });
            }
            Ok(Some(_)) => {
                return Err(HearError::Violation("a streamed message of a kind that is whole".into()));
            }
            Err(error) => return Err(HearError::Violation(error.to_string())),
        }
    }
}
