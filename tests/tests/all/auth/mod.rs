//! Plugins that ask who a client is: tokens, passwords, keys, an authorisation server, and whom the Kubernetes API is asked
//! as.

mod forward;
mod impersonate;
pub mod issuer;
mod jwt;
mod passwords;

use vestibule_tests::client::{Client, Response};

/// One GET with these header lines, on a connection of its own.
pub fn get(port: u16, target: &str, lines: &[String]) -> Response {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    Client::plain(port).send(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n")).response()
}

/// A header of the request as an echoing upstream saw it.
pub fn arrived(response: &Response, name: &str) -> Option<String> {
    assert_eq!(response.status, 200, "{response:?}");
    response.json()["headers"][name].as_str().map(str::to_owned)
}
