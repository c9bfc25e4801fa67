//! TLS over memory: records come and go as slices, and nothing is copied on the way that need not be.

use bytes::BytesMut;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{CommonState, Error};
use std::mem;
use std::ops::Deref;

/// The most input that may wait for its rest: a record, or a message of TLS itself that came in pieces.
const UNFINISHED: usize = 32 * 1024;

/// A TLS connection.
pub(crate) struct Records {
    side: Side,
    /// Input that is not done with: the beginning of a record, or of a message of TLS itself. It is shown to rustls at
    /// every step, whose own notes speak of places in it.
    rest: Vec<u8>,
    /// What ended it; rustls is not to be asked after that.
    failed: Option<Error>,
    closed: bool,
}

enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// Bytes for the peer. The room behind them stays as it is: to clear it each time would cost as much as to copy it.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    room: Vec<u8>,
    length: usize,
}

/// What to do with a connection that has nothing more to say of itself.
#[derive(Debug, Clone, Copy)]
enum Then<'a> {
    Nothing,
    Encrypt(&'a [u8]),
    Close,
}

enum Step {
    Again,
    Done,
    Closed,
}

impl Deref for Records {
    type Target = CommonState;

    fn deref(&self) -> &CommonState {
        match &self.side {
            Side::Client(connection) => connection,
            Side::Server(connection) => connection,
        }
    }
}

impl From<UnbufferedClientConnection> for Records {
    fn from(connection: UnbufferedClientConnection) -> Self {
        Self::new(Side::Client(connection))
    }
}

impl From<UnbufferedServerConnection> for Records {
    fn from(connection: UnbufferedServerConnection) -> Self {
        Self::new(Side::Server(connection))
    }
}

impl Records {
    const fn new(side: Side) -> Self {
        Self { side, rest: Vec::new(), failed: None, closed: false }
    }

    /// Puts the input that waits for its rest at the beginning of `input`, whose remainder is for what comes next: how
    /// long it is.
    pub(crate) fn hold(&self, input: &mut [u8]) -> usize {
        input[..self.rest.len()].copy_from_slice(&self.rest);
        self.rest.len()
    }

    /// Decrypts input in place, which begins with what [`hold`](Self::hold) gave: appends plaintext to `plain` and what
    /// TLS has to say of itself to `out`, also if it fails.
    pub(crate) fn decrypt(
        &mut self,
        input: &mut [u8],
        plain: &mut BytesMut,
        out: &mut Outgoing,
    ) -> Result<(), Error> {
        plain.reserve(input.len());
        let used = self.run(input, Then::Nothing, plain, out)?;
        // Not kept while there is nothing to hold: most connections are idle.
        self.rest = input[used..].to_vec();
        Ok(())
    }

    /// Whether the peer said that it sends no more.
    pub(crate) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Appends the records that carry `plain`. The handshake is over.
    pub(crate) fn encrypt(&mut self, plain: &[u8], out: &mut Outgoing) -> Result<(), Error> {
        self.say(Then::Encrypt(plain), out)
    }

    /// Appends the word that nothing more comes.
    pub(crate) fn close(&mut self, out: &mut Outgoing) -> Result<(), Error> {
        self.say(Then::Close, out)
    }

    /// Appends what TLS has to say of itself: the beginning of a handshake.
    pub(crate) fn begin(&mut self, out: &mut Outgoing) -> Result<(), Error> {
        self.say(Then::Nothing, out)
    }

    fn say(&mut self, then: Then<'_>, out: &mut Outgoing) -> Result<(), Error> {
        let mut rest = mem::take(&mut self.rest);
        // There is none in what is held back.
        let mut plain = BytesMut::new();
        let result = self.run(&mut rest, then, &mut plain, out).map(|used| rest.drain(..used));
        result.map(drop)?;
        self.rest = rest;
        Ok(())
    }

    /// Goes on until there is nothing to do without more input: how much of it is done with.
    fn run(
        &mut self,
        input: &mut [u8],
        then: Then<'_>,
        plain: &mut BytesMut,
        out: &mut Outgoing,
    ) -> Result<usize, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut used = 0;
        let error = loop {
            let (done, step) = self.step(&mut input[used..], then, plain, out);
            used += done;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Closed) => self.closed = true,
                Ok(Step::Done) if input.len() - used > UNFINISHED => break Error::PeerSentOversizedRecord,
                Ok(Step::Done) => return Ok(used),
                Err(error) => break error,
            }
        };
        // The alert, which tells the peer why.
        while self.wants_write() {
            let _ = self.step(&mut [], Then::Nothing, plain, out);
        }
        self.failed = Some(error.clone());
        Err(error)
    }

    fn step(
        &mut self,
        input: &mut [u8],
        then: Then<'_>,
        plain: &mut BytesMut,
        out: &mut Outgoing,
    ) -> (usize, Result<Step, Error>) {
        match &mut self.side {
            Side::Client(connection) => step(connection.process_tls_records(input), then, plain, out),
            Side::Server(connection) => step(connection.process_tls_records(input), then, plain, out),
        }
    }
}

fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    then: Then<'_>,
    plain: &mut BytesMut,
    out: &mut Outgoing,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut step = Ok(Step::Again);
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                    Err(error) => step = Err(error),
                }
            }
            step
        }
        Ok(ConnectionState::EncodeTlsData(mut message)) => {
            out.append(|room| message.encode(room).map_err(Short::from)).map(|()| Step::Again)
        }
        Ok(ConnectionState::TransmitTlsData(message)) => {
            message.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::Closed),
        Ok(ConnectionState::WriteTraffic(mut traffic)) => match then {
            Then::Nothing => Ok(Step::Done),
            Then::Encrypt(plain) => {
                out.append(|room| traffic.encrypt(plain, room).map_err(Short::from)).map(|()| Step::Done)
            }
            Then::Close => {
                out.append(|room| traffic.queue_close_notify(room).map_err(Short::from)).map(|()| Step::Done)
            }
        },
        Ok(_) => Ok(Step::Done),
        Err(error) => Err(error),
    };
    (discard, step)
}

/// Why something could not be written to the room there is.
enum Short {
    Of(usize),
    Failed(Error),
}

impl From<InsufficientSizeError> for Short {
    fn from(error: InsufficientSizeError) -> Self {
        Self::Of(error.required_size)
    }
}

impl From<EncodeError> for Short {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(error) => error.into(),
            error @ EncodeError::AlreadyEncoded => Self::Failed(Error::General(error.to_string())),
        }
    }
}

impl From<EncryptError> for Short {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(error) => error.into(),
            EncryptError::EncryptExhausted => Self::Failed(Error::EncryptError),
        }
    }
}

impl Outgoing {
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.room[..self.length]
    }

    pub(crate) fn clear(&mut self) {
        self.length = 0;
    }

    fn append(&mut self, mut write: impl FnMut(&mut [u8]) -> Result<usize, Short>) -> Result<(), Error> {
        loop {
            match write(&mut self.room[self.length..]) {
                Ok(written) => {
                    self.length += written;
                    return Ok(());
                }
                Err(Short::Of(required)) => self.room.resize(self.length + required, 0),
                Err(Short::Failed(error)) => return Err(error),
            }
        }
    }
}
