//! Lines over a Unix socket, each bounded.

use bytes::BytesMut;
use std::io;
use tokio::net::UnixStream;

/// How much is read at a time.
const READ: usize = 16 * 1024;

/// A connection that carries lines.
#[derive(Debug)]
pub struct Lines {
    stream: UnixStream,
    input: BytesMut,
    /// What of `input` is known to have no end of a line.
    searched: usize,
    most: usize,
    out: Vec<u8>,
    written: usize,
}

impl Lines {
    /// A connection on which `read` was read already, and lines have at most `most` bytes.
    #[must_use]
    pub fn new(stream: UnixStream, read: &[u8], most: usize) -> Self {
        Self { stream, input: BytesMut::from(read), searched: 0, most, out: Vec::new(), written: 0 }
    }

    /// The next line without its end; an error at the end of the stream, and if a line is too long. Writes meanwhile what
    /// was [put](Self::put). Cancel safe.
    pub async fn next(&mut self) -> io::Result<BytesMut> {
        loop {
            let end = self.input[self.searched..].iter().position(|byte| *byte == b'\n');
            if self.searched + end.unwrap_or(self.input.len() - self.searched) > self.most {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
            }
            if let Some(at) = end {
                let line = self.input.split_to(self.searched + at);
                let _end = self.input.split_to(1);
                self.searched = 0;
                return Ok(line);
            }
            self.searched = self.input.len();
            tokio::select! {
                ready = self.stream.readable() => {
                    ready?;
                    self.input.reserve(READ);
                    match self.stream.try_read_buf(&mut self.input) {
                        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
                ready = self.stream.writable(), if !self.is_written() => {
                    ready?;
                    self.write()?;
                }
            }
        }
    }

    /// Whether everything that was put was given to the socket.
    #[must_use]
    pub const fn is_written(&self) -> bool {
        self.written == self.out.len()
    }

    /// Writes a line as far as the socket takes it; the rest goes with [`next`](Self::next). One at a time: to be called only when
    /// all before [is written](Self::is_written).
    pub fn put(&mut self, line: &impl serde::Serialize) -> io::Result<()> {
        self.out.drain(..self.written);
        self.written = 0;
        serde_json::to_writer(&mut self.out, line)?;
        self.out.push(b'\n');
        self.write()
    }

    /// Waits until everything that was put is given to the socket. Cancel safe.
    pub async fn written(&mut self) -> io::Result<()> {
        while !self.is_written() {
            self.stream.writable().await?;
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.is_written() {
            match self.stream.try_write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
