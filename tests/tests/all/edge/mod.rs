//! What clients may do to the gateway: requests that can be read in two ways, floods, clients that are slow or do not
//! read, too many of them.

mod bytes;
mod connections;
mod floods;
mod http10;
mod http2;
mod paths;
mod preface;
mod slow;
mod smuggling;
mod trailers;
mod udp;

use vestibule_tests::certs::{Certs, Pair};
use vestibule_tests::client;
use vestibule_tests::gateway::Gateway;
use vestibule_tests::origin::{Origin, Reply};
use vestibule_tests::ports;

use crate::quoted;

/// A gateway whose listener speaks HTTP/2, in front of an origin.
struct Http2Edge {
    gateway: Gateway,
    origin: Origin,
    port: u16,
    admin: u16,
    certificate: Pair,
    _certs: Certs,
}

impl Http2Edge {
    /// With these keys of its listener, and an origin whose every answer has a body of so many bytes.
    fn start(keys: &str, body: usize) -> Self {
        let certs = Certs::new();
        let certificate = certs.server(&certs.authority("ca"), &["a.test"]);
        let (port, admin) = (ports::free(), ports::free());
        let body = "b".repeat(body);
        let origin = Origin::script(move |_| Reply::ok(&body).into());
        let gateway = Gateway::start(&format!(
            "version: 1\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\n\
             listeners: {{ web: {{ address: \"127.0.0.1:{port}\", \
             tls: {{ certificates: [{{ cert: {}, key: {} }}] }}, {keys} }} }}\n\
             upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: origin }}]",
            quoted(&certificate.cert),
            quoted(&certificate.key),
            origin.address()
        ));
        Self { gateway, origin, port, admin, certificate, _certs: certs }
    }
}

/// A sample of the metrics at this admin endpoint, by its name and labels; 0 where there is none.
fn metric(admin: u16, sample: &str) -> u64 {
    let text = client::get(admin, "localhost", "/metrics").text();
    let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or(0)
}
