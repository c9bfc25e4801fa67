//! Programs that know nothing of Steadfast, in a lab: ssh and curl outlive the network under them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use serde_json::Value;
use sha2::{Digest, Sha256};
use steadfast_testbed::{Direction, Host, Link, isolated};

use crate::common::{Running, skip};
use crate::transfer::contact_of;
use crate::transfer_lab::{World, carried, start, world};

/// Nothing that works takes this long, on however slow a machine.
const GUARD: Duration = Duration::from_secs(60);

/// What is downloaded, in bytes: seconds of a link.
const LENGTH: usize = 10_000_000;

/// How a network dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Silent,
    Down,
}

impl Cut {
    fn apply(self, link: &Link, host: &Host) {
        match self {
            Self::Silent => link.blackhole(Direction::Both),
            Self::Down => link.carrier_down(host).unwrap(),
        }
    }
}

/// A process that is stopped if the test forgets.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// A tunnel between the two hosts, to a port of the second one.
struct Tunnel {
    /// Where programs on the first host connect.
    ports: Vec<u16>,
    client: Running,
    _server: Running,
}

fn tunnel(world: &World, forwards: &[(u16, &str)]) -> Tunnel {
    let key = world.two.a.key().to_string();
    let arguments = ["tunnel", "--json", "--serve", "--allow", "127.0.0.1:*", "--trust", &key];
    let mut server = start(&world.two.b, &world.b, &arguments);
    let contact = contact_of(&mut server);
    let forwards: Vec<_> =
        forwards.iter().map(|(port, words)| format!("0=127.0.0.1:{port},{words}")).collect();
    let words: Vec<_> = forwards.iter().map(String::as_str).collect();
    let mut client = start(&world.two.a, &world.a, &[&["tunnel", "--json", &contact], &words[..]].concat());
    let listening = client.until("its ports", |object| object["event"] == "listening");
    let port = |forward: &Value| {
        let address = forward["listen"].as_str().unwrap();
        address.rsplit_once(':').unwrap().1.parse().unwrap()
    };
    let ports = listening["forwards"].as_array().unwrap().iter().map(port).collect();
    client.until("a conversation", |object| object["event"] == "connected");
    Tunnel { ports, client, _server: server }
}

impl Tunnel {
    /// Ends it; the one connection that it carried never broke.
    fn unharmed(mut self) {
        let closed = self.client.until("the end of the connection", |object| object["event"] == "closed");
        assert_eq!((&closed["connection"], &closed["reason"]), (&1.into(), &Value::Null), "{closed}");
        let (objects, code) = self.client.interrupt();
        let last = objects.last().unwrap();
        assert_eq!((code, &last["connections"]), (Some(0), &1.into()), "{last}");
    }
}

fn content() -> Vec<u8> {
    (0..LENGTH).map(|at| (at / 65_521 + at * 7) as u8).collect()
}

/// Serves one content to whoever connects on this host; the port.
fn http(host: &Host) -> u16 {
    let listener = host.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(stream));
        }
    });
    port
}

fn answer(mut stream: TcpStream) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    assert!(request.starts_with("GET /file "), "{request}");
    assert!(lines.any(|line| line.is_empty()), "the request has no end");
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\nConnection: close\r\n\r\n");
    // Whether all of it arrives is seen at the other end.
    let _broken = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content()));
}

/// A download by curl from a port of the first host.
struct Download {
    file: PathBuf,
    curl: Stopped,
}

impl Download {
    /// `None` where there is no curl.
    fn start(world: &World, port: u16) -> Option<Self> {
        let file = world.two.from("download");
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--output"]).arg(&file);
        curl.arg(format!("http://127.0.0.1:{port}/file")).stdin(Stdio::null());
        Some(Self { curl: Stopped(world.a.spawn(&mut curl).ok()?), file })
    }

    fn length(&self) -> u64 {
        fs::metadata(&self.file).map_or(0, |metadata| metadata.len())
    }

    fn is_over(&mut self) -> bool {
        self.curl.0.try_wait().unwrap().is_some()
    }

