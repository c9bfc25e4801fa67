//! Multipath TCP: whether it can be used here, and how two hosts get a subflow over each network.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use steadfast_testbed::Host;

use super::stream;
use crate::stage::Stage;

const ENABLED: &str = "/proc/sys/net/mptcp/enabled";
/// How long the second subflow may take.
const JOIN: Duration = Duration::from_secs(5);

/// What is missing, and what would help.
pub(crate) fn obstacle() -> Option<String> {
    if let Err(error) = fs::metadata(ENABLED) {
        return Some(format!("this kernel has no Multipath TCP ({ENABLED}: {error}); it needs CONFIG_MPTCP"));
    }
    // Any runtime will do: nothing is waited for.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let listening = runtime.map(|runtime| {
        let _inside = runtime.enter();
        stream::listen(([127, 0, 0, 1], 0).into(), true).map(drop)
    });
    if let Ok(Err(error)) = listening {
        return Some(format!("cannot open a socket of IPPROTO_MPTCP: {error}"));
    }
    let version = Command::new("ip").args(["mptcp", "help"]).stdin(Stdio::null()).output();
    match version {
        Ok(output) if !String::from_utf8_lossy(&output.stderr).contains("unknown") => None,
        Ok(_) => Some("the program `ip` does not know Multipath TCP; install iproute2 5.8 or later".into()),
        Err(error) => {
            Some(format!("the program `ip` sets up subflows ({error}); on Debian: apt-get install iproute2"))
        }
    }
}

/// The server tells its further addresses to the client, which opens a subflow to each. Nothing else would have to
/// be set up: addresses lead to interfaces by the routes.
pub(crate) fn prepare(stage: &Stage) -> anyhow::Result<()> {
    let addresses = stage.server_addresses();
    let subflows = (addresses.len() - 1).to_string();
    for host in [&stage.client, &stage.server] {
        host.run(|| fs::write(ENABLED, "1")).context("cannot enable Multipath TCP on a host of the lab")?;
        ip(host, &["mptcp", "limits", "set", "subflow", &subflows, "add_addr_accepted", &subflows])?;
    }
    for (address, interface) in addresses.iter().zip(stage.networks()).skip(1) {
        ip(&stage.server, &["mptcp", "endpoint", "add", &address.to_string(), "dev", &interface, "signal"])?;
    }
    Ok(())
}

fn ip(host: &Host, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    let status = host.spawn(&mut command)?.wait()?;
    if !status.success() {
        bail!("`ip {}` on host {}: {status}", arguments.join(" "), host.name());
    }
    Ok(())
}

/// Waits until so many further subflows have joined the connections of this host.
pub(crate) async fn await_joined(subflows: usize) -> anyhow::Result<()> {
    let joined = async {
        while counter("MPTcpExt:", "MPJoinSynAckRx")? < subflows as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The handshake of a join has four steps, of which this is the second.
        tokio::time::sleep(Duration::from_millis(100)).await;
        anyhow::Ok(())
    };
    match tokio::time::timeout(JOIN, joined).await {
        Ok(result) => result,
        Err(_) => bail!("no {subflows} further subflows within {JOIN:?}"),
    }
}

/// One of the kernel's counters of this network namespace.
fn counter(table: &str, name: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").context("cannot read the counters")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(table));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let found = names.split_whitespace().zip(values.split_whitespace()).find(|(known, _)| *known == name);
    let (_, value) = found.with_context(|| format!("the kernel does not count {name}"))?;
    Ok(value.parse()?)
}
