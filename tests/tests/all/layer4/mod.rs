//! Layer 4: bytes that pass through, by name or without, and whose they are.

mod passing;
mod proxy_protocol;
mod sni;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use serde_json::Value;
use vestibule_tests::client;
use vestibule_tests::gateway::Gateway;
use vestibule_tests::ports;

use crate::raw;

/// A gateway with a listener of these keys named `l4`, an admin endpoint, and the rest of its file.
struct Gate {
    gateway: Gateway,
    port: u16,
    admin: u16,
}

impl Gate {
    fn start(listener: &str, rest: &str) -> Self {
        let (port, admin) = (ports::free(), ports::free());
        let gateway = Gateway::start(&format!(
            "version: 1\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\n\
             listeners: {{ l4: {{ address: \"127.0.0.1:{port}\", {listener} }} }}\n{rest}\n"
        ));
        Self { gateway, port, admin }
    }

    fn connect(&self) -> TcpStream {
        raw::connected(self.port)
    }

    /// The access-log line of the connection that ended for this reason.
    fn line_of_cause(&self, cause: &str) -> Value {
        self.gateway.connection_line(|line| line["cause"] == cause)
    }

    /// The value of a sample of the metrics, by its name and labels; 0 where there is none.
    fn metric(&self, sample: &str) -> u64 {
        let text = client::get(self.admin, "localhost", "/metrics").text();
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0)
    }
}

/// A server that gives each connection its name, and then all that it is sent.
fn echo(name: &'static str) -> u16 {
    raw::server(move |_, mut socket| {
        socket.write_all(name.as_bytes())?;
        let mut from = socket.try_clone()?;
        io::copy(&mut from, &mut socket)?;
        socket.shutdown(Shutdown::Write)
    })
}

/// Sends all of it, ends the sending direction, and gives what comes back.
fn exchange(mut socket: TcpStream, sent: &[u8]) -> String {
    socket.write_all(sent).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    socket.read_to_end(&mut got).unwrap();
    String::from_utf8_lossy(&got).into_owned()
}
