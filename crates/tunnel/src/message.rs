//! What is said at the beginning of a connection: which target, and whether it is reached.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::target::Target;

/// The version of the request. One that is not understood is refused with words, so that both sides learn why.
const VERSION: u8 = 1;

/// The longest target: a host, brackets, a colon and a port, in bytes.
const MAX_TARGET: usize = 264;

/// The longest reason, in bytes.
const MAX_WORDS: usize = 600;

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Connected,
    /// Nothing came of it, for this reason.
    Refused(String),
}

/// Asks for a target.
pub(crate) async fn ask(target: &Target, out: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let text = target.to_string();
    let length = (text.len() as u16).to_be_bytes();
    out.write_all(&[&[VERSION][..], &length, text.as_bytes()].concat()).await
}

/// Reads what is asked for; the words of an error are for the other side.
pub(crate) async fn asked(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<Target, String>> {
    let version = from.read_u8().await?;
    if version != VERSION {
        return Ok(Err(format!(
            "it speaks version {VERSION} of this protocol and was asked in version {version}"
        )));
    }
    let length = usize::from(from.read_u16().await?);
    if length > MAX_TARGET {
        return Ok(Err("what it was asked for is too long for a target".into()));
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).parse().map_err(|error: crate::BadTarget| error.to_string()))
}

impl Answer {
    pub(crate) async fn write(&self, out: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let (code, words) = match self {
            Self::Connected => (0, ""),
            Self::Refused(words) => (1, words.as_str()),
        };
        let end = (0..=words.len().min(MAX_WORDS)).rev().find(|at| words.is_char_boundary(*at));
        let words = &words[..end.unwrap_or(0)];
        let length = (words.len() as u16).to_be_bytes();
        out.write_all(&[&[code][..], &length, words.as_bytes()].concat()).await
    }

    pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let code = from.read_u8().await?;
        let length = usize::from(from.read_u16().await?);
        if code > 1 || length > MAX_WORDS {
            let words = "the other side's answer cannot be understood; check that both have the same version";
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        let mut words = vec![0; length];
        from.read_exact(&mut words).await?;
        let words = String::from_utf8_lossy(&words).into_owned();
        Ok(if code == 0 { Self::Connected } else { Self::Refused(words) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_come_back() {
        let target: Target = "[fd00::1]:8080".parse().unwrap();
        let mut bytes = Vec::new();
        ask(&target, &mut bytes).await.unwrap();
        assert_eq!(asked(&mut &bytes[..]).await.unwrap(), Ok(target));
        for cut in 0..bytes.len() {
            assert!(asked(&mut &bytes[..cut]).await.is_err(), "{cut}");
        }
        let long = "ä".repeat(1000);
        for (answer, length) in [(Answer::Connected, 0), (Answer::Refused(long), MAX_WORDS)] {
            let mut bytes = Vec::new();
            answer.write(&mut bytes).await.unwrap();
            assert_eq!(bytes.len(), 3 + length);
            let back = Answer::read(&mut &bytes[..]).await.unwrap();
            assert_eq!(back == Answer::Connected, answer == Answer::Connected);
        }
    }

    #[tokio::test]
    async fn nonsense_is_refused() {
        for (bytes, part) in
            [(&[2, 0, 0][..], "version"), (&[1, 255, 255], "too long"), (&[1, 0, 1, 0xff], "no target")]
        {
            let words = asked(&mut &bytes[..]).await.unwrap().unwrap_err();
            assert!(words.contains(part), "{words}");
        }
        for bytes in [[9, 0, 0], [1, 255, 255]] {
            assert!(Answer::read(&mut &bytes[..]).await.is_err());
        }
    }
}
