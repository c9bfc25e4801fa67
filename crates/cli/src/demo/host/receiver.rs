//! Host b: writes the file to the disk and answers every urgent message.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use steadfast::{Identity, Labels, Message, MultiSocket, Urgency};
use tokio::net::TcpListener;
use tokio::task::block_in_place;
use tokio::time::{Instant, timeout};

use super::{endpoint, next};
use crate::demo::protocol::{Arrived, Order, Report, now, tell};
use crate::demo::tcp;

/// How often the progress of the file is told.
const PROGRESS: Duration = Duration::from_millis(100);

/// How long the conversation may take to end.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn run(orders: &mpsc::Receiver<Order>) -> anyhow::Result<()> {
    let identity = Identity::generate()?;
    tell(&Report::Key(identity.fingerprint().to_string()));
    let Order::Listen { trust, loopback, tcp } = next(orders)? else {
        bail!("expected to be told to listen")
    };
    let endpoint = endpoint(identity, loopback).trust(trust.parse()?).bind().await?;
    let mut tcp_address = None;
    if let Some(address) = tcp {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        tcp_address = Some(listener.local_addr()?);
        // It ends with an error when the other side closes; until then its silence shows in the comparison.
        tokio::spawn(tcp::echo(listener));
    }
    tell(&Report::Listening { contact: endpoint.contact(), tcp: tcp_address });
    let socket = endpoint.accept().await.context("the endpoint was closed")?;
    let (mut arrived, mut seen, mut file) = (Arrived::default(), HashSet::new(), None);
    while let Some(message) = socket.recv().await? {
        if message.labels.urgency == Urgency::Background {
            if file.is_some() {
                bail!("the file arrived twice");
            }
            file = Some(tokio::spawn(write_file(message)));
            continue;
        }
        answer(&socket, message, &mut arrived, &mut seen).await?;
    }
    if let Some(file) = file {
        (arrived.file_bytes, arrived.sha256) = file.await??;
    }
    tell(&Report::Arrived(arrived));
    let _limit_passed = timeout(CLOSE_LIMIT, socket.close()).await;
    endpoint.close("the demo is over").await;
    Ok(())
}

/// Sends an urgent message back.
async fn answer(
    socket: &MultiSocket,
    message: Message,
    arrived: &mut Arrived,
    seen: &mut HashSet<[u8; 8]>,
) -> anyhow::Result<()> {
    let payload = message.payload().context("an urgent message came without its bytes")?.clone();
    let number = *payload.first_chunk().context("an urgent message is too short")?;
    arrived.urgent_twice += u64::from(!seen.insert(number));
    socket.send(payload, Labels::foreground()).await?;
    Ok(())
}

/// Writes the file as it arrives; returns its length and the SHA-256 of what the disk gives back.
async fn write_file(mut message: Message) -> anyhow::Result<(u64, String)> {
    let mut file =
        BufWriter::new(temporary_file().context("cannot make a temporary file for what is received")?);
    let (mut bytes, mut told) = (0, Instant::now());
    while let Some(chunk) = message.read_chunk().await? {
        block_in_place(|| file.write_all(&chunk)).context("cannot write what is received to the disk")?;
        bytes += chunk.len() as u64;
        if told.elapsed() >= PROGRESS {
            tell(&Report::FileBytes(bytes));
            told = Instant::now();
        }
    }
    tell(&Report::FileBytes(bytes));
    tell(&Report::FileDone(now()));
    let digest = block_in_place(|| digest_of(file)).context("cannot read the received file back")?;
    Ok((bytes, digest))
}

/// A file that has no name any more, so that nothing is left behind however this process ends.
fn temporary_file() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("steadfast-demo-{}-{}", std::process::id(), now()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn digest_of(file: BufWriter<File>) -> io::Result<String> {
    let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    let (mut digest, mut piece) = (Sha256::new(), vec![0; 256 * 1024]);
    loop {
        let length = file.read(&mut piece)?;
        if length == 0 {
            return Ok(HEXLOWER.encode(&digest.finalize()));
        }
        digest.update(&piece[..length]);
    }
}
