//! A real server of NATS.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::host::{Directory, until};

pub(crate) struct Server {
    pub(crate) directory: Directory,
    settings: String,
    port: i32,
    process: Option<Child>,
}

impl Server {
    /// A server with these settings besides its own, on a free port, which it keeps.
    pub(crate) fn new(settings: impl FnOnce(&Directory) -> String) -> Self {
        let directory = Directory::new();
        let settings = settings(&directory);
        let mut server = Self { directory, settings, port: -1, process: None };
        server.start();
        server
    }

    /// One that keeps what it got.
    pub(crate) fn with_jetstream() -> Self {
        Self::new(|directory| {
            format!("jetstream {{ store_dir: '{}' }}", directory.0.join("jetstream").display())
        })
    }

    /// Three that keep together what they got.
    pub(crate) fn cluster() -> [Self; 3] {
        let free = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = free.map(|listener| listener.local_addr().unwrap().port());
        let routes = ports.map(|port| format!("'nats://127.0.0.1:{port}'")).join(", ");
        ports.map(|port| {
            Self::new(|directory| {
                format!(
                    "server_name: 'n{port}'\njetstream {{ store_dir: '{}' }}\n\
                     cluster {{ name: 'three', listen: '127.0.0.1:{port}', routes: [{routes}] }}",
                    directory.0.join("jetstream").display()
                )
            })
        })
    }

    pub(crate) fn start(&mut self) {
        let at = &self.directory.0;
        let ports = at.join("ports");
        let _none = std::fs::remove_dir_all(&ports);
        std::fs::create_dir(&ports).unwrap();
        let text = format!(
            "listen: '127.0.0.1:{}'\nports_file_dir: '{}'\n{}\n",
            self.port,
            ports.display(),
            self.settings
        );
        std::fs::write(at.join("server.conf"), text).unwrap();
        let mut command = Command::new(program());
        command.arg("-c").arg(at.join("server.conf")).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("nats-server starts; install the package nats-server");
        let found =
            ports.join(format!("{}_{}.ports", program().file_name().unwrap().display(), process.id()));
        self.process = Some(process);
        self.port = until("nats-server tells its port", || {
            let told: serde_json::Value =
                serde_json::from_str(&std::fs::read_to_string(&found).ok()?).ok()?;
            let port = told["nats"][0].as_str()?.rsplit(':').next()?.parse().ok()?;
            std::net::TcpStream::connect(("127.0.0.1", u16::try_from(port).ok()?)).ok()?;
            Some(port)
        });
    }

    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

/// Debian puts it where not every user's PATH leads.
fn program() -> PathBuf {
    let usual = PathBuf::from("/usr/sbin/nats-server");
    if usual.exists() { usual } else { "nats-server".into() }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _gone = process.kill();
            let _ended = process.wait();
        }
    }
}
