//! `steadfast rpc serve`: every request goes back to whom it came from.

use std::future::pending;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use serde_json::json;
use steadfast::homa::{Homa, HomaConfig, Incoming, Port};
use steadfast::{Bytes, Endpoint, Fingerprint, MultiSocket, Stranger};
use tokio::task::JoinSet;

use super::way::{Listen, opened};
use super::{Carrier, MAX_PORT, PORT, message};
use crate::context::{self, Context};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::screen::Style;
use crate::stranger::{Strangers, Wish};
use crate::transfer::{Stop, quoted};

/// What strangers want here.
const WISH: Wish = Wish { wants: "make calls to this side", grant: "Answer it" };
/// Requests that are answered together.
const TOGETHER: usize = 64;

#[derive(Debug, Args)]
#[command(after_help = "\
Requests of any content are sent back as they are; those of the Linux module's own tools that ask for a short answer get \
100 bytes. Runs until Ctrl-C.

With `--carrier raw` nothing is encrypted or proven: it is for networks whose hosts are all trusted. A host where the \
module is loaded answers for itself, so use another one.

Examples:
  steadfast rpc serve
  steadfast rpc serve --carrier plain --listen 127.0.0.1:4000
  sudo steadfast rpc serve --carrier raw --port 4000")]
pub(crate) struct Arguments {
    /// What carries the packets.
    #[arg(long, value_enum, default_value = "udp")]
    carrier: Carrier,
    /// Homa's port, 1 to 32,767.
    #[arg(long, visible_alias = "first-port", value_name = "PORT", default_value_t = PORT,
        value_parser = clap::value_parser!(u16).range(1..=MAX_PORT))]
    port: u16,
    /// So many ports, from that one on.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    ports: u16,
    /// The address to listen at, IP or IP:PORT [default: all networks; with `plain` any port of 127.0.0.1].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<Listen>,
    /// Answer this key, this time; may be given several times.
    #[arg(long, value_name = "KEY")]
    trust: Vec<Fingerprint>,
}

/// What was answered.
#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: AtomicU64,
    bytes: AtomicU64,
}

pub(super) fn run(arguments: &Arguments, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    arguments.check()?;
    context::run(async {
        let mut stop = Stop::new()?;
        let (homa, endpoint) = arguments.open(context).await?;
        let counters = Arc::new(Counters::default());
        let mut tasks = JoinSet::new();
        for number in arguments.port..arguments.port + arguments.ports {
            let port = homa.open(Some(number)).map_err(|error| {
                Failure::new(
                    Exit::Failed,
                    format!("cannot serve port {number}: {error}; choose another --port"),
                )
            })?;
            tasks.spawn(echo(port, Arc::clone(&counters)));
        }
        arguments.announce(&homa, endpoint.as_ref(), output)?;
        let mut strangers = endpoint.clone().map(|endpoint| Strangers::new(endpoint, WISH, context, output));
        loop {
            let free = strangers.as_ref().is_none_or(Strangers::is_free);
            tokio::select! {
                // Those who come to `ping`, or to learn whether they are trusted.
                conversation = next_conversation(endpoint.as_ref()) => {
                    let Some(conversation) = conversation else { break };
                    tasks.spawn(async move { while let Ok(Some(_)) = conversation.recv().await {} });
                }
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                stranger = next_stranger(endpoint.as_ref()), if free => {
                    if let (Some(strangers), Some(stranger)) = (&mut strangers, stranger) {
                        strangers.came(stranger, output)?;
                    }
                }
                answer = async { match &mut strangers { Some(all) => all.answer().await, None => pending().await } } => {
                    if let Some(strangers) = &mut strangers {
                        strangers.answered(answer, output)?;
                    }
                }
                () = stop.wait() => break,
            }
        }
        output.end_status();
        if let Some(endpoint) = &endpoint {
            tokio::select! {
                () = endpoint.close("the server was stopped") => {}
                () = stop.wait() => {}
            }
        }
        let (requests, bytes) = counters.read();
        output.object(&json!({ "event": "stopped", "requests": requests, "bytes": bytes }))?;
        output.line(format!("Answered {requests} requests, {}.", crate::transfer::bytes(bytes)))?;
        Ok(Exit::Done)
    })
}

/// Sends requests back for as long as the port is open.
pub(super) async fn echo(port: Port, counters: Arc<Counters>) {
    let mut batch = Vec::with_capacity(TOGETHER);
    while port.recv_batch(&mut batch, TOGETHER).await > 0 {
        let answers = batch.drain(..).filter_map(|incoming| match incoming {
            Incoming::Request { id, body, .. } => {
                let mut body = body.into_buffer();
                counters.requests.fetch_add(1, Ordering::Relaxed);
                counters.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
                message::answer(&mut body);
                Some((id, Bytes::from(body)))
            }
            _ => None,
        });
        // Who cannot be answered is gone, or hears of it from the transport.
        let _failed = port.respond_all(answers);
    }
}

