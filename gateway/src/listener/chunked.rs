//! A chunked body as its bytes come: what is not to the letter of RFC 9112 section 7.1 is refused before the engine sees
//! it. The engine decodes; it would take a bare line feed within a chunk's extension, where others see a line's end. Pure.

use super::head::{Fault, field};

/// Where in a body the next byte is.
#[derive(Debug)]
pub struct Chunks {
    at: At,
    /// Bytes of the present extension, or of all trailers so far.
    spent: usize,
    /// A trailer's line that has begun.
    line: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In a chunk's size, of which so many digits have come.
    Size { size: u64, digits: u8 },
    /// In a chunk's extension.
    Extension { size: u64 },
    /// Before the line feed of its first line.
    SizeEnd { size: u64 },
    /// So many bytes before its end.
    Data(u64),
    /// Before the carriage return behind it.
    DataEnd,
    /// Before the line feed behind it.
    DataEnded,
    /// Behind the last chunk.
    Trailers,
    /// Behind it all.
    Ended,
}

/// A chunk's extension, and all trailers together, may have so many bytes. Nobody reads either.
const SPARE: usize = 4096;
/// 16 digits could overflow what the engine counts in.
const DIGITS: u8 = 15;

const NEXT: At = At::Size { size: 0, digits: 0 };

impl Chunks {
    /// A body whose first byte is yet to come.
    pub fn new() -> Self {
        Self { at: NEXT, spent: 0, line: Vec::new() }
    }

    /// Whether the body is over: what comes then is no part of it.
    pub fn is_over(&self) -> bool {
        self.at == At::Ended
    }

    /// Looks at the next bytes.
    ///
    /// # Errors
    /// The body is not legal.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while let Some((byte, rest)) = bytes.split_first() {
            if let At::Data(left) = self.at {
                let taken = left.min(bytes.len() as u64);
                self.at = if taken == left { At::DataEnd } else { At::Data(left - taken) };
                bytes = &bytes[taken as usize..];
                continue;
            }
            if self.at == At::Ended {
                return Ok(());
            }
            self.at = self.next(*byte)?;
            bytes = rest;
        }
        Ok(())
    }

    fn next(&mut self, byte: u8) -> Result<At, Fault> {
        match (self.at, byte) {
            (At::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                match digits {
                    DIGITS => Err(bad("a chunk's size with too many digits")),
                    _ => Ok(At::Size { size: size * 16 + u64::from(digit), digits: digits + 1 }),
                }
            }
            (At::Size { digits: 0, .. }, _) => Err(bad("a chunk without a size")),
            (At::Size { size, .. } | At::Extension { size }, b'\r') => Ok(At::SizeEnd { size }),
            (At::Size { size, .. }, b';') => {
                self.spent = 0;
                Ok(At::Extension { size })
            }
            (At::Size { .. }, _) => Err(bad("a chunk's size that is no number")),
            (At::Extension { .. }, 0..=8 | 10..=31 | 0x7f) => {
                Err(bad("a chunk's extension with a control character"))
            }
            (At::Extension { size }, _) => {
                self.spend("a chunk's extension that is too long")?;
                Ok(At::Extension { size })
            }
            (At::SizeEnd { size: 0 }, b'\n') => {
                self.spent = 0;
                Ok(At::Trailers)
            }
            (At::SizeEnd { size }, b'\n') => Ok(At::Data(size)),
            (At::SizeEnd { .. }, _) => Err(bad("a chunk's size that ends in a bare carriage return")),
            (At::DataEnd, b'\r') => Ok(At::DataEnded),
            (At::DataEnded, b'\n') => Ok(NEXT),
            (At::DataEnd | At::DataEnded, _) => Err(bad("a chunk that is longer than its size")),
            (At::Trailers, b'\n') => self.trailer(),
            (At::Trailers, byte) => {
                self.spend("trailers that are too long")?;
                self.line.push(byte);
                Ok(At::Trailers)
            }
            // Neither is ever given a byte.
            (At::Data(_) | At::Ended, _) => Ok(self.at),
        }
    }

    fn trailer(&mut self) -> Result<At, Fault> {
        let line = std::mem::take(&mut self.line);
        match line.strip_suffix(b"\r") {
            None => Err(bad("a trailer that ends in a bare line feed")),
            Some(b"") => Ok(At::Ended),
            Some(line) => field(line).map(|_| At::Trailers),
        }
    }

    fn spend(&mut self, words: &'static str) -> Result<(), Fault> {
        self.spent += 1;
        if self.spent > SPARE { Err(bad(words)) } else { Ok(()) }
    }
}