    /// Waits until some of it is there, and not all.
    fn begun(&mut self) {
        let guard = Instant::now() + GUARD;
        while self.length() < 1_000_000 {
            assert!(Instant::now() < guard, "nothing was downloaded");
            assert!(!self.is_over(), "curl ended too soon");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until all of it is there.
    fn complete(mut self) {
        let status = self.curl.0.wait().unwrap();
        assert!(status.success(), "curl noticed: {status}, at {} of {LENGTH} bytes", self.length());
        assert_eq!(Sha256::digest(fs::read(&self.file).unwrap()), Sha256::digest(content()));
    }
}

fn curl_outlives(test: &str, cut: Cut) {
    isolated(test, || {
        let world = world();
        let tunnel = tunnel(&world, &[(http(&world.b), "prefer=wifi")]);
        let Some(mut download) = Download::start(&world, tunnel.ports[0]) else {
            return skip(test, "there is no curl");
        };
        download.begun();
        cut.apply(&world.wifi, &world.a);
        assert!(download.length() < LENGTH as u64, "it was over before the network was");
        assert!(carried(&world.wifi) > 900_000, "that network carried nothing");
        download.complete();
        tunnel.unharmed();
    });
}

#[test]
fn curl_outlives_a_network_that_goes_silent() {
    curl_outlives("tunnel_lab::curl_outlives_a_network_that_goes_silent", Cut::Silent);
}

#[test]
fn curl_outlives_a_network_that_goes_down() {
    curl_outlives("tunnel_lab::curl_outlives_a_network_that_goes_down", Cut::Down);
}

#[test]
fn curl_outlives_all_networks() {
    let test = "tunnel_lab::curl_outlives_all_networks";
    isolated(test, || {
        let world = world();
        let mut tunnel = tunnel(&world, &[(http(&world.b), "background")]);
        let Some(mut download) = Download::start(&world, tunnel.ports[0]) else {
            return skip(test, "there is no curl");
        };
        download.begun();
        for link in [&world.wifi, &world.lte] {
            link.carrier_down(&world.a).unwrap();
        }
        tunnel.client.until("that it waits", |object| object["event"] == "parked");
        assert!(!download.is_over());
        world.lte.carrier_up(&world.a).unwrap();
        tunnel.client.until("that it goes on", |object| object["event"] == "resumed");
        download.complete();
        tunnel.unharmed();
    });
}

/// Gives back what comes, on this host; the port.
fn echo(host: &Host) -> u16 {
    let listener = host.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut back = stream.try_clone().unwrap();
            thread::spawn(move || std::io::copy(&mut stream, &mut back));
        }
    });
    port
}

#[test]
fn a_download_does_not_hold_up_a_foreground_connection() {
    let test = "tunnel_lab::a_download_does_not_hold_up_a_foreground_connection";
    isolated(test, || {
        let world = world();
        let (http, echo) = (http(&world.b), echo(&world.b));
        let tunnel = tunnel(&world, &[(http, "background"), (echo, "small")]);
        let Some(mut download) = Download::start(&world, tunnel.ports[0]) else {
            return skip(test, "there is no curl");
        };
        download.begun();
        let mut typing = world.a.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, tunnel.ports[1])).unwrap());
        typing.set_read_timeout(Some(GUARD)).unwrap();
        typing.set_nodelay(true).unwrap();
        let mut answered = 0;
        while !download.is_over() {
            let question = [answered as u8; 50];
            typing.write_all(&question).unwrap();
            let mut back = [0; 50];
            typing.read_exact(&mut back).unwrap();
            assert_eq!(back, question);
            answered += 1;
        }
        // Behind the download there would be a few at most.
        assert!(answered > 20, "{answered} questions were answered while it went on");
        download.complete();
    });
}

/// An ssh server of this test's own, and what its only user needs.
struct Ssh {
    directory: PathBuf,
    port: u16,
    _server: Stopped,
}

/// Why there can be none here.
fn no_sshd() -> Option<&'static str> {
    let has = |program: &str| Command::new(program).arg("-?").output().is_ok();
    if !(has("ssh") && has("ssh-keygen") && has("/usr/sbin/sshd")) {
        return Some("it needs ssh, ssh-keygen and /usr/sbin/sshd (openssh-client and openssh-server)");
    }
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    (geteuid().is_root() && !whole)
        .then_some("sshd takes root of a user namespace for root, and may not change its groups there")
}

