//! Each client's handshake is counted once, by whether it resumed or why it failed.

use std::net::{Shutdown, TcpStream};

use openssl::ssl::{SslConnector, SslConnectorBuilder, SslFiletype, SslMethod, SslVerifyMode, SslVersion};
use vestibule_tests::certs::Certs;
use vestibule_tests::client::Client;
use vestibule_tests::ports;

use super::{Told, eventually};
use crate::quoted;

#[test]
fn handshakes_of_clients_are_counted_by_what_came_of_them() {
    let certs = Certs::new();
    let (ca, other) = (certs.authority("ca"), certs.authority("other"));
    let leaf = certs.server(&ca, &["a.test"]);
    let (me, stranger) = (certs.client(&ca, "me"), certs.client(&other, "stranger"));
    let (open, strict, new) = (ports::free(), ports::free(), ports::free());
    let pair = format!("certificates: [{{ cert: {}, key: {} }}]", quoted(&leaf.cert), quoted(&leaf.key));
    let file = quoted(&ca.cert);
    let told = Told::start_with(
        &format!(
            "open: {{ address: \"127.0.0.1:{open}\", tls: {{ {pair} }} }}\n  \
             strict: {{ address: \"127.0.0.1:{strict}\", tls: {{ {pair}, client_certificate: {{ ca: {file}, require: true }} }} }}\n  \
             new: {{ address: \"127.0.0.1:{new}\", tls: {{ {pair}, min_version: \"1.3\" }} }}"
        ),
        "routes: [{ respond: { body: hello } }]",
    );
    let connect = |port: u16, set: &dyn Fn(&mut SslConnectorBuilder)| {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
        builder.set_verify(SslVerifyMode::NONE);
        set(&mut builder);
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        builder.build().connect("a.test", stream)
    };
    let count = |rest: &str| {
        let name = format!("vestibule_listener_tls_{rest}");
        told.samples(&name).get("").cloned().unwrap_or_else(|| "0".into())
    };

    let old = |builder: &mut SslConnectorBuilder| {
        builder.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
    };
    // Kept: OpenSSL takes back the session of a connection that was not shut down in order.
    let first = connect(open, &old).unwrap();
    let session = first.ssl().session().unwrap().to_owned();
    let mut again = SslConnector::builder(SslMethod::tls_client()).unwrap();
    again.set_verify(SslVerifyMode::NONE);
    old(&mut again);
    let mut again = again.build().configure().unwrap().into_ssl("a.test").unwrap();
    // SAFETY: the session is of this very process, and of a context with the same settings.
    unsafe { again.set_session(&session).unwrap() };
    let again = again.connect(TcpStream::connect(("127.0.0.1", open)).unwrap()).unwrap();
    assert!(again.ssl().session_reused());
    eventually("both are counted", || {
        let of =
            |resumed: &str| count(&format!("handshakes_total{{listener=\"open\",resumed=\"{resumed}\"}}"));
        (of("false"), of("true")) == ("1".into(), "1".into())
    });

    let shows = |pair: &vestibule_tests::certs::Pair, builder: &mut SslConnectorBuilder| {
        builder.set_certificate_chain_file(&pair.cert).unwrap();
        builder.set_private_key_file(&pair.key, SslFiletype::PEM).unwrap();
    };
    connect(strict, &|builder| shows(&me, builder)).unwrap();
    // With TLS 1.3 a client learns only later that it was refused.
    let _ = connect(strict, &|builder| shows(&stranger, builder));
    let _ = connect(strict, &|_| {});
    let _ = connect(new, &old);
    let _ = connect(open, &|builder| {
        old(builder);
        builder.set_cipher_list("AES256-SHA").unwrap();
    });
    let _ = connect(open, &|builder| {
        builder.set_ca_file(&other.cert).unwrap();
        builder.set_verify(SslVerifyMode::PEER);
    });
    TcpStream::connect(("127.0.0.1", new)).unwrap().shutdown(Shutdown::Both).unwrap();
    let mut plain = Client::plain(open);
    plain.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let _ = plain.to_end();
    for (listener, reason) in [
        ("strict", "bad_certificate"),
        ("strict", "no_certificate"),
        ("new", "protocol_version"),
        ("open", "no_shared_cipher"),
        ("open", "client_alert"),
        ("new", "closed"),
        ("open", "other"),
    ] {
        let labels = format!("{{listener=\"{listener}\",reason=\"{reason}\"}}");
        eventually(&labels, || count(&format!("handshake_failures_total{labels}")) == "1");
    }
    let failures = told.samples("vestibule_listener_tls_handshake_failures_total");
    assert!(failures.len() == 7 && failures.values().all(|count| count == "1"), "{failures:?}");
    assert_eq!(count("handshakes_total{listener=\"strict\",resumed=\"false\"}"), "1");
    assert_eq!(told.samples("vestibule_connections_total{listener=\"open\"}")[""], "5");
}