fn bad(words: &'static str) -> Fault {
    Fault { status: 400, words }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the body is over, in one piece or byte by byte.
    fn read(body: &str) -> Result<bool, &'static str> {
        let mut whole = Chunks::new();
        let told = whole.read(body.as_bytes()).map(|()| whole.is_over());
        let mut slow = Chunks::new();
        let told_slowly = body.bytes().try_for_each(|byte| slow.read(&[byte])).map(|()| slow.is_over());
        assert_eq!(told, told_slowly, "{body:?}");
        told.map_err(|fault| fault.words)
    }

    #[test]
    fn the_end_of_a_body_is_found() {
        for (body, over) in [
            ("5\r\nhello\r\n0\r\n\r\n", true),
            ("5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\nanything\0", true),
            ("00A;x=\"y z\"\r\n0123456789\r\n000\r\nx: y\r\nz:\r\n\r\n", true),
            ("0\r\n\r\n", true),
            ("5\r\nhello\r\n0\r\n", false),
            ("5\r\nhell", false),
            ("1\r\n\n\r\n", false),
            ("", false),
        ] {
            assert_eq!(read(body), Ok(over), "{body:?}");
        }
    }

    #[test]
    fn what_is_not_to_the_letter_is_refused_in_words() {
        let long = format!("1;{}\r\n", "x".repeat(SPARE + 1));
        let trailers = format!("0\r\n{}\r\n", "x: y\r\n".repeat(SPARE / 5 + 1));
        for (body, words) in [
            ("\r\n", "a chunk without a size"),
            (";x\r\n", "a chunk without a size"),
            ("+5\r\nhello\r\n", "a chunk without a size"),
            (" 5\r\nhello\r\n", "a chunk without a size"),
            ("0x5\r\nhello\r\n", "a chunk's size that is no number"),
            ("5 \r\nhello\r\n", "a chunk's size that is no number"),
            ("5_0\r\n", "a chunk's size that is no number"),
            ("5\nhello\r\n", "a chunk's size that is no number"),
            ("0000000000000001\r\n", "a chunk's size with too many digits"),
            ("ffffffffffffffff\r\n", "a chunk's size with too many digits"),
            ("5;x\nhello\r\n", "a chunk's extension with a control character"),
            ("5;x\0\r\n", "a chunk's extension with a control character"),
            ("5;\r\r\n", "a chunk's size that ends in a bare carriage return"),
            ("5\rxhello\r\n", "a chunk's size that ends in a bare carriage return"),
            ("5\r\nhelloX\r\n", "a chunk that is longer than its size"),
            ("5\r\nhello0\r\n\r\n", "a chunk that is longer than its size"),
            ("5\r\nhello\n", "a chunk that is longer than its size"),
            ("5\r\nhello\rX", "a chunk that is longer than its size"),
            ("0\r\n\n", "a trailer that ends in a bare line feed"),
            ("0\r\nx: y\n\r\n", "a trailer that ends in a bare line feed"),
            ("0\r\nx : y\r\n\r\n", "a space between a field's name and its colon"),
            ("0\r\nGET / HTTP/1.1\r\n", "a field without a colon"),
            (&long, "a chunk's extension that is too long"),
            (&trailers, "trailers that are too long"),
        ] {
            assert_eq!(read(body), Err(words), "{body:?}");
        }
    }
}