impl Ssh {
    fn start(world: &World) -> Self {
        let directory = world.two.from("ssh");
        fs::create_dir_all(&directory).unwrap();
        for key in ["host_key", "user_key"] {
            let mut make = Command::new("ssh-keygen");
            make.args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(directory.join(key));
            assert!(make.status().unwrap().success());
        }
        fs::copy(directory.join("user_key.pub"), directory.join("authorized")).unwrap();
        let free = world.b.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        // On a host of its own nobody else takes it meanwhile.
        let port = free.local_addr().unwrap().port();
        drop(free);
        let at = directory.display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {at}/host_key\nAuthorizedKeysFile {at}/authorized\nPidFile none\n\
             UsePAM no\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\nPrintMotd no\n"
        );
        fs::write(directory.join("config"), config).unwrap();
        let sshd = "exec /usr/sbin/sshd -D -e -f \"$0\"";
        let mut command = if geteuid().is_root() {
            // As root it wants a directory in /run, which is made where nobody else sees it.
            let mut command = Command::new("unshare");
            let own_run = "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && ";
            command.args(["--mount", "sh", "-c", &format!("{own_run}{sshd}")]);
            command
        } else {
            let mut command = Command::new("sh");
            command.args(["-c", sshd]);
            command
        };
        let log = fs::File::create(directory.join("log")).unwrap();
        command.arg(directory.join("config")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let server = Stopped(world.b.spawn(&mut command).unwrap());
        let guard = Instant::now() + GUARD;
        while world.b.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err()) {
            let log = fs::read_to_string(directory.join("log")).unwrap();
            assert!(Instant::now() < guard, "sshd does not listen: {log}");
            thread::sleep(Duration::from_millis(10));
        }
        Self { directory, port, _server: server }
    }

    /// The client, which knows nothing but what it is told here.
    fn command(&self, port: u16, remote: &str) -> Command {
        let at = self.directory.display();
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-T", "-p", &port.to_string(), "-i"]).arg(self.directory.join("user_key"));
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "StrictHostKeyChecking=accept-new",
            "GlobalKnownHostsFile=none",
            &format!("UserKnownHostsFile={at}/known"),
        ] {
            ssh.args(["-o", option]);
        }
        ssh.args(["127.0.0.1", remote]);
        ssh
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

/// A command on the other host, asked line by line.
struct Session<'a> {
    ssh: &'a Ssh,
    child: Stopped,
    lines: mpsc::Receiver<String>,
    asked: u32,
}

impl Session<'_> {
    /// Asks so often; each question is answered before the next.
    fn ask(&mut self, times: u32) {
        for _ in 0..times {
            self.asked += 1;
            let question = format!("{} {}", self.asked, "x".repeat(300));
            let input = self.child.0.stdin.as_mut().unwrap();
            input.write_all(format!("{question}\n").as_bytes()).unwrap();
            let answer = self.lines.recv_timeout(GUARD);
            let answer = answer.unwrap_or_else(|error| panic!("{}: {error}: {}", self.asked, self.ssh.log()));
            assert_eq!(answer, format!("got {question}"));
        }
    }
}

fn ssh_outlives(test: &str, cut: Cut) {
    isolated(test, || {
        if let Some(reason) = no_sshd() {
            return skip(test, reason);
        }
        let world = world();
        let ssh = Ssh::start(&world);
        let tunnel = tunnel(&world, &[(ssh.port, "small,prefer=wifi")]);
        let mut command =
            ssh.command(tunnel.ports[0], "while read -r line; do echo \"got $line\"; done; echo over >&2");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Stopped(world.a.spawn(&mut command).unwrap());
        let output = BufReader::new(child.0.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut session = Session { ssh: &ssh, child, lines, asked: 0 };
        session.ask(5);
        let before = carried(&world.wifi);
        session.ask(50);
        let bytes = carried(&world.wifi) - before;
        assert!(bytes > 30_000, "that network did not carry the session, but {bytes} bytes");
        cut.apply(&world.wifi, &world.a);
        session.ask(100);
        drop(session.child.0.stdin.take());
        let mut words = String::new();
        session.child.0.stderr.take().unwrap().read_to_string(&mut words).unwrap();
        let status = session.child.0.wait().unwrap();
        assert!(status.success() && words.ends_with("over\n"), "{status}: {words}: {}", ssh.log());
        drop(session);
        tunnel.unharmed();
    });
}

#[test]
fn ssh_outlives_a_network_that_goes_silent() {
    ssh_outlives("tunnel_lab::ssh_outlives_a_network_that_goes_silent", Cut::Silent);
}

#[test]
fn ssh_outlives_a_network_that_goes_down() {
    ssh_outlives("tunnel_lab::ssh_outlives_a_network_that_goes_down", Cut::Down);
}
