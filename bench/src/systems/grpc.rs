//! gRPC: tonic over one connection of HTTP/2, with TLS or without. Bodies are bytes as they are, without protobuf.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;

use hyper_util::rt::TokioIo;
use steadfast::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::StreamExt as _;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Context, Poll, Service, http};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

use super::{stream, tls};
use crate::systems::calls::answer;

const PATH: &str = "/bench.Echo/Call";

/// A client over a connection of its own.
#[derive(Debug, Clone)]
pub(crate) struct Client(tonic::client::Grpc<Channel>);

impl Client {
    /// Connects, with TLS if there is a certificate (DER).
    pub(super) async fn connect(to: SocketAddr, certificate: Vec<u8>) -> anyhow::Result<Self> {
        let connector = Connector { to, certificate };
        let channel = Endpoint::from_static("http://bench.invalid").connect_with_connector(connector).await?;
        Ok(Self(tonic::client::Grpc::new(channel)))
    }

    /// Makes a call.
    pub(crate) async fn call(&mut self, body: Bytes) -> anyhow::Result<Bytes> {
        self.0.ready().await?;
        let path = PathAndQuery::from_static(PATH);
        Ok(self.0.unary(Request::new(body), path, AsItIs).await?.into_inner())
    }
}

/// What both kinds of connections are.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<C: AsyncRead + AsyncWrite + Unpin + Send> Connection for C {}

#[derive(Clone)]
struct Connector {
    to: SocketAddr,
    certificate: Vec<u8>,
}

impl Service<http::Uri> for Connector {
    type Response = TokioIo<Box<dyn Connection>>;
    type Error = io::Error;
    type Future = BoxFuture<Self::Response, io::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let Self { to, certificate } = self.clone();
        Box::pin(async move {
            let plain = stream::connect(to, false).await?;
            let connection: Box<dyn Connection> = if certificate.is_empty() {
                Box::new(plain)
            } else {
                Box::new(tls::connect(plain, certificate).await.map_err(io::Error::other)?)
            };
            Ok(TokioIo::new(connection))
        })
    }
}

/// Serves one connection for ever.
pub(super) async fn serve<C>(connection: C) -> anyhow::Result<()>
where
    C: Connected + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let one = tokio_stream::once(Ok::<_, io::Error>(connection)).chain(tokio_stream::pending());
    Ok(Server::builder().add_service(Echo).serve_with_incoming(one).await?)
}

#[derive(Debug, Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(answer(request.into_inner()))))
    }
}

/// The service as HTTP sees it.
impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move { Ok(tonic::server::Grpc::new(AsItIs).unary(Echo, request).await) })
    }
}

/// Bytes as they are.
#[derive(Debug, Clone, Copy)]
struct AsItIs;

impl Codec for AsItIs {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put(to, item);
        Ok(())
    }
}

impl Decoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = bytes::Buf::remaining(from);
        Ok(Some(bytes::Buf::copy_to_bytes(from, length)))
    }
}
