//! What answers requests, and the two types that it and its callers see of each other.

use super::body::Body;
use crate::lock;
use bytes::Bytes;
use std::fmt::{self, Display};
use std::future::{Future, poll_fn};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use steadfast_wire::{Fingerprint, Labels};
use tower_service::Service;

/// A request that is to be answered.
#[derive(Debug)]
pub struct Request {
    pub(crate) peer: Option<Fingerprint>,
    pub(crate) labels: Labels,
    pub(crate) deadline: Option<Instant>,
    pub(crate) body: Body,
}

impl Request {
    /// Who asks: the key was proven. None if nothing was, over [Homa](crate::homa::Homa) in the clear.
    pub fn peer(&self) -> Option<Fingerprint> {
        self.peer
    }

    /// The request's labels. The response has its urgency and keeps its network rule. Over Homa they are not told: they are
    /// the default, and the response keeps the rule all the same.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// When the caller stops waiting, and the handler is dropped; counted from when the request was taken.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What is left of the time that the caller allows; zero once it has passed.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// The body, to be looked at or read as it arrives.
    pub fn body(&mut self) -> &mut Body {
        &mut self.body
    }

    /// The body alone.
    pub fn into_body(self) -> Body {
        self.body
    }
}

/// An answer: made by a handler, or received by its caller.
#[derive(Debug)]
pub struct Response {
    body: Body,
}

impl Response {
    /// A response with this body.
    pub fn new(body: impl Into<Body>) -> Self {
        Self { body: body.into() }
    }

    /// The body, to be looked at or read as it arrives.
    pub fn body(&mut self) -> &mut Body {
        &mut self.body
    }

    /// The body alone.
    pub fn into_body(self) -> Body {
        self.body
    }

    /// All bytes of the body, as [`Body::into_bytes`] gives them.
    pub async fn into_bytes(self) -> Result<Bytes, super::BodyError> {
        self.body.into_bytes().await
    }
}

/// What a handler may return: a [`Response`], a body, bytes or text, nothing, or a `Result` of these. The text of an error
/// reaches the caller as [`CallError::Failed`](super::CallError::Failed), cut at 1,024 bytes.
pub trait IntoResponse {
    /// The response, or what to tell the caller of the failure.
    fn into_response(self) -> Result<Response, String>;
}

impl IntoResponse for Response {
    fn into_response(self) -> Result<Response, String> {
        Ok(self)
    }
}

macro_rules! bodies {
    ($($body:ty),*) => {
        $(impl IntoResponse for $body {
            fn into_response(self) -> Result<Response, String> {
                Ok(Response::new(self))
            }
        })*
    };
}

bodies!(Body, Bytes, Vec<u8>, String, &'static str);

impl IntoResponse for () {
    fn into_response(self) -> Result<Response, String> {
        Ok(Response::new(Body::empty()))
    }
}

impl<R: IntoResponse, E: Display> IntoResponse for Result<R, E> {
    fn into_response(self) -> Result<Response, String> {
        self.map_err(|error| error.to_string())?.into_response()
    }
}

/// Answers requests, over whatever transport they come.
///
/// Every `Fn(Request) -> impl Future` whose result is an [`IntoResponse`] is one, so an async closure or function;
/// [`service`] makes one of a `tower` service. Its future is dropped, wherever it waits, when the call is cancelled, its
/// deadline passes, or the conversation ends: what must not be cut there belongs into a task of its own.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request; an error is what to tell the caller.
    fn handle(&self, request: Request) -> impl Future<Output = Result<Response, String>> + Send;
}

impl<H, F> Handler for H
where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future + Send,
    F::Output: IntoResponse,
{
    async fn handle(&self, request: Request) -> Result<Response, String> {
        self(request).await.into_response()
    }
}

/// A `tower` service as a handler: each request gets a clone, which is made ready and called once.
pub fn service<S>(service: S) -> ServiceHandler<S>
where
    S: Service<Request> + Clone + Send + 'static,
    S::Response: IntoResponse,
    S::Error: Display,
    S::Future: Send,
{
    ServiceHandler { service: Mutex::new(service) }
}

/// A `tower` service as a [`Handler`]; [`service`] makes it.
pub struct ServiceHandler<S> {
    service: Mutex<S>,
}

impl<S> Handler for ServiceHandler<S>
where
    S: Service<Request> + Clone + Send + 'static,
    S::Response: IntoResponse,
    S::Error: Display,
    S::Future: Send,
{
    async fn handle(&self, request: Request) -> Result<Response, String> {
        let mut service = lock(&self.service).clone();
        let answer = {
            let ready = poll_fn(|context| service.poll_ready(context).map_err(|error| error.to_string()));
            ready.await?;
            service.call(request)
        };
        answer.await.into_response()
    }
}

impl<S> fmt::Debug for ServiceHandler<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceHandler")
    }
}
