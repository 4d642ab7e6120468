//! Load over TLS: nothing fails, and handshakes are as many as connections, not as requests.

use std::collections::BTreeSet;

use vestibule_tests::certs::Certs;
use vestibule_tests::real::{Clients, Nginx, NginxTls, wrk};

use crate::{Edge, quoted};

#[test]
fn ten_seconds_of_load_over_tls_break_nothing_and_reuse_connections() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let certificate = certs.server(&ca, &["a.test"]);
    let me = certs.client(&ca, "gateway");
    let nginx =
        Nginx::start(&NginxTls { clients: Clients::Required(&ca.cert), ..NginxTls::new(&certificate) });
    let edge = Edge::start(&format!(
        r#"
access_log: {{ format: none }}
upstreams:
  origin:
    endpoints: ["127.0.0.1:{}"]
    host: a.test
    tls: {{ verify: {{ ca: {} }}, client_certificate: {{ cert: {}, key: {} }} }}
routes: [{{ upstream: origin }}]
"#,
        nginx.port,
        quoted(&ca.cert),
        quoted(&me.cert),
        quoted(&me.key),
    ));
    let connections = 20;
    let load = wrk(&format!("http://127.0.0.1:{}/1k", edge.port), connections, 10);
    assert_eq!((load.bad_statuses, load.socket_errors), (0, 0), "{load:?}");
    assert!(load.requests > 500, "{load:?}");

    let log = nginx.into_log();
    assert!(log.len() as u64 >= load.requests);
    let handshakes: BTreeSet<&str> = log.iter().filter_map(|line| line["connection"].as_str()).collect();
    assert!(
        handshakes.len() <= connections * 2,
        "{} handshakes for {} requests",
        handshakes.len(),
        log.len()
    );
    eprintln!("{} requests over {} upstream connections", log.len(), handshakes.len());
}
