//! The content of one file, from the disk to the conversation.
//!
//! A thread reads, checks and hashes; the task writes what it reads. Between them wait a few pieces.

use super::source::{Retraction, Source};
use super::walk::Place;
use crate::digest::{Digest, StopOnDrop, Work};
use crate::manifest::Time;
use crate::message::data_head;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use steadfast::{Labels, MultiSocket, OrderRequest, SendError};
use tokio::sync::mpsc;

/// Content of at most so many bytes is a whole message; more is streamed.
const SMALL: u64 = 64 * 1024;

/// Pieces that wait between the disk and the library.
const WAITING: usize = 4;

/// What is to be done for a file.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) entry: u64,
    pub(crate) place: Place,
    pub(crate) size: u64,
    pub(crate) modified: Time,
    pub(crate) task: Task,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Say whether the whole has this checksum.
    Compare(Digest),
    /// Send what comes after so many bytes of this checksum, or all if they are others.
    Send(u64, Digest),
}

/// How it went.
#[derive(Debug)]
pub(crate) enum Done {
    Same,
    Different,
    Sent,
    /// The receiver wants no more of it, and says why.
    Stopped,
    Retracted(Retraction),
}

/// What the thread has for the task.
enum Step {
    Compared(bool),
    /// Content follows, from here on.
    From(u64),
    Piece(Bytes),
    End(Digest),
    Retracted(Retraction),
}

/// Does one job. `began` is told from where the content is sent. Cancelling it cancels the message.
pub(crate) async fn run(
    socket: MultiSocket,
    labels: Labels,
    job: Job,
    work: Arc<Work>,
    began: impl FnOnce(u64),
) -> Result<Done, SendError> {
    let (sender, mut steps) = mpsc::channel(WAITING);
    let (entry, size) = (job.entry, job.size);
    let _stop = StopOnDrop(Arc::clone(&work));
    tokio::task::spawn_blocking(move || {
        if let Err(retraction) = read(job, &work, &sender) {
            let _gone = sender.blocking_send(Step::Retracted(retraction));
        }
    });
    let offset = match steps.recv().await {
        Some(Step::Compared(true)) => return Ok(Done::Same),
        Some(Step::Compared(false)) => return Ok(Done::Different),
        Some(Step::From(offset)) => offset,
        other => return Ok(Done::Retracted(retraction(other))),
    };
    began(offset);
    let head = data_head(entry, offset);
    let length = head.len() as u64 + size - offset + Digest::LENGTH as u64;
    if size - offset <= SMALL {
        return send_whole(&socket, labels, head, length, steps).await;
    }
    let mut writer = socket.begin_with(labels, OrderRequest::Default, Some(length)).await?;
    let mut next = head;
    loop {
        match writer.write(next).await {
            Ok(()) => {}
            Err(SendError::NotOpen(_)) => return Ok(Done::Stopped),
            Err(error) => return Err(error),
        }
        next = match steps.recv().await {
            Some(Step::Piece(piece)) => piece,
            Some(Step::End(digest)) => {
                let ended = match writer.write(Bytes::copy_from_slice(&digest.0)).await {
                    Ok(()) => writer.finish().await.map(drop),
                    Err(error) => Err(error),
                };
                return match ended {
                    Ok(()) => Ok(Done::Sent),
                    Err(SendError::NotOpen(_)) => Ok(Done::Stopped),
                    Err(error) => Err(error),
                };
            }
            other => {
                writer.cancel();
                return Ok(Done::Retracted(retraction(other)));
            }
        };
    }
}

async fn send_whole(
    socket: &MultiSocket,
    labels: Labels,
    head: Bytes,
    length: u64,
    mut steps: mpsc::Receiver<Step>,
) -> Result<Done, SendError> {
    let mut whole = BytesMut::with_capacity(length as usize);
    whole.extend_from_slice(&head);
    loop {
        match steps.recv().await {
            Some(Step::Piece(piece)) => whole.extend_from_slice(&piece),
            Some(Step::End(digest)) => {
                whole.extend_from_slice(&digest.0);
                socket.send(whole.freeze(), labels).await?;
                return Ok(Done::Sent);
            }
            other => return Ok(Done::Retracted(retraction(other))),
        }
    }
}

fn retraction(step: Option<Step>) -> Retraction {
    match step {
        Some(Step::Retracted(retraction)) => retraction,
        // The thread ended without a word; that is a fault of this program.
        _ => Retraction { changed: false, words: "reading it ended early".into() },
    }
}

/// The thread: an error of sending means that the task is gone.
fn read(job: Job, work: &Work, steps: &mpsc::Sender<Step>) -> Result<(), Retraction> {
    let mut source = Source::open(&job.place, job.size, job.modified)?;
    let say = |step| steps.blocking_send(step).is_ok();
    match job.task {
        Task::Compare(digest) => {
            let same = source.begins_with(job.size, digest, work)?;
            if same {
                source.finish()?;
            }
            say(Step::Compared(same));
            return Ok(());
        }
        Task::Send(have, digest) => {
            let proven = have > 0 && source.begins_with(have, digest, work)?;
            if !say(Step::From(if proven { have } else { 0 })) {
                return Ok(());
            }
        }
    }
    while let Some(piece) = source.piece()? {
        if !say(Step::Piece(piece)) {
            return Ok(());
        }
    }
    let digest = source.finish()?;
    say(Step::End(digest));
    Ok(())
}
