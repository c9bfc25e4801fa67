//! One call, from before its request is sent until it has its outcome.

use super::body::Body;
use super::client::{Client, ended};
use super::error::CallError;
use super::handler::Response;
use super::listen::Open;
use super::say::{Said, SayError, Upload};
use crate::error::SessionError;
use crate::homa::{Outstanding, of_fault};
use crate::receipt::Receipt;
use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use steadfast_session::{DropReason, Outcome};
use steadfast_wire::Labels;
use steadfast_wire::call::Fault;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, Sleep};

/// What the listener tells a call.
#[derive(Debug)]
pub(super) enum Answer {
    Response(Body),
    Fault(Fault, String),
    /// It was cancelled before anything of it was delivered.
    Undelivered(DropReason),
    Ended(SessionError),
}

/// A call whose request is not sent yet. Dropping it forgets the call.
pub(super) struct Starting {
    client: Arc<Client>,
    call: Option<u64>,
}

impl Starting {
    pub(super) fn new(
        client: &Arc<Client>,
        permit: OwnedSemaphorePermit,
        labels: Labels,
    ) -> Result<(Self, oneshot::Receiver<Answer>), SessionError> {
        let (sender, answer) = oneshot::channel();
        let call = client.state.insert(Open { sender, receipt: None, streamed: false, labels, permit })?;
        Ok((Self { client: Arc::clone(client), call: Some(call) }, answer))
    }

    pub(super) fn call(&self) -> u64 {
        self.call.unwrap_or_default()
    }

    pub(super) fn begun(mut self, said: Said, answer: oneshot::Receiver<Answer>) -> Talk {
        let Said { receipt, upload } = said;
        let call = self.call.take().unwrap_or_default();
        let streamed = upload.is_some();
        self.client.state.sent(call, &receipt, streamed);
        Talk {
            client: Arc::clone(&self.client),
            call,
            answer,
            receipt,
            streamed,
            settled: false,
            upload,
            deadline: None,
            cancelled: false,
            over: false,
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(call) = self.call {
            self.client.state.remove(call);
        }
    }
}

/// A call that was begun. Dropping it cancels the call.
///
/// A request whose body is streamed is sent while this is awaited, and then while the body of its response is read; only
/// then. What is not sent by the end of the response is not sent.
#[must_use = "dropping it cancels the call"]
pub struct Pending {
    over: Over,
}

enum Over {
    Conversation(Box<Talk>),
    Homa(Outstanding),
}

impl Pending {
    pub(super) fn talk(talk: Talk) -> Self {
        Self { over: Over::Conversation(Box::new(talk)) }
    }

    pub(super) const fn homa(outstanding: Outstanding) -> Self {
        Self { over: Over::Homa(outstanding) }
    }

    /// Waits for the response. Dropping the future cancels the call.
    pub async fn response(self) -> Result<Response, CallError> {
        match self.over {
            Over::Conversation(talk) => talk.response().await,
            Over::Homa(outstanding) => outstanding.response().await,
        }
    }

    /// Cancels the call and waits until it is known what became of it: [`CallError::Cancelled`] says so, unless it was
    /// answered before. The deadline still holds.
    pub async fn cancel(self) -> Result<Response, CallError> {
        match self.over {
            Over::Conversation(talk) => talk.cancel().await,
            Over::Homa(outstanding) => outstanding.cancel().await,
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.over {
            Over::Conversation(talk) => write!(f, "Pending(call {}, {:?})", talk.call, talk.receipt),
            Over::Homa(_) => f.write_str("Pending(over Homa)"),
        }
    }
}

/// A call over a conversation.
pub(super) struct Talk {
    client: Arc<Client>,
    call: u64,
    answer: oneshot::Receiver<Answer>,
    receipt: Receipt,
    streamed: bool,
    /// Nothing more is to be learned from the receipt.
    settled: bool,
    upload: Option<Upload>,
    deadline: Option<(Pin<Box<Sleep>>, Duration)>,
    /// The caller wants to know what its cancelling came to.
    cancelled: bool,
    over: bool,
}

enum Step {
    Answer(Option<Answer>),
    Uploaded(Result<(), SayError>),
    Request(Outcome),
    /// It has waited too long, and the other side cannot be asked what it has of it.
    GivenUp(DropReason),
    Late,
}

impl Talk {
    pub(super) fn until(&mut self, at: Instant, limit: Duration) {
        self.deadline = Some((Box::pin(tokio::time::sleep_until(at)), limit));
    }

    async fn response(mut self) -> Result<Response, CallError> {
        self.wait().await
    }

