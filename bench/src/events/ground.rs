//! What is between the two sides: the daemon or the server, made for one measurement, and its directory.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Carrier, Side};
use crate::Part;
use crate::child::{Child, Place};

/// Where `cargo xtask bench` has built the program and the C library.
const PROGRAMS: &str = "STEADFAST_BENCH_PROGRAMS";
/// How long a daemon, a server or a side may take to begin.
const BEGIN: Duration = Duration::from_secs(20);
/// How often a server is looked for.
const LOOK: Duration = Duration::from_millis(10);

/// Where the sides find what is between them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Meeting {
    /// A Unix socket.
    Socket(PathBuf),
    /// A server of NATS.
    Url(String),
}

/// A side is ready for orders.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    pub(super) ready: bool,
}

/// One measurement's surroundings; dropping them ends and removes everything.
pub(super) struct Ground {
    between: Option<Between>,
    meeting: Meeting,
    directory: Directory,
}

enum Between {
    Daemon(Child),
    Server(Server),
}

struct Server(Process);

struct Directory(PathBuf);

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _ended = self.0.wait();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _left = fs::remove_dir_all(&self.0);
    }
}

/// What keeps a system from being measured here.
pub(super) fn obstacle(carrier: Carrier) -> Option<String> {
    match carrier {
        Carrier::Nats | Carrier::Jetstream if version().is_none() => {
            Some("no nats-server; on Debian: apt-get install nats-server".into())
        }
        _ => None,
    }
}

/// Which server of NATS is measured.
pub(super) fn nats_version() -> String {
    version().unwrap_or_else(|| "no nats-server".into())
}

fn version() -> Option<String> {
    static VERSION: OnceLock<Option<String>> = OnceLock::new();
    let ask = || {
        let output = Command::new(nats_server()).arg("--version").output().ok()?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    VERSION.get_or_init(ask).clone()
}

/// Debian puts it where not every user's PATH leads.
fn nats_server() -> &'static Path {
    let usual = Path::new("/usr/sbin/nats-server");
    if usual.exists() { usual } else { Path::new("nats-server") }
}

fn programs() -> anyhow::Result<PathBuf> {
    let place = env::var_os(PROGRAMS).context(
        "cannot find `steadfast`; run `cargo xtask bench events`, which builds it and says where (STEADFAST_BENCH_PROGRAMS)",
    )?;
    Ok(place.into())
}

impl Ground {
    pub(super) fn new(carrier: Carrier) -> anyhow::Result<Self> {
        let directory = Directory(env::temp_dir().join(format!("steadfast-bench-events-{}", process::id())));
        // A measurement that failed may have left its own.
        let _none = fs::remove_dir_all(&directory.0);
        fs::create_dir_all(&directory.0).context("cannot make a directory for what is stored")?;
        let place = &directory.0;
        let (between, meeting) = match carrier {
            Carrier::Unix => (None, Meeting::Socket(place.join("socket"))),
            Carrier::Nats | Carrier::Jetstream => {
                let (server, url) = serve(place, carrier == Carrier::Jetstream)?;
                (Some(Between::Server(server)), Meeting::Url(url))
            }
            Carrier::Steadfast | Carrier::SteadfastAcknowledged | Carrier::Libftb => {
                let socket = place.join("agent.sock");
                (Some(Between::Daemon(daemon(place, &socket)?)), Meeting::Socket(socket))
            }
        };
        Ok(Self { between, meeting, directory })
    }

    /// The process between the sides.
    pub(super) fn between(&self) -> Option<u32> {
        self.between.as_ref().map(|between| match between {
            Between::Daemon(daemon) => daemon.id(),
            Between::Server(server) => server.0.id(),
        })
    }

    /// Starts one of the two, until it is ready.
    pub(super) fn side(&self, name: &str, part: Part, side: Side) -> anyhow::Result<Child> {
        let child = if side.carrier == Carrier::Libftb {
            let mut command = Command::new(self.compiled()?);
            command.arg(name).arg(if side.load.is_trip() { "round_trip" } else { "flood" });
            command.env("LD_LIBRARY_PATH", &self.directory.0);
            if let Meeting::Socket(socket) = &self.meeting {
                command.env("STEADFAST_AGENT", socket);
            }
            Child::run(name, command)?
        } else {
            let mut child = Child::start(name, part, Place::Here)?;
            child.order(&self.meeting)?;
            child
        };
        let Ready { .. } = child.expect("beginning", BEGIN)?;
        Ok(child)
    }

    /// The program in C, compiled and linked as its user would.
    fn compiled(&self) -> anyhow::Result<PathBuf> {
        let place = &self.directory.0;
        let program = place.join("ftb");
        if program.exists() {
            return Ok(program);
        }
        let library = programs()?.join("libftb.so");
        for name in ["libftb.so", "libftb.so.0"] {
            std::os::unix::fs::symlink(&library, place.join(name)).context("cannot link to the C library")?;
        }
        let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut compiler = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
        compiler.args(["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O2", "-pthread"]);
        compiler.arg("-I").arg(bench.join("../crates/libftb/include")).arg("-o").arg(&program);
        compiler.arg(bench.join("src/events/ftb.c")).arg("-L").arg(place).arg("-lftb");
        let output = compiler.output().context("cannot start the C compiler")?;
        if !output.status.success() {
            bail!("the C program does not compile: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(program)
    }
}

/// The daemon as a user has it, but for its places, and for rates that would be what is measured.
fn daemon(place: &Path, socket: &Path) -> anyhow::Result<Child> {
    let config = place.join("config.toml");
    let text = format!(
        "[daemon]\nsocket = '{}'\nstate = '{}'\n[daemon.limits]\nclient-rate = 10000000\nuser-rate = 10000000\n",
        socket.display(),
        place.join("state").display()
    );
    fs::write(&config, text).context("cannot write the daemon's configuration")?;
    let mut command = Command::new(programs()?.join("steadfast"));
    command
        .args(["--json", "--config"])
        .arg(config)
        .arg("--identity")
        .arg(place.join("identity"))
        .arg("daemon");
    command.env("HOME", place).env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME");
    let daemon = Child::run("daemon", command)?;
    let ready: Value = daemon.expect("beginning", BEGIN)?;
    if ready["type"] != "ready" {
        bail!("the daemon does not begin: {ready}");
    }
    Ok(daemon)
}

/// A server with its defaults, on a port that it finds, and where it is.
fn serve(place: &Path, jetstream: bool) -> anyhow::Result<(Server, String)> {
    let ports = place.join("ports");
    fs::create_dir(&ports)?;
    let stores = if jetstream {
        format!("jetstream {{ store_dir: '{}' }}\n", place.join("jetstream").display())
    } else {
        String::new()
    };
    let text = format!("listen: '127.0.0.1:-1'\nports_file_dir: '{}'\n{stores}", ports.display());
    let config = place.join("server.conf");
    fs::write(&config, text)?;
    let mut command = Command::new(nats_server());
    command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Server(command.spawn().context("cannot start nats-server")?);
    let deadline = Instant::now() + BEGIN;
    while Instant::now() < deadline {
        if let Some(port) = port(&ports).filter(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok()) {
            return Ok((server, format!("nats://127.0.0.1:{port}")));
        }
        thread::sleep(LOOK);
    }
    bail!("nats-server does not listen within {BEGIN:?}")
}

/// What it has written down about itself.
fn port(ports: &Path) -> Option<u16> {
    let file = fs::read_dir(ports).ok()?.next()?.ok()?.path();
    let told: Value = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
    told["nats"][0].as_str()?.rsplit(':').next()?.parse().ok()
}
