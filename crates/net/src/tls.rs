//! TLS 1.3 in which both sides prove an Ed25519 key and show nothing else (RFC 7250).

mod records;
mod verify;

use crate::identity::Identity;
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption, UnbufferedClientConnection};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring as provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, UnbufferedServerConnection};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{AlertDescription, CertificateError, ClientConfig, ServerConfig};
use std::fmt;
use std::sync::Arc;
use steadfast_wire::Fingerprint;
use verify::{Refused, Verifier, key_of};

pub(crate) use records::{Outgoing, Records};

/// What both sides say they speak (ALPN, RFC 7301).
pub const ALPN: &[u8] = b"steadfast/1";

/// Decides whether a key may connect; asked in every handshake, so it must be quick and must not block.
pub type Trust = Arc<dyn Fn(&Fingerprint) -> bool + Send + Sync>;

/// Whom a connecting side accepts at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// This key and no other; whether it is trusted is not asked.
    Key(Fingerprint),
    /// Any key that is trusted.
    AnyTrusted,
}

/// Makes the two sides of TLS connections for one identity.
///
/// TLS 1.3 only, Ed25519 raw public keys only, ALPN [`ALPN`], X25519, no resumption, no early data. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    fingerprint: Fingerprint,
    trust: Trust,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// Why a TLS connection could not be made or has ended.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer proved a key that is not trusted here.
    #[error(
        "refused the peer {0}: its key is not trusted here; if you know it, run `steadfast trust add {0}`"
    )]
    Stranger(Fingerprint),
    /// The peer proved another key than the one that was asked for.
    #[error(
        "refused the peer {found}: {expected} was expected at that address; compare it with what `steadfast id` \
         prints there"
    )]
    Unexpected {
        /// The key that was asked for.
        expected: Fingerprint,
        /// The key that the peer has.
        found: Fingerprint,
    },
    /// The peer does not trust this side's key, or says so.
    #[error("the peer refused our key {0}: run `steadfast trust add {0}` there")]
    RefusedByPeer(Fingerprint),
    /// The other side speaks another protocol, or an attacker changed what it says.
    #[error("TLS failed: {0}; check that a Steadfast of the same version answers at that address")]
    Protocol(rustls::Error),
}

impl Tls {
    /// Both sides for `identity`; `trust` decides about keys that connect here.
    ///
    /// # Panics
    /// If the compiled-in cryptography lacks what TLS 1.3 requires, which only a broken build can cause.
    pub fn new(identity: &Identity, trust: Trust) -> Self {
        let cryptography = Arc::new(cryptography());
        let key = provider::sign::any_eddsa_type(identity.pkcs8()).expect("an Identity holds an Ed25519 key");
        let public = CertificateDer::from(verify::public_key_info(identity.fingerprint()));
        let own = Arc::new(CertifiedKey::new(vec![public], key));

        let verifier = Arc::new(Verifier::trusting(Arc::clone(&trust)));
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&cryptography))
            .with_protocol_versions(&[&TLS13])
            .expect("the suites are those of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&own))));
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_sni = false;

        let mut server = ServerConfig::builder_with_provider(cryptography)
            .with_protocol_versions(&[&TLS13])
            .expect("the suites are those of TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(own)));
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        Self {
            fingerprint: identity.fingerprint(),
            trust,
            client: Arc::new(client),
            server: Arc::new(server),
        }
    }

    /// This side's key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Whether the key is trusted now.
    pub fn trusts(&self, fingerprint: &Fingerprint) -> bool {
        (self.trust)(fingerprint)
    }

    pub(crate) fn connecting(&self, expect: Expect) -> Result<Records, TlsError> {
        let mut config = Arc::clone(&self.client);
        if let Expect::Key(expected) = expect {
            let config = Arc::make_mut(&mut config);
            config.dangerous().set_certificate_verifier(Arc::new(Verifier::pinning(expected)));
        }
        // Never sent (no SNI) and never compared: a raw key has no name.
        let name = ServerName::IpAddress(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST).into());
        let connection = UnbufferedClientConnection::new(config, name);
        connection.map(Records::from).map_err(|error| self.explain(error))
    }

    pub(crate) fn accepting(&self) -> Result<Records, TlsError> {
        let connection = UnbufferedServerConnection::new(Arc::clone(&self.server));
        connection.map(Records::from).map_err(|error| self.explain(error))
    }

    /// The key that the peer of a finished handshake proved.
    pub(crate) fn peer_of(connection: &Records) -> Result<Fingerprint, TlsError> {
        // Rustls itself agrees to "no protocol" if the other side names none: then it is not one of us.
        if connection.alpn_protocol() != Some(ALPN) {
            return Err(TlsError::Protocol(rustls::Error::NoApplicationProtocol));
        }
        let certificates = connection.peer_certificates();
        let key = certificates.and_then(<[_]>::first).and_then(key_of);
        key.ok_or(TlsError::Protocol(rustls::Error::NoCertificatesPresented))
    }

    pub(crate) fn explain(&self, error: rustls::Error) -> TlsError {
        explain(self.fingerprint, error)
    }
}

/// What an error of rustls means; `own` is this side's key.
pub(crate) fn explain(own: Fingerprint, error: rustls::Error) -> TlsError {
    match &error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            match other.0.downcast_ref::<Refused>() {
                Some(Refused::Stranger(found)) => TlsError::Stranger(*found),
                Some(Refused::Unexpected { expected, found }) => {
                    TlsError::Unexpected { expected: *expected, found: *found }
                }
                None => TlsError::Protocol(error),
            }
        }
        rustls::Error::AlertReceived(
            AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA,
        ) => TlsError::RefusedByPeer(own),
        _ => TlsError::Protocol(error),
    }
}

fn cryptography() -> CryptoProvider {
    CryptoProvider {
        // 128 bits match the strength of the keys, and AES-128 is the fastest where the processor has AES.
        cipher_suites: vec![
            provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
            provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ],
        kx_groups: vec![provider::kx_group::X25519],
        ..provider::default_provider()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({})", self.fingerprint)
    }
}
