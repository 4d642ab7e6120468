//! The PROXY protocol in and out, with the servers that people have in front of a gateway and behind it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use vestibule_tests::certs::Certs;
use vestibule_tests::client::{Client, ClientTls, curl};
use vestibule_tests::origin::Origin;
use vestibule_tests::real::{Proxied, Proxy};

use super::{Gate, echo, exchange};
use crate::quoted;
use crate::raw::is_closed;

const WAYS: [&str; 3] = ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"];
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);
const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// A gateway that tells its origin the client's address in two ways.
fn http(keys: &str) -> (Gate, Origin) {
    let origin = Origin::echo();
    let gate = Gate::start(
        keys,
        &format!(
            "upstreams: {{ u: {{ endpoints: [\"{}\"] }} }}\n\
             routes: [{{ upstream: u, plugins: [{{ headers: {{ request: {{ set: {{ x-client: $client_ip }} }} }} }}] }}]",
            origin.address()
        ),
    );
    (gate, origin)
}

/// As whom the gateway has told the client to the origin.
fn told(seen: &Value) -> [&str; 2] {
    ["x-forwarded-for", "x-client"].map(|name| seen["headers"][name].as_str().unwrap_or_default())
}

#[test]
fn behind_haproxy_the_clients_address_is_the_clients() {
    let (gate, _origin) = http("proxy_protocol: true");
    for how in WAYS {
        let front = Proxy::to(gate.port, how);
        for _ in 0..2 {
            let seen = Client::plain_from(CLIENT, front.port).get("a.test", "/").json();
            assert_eq!(told(&seen), ["127.0.0.77"; 2], "{how}: {seen}");
        }
        gate.gateway.log_line(|line| line["client_ip"] == "127.0.0.77");
    }
    assert!(gate.gateway.log().iter().all(|line| line["client_ip"] == "127.0.0.77"));
}

#[test]
fn the_header_stands_before_tls() {
    let certs = Certs::new();
    let pair = certs.server(&certs.authority("CA"), &["a.test"]);
    let (gate, _origin) = http(&format!(
        "proxy_protocol: true, tls: {{ certificates: [{{ cert: {}, key: {} }}] }}",
        quoted(&pair.cert),
        quoted(&pair.key)
    ));
    for (how, version) in WAYS.iter().flat_map(|how| [(how, "--http1.1"), (how, "--http2")]) {
        let front = Proxy::to(gate.port, how);
        let url = format!("https://127.0.0.1:{}/", front.port);
        let out = curl(&["-k", "--interface", "127.0.0.77", version, &url]);
        let seen: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
        assert_eq!(told(&seen), ["127.0.0.77"; 2], "{how} {version}");
    }
    // Without one, it is refused before the handshake.
    assert!(Client::tls(gate.port, &ClientTls::default()).is_err());
    gate.line_of_cause("proxy_header_missing");
}

#[test]
fn haproxy_and_nginx_learn_the_clients_address() {
    for (name, server) in [("haproxy", Proxied::haproxy()), ("nginx", Proxied::nginx())] {
        for version in ["v1", "v2"] {
            let gate = Gate::start(
                &format!("tcp: {{ upstream: u, proxy_protocol: {version} }}"),
                &format!("upstreams: {{ u: {{ endpoints: [\"127.0.0.1:{}\"] }} }}", server.port),
            );
            let got = Client::plain_from(CLIENT, gate.port).get("a.test", "/").text();
            let (source, destination) = got.split_once(' ').unwrap();
            assert!(source.starts_with("127.0.0.77:") && !source.ends_with(":0"), "{name} {version}: {got}");
            assert_eq!(destination, format!("127.0.0.1:{}", gate.port), "{name} {version}");
        }
    }
}

#[test]
fn what_came_in_goes_out_through_a_chain_of_proxies() {
    let server = Proxied::nginx();
    for (how, version) in WAYS.iter().flat_map(|how| [(how, "v1"), (how, "v2")]) {
        let gate = Gate::start(
            &format!("proxy_protocol: true, tcp: {{ upstream: u, proxy_protocol: {version} }}"),
            &format!("upstreams: {{ u: {{ endpoints: [\"127.0.0.1:{}\"] }} }}", server.port),
        );
        let front = Proxy::to(gate.port, how);
        let got = Client::plain_from(CLIENT, front.port).get("a.test", "/").text();
        assert!(got.starts_with("127.0.0.77:"), "{how} {version}: {got}");
        assert!(got.ends_with(&format!(" 127.0.0.1:{}", front.port)), "{how} {version}: {got}");
        drop(front);
        gate.gateway.connection_line(|line| line["client_ip"] == "127.0.0.77");
    }
}

