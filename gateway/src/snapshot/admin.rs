//! From `admin:` to an address that tells only those who may know.

use std::net::SocketAddr;

use openssl::memcmp;
use openssl::sha::sha256;
use vestibule_plugins::{Path, Problem};

use super::files::Files;
use crate::config::{AdminConfig, Config};

/// Where the gateway tells about itself.
#[derive(Debug)]
pub struct Admin {
    /// Where it listens.
    pub address: SocketAddr,
    /// What a client has to show; `None` only where the address is a loopback one.
    pub token: Option<Token>,
}

/// A bearer token, kept as its hash alone.
pub struct Token([u8; 32]);

impl Token {
    /// The token of a file, without the end of its line.
    ///
    /// # Errors
    /// What it should have been.
    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let token = bytes.trim_ascii_end();
        // RFC 6750 section 2.1, b64token: anything else could not be sent.
        let is_legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
        match token {
            [] => Err("is empty"),
            token if token.iter().all(is_legal) => Ok(Self(sha256(token))),
            _ => Err("holds what no bearer token may have"),
        }
    }

    /// Whether this is the token, in a time that does not tell how much of it is right.
    pub fn is(&self, shown: &[u8]) -> bool {
        memcmp::eq(&self.0, &sha256(shown))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// Compiles it; nothing where it has a problem.
pub fn compile(
    config: &AdminConfig,
    whole: &Config,
    files: &Files<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Admin> {
    let before = problems.len();
    let at = Path::root().key("admin");
    let address = config.address;
    let is_same = |other: SocketAddr| other == address && other.port() != 0;
    if let Some((name, _)) = whole.listeners.iter().find(|(_, listener)| is_same(listener.address)) {
        problems.push(
            Problem::new(
                at.key("address"),
                format!("the listener `{name}` has the address `{address}` already"),
            )
            .hint("give the admin endpoint an address of its own"),
        );
    }
    if config.token_file.is_none() && !address.ip().to_canonical().is_loopback() {
        problems.push(
            Problem::new(
                at.key("address"),
                format!(
                    "`{address}` is not a loopback address, so others could read it without a `token_file`"
                ),
            )
            .hint(format!(
                "write `127.0.0.1:{}`, or `token_file: FILE` with a token that clients show",
                address.port()
            )),
        );
    }
    let token = config.token_file.as_ref().map(|file| {
        let at = at.key("token_file");
        let bytes = files.secret(file, &at)?;
        Token::parse(&bytes).map_err(|what| {
            Problem::new(at, format!("`{}` {what}", file.display())).hint(
                "it holds one line of letters, digits and `-._~+/=`: `openssl rand -hex 32` makes a good one",
            )
        })
    });
    let token = token.transpose().map_err(|problem| problems.push(problem)).ok()?;
    (problems.len() == before).then_some(Admin { address, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_itself_and_nothing_else() {
        let token = Token::parse(b"c2VjcmV0.-_~+/=\r\n").unwrap();
        for (shown, expected) in
            [("c2VjcmV0.-_~+/=", true), ("c2VjcmV0.-_~+/", false), ("", false), ("c2VjcmV0.-_~+/=\n", false)]
        {
            assert_eq!(token.is(shown.as_bytes()), expected, "{shown:?}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn a_file_without_a_legal_token_is_refused() {
        for text in ["", "\n", " \n", "two words", "\u{e9}", "a\nb", " a"] {
            assert!(Token::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
