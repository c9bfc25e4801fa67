//! TLS with what Steadfast uses too: rustls, ring, TLS 1.3, AES-128-GCM, X25519. Only certificates are of the usual kind,
//! which matters in the handshake alone.

use std::sync::Arc;

use anyhow::Context;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring as provider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// The one name of the server.
pub(super) const NAME: &str = "bench.invalid";

fn cryptography() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![provider::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![provider::kx_group::X25519],
        ..provider::default_provider()
    })
}

/// The server's side, with a fresh certificate.
pub(crate) struct Acceptor {
    acceptor: TlsAcceptor,
    certificate: CertificateDer<'static>,
}

impl Acceptor {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let (config, certificate) = server_config()?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificate })
    }

    /// DER.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        self.certificate.to_vec()
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> anyhow::Result<server::TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await.context("no TLS with the client")
    }
}

/// What a server offers, with a fresh certificate.
pub(super) fn server_config() -> anyhow::Result<(ServerConfig, CertificateDer<'static>)> {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
    let certificate = cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(cryptography())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())?;
    Ok((config, certificate))
}

/// What a client asks for that trusts a certificate (DER).
pub(super) fn client_config(certificate: Vec<u8>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(certificate))?;
    Ok(ClientConfig::builder_with_provider(cryptography())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// The client's side, which trusts that certificate.
pub(crate) async fn connect(
    stream: TcpStream,
    certificate: Vec<u8>,
) -> anyhow::Result<client::TlsStream<TcpStream>> {
    let connector = TlsConnector::from(Arc::new(client_config(certificate)?));
    connector.connect(ServerName::try_from(NAME)?, stream).await.context("no TLS with the server")
}