#[test]
fn what_is_behind_the_header_belongs_to_the_connection() {
    let (gate, _origin) = http("proxy_protocol: true");
    let v2 = |command: u8, family: u8, body: &[u8]| {
        let length = (body.len() as u16).to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &length, body].concat()
    };
    let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0, 80, 1, 187];
    let v6 = {
        let ip: std::net::Ipv6Addr = "2001:db8::7".parse().unwrap();
        [&ip.octets()[..], &ip.octets(), &[0, 1, 0, 2]].concat()
    };
    for (header, expected) in [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 80 443\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 80 443\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 80 443\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (b"PROXY UNKNOWN 192.0.2.7 whatever\r\n".to_vec(), "127.0.0.1"),
        (v2(0x21, 0x11, &v4), "192.0.2.7"),
        (v2(0x21, 0x21, &v6), "2001:db8::7"),
        (v2(0x21, 0x11, &[&v4[..], b"\x02\0\x06a.test\x30\0\x02ns"].concat()), "192.0.2.7"),
        (v2(0x21, 0x31, &[b'/'; 216]), "127.0.0.1"),
        (v2(0x20, 0x00, b""), "127.0.0.1"),
        (v2(0x20, 0x11, &v4), "127.0.0.1"),
    ] {
        for packet in [1, header.len() - 1, 4096] {
            let mut client = Client::plain(gate.port);
            for part in [&header[..], GET.as_bytes()].concat().chunks(packet) {
                client.send(part);
            }
            let seen = client.response().json();
            assert_eq!(told(&seen), [expected; 2], "packets of {packet}: {header:?}");
        }
    }
}

#[test]
fn a_connection_without_a_header_or_with_a_broken_one_is_closed_and_counted() {
    let (gate, origin) = http("proxy_protocol: true");
    for (bytes, cause) in [
        (GET.as_bytes(), "proxy_header_missing"),
        (b"\x16\x03\x01\x02\0\x01", "proxy_header_missing"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 80 port\r\n", "proxy_header_invalid"),
        (&[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat(), "proxy_header_invalid"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04abcd", "proxy_header_invalid"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", "proxy_header_invalid"),
    ] {
        let sample = format!("vestibule_refused_connections_total{{cause=\"{cause}\",listener=\"l4\"}}");
        let before = gate.metric(&sample);
        let mut socket = gate.connect();
        socket.write_all(bytes).unwrap();
        assert!(is_closed(&mut socket), "{bytes:?}");
        assert_eq!(gate.metric(&sample), before + 1, "{bytes:?}");
        assert_eq!(gate.line_of_cause(cause)["client_ip"], "127.0.0.1");
    }
    gate.gateway.wait_for("  to mend it: let what stands in front send one");
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn only_from_where_the_file_says_is_a_header_believed() {
    let (gate, origin) = http("proxy_protocol: { from: [127.0.0.77, 127.0.1.0/24] }");
    let header = "PROXY TCP4 192.0.2.7 198.51.100.1 80 443\r\n";
    for address in [CLIENT, Ipv4Addr::new(127, 0, 1, 9)] {
        let mut client = Client::plain_from(address, gate.port);
        let seen = client.send(header).send(GET).response().json();
        assert_eq!(told(&seen), ["192.0.2.7"; 2], "{address}");
        // It has to come from there.
        let mut without = Client::plain_from(address, gate.port);
        assert!(without.send(GET).try_response().is_err(), "{address}");
    }
    assert_eq!(gate.line_of_cause("proxy_header_missing")["client_ip"], "127.0.0.77");
    // From elsewhere, clients speak for themselves.
    for _ in 0..2 {
        let seen = Client::plain(gate.port).get("a.test", "/").json();
        assert_eq!(told(&seen), ["127.0.0.1"; 2]);
    }
    let before = origin.requests().len();
    for header in [header.as_bytes(), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut socket = gate.connect();
        // It may be closed before all of it is written.
        let _ = socket.write_all(header).and_then(|()| socket.write_all(GET.as_bytes()));
        assert!(is_closed(&mut socket));
    }
    assert_eq!(gate.line_of_cause("proxy_header_untrusted")["client_ip"], "127.0.0.1");
    assert_eq!(origin.requests().len(), before);

    let port = echo("");
    let gate = Gate::start(
        "proxy_protocol: { from: [10.0.0.0/8] }, tcp: { upstream: u }",
        &format!("upstreams: {{ u: {{ endpoints: [\"127.0.0.1:{port}\"] }} }}"),
    );
    assert_eq!(exchange(gate.connect(), b"PRO and contra"), "PRO and contra");
    let mut socket = gate.connect();
    for byte in header.as_bytes().chunks(1) {
        // It is closed once that much is there as tells what it is.
        let _ = socket.write_all(byte);
    }
    let mut got = Vec::new();
    let _ = socket.read_to_end(&mut got);
    assert_eq!(String::from_utf8_lossy(&got), "");
    gate.line_of_cause("proxy_header_untrusted");
}

#[test]
fn a_proxy_that_says_nothing_in_time_is_closed() {
    let (gate, _origin) = http("proxy_protocol: true");
    let sockets = ["", "PROXY TCP4 192"].map(|sent| {
        let mut socket: TcpStream = gate.connect();
        socket.write_all(sent.as_bytes()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket
    });
    for mut socket in sockets {
        assert!(is_closed(&mut socket));
    }
    assert_eq!(gate.line_of_cause("client_silent")["bytes_in"], json!(0));
    assert_eq!(
        gate.metric("vestibule_refused_connections_total{cause=\"client_silent\",listener=\"l4\"}"),
        2
    );
}
