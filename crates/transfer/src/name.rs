//! Names of files: which may cross the network, and how they are printed.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The hidden directory, beside the files that it is about, in which a receiver keeps what is not whole yet.
pub const PARTIAL_DIRECTORY: &str = ".steadfast-partial";

/// The most bytes in one name, as Linux has it.
pub(crate) const MAX_NAME: usize = 255;
/// The most bytes in a path below the receiver's directory; the system takes 4,095.
pub(crate) const MAX_PATH: usize = 3800;
/// The most names in a path.
pub(crate) const MAX_DEPTH: usize = 128;

/// Why something may not be the name of a file here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameFault {
    /// No byte.
    #[error("a name is empty")]
    Empty,
    /// `.` or `..`.
    #[error("`.` and `..` are no names of files")]
    Dots,
    /// A slash or a NUL.
    #[error("a name holds a slash or a NUL")]
    Byte,
    /// More than `MAX_NAME` bytes.
    #[error("a name has more than {MAX_NAME} bytes")]
    Long,
    /// That of the receiver's own directory.
    #[error("`{PARTIAL_DIRECTORY}` is where receivers keep what is not whole yet")]
    Reserved,
    /// More than `MAX_PATH` bytes or `MAX_DEPTH` names altogether.
    #[error("the path has more than {MAX_PATH} bytes or {MAX_DEPTH} names")]
    Deep,
}

/// Whether `name` may be one component of a path.
pub(crate) fn check(name: &[u8]) -> Result<(), NameFault> {
    if name.is_empty() {
        Err(NameFault::Empty)
    } else if name == b"." || name == b".." {
        Err(NameFault::Dots)
    } else if name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        Err(NameFault::Byte)
    } else if name.len() > MAX_NAME {
        Err(NameFault::Long)
    } else if name.eq_ignore_ascii_case(PARTIAL_DIRECTORY.as_bytes()) {
        // In any case of letters: some file systems do not tell them apart.
        Err(NameFault::Reserved)
    } else {
        Ok(())
    }
}

/// A path for a screen: what could move the cursor, change the direction of writing or hide is escaped, as are bytes
/// that are no UTF-8 and the backslash itself.
///
/// ```
/// assert_eq!(steadfast_transfer::printable(b"a\x1b[2Jb\xff"), "a\\u{1b}[2Jb\\xff");
/// ```
pub fn printable(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for piece in path.utf8_chunks() {
        for letter in piece.valid().chars() {
            if letter == '\\' {
                text.push_str("\\\\");
            } else if is_harmless(letter) {
                text.push(letter);
            } else {
                // Writing to a string cannot fail.
                let _written = write!(text, "\\u{{{:x}}}", u32::from(letter));
            }
        }
        for byte in piece.invalid() {
            let _written = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// [`printable`] of a path of this system.
pub fn printable_path(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}

/// Whether a letter shows itself and changes nothing else on a screen.
fn is_harmless(letter: char) -> bool {
    let invisible = matches!(
        letter,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    );
    !letter.is_control() && !invisible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, fault) in [
            (&b""[..], Some(NameFault::Empty)),
            (b".", Some(NameFault::Dots)),
            (b"..", Some(NameFault::Dots)),
            (b"...", None),
            (b"a/b", Some(NameFault::Byte)),
            (b"a\0", Some(NameFault::Byte)),
            (&[b'a'; 255], None),
            (&[b'a'; 256], Some(NameFault::Long)),
            (b".Steadfast-PARTIAL", Some(NameFault::Reserved)),
            (b".steadfast-partials", None),
            (b"\xff\xfe \n", None),
        ] {
            assert_eq!(check(name).err(), fault, "{name:?}");
        }
    }

    #[test]
    fn what_is_printed_moves_no_cursor() {
        assert_eq!(printable("größe.txt".as_bytes()), "größe.txt");
        assert_eq!(printable(b"a\r\n\x07"), "a\\u{d}\\u{a}\\u{7}");
        assert_eq!(printable("x\u{202e}txt.exe".as_bytes()), "x\\u{202e}txt.exe");
        assert_eq!(printable("\u{9b}31m".as_bytes()), "\\u{9b}31m");
        assert_eq!(printable(b"\\x41"), "\\\\x41");
    }
}
