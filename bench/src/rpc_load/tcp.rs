//! The same requests over TCP.

use std::collections::VecDeque;
use std::net::SocketAddr;

use anyhow::Context;
use socket2::SockRef;
use steadfast::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::host::{self, ANSWER, Order, Report, Sender, material};
use crate::child::{Console, tell};
use crate::systems::CONGESTION;

/// Connections from one host to another, where each carries one request at a time.
const POOL: usize = 32;
/// A request's length and number, before it.
const HEAD: usize = 12;
/// Read at once.
const READ: usize = 64 * 1024;

type Request = (u32, u64);

pub(crate) struct OverTcp {
    to: Vec<Pool>,
    ended: UnboundedReceiver<Ended>,
    sender: UnboundedSender<Ended>,
    material: Bytes,
    pooled: bool,
}

/// Connections to one other host.
struct Pool {
    address: SocketAddr,
    connections: Vec<UnboundedSender<Request>>,
    idle: Vec<usize>,
    waiting: VecDeque<Request>,
}

struct Ended {
    to: usize,
    connection: usize,
    number: u64,
}

pub(crate) async fn meet(pooled: bool, console: &mut Console) -> anyhow::Result<OverTcp> {
    tell(&Report::Key(String::new()));
    let Order::Trust(_) = console.hear().await? else { anyhow::bail!("expected keys") };
    let listener = TcpListener::bind("0.0.0.0:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    tell(&Report::Contact { contact: String::new(), port });
    let Order::Meet(contacts) = console.hear().await? else { anyhow::bail!("expected contacts") };
    let pool = |contact: &String| {
        let address = contact.parse().context("an address makes no sense")?;
        anyhow::Ok(Pool { address, connections: Vec::new(), idle: Vec::new(), waiting: VecDeque::new() })
    };
    let to = contacts.iter().map(pool).collect::<Result<_, _>>()?;
    let (sender, ended) = unbounded_channel();
    Ok(OverTcp { to, ended, sender, material: material().into(), pooled })
}

impl OverTcp {
    fn open(&mut self, to: usize) -> usize {
        let (requests, orders) = unbounded_channel();
        let pool = &mut self.to[to];
        let connection = pool.connections.len();
        pool.connections.push(requests);
        let part = Asking { to, connection, material: self.material.clone(), ended: self.sender.clone() };
        tokio::spawn(part.ask(pool.address, orders));
        connection
    }
}

impl Sender for OverTcp {
    fn send(&mut self, to: usize, length: u32, number: u64) -> anyhow::Result<()> {
        let connection = match self.to[to].idle.pop() {
            Some(idle) => idle,
            None if self.pooled && self.to[to].connections.len() >= POOL => {
                self.to[to].waiting.push_back((length, number));
                return Ok(());
            }
            None if !self.pooled && !self.to[to].connections.is_empty() => 0,
            None => self.open(to),
        };
        self.to[to].connections[connection].send((length, number)).context("a connection is gone")
    }

    async fn done(&mut self, ended: &mut Vec<host::Ended>) -> anyhow::Result<()> {
        let mut next = Some(self.ended.recv().await.context("this side sends")?);
        while let Some(Ended { to, connection, number }) = next {
            ended.push((number, Ok(())));
            if self.pooled {
                let pool = &mut self.to[to];
                match pool.waiting.pop_front() {
                    Some(request) => {
                        pool.connections[connection].send(request).context("a connection is gone")?;
                    }
                    None => pool.idle.push(connection),
                }
            }
            next = self.ended.try_recv().ok();
        }
        Ok(())
    }
}

/// One connection to another host.
struct Asking {
    to: usize,
    connection: usize,
    material: Bytes,
    ended: UnboundedSender<Ended>,
}

impl Asking {
    async fn ask(self, address: SocketAddr, orders: UnboundedReceiver<Request>) {
        // A connection that ends answers nothing more, which shows in what is found.
        let Ok(stream) = TcpStream::connect(address).await else { return };
        let Ok((reader, writer)) = ready(stream) else { return };
        let write = write(writer, orders, self.material.clone());
        let _either = tokio::join!(write, self.read(reader));
    }

    async fn read(&self, reader: OwnedReadHalf) -> std::io::Result<()> {
        let mut reader = BufReader::with_capacity(READ, reader);
        loop {
            let number = reader.read_u64().await?;
            let mut answer = ANSWER;
            reader.read_exact(&mut answer).await?;
            let (to, connection) = (self.to, self.connection);
            let _nobody_asks = self.ended.send(Ended { to, connection, number });
        }
    }
}

async fn write(
    mut writer: OwnedWriteHalf,
    mut orders: UnboundedReceiver<Request>,
    material: Bytes,
) -> std::io::Result<()> {
    while let Some((length, number)) = orders.recv().await {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&length.to_be_bytes());
        head[4..].copy_from_slice(&number.to_be_bytes());
        let mut whole = bytes_of(&head, &material[..length as usize]);
        writer.write_all_buf(&mut whole).await?;
    }
    Ok(())
}

/// A head and a body as one, without a copy.
fn bytes_of<'b>(head: &'b [u8], body: &'b [u8]) -> impl bytes::Buf + 'b {
    bytes::Buf::chain(head, body)
}

fn ready(stream: TcpStream) -> std::io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_congestion(CONGESTION.as_bytes())?;
    Ok(stream.into_split())
}

/// Answers what comes on one connection.
async fn serve(stream: TcpStream) -> std::io::Result<()> {
    let (reader, mut writer) = ready(stream)?;
    let mut reader = BufReader::with_capacity(READ, reader);
    let mut body = vec![0; READ];
    loop {
        let mut left = reader.read_u32().await? as usize;
        let number = reader.read_u64().await?;
        while left > 0 {
            let room = left.min(READ);
            let read = reader.read(&mut body[..room]).await?;
            if read == 0 {
                return Ok(());
            }
            left -= read;
        }
        let mut answer = [0; 16];
        answer[..8].copy_from_slice(&number.to_be_bytes());
        answer[8..].copy_from_slice(&ANSWER);
        writer.write_all(&answer).await?;
    }
}
