//! What the configuration says of NATS.

use std::path::PathBuf;

use async_nats::ServerAddr;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::settings::one_or_several;

/// The most bytes of a prefix.
const MAX_PREFIX: usize = 128;
/// The most bytes of the name of a stream.
const MAX_STREAM: usize = 64;

/// The section `[daemon.nats]`; without it there is no broker. `url` is needed, every other key may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", remote = "Self")]
pub struct NatsSettings {
    /// Servers of one cluster: one or a list, like `"nats://broker:4222"`; `tls://` asks for TLS.
    pub url: Urls,
    /// A file of credentials as `nsc` writes it (JWT and seed). None.
    #[serde(default)]
    pub credentials: Option<PathBuf>,
    /// A user, with `password`. None.
    #[serde(default)]
    pub user: Option<String>,
    /// The user's password. None.
    #[serde(default)]
    pub password: Option<Secret>,
    /// A token. None.
    #[serde(default)]
    pub token: Option<Secret>,
    /// Whether this host's own key is its nkey; `steadfast status` shows it as servers want it. No.
    #[serde(default)]
    pub nkey: bool,
    /// Certificates, in PEM, that may vouch for the servers; asks for TLS. Those of the system.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// This host's certificate, in PEM, with `key`. None.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// The key of the certificate, in PEM.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// What subjects begin with. `steadfast.events`.
    #[serde(default)]
    pub prefix: Prefix,
    /// Whether events go through a stream of `JetStream`: then the servers keep them, and what came while this host was away comes
    /// later. No.
    #[serde(default)]
    pub jetstream: bool,
    /// The stream, which is made if it is missing. `STEADFAST_EVENTS`.
    #[serde(default)]
    pub stream: StreamName,
    /// For how many hours a stream that is made here keeps events, and the servers the place of a host that is away. 168.
    #[serde(default)]
    pub history: Hours,
    /// How many bytes a stream that is made here keeps at most. 1,073,741,824 (1 GiB).
    #[serde(default)]
    pub history_bytes: Bytes,
    /// On how many servers of a cluster a stream that is made here is kept. 1.
    #[serde(default)]
    pub replicas: Replicas,
}

/// Servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Urls(pub Vec<String>);

/// What is not shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

/// What subjects begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(pub String);

/// A stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamName(pub String);

/// Hours, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours(pub u32);

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// Copies, 1 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicas(pub u8);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("steadfast.events".into())
    }
}

impl Default for StreamName {
    fn default() -> Self {
        Self("STEADFAST_EVENTS".into())
    }
}

impl Default for Hours {
    fn default() -> Self {
        Self(168)
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Self(1 << 30)
    }
}

impl Default for Replicas {
    fn default() -> Self {
        Self(1)
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() <= MAX_PREFIX && text.split('.').all(is_word) && !text.starts_with("_INBOX") {
            return Ok(Self(text));
        }
        Err(D::Error::custom(format!(
            "`{text}` cannot begin subjects; write words of letters, digits, `-` and `_` with dots between, like \"plant.events\""
        )))
    }
}

impl<'de> Deserialize<'de> for StreamName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() <= MAX_STREAM && is_word(&text) {
            return Ok(Self(text));
        }
        Err(D::Error::custom(format!(
            "`{text}` cannot name a stream; write up to {MAX_STREAM} letters, digits, `-` and `_`"
        )))
    }
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hours = u32::deserialize(deserializer)?;
        let fits = (1..=24 * 3660).contains(&hours);
        fits.then_some(Self(hours)).ok_or_else(|| D::Error::custom("events are kept from 1 hour to 10 years"))
    }
}

impl<'de> Deserialize<'de> for Replicas {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let count = u8::deserialize(deserializer)?;
        let fits = (1..=5).contains(&count);
        fits.then_some(Self(count)).ok_or_else(|| D::Error::custom("a stream is kept on 1 to 5 servers"))
    }
}

impl<'de> Deserialize<'de> for Urls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let urls = one_or_several(deserializer)?;
        if urls.is_empty() {
            return Err(D::Error::custom("no server is named; write one like \"nats://broker:4222\""));
        }
        for url in &urls {
            let fits = ["nats://", "tls://"].iter().any(|scheme| url.starts_with(scheme));
            if !fits || url.parse::<ServerAddr>().is_err() {
                return Err(D::Error::custom(format!(
                    "`{url}` names no NATS server; write it like \"nats://broker:4222\" or \"tls://broker:4222\""
                )));
            }
            if url.contains('@') {
                return Err(D::Error::custom(
                    "a server is named without user and password, which are keys of their own",
                ));
            }
        }
        Ok(Self(urls))
    }
}

impl<'de> Deserialize<'de> for NatsSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The derived one.
        let settings = Self::deserialize(deserializer)?;
        settings.check().map_err(D::Error::custom)?;
        Ok(settings)
    }
}

impl NatsSettings {
    /// Keys that do not go together.
    fn check(&self) -> Result<(), &'static str> {
        let ways = [self.credentials.is_some(), self.user.is_some(), self.token.is_some(), self.nkey];
        if ways.iter().filter(|way| **way).count() > 1 {
            return Err(
                "only one of `credentials`, `user`, `token` and `nkey` says who this host is; remove the others",
            );
        }
        if self.user.is_some() != self.password.is_some() {
            return Err("`user` and `password` go together; write both or none");
        }
        if self.certificate.is_some() != self.key.is_some() {
            return Err("`certificate` and `key` go together; write both or none");
        }
        Ok(())
    }
}