impl Counters {
    fn read(&self) -> (u64, u64) {
        (self.requests.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

async fn next_conversation(endpoint: Option<&Endpoint>) -> Option<MultiSocket> {
    match endpoint {
        Some(endpoint) => endpoint.accept().await,
        None => pending().await,
    }
}

async fn next_stranger(endpoint: Option<&Endpoint>) -> Option<Stranger> {
    match endpoint {
        Some(endpoint) => endpoint.next_stranger().await,
        None => pending().await,
    }
}

impl Arguments {
    fn check(&self) -> anyhow::Result<()> {
        let refuse = |message: &str| Err(Failure::usage(message).into());
        if i64::from(self.port) + i64::from(self.ports) - 1 > MAX_PORT {
            return refuse("a server's ports are 1 to 32,767: choose a lower --port, or fewer --ports");
        }
        match (self.carrier, self.listen) {
            (Carrier::Raw, Some(Listen { port: Some(_), .. })) => refuse(
                "IP protocol 146 has no such ports: write --listen without one, and Homa's port with --port",
            ),
            (Carrier::Plain, Some(Listen { ip, .. })) if !ip.is_loopback() => refuse(
                "packets in the clear stay within this host: --listen wants 127.0.0.1 or ::1, or use `--carrier udp`",
            ),
            (Carrier::Plain | Carrier::Raw, _) if !self.trust.is_empty() => {
                refuse("nothing is proven with this carrier, so --trust means nothing: use `--carrier udp`")
            }
            _ => Ok(()),
        }
    }

    async fn open(&self, context: &Context) -> anyhow::Result<(Homa, Option<Endpoint>)> {
        match self.carrier {
            Carrier::Udp => {
                let config = context.config()?;
                let port = self.listen.and_then(|listen| listen.port);
                let endpoint = context.listen(&config, port, |builder| match self.listen {
                    Some(Listen { ip, .. }) => builder.addresses([ip]),
                    None => builder,
                });
                let endpoint = endpoint.await?;
                for key in &self.trust {
                    endpoint.trust(*key);
                }
                Ok((opened(endpoint.homa())?, Some(endpoint)))
            }
            Carrier::Plain => {
                let ip = self.listen.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |listen| listen.ip);
                let port = self.listen.and_then(|listen| listen.port).unwrap_or(0);
                Ok((opened(Homa::plain(SocketAddr::new(ip, port)))?, None))
            }
            Carrier::Raw => {
                let homa = match self.listen {
                    Some(Listen { ip, .. }) => Homa::raw(ip),
                    None => Homa::raw_everywhere(HomaConfig::default()),
                };
                Ok((opened(homa)?, None))
            }
        }
    }

    /// Prints the line for the other side.
    fn announce(&self, homa: &Homa, endpoint: Option<&Endpoint>, output: &mut Output) -> anyhow::Result<()> {
        let contact = match (self.carrier, endpoint) {
            (_, Some(endpoint)) => endpoint.contact(),
            (Carrier::Raw, None) => match homa.local_addr().ip() {
                ip if ip.is_unspecified() => "ADDRESS".into(),
                ip => ip.to_string(),
            },
            (_, None) => homa.local_addr().to_string(),
        };
        let mut command = format!("steadfast rpc call {}", quoted(contact.as_bytes()));
        if self.carrier != Carrier::Udp {
            command.push_str(" --carrier ");
            command.push_str(self.carrier.name());
        }
        if self.port != PORT {
            command.push_str(" --port ");
            command.push_str(&self.port.to_string());
        }
        output.object(&json!({
            "event": "listening",
            "carrier": self.carrier.name(),
            "key": endpoint.map(|endpoint| endpoint.fingerprint().to_string()),
            "contact": contact,
            "port": self.port,
            "ports": self.ports,
            "command": command,
        }))?;
        if !output.screen().is_live() {
            return Ok(output.line(command)?);
        }
        let place = if self.carrier == Carrier::Plain { "on this host" } else { "on another host" };
        output.line(format!("Answering calls. To make some, run {place}:"))?;
        output.line("")?;
        let command = output.screen().paint(Style::Bold, command);
        output.line(command)?;
        output.line("")?;
        if contact.ends_with('@') {
            output.line("No network has an address now: complete the line when one has.")?;
        }
        Ok(())
    }
}
