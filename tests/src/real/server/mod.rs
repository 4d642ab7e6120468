//! nginx, HAProxy, Envoy and `openssl s_server` under one description, so that a test can ask the same of each: what it
//! shows, whom it serves, and to which version, cipher or curve of TLS it is limited.

mod config;
mod envoy;

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{Clients, program};
use crate::certs::Pair;
use crate::ports;
use crate::process::Process;

/// Which program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// On OpenSSL.
    Nginx,
    /// On OpenSSL.
    HaProxy,
    /// On BoringSSL. Strict of SNI, it has a filter chain for the name alone, as an ingress gateway of Istio's.
    Envoy,
    /// `openssl s_server`: one connection at a time, closed after each answer, and no port without TLS.
    OpenSsl,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// How it speaks TLS.
#[derive(Clone, Copy)]
pub struct ServerTls<'a> {
    /// The name that it serves.
    pub name: &'a str,
    /// What it shows.
    pub certificate: &'a Pair,
    /// Whether clients show one.
    pub clients: Clients<'a>,
    /// No other than this one.
    pub version: Version,
    /// No other than this one, by OpenSSL's name. Envoy has no such limit for TLS 1.3.
    pub cipher: Option<&'a str>,
    /// No other than this one.
    pub curve: Option<&'a str>,
    /// Whether a hello with another SNI is refused; one without any too, but by `OpenSsl`.
    pub strict_sni: bool,
    /// HTTP/2 is offered by ALPN, before HTTP/1.1; `OpenSsl` does not speak it.
    pub h2: bool,
    /// HTTP/2 alone is agreed on. Only `OpenSsl` insists (RFC 7301 section 3.2).
    pub h2_only: bool,
}

/// A running server, which answers 200 to anything but `/421` and `/426`.
pub struct Server {
    /// The TLS listener.
    pub port: u16,
    /// A listener without TLS.
    pub plain_port: u16,
    /// A listener for HTTP/2 without TLS, by prior knowledge.
    pub h2c_port: u16,
    _process: Process,
    _folder: TempDir,
}

impl Server {
    /// Starts it and returns once it listens.
    pub fn start(program: Program, tls: &ServerTls) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = [ports::free(), ports::free(), ports::free()];
        let process = match program {
            Program::Nginx => nginx(folder.path(), ports, tls),
            Program::HaProxy => haproxy(folder.path(), ports, tls),
            Program::Envoy => envoy(folder.path(), ports, tls),
            Program::OpenSsl => openssl(folder.path(), ports, tls),
        };
        let [port, plain_port, h2c_port] = ports;
        Self { port, plain_port, h2c_port, _process: process, _folder: folder }
    }
}

fn nginx(folder: &Path, ports: [u16; 3], tls: &ServerTls) -> Process {
    fs::write(folder.join("nginx.conf"), config::nginx(ports, tls)).unwrap();
    let mut command = Command::new(program("nginx"));
    command.arg("-p").arg(folder).args(["-c", "nginx.conf", "-e", "stderr"]);
    ready(Process::spawn("nginx", &mut command), "start worker process ")
}

fn haproxy(folder: &Path, ports: [u16; 3], tls: &ServerTls) -> Process {
    let file = folder.join("haproxy.cfg");
    fs::write(&file, config::haproxy(ports, tls)).unwrap();
    let mut command = Command::new(program("haproxy"));
    command.args(["-W", "-f"]).arg(file);
    ready(Process::spawn("haproxy", &mut command), "Loading success")
}

fn envoy(folder: &Path, ports: [u16; 3], tls: &ServerTls) -> Process {
    let file = folder.join("envoy.json");
    fs::write(&file, envoy::config(ports, tls)).unwrap();
    let mut command = Command::new(program("envoy"));
    command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "info", "-c"]).arg(file);
    ready(Process::spawn("envoy", &mut command), "starting workers")
}

fn openssl(folder: &Path, ports: [u16; 3], tls: &ServerTls) -> Process {
    let mut command = Command::new(program("openssl"));
    command.arg("s_server").args(config::openssl(folder, ports[0], tls));
    ready(Process::spawn("openssl", &mut command), "ACCEPT")
}

fn ready(process: Process, mark: &str) -> Process {
    process.wait_for(mark);
    process
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::Certs;
    use crate::client::{Client, ClientTls};
    use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};

    #[test]
    fn each_serves_its_name_by_the_one_version_of_tls_that_it_is_limited_to() {
        let certs = Certs::new();
        let ca = certs.authority("ca");
        let certificate = certs.server(&certs.intermediate("between", &ca), &["a.test"]);
        for program in [Program::Nginx, Program::HaProxy, Program::Envoy, Program::OpenSsl] {
            for (version, text) in [(Version::Tls12, "TLSv1.2"), (Version::Tls13, "TLSv1.3")] {
                let server = Server::start(program, &ServerTls::new("a.test", &certificate, version));
                let tls = ClientTls { sni: Some("a.test"), ca: Some(&ca.cert), certificate: None };
                let answer = Client::tls(server.port, &tls).unwrap().get("a.test", "/");
                assert_eq!(answer.status, 200, "{program:?}");
                assert_eq!(agreed(server.port), text, "{program:?}");
            }
        }
    }

    fn agreed(port: u16) -> String {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
        builder.set_verify(SslVerifyMode::NONE);
        let socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        builder.build().connect("a.test", socket).unwrap().ssl().version_str().to_owned()
    }
}
