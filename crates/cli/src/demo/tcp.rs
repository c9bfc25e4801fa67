//! The comparison: the same small messages over one plain TCP connection.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::host::{Beat, URGENT_BYTES};
use super::protocol::{Nanos, Report, Sample, now, tell};

/// How long the connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long answers are waited for after the last message.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// How long the kernel may refuse to take a message.
const WRITE_LIMIT: Duration = Duration::from_secs(20);

/// How often the round trip is told.
const PROGRESS: Nanos = 100_000_000;

/// A silence that is worth telling.
const SILENCE: Nanos = 1_000_000_000;

/// Sends back whatever comes, on one connection, until the other side closes it.
pub(crate) async fn echo(listener: TcpListener) -> io::Result<()> {
    let (mut stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let mut message = [0; URGENT_BYTES];
    loop {
        stream.read_exact(&mut message).await?;
        stream.write_all(&message).await?;
    }
}

/// Connects.
pub(crate) async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT_LIMIT, TcpStream::connect(to)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a message at each beat, whether or not the earlier ones were answered, and returns all with their answers.
pub(crate) async fn exchange(stream: TcpStream, mut beat: Beat) -> Vec<Sample> {
    let (mut input, mut output) = stream.into_split();
    // Answers come in order, so the Nth belongs to the Nth message.
    let answers: Arc<Mutex<Vec<Nanos>>> = Arc::default();
    let noted = Arc::clone(&answers);
    let reader = tokio::spawn(async move {
        let mut answer = [0; URGENT_BYTES];
        let (mut last, mut told) = (now(), 0);
        while input.read_exact(&mut answer).await.is_ok() {
            let time = now();
            noted.lock().unwrap_or_else(PoisonError::into_inner).push(time);
            if time - last > SILENCE {
                tell(&Report::TcpAnswers { at: time, after: time - last });
            }
            last = time;
            if time > told + PROGRESS
                && let Some(sent) = answer[8..].first_chunk()
            {
                told = time;
                tell(&Report::TcpRoundTrip(time.saturating_sub(u64::from_be_bytes(*sent))));
            }
        }
    });
    let mut sent = Vec::new();
    while let Some(time) = beat.next().await {
        let mut message = [0; URGENT_BYTES];
        message[..8].copy_from_slice(&(sent.len() as u64).to_be_bytes());
        message[8..16].copy_from_slice(&time.to_be_bytes());
        sent.push(time);
        // It waits while the kernel holds all that it takes.
        if !matches!(timeout(WRITE_LIMIT, output.write_all(&message)).await, Ok(Ok(()))) {
            break;
        }
    }
    let count = || answers.lock().unwrap_or_else(PoisonError::into_inner).len();
    let all = async {
        while count() < sent.len() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    // Without its answer a message shows as unanswered, which is what is to be shown.
    let _late = timeout(ANSWER_LIMIT, all).await;
    reader.abort();
    let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    sent.iter()
        .enumerate()
        .map(|(n, sent)| Sample { sent: *sent, answered: answers.get(n).copied() })
        .collect()
}
