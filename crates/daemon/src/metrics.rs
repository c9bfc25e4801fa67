//! `/metrics` in Prometheus's text format.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::daemon::Shared;
use crate::hub::Hub;
use crate::sinks::SinkStatus;
use crate::ways::WayStatus;

/// How long somebody may take to ask; and all in all.
const ASKING: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(30);
/// How many are answered at a time.
const AT_ONCE: usize = 16;
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves for as long as the daemon runs.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let answer =
                service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&shared, &request))));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(ASKING);
            let connection = http.serve_connection(TokioIo::new(stream), answer);
            let _ended = tokio::time::timeout(LIMIT, connection).await;
            drop(place);
        });
    }
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, text(shared)),
        (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, "there is /metrics only\n".into()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "ask with GET\n".into()),
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(FORMAT));
    response
}

/// Everything that is counted, as Prometheus reads it.
pub(crate) fn text(shared: &Shared) -> String {
    let hub = &shared.hub;
    let (agent, connections, violations) =
        hub.peek(|server| (server.agent().metrics(), server.connections() as u64, server.violations()));
    let mut text = String::new();
    let mut put = |name: &str, value: u64| {
        let (name, kind) = match name.strip_suffix("_now") {
            Some(name) => (format!("steadfast_agent_{name}"), "gauge"),
            None => (format!("steadfast_agent_{name}_total"), "counter"),
        };
        let _written = writeln!(text, "# TYPE {name} {kind}\n{name} {value}");
    };
    agent.visit(&mut put);
    put("connections_now", connections);
    put("violations", violations);
    let mut put = |name: &str, value: u64| {
        let (name, kind) = match name.strip_suffix("_now") {
            Some(name) => (format!("steadfast_host_{name}"), "gauge"),
            None => (format!("steadfast_host_{name}_total"), "counter"),
        };
        let _written = writeln!(text, "# TYPE {name} {kind}\n{name} {value}");
    };
    shared.attached.visit(&mut put);
    put_ways(hub, &mut text);
    put_sinks(&shared.sinks.status(), &mut text);
    text
}

/// Where events go to and come from, by the name of the way.
fn put_ways(hub: &Hub, text: &mut String) {
    let ways: Vec<_> = hub.ways().iter().map(|way| way.status()).collect();
    let mut put = |name: &str, kind: &str, of: fn(&WayStatus) -> u64| {
        let _written = writeln!(text, "# TYPE steadfast_way_{name} {kind}");
        for way in &ways {
            let _written = writeln!(text, "steadfast_way_{name}{{way=\"{}\"}} {}", way.name, of(way));
        }
    };
    if ways.is_empty() {
        return;
    }
    put("connected", "gauge", |way| way.connected.into());
    put("sent_total", "counter", |way| way.sent);
    put("lost_total", "counter", |way| way.lost);
    put("received_total", "counter", |way| way.received);
    put("refused_total", "counter", |way| way.refused);
}

/// Where events go on this host, by the name of the sink, which needs no escaping.
fn put_sinks(sinks: &[SinkStatus], text: &mut String) {
    let mut put = |name: &str, kind: &str, of: fn(&SinkStatus) -> u64| {
        let _written = writeln!(text, "# TYPE steadfast_sink_{name} {kind}");
        for sink in sinks {
            let _written = writeln!(text, "steadfast_sink_{name}{{sink=\"{}\"}} {}", sink.name, of(sink));
        }
    };
    if sinks.is_empty() {
        return;
    }
    put("working", "gauge", |sink| sink.fault.is_none().into());
    put("waiting", "gauge", |sink| sink.waiting);
    put("delivered_total", "counter", |sink| sink.delivered);
    put("dropped_total", "counter", |sink| sink.dropped);
    put("failed_total", "counter", |sink| sink.failed);
}
