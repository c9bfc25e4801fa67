//! This host's key as NATS writes public keys of users.

use data_encoding::BASE32_NOPAD;
use steadfast_backplane::Fingerprint;

/// "U", in base 32.
const USER: u8 = 20 << 3;
/// CRC-16 as XMODEM has it.
const POLYNOMIAL: u16 = 0x1021;

/// A host's key as a server of NATS wants it, for its `nkey` in a user.
pub fn nkey(key: &Fingerprint) -> String {
    let mut bytes = vec![USER];
    bytes.extend_from_slice(&key.0);
    let sum = checksum(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    BASE32_NOPAD.encode(&bytes)
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u16;
    for byte in bytes {
        sum ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            let carry = sum & 0x8000 != 0;
            sum <<= 1;
            if carry {
                sum ^= POLYNOMIAL;
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_nats_writes_it() {
        // The check value of the catalogue of CRCs.
        assert_eq!(checksum(b"123456789"), 0x31c3);
        let text = nkey(&Fingerprint([7; 32]));
        assert!(text.len() == 56 && text.starts_with('U'), "{text}");
    }
}
