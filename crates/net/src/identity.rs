//! This side's key.

use crate::private_file::{self, Existing};
use data_encoding::BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use steadfast_wire::Fingerprint;

/// More than any PKCS#8 Ed25519 file with comments; a larger file is not one.
const MAX_FILE: u64 = 64 * 1024;
const PEM_LINE: usize = 64;
/// Bytes of a signature.
pub const SIGNATURE_LENGTH: usize = 64;

/// An Ed25519 key pair: who this side is.
///
/// `Debug` shows the fingerprint alone.
///
/// ```
/// use steadfast_net::Identity;
/// let identity = Identity::generate().unwrap();
/// assert_eq!(identity.fingerprint().to_string().len(), 52);
/// ```
pub struct Identity {
    pkcs8: PrivatePkcs8KeyDer<'static>,
    pair: Arc<Ed25519KeyPair>,
    fingerprint: Fingerprint,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        let pkcs8 = self.pkcs8.clone_key();
        Self { pkcs8, pair: Arc::clone(&self.pair), fingerprint: self.fingerprint }
    }
}

/// Whether the owner of a key signed this.
pub fn verify(key: &Fingerprint, bytes: &[u8], signature: &[u8; SIGNATURE_LENGTH]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0).verify(bytes, signature).is_ok()
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The kernel gave no random bytes.
    #[error("cannot make a key: the system's random number generator failed")]
    Random,
    /// The file cannot be read.
    #[error("cannot read the identity {}: {source}; `steadfast keygen` makes one", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the identity {}: {source}; an existing identity is never replaced", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read or write the file.
    #[error(
        "the identity {} may be used by others (mode {mode:04o}): run `chmod 600 {}`, and make a new one if \
         somebody may have read it",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error(
        "{} is no Ed25519 private key in PKCS#8 PEM: name another file, or move it away and run `steadfast keygen`",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl Identity {
    /// A new key pair.
    pub fn generate() -> Result<Self, IdentityError> {
        let document =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| IdentityError::Random)?;
        // What ring wrote it also reads; were it not so, no key would be the honest answer.
        Self::from_pkcs8(document.as_ref().to_vec().into()).ok_or(IdentityError::Random)
    }

    fn from_pkcs8(pkcs8: PrivatePkcs8KeyDer<'static>) -> Option<Self> {
        // Other tools write PKCS#8 without the public key, which is as good.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8.secret_pkcs8_der()).ok()?;
        let fingerprint = Fingerprint(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pkcs8, pair: Arc::new(pair), fingerprint })
    }

    /// Reads a key pair; blocks on the file.
    ///
    /// Fails if the file is missing, is not a PKCS#8 PEM with an Ed25519 key, or may be read or written by others.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let read = |source| IdentityError::Read { path: path.into(), source };
        let malformed = || IdentityError::Malformed { path: path.into() };
        let file = File::open(path).map_err(read)?;
        let metadata = file.metadata().map_err(read)?;
        if !metadata.is_file() {
            return Err(malformed());
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(IdentityError::Exposed { path: path.into(), mode: metadata.mode() & 0o7777 });
        }
        let mut pem = Vec::with_capacity(256);
        file.take(MAX_FILE).read_to_end(&mut pem).map_err(read)?;
        let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| malformed())?;
        Self::from_pkcs8(pkcs8).ok_or_else(malformed)
    }

    /// Writes the key pair as PKCS#8 PEM with mode 0600, whole or not at all; blocks on the disk.
    ///
    /// Missing directories are made with mode 0700. Fails if there is a file already.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        private_file::write(path, self.to_pem().as_bytes(), 0o600, Existing::Keep)
            .map_err(|source| IdentityError::Write { path: path.into(), source })
    }

    /// The key pair of a file, which is made if it is missing; blocks on the disk.
    ///
    /// Of several processes that make it at once one wins, and all return the same.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        let missing = |error: &IdentityError| matches!(error, IdentityError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound);
        match Self::load(path) {
            Err(error) if missing(&error) => {}
            other => return other,
        }
        let identity = Self::generate()?;
        match identity.save(path) {
            Ok(()) => Ok(identity),
            Err(IdentityError::Write { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                Self::load(path)
            }
            Err(error) => Err(error),
        }
    }

    /// The public key, by which peers know this side.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Signs (Ed25519). What is signed has to begin with a text that says what it is, so that no signature can be taken for
    /// another; [`verify`] checks it.
    pub fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        let mut signature = [0; SIGNATURE_LENGTH];
        signature.copy_from_slice(self.pair.sign(bytes).as_ref());
        signature
    }

    pub(crate) fn pkcs8(&self) -> &PrivatePkcs8KeyDer<'static> {
        &self.pkcs8
    }

    fn to_pem(&self) -> String {
        let text = BASE64.encode(self.pkcs8.secret_pkcs8_der());
        let mut pem = String::with_capacity(text.len() + 80);
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, tail) = rest.split_at(rest.len().min(PEM_LINE));
            pem.push_str(line);
            pem.push('\n');
            rest = tail;
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        pem
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_file::testing::Directory;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn saved_with_private_modes_and_read_back() {
        let directory = Directory::new();
        let path = directory.path().join("a/b/identity");
        let identity = Identity::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(directory.path().join("a")).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(directory.path().join("a/b")).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a temporary file was left");
        assert_eq!(Identity::load(&path).unwrap().fingerprint(), identity.fingerprint());
        assert_eq!(Identity::load_or_create(&path).unwrap().fingerprint(), identity.fingerprint());
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let directory = Directory::new();
        let path = directory.path().join("identity");
        Identity::generate().unwrap().save(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Identity::load_or_create(&path).unwrap_err();
            assert!(matches!(error, IdentityError::Exposed { .. }), "{error}");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn an_identity_is_never_replaced() {
        let directory = Directory::new();
        let path = directory.path().join("identity");
        let first = Identity::load_or_create(&path).unwrap();
        assert!(Identity::generate().unwrap().save(&path).is_err());
        assert_eq!(Identity::load(&path).unwrap().fingerprint(), first.fingerprint());
    }

    #[test]
    fn one_of_several_creators_wins() {
        let directory = Directory::new();
        let path = directory.path().join("identity");
        let made: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Identity::load_or_create(&path).unwrap().fingerprint()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(made.windows(2).all(|pair| pair[0] == pair[1]), "{made:?}");
    }

    #[test]
    fn something_else_is_not_an_identity() {
        let directory = Directory::new();
        let path = directory.path().join("identity");
        private_file::write(&path, b"hello", 0o600, Existing::Replace).unwrap();
        assert!(matches!(Identity::load(&path).unwrap_err(), IdentityError::Malformed { .. }));
        assert!(matches!(Identity::load(directory.path()).unwrap_err(), IdentityError::Malformed { .. }));
    }

    #[test]
    fn what_one_key_signed_no_other_did() {
        let (one, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let signature = one.clone().sign(b"a text");
        assert!(verify(&one.fingerprint(), b"a text", &signature));
        assert!(!verify(&one.fingerprint(), b"another", &signature));
        assert!(!verify(&other.fingerprint(), b"a text", &signature));
        let mut changed = signature;
        changed[7] ^= 1;
        assert!(!verify(&one.fingerprint(), b"a text", &changed));
    }

    #[test]
    fn debug_keeps_the_secret() {
        let identity = Identity::generate().unwrap();
        assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.fingerprint()));
    }
}
