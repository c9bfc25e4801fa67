//! Byte streams beside each other, whatever carries them.

use std::any::Any;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::{fmt, io};

use anyhow::Context;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf, duplex,
    split,
};

/// What a lane of several on one connection holds in each direction.
const HELD: usize = 64 * 1024;
/// What goes out of a lane at once, so that another has its turn.
const TURN: usize = 16 * 1024;

/// One direction of a lane that is read.
pub(crate) type Input = Box<dyn AsyncRead + Send + Unpin>;
/// One direction of a lane that is written.
pub(crate) type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// Both directions of a lane.
pub(crate) struct Lane {
    pub(crate) input: Input,
    pub(crate) output: Output,
}

impl Lane {
    pub(crate) fn new(
        input: impl AsyncRead + Send + Unpin + 'static,
        output: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self { input: Box::new(input), output: Box::new(output) }
    }

    pub(crate) fn of(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (input, output) = split(stream);
        Self::new(input, output)
    }
}

/// The lanes of a conversation, the same on both sides, and what keeps them alive.
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    kept: Box<dyn Any + Send>,
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes").field("lanes", &self.lanes.len()).finish_non_exhaustive()
    }
}

impl Lanes {
    /// Of a client, which says which lane is which.
    pub(crate) async fn announced(mut lanes: Vec<Lane>, kept: impl Any + Send) -> anyhow::Result<Self> {
        for (number, lane) in (0u8..).zip(&mut lanes) {
            lane.output.write_u8(number).await.context("cannot say which lane this is")?;
            lane.output.flush().await?;
        }
        Ok(Self { lanes, kept: Box::new(kept) })
    }

    /// Of a server, in the order that the client means.
    pub(crate) async fn sorted(lanes: Vec<Lane>, kept: impl Any + Send) -> anyhow::Result<Self> {
        let mut numbered = Vec::new();
        for mut lane in lanes {
            let number = lane.input.read_u8().await.context("a lane does not say which it is")?;
            numbered.push((number, lane));
        }
        numbered.sort_by_key(|(number, _)| *number);
        Ok(Self { lanes: numbered.into_iter().map(|(_, lane)| lane).collect(), kept: Box::new(kept) })
    }

    /// The lanes, and what has to be kept as long as they are used.
    pub(crate) fn into_parts(self) -> (Vec<Lane>, Box<dyn Any + Send>) {
        (self.lanes, self.kept)
    }
}

/// Makes several lanes of one stream, as an application does that has but one connection: pieces with a number and a
/// length, the first lane ahead where several wait.
pub(crate) fn share(stream: Lane, count: u8) -> Vec<Lane> {
    if count == 1 {
        return vec![stream];
    }
    let (mut lanes, mut inputs, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        let (outside, inside) = duplex(HELD);
        let (input, output) = split(inside);
        lanes.push(Lane::of(outside));
        inputs.push(input);
        outputs.push(output);
    }
    // An error is the end of the connection, which the lanes then show.
    tokio::spawn(async move { collect(inputs, stream.output).await.ok() });
    tokio::spawn(async move { distribute(stream.input, outputs).await.ok() });
    lanes
}

/// Pieces of all lanes into the one stream.
async fn collect(mut lanes: Vec<ReadHalf<DuplexStream>>, mut stream: Output) -> io::Result<()> {
    let mut buffer = vec![0; 3 + TURN];
    loop {
        let (number, length) = next_piece(&mut lanes, &mut buffer[3..]).await?;
        buffer[0] = number as u8;
        buffer[1..3].copy_from_slice(&(length as u16).to_be_bytes());
        stream.write_all(&buffer[..3 + length]).await?;
    }
}

/// What the first lane that has something holds.
async fn next_piece(lanes: &mut [ReadHalf<DuplexStream>], into: &mut [u8]) -> io::Result<(usize, usize)> {
    poll_fn(|context| {
        for (number, lane) in lanes.iter_mut().enumerate() {
            let mut piece = ReadBuf::new(into);
            if let Poll::Ready(result) = Pin::new(lane).poll_read(context, &mut piece) {
                let length = piece.filled().len();
                return Poll::Ready(match result {
                    Ok(()) if length == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
                    result => result.map(|()| (number, length)),
                });
            }
        }
        Poll::Pending
    })
    .await
}

/// Pieces from the one stream into all lanes.
async fn distribute(mut stream: Input, mut lanes: Vec<WriteHalf<DuplexStream>>) -> io::Result<()> {
    let mut buffer = vec![0; TURN];
    loop {
        let number = stream.read_u8().await?;
        let length = usize::from(stream.read_u16().await?).min(TURN);
        stream.read_exact(&mut buffer[..length]).await?;
        let lane = lanes.get_mut(usize::from(number)).ok_or(io::ErrorKind::InvalidData)?;
        lane.write_all(&buffer[..length]).await?;
    }
}