    async fn cancel(mut self) -> Result<Response, CallError> {
        self.upload = None;
        self.cancelled = true;
        self.abandon();
        self.wait().await
    }

    async fn wait(&mut self) -> Result<Response, CallError> {
        loop {
            match self.step().await {
                Step::Answer(answer) => {
                    self.over = true;
                    return self.settle(answer);
                }
                Step::Uploaded(result) => {
                    self.upload = None;
                    // Other errors: the other side does without the rest, or the conversation is over. Its answer, or the
                    // end, comes.
                    if let Err(SayError::Body(source)) = result {
                        self.abandon();
                        return Err(CallError::Body { source, request: self.request() });
                    }
                }
                // What never left when the conversation ends counts as cancelled, too; that end comes.
                Step::Request(Outcome::Dropped(reason))
                    if !self.streamed && (self.cancelled || reason != DropReason::Cancelled) =>
                {
                    self.over = true;
                    self.client.state.remove(self.call);
                    return Err(self.undelivered(reason));
                }
                // The other side may never hear of the call, or wait for the rest of it.
                Step::GivenUp(reason) | Step::Request(Outcome::Dropped(reason @ DropReason::NoNetwork))
                    if !self.cancelled =>
                {
                    self.abandon();
                    return Err(self.given_up(reason, self.request()));
                }
                Step::Request(_) | Step::GivenUp(_) => self.settled = true,
                Step::Late => {
                    self.abandon();
                    let limit = self.limit();
                    return Err(CallError::Deadline {
                        callee: Box::new(self.client.callee()),
                        limit,
                        request: self.request(),
                    });
                }
            }
        }
    }

    async fn step(&mut self) -> Step {
        let Self { answer, upload, receipt, settled, deadline, .. } = self;
        let uploaded = async {
            match upload {
                Some(upload) => upload.as_mut().await,
                None => pending().await,
            }
        };
        let late = async {
            match deadline {
                Some((late, _)) => late.as_mut().await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = answer => Step::Answer(answer.ok()),
            concluded = receipt.concluded(), if !*settled => match concluded {
                Ok(outcome) => Step::Request(outcome),
                Err(reason) => Step::GivenUp(reason),
            },
            result = uploaded => Step::Uploaded(result),
            () = late => Step::Late,
        }
    }

    fn settle(&mut self, answer: Option<Answer>) -> Result<Response, CallError> {
        Err(match answer {
            Some(Answer::Response(mut body)) => {
                if let Some(upload) = self.upload.take() {
                    body.beside(upload);
                }
                return Ok(Response::new(body));
            }
            Some(Answer::Fault(fault, words)) => {
                of_fault(fault, self.limit(), || Box::new(self.client.callee()), || words)
            }
            Some(Answer::Undelivered(reason)) => self.undelivered(reason),
            Some(Answer::Ended(source)) => self.gone(source),
            None => self.gone(ended(&self.client.socket)),
        })
    }

    fn gone(&self, source: SessionError) -> CallError {
        CallError::Ended { callee: Box::new(self.client.callee()), source, request: self.unanswered() }
    }

    fn undelivered(&self, reason: DropReason) -> CallError {
        match reason {
            DropReason::Cancelled => CallError::Cancelled { request: Outcome::Dropped(reason) },
            reason => self.given_up(reason, Outcome::Dropped(reason)),
        }
    }

    fn given_up(&self, reason: DropReason, request: Outcome) -> CallError {
        match reason {
            DropReason::NoNetwork => CallError::NoNetwork { callee: Box::new(self.client.callee()), request },
            reason => CallError::NotDelivered(reason),
        }
    }

    fn limit(&self) -> Duration {
        self.deadline.as_ref().map_or(Duration::ZERO, |(_, limit)| *limit)
    }

    /// What is known of the request now. Of a streamed one that was dropped the other side may have begun to read.
    fn request(&self) -> Outcome {
        match self.receipt.try_outcome() {
            Some(Outcome::Dropped(_)) if self.streamed => Outcome::Unknown,
            known => known.unwrap_or(Outcome::Unknown),
        }
    }

    /// The same once the conversation has ended: what was delivered may have been executed or not.
    fn unanswered(&self) -> Outcome {
        match self.request() {
            dropped @ Outcome::Dropped(_) => dropped,
            _ => Outcome::Unknown,
        }
    }

    /// Asks for the request to be dropped; the listener sees to the rest.
    fn abandon(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        // Whether the message is still open is seen from its outcome.
        let _settled = self.client.socket.cancel(self.receipt.id());
        let _over = self.client.cancels.send(self.call);
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        if !self.over {
            self.abandon();
        }
    }
}
