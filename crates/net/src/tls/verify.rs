//! The check of a peer's raw public key.

use super::Trust;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring as provider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use std::fmt;
use std::sync::Arc;
use steadfast_wire::Fingerprint;

/// `SubjectPublicKeyInfo` of an Ed25519 key up to the key itself (RFC 8410, section 4): the only form there is.
const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A key as TLS carries it.
pub(super) fn public_key_info(fingerprint: Fingerprint) -> Vec<u8> {
    [&PREFIX[..], &fingerprint.0].concat()
}

/// The key that TLS carried, if it is an Ed25519 key and nothing else.
pub(super) fn key_of(info: &CertificateDer<'_>) -> Option<Fingerprint> {
    let key = info.as_ref().strip_prefix(&PREFIX[..])?;
    Some(Fingerprint(key.try_into().ok()?))
}

/// Why a key was refused; travels through rustls inside its error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("{0} is not trusted")]
    Stranger(Fingerprint),
    #[error("{expected} was expected, not {found}")]
    Unexpected { expected: Fingerprint, found: Fingerprint },
}

enum Rule {
    Pin(Fingerprint),
    Trusted(Trust),
}

pub(super) struct Verifier {
    rule: Rule,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn pinning(expected: Fingerprint) -> Self {
        Self::with(Rule::Pin(expected))
    }

    pub(super) fn trusting(trust: Trust) -> Self {
        Self::with(Rule::Trusted(trust))
    }

    fn with(rule: Rule) -> Self {
        Self { rule, algorithms: provider::default_provider().signature_verification_algorithms }
    }

    fn check_form(info: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        if !chain.is_empty() || key_of(info).is_none() {
            return Err(CertificateError::BadEncoding.into());
        }
        Ok(())
    }

    /// Checks the signature first, so that a key which is refused by name was at least proved: what a person is
    /// shown, and may decide to trust, is the key of who is really there.
    fn check(
        &self,
        message: &[u8],
        info: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let found = key_of(info).ok_or(CertificateError::BadEncoding)?;
        let info = SubjectPublicKeyInfoDer::from(info.as_ref());
        let valid = verify_tls13_signature_with_raw_key(message, &info, signed, &self.algorithms)?;
        let refused = match &self.rule {
            Rule::Pin(expected) if *expected == found => return Ok(valid),
            Rule::Pin(expected) => Refused::Unexpected { expected: *expected, found },
            Rule::Trusted(trust) if trust(&found) => return Ok(valid),
            Rule::Trusted(_) => Refused::Stranger(found),
        };
        Err(CertificateError::Other(OtherError(Arc::new(refused))).into())
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Rule::Pin(expected) => write!(f, "Verifier({expected})"),
            Rule::Trusted(_) => f.write_str("Verifier(trusted)"),
        }
    }
}

fn no_tls12() -> Error {
    Error::General("TLS 1.2 is not spoken here".into())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Self::check_form(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::check_form(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
