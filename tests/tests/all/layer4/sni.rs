//! Where a connection goes by the name that its client asks for, which nobody decrypts anything for.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use openssl::ssl::{Ssl, SslConnector, SslMethod, SslStream, SslVerifyMode};
use serde_json::json;
use vestibule_tests::certs::{Authority, Certs};
use vestibule_tests::client::{Client, ClientTls, curl};
use vestibule_tests::gateway::Gateway;
use vestibule_tests::http2::Http2Client;
use vestibule_tests::origin::{Origin, OriginTls, Reply};
use vestibule_tests::{ports, real};

use super::{Gate, echo, exchange};
use crate::quoted;
use crate::raw::{connected, is_closed};

/// Origins that end TLS themselves, each with a certificate of its own.
struct World {
    certs: Certs,
    ca: Authority,
    origins: Vec<Origin>,
}

impl World {
    fn new() -> Self {
        let certs = Certs::new();
        let ca = certs.authority("CA");
        let origin = |name: &str| {
            let pair = certs.server(&ca, &[name]);
            let tls = OriginTls { certificate: &pair, clients: None, insist_on_sni: false };
            let body = name.to_owned();
            Origin::tls(&tls, move |_| Reply::ok(&body).into())
        };
        let origins = ["blue", "green", "fallback"].map(origin).into();
        Self { certs, ca, origins }
    }

    fn upstreams(&self) -> String {
        let listed = ["blue", "green", "fallback"].iter().zip(&self.origins);
        let listed = listed.map(|(name, it)| format!("{name}: {{ endpoints: [\"{}\"] }}", it.address()));
        format!("upstreams: {{ {} }}", listed.collect::<Vec<_>>().join(", "))
    }

    /// A listener that ends TLS for `own.test` and passes the names of blue and green through.
    fn mixed(&self) -> Gate {
        let own = self.certs.server(&self.ca, &["own.test", "*.blue.test"]);
        Gate::start(
            &format!(
                "tls: {{ certificates: [{{ cert: {}, key: {} }}] }}, \
                 tcp: {{ by_sni: {{ \"*.blue.test\": blue, green.test: green }} }}",
                quoted(&own.cert),
                quoted(&own.key)
            ),
            &format!("{}\nroutes: [{{ respond: {{ body: ended here }} }}]", self.upstreams()),
        )
    }
}

const BY_SNI: &str = "\"*.blue.test\": blue, \"x.blue.test\": green, green.test: green";

fn shown(port: u16, sni: Option<&str>) -> Option<String> {
    Client::tls(port, &ClientTls { sni, ..ClientTls::default() }).ok()?.peer_name()
}

#[test]
fn a_connection_goes_where_the_name_leads_that_it_asks_for() {
    let world = World::new();
    let gate =
        Gate::start(&format!("tcp: {{ by_sni: {{ {BY_SNI} }}, upstream: fallback }}"), &world.upstreams());
    for (sni, expected) in [
        (Some("a.blue.test"), "blue"),
        (Some("b.a.blue.test"), "blue"),
        (Some("A.Blue.TEST"), "blue"),
        (Some("x.blue.test"), "green"),
        (Some("green.test"), "green"),
        (Some("blue.test"), "fallback"),
        (Some("a.green.test"), "fallback"),
        (None, "fallback"),
    ] {
        assert_eq!(shown(gate.port, sni).as_deref(), Some(expected), "{sni:?}");
        let told = sni.map(str::to_ascii_lowercase);
        let line =
            gate.gateway.connection_line(|line| line["sni"] == json!(told) && line["upstream"] == expected);
        assert!(line["bytes_in"].as_u64().unwrap() > 100 && line["cause"].is_null(), "{line}");
    }
    // Where it is not TLS, no name is asked for.
    let plain = echo("plain ");
    let gate = Gate::start(
        "tcp: { by_sni: { green.test: green }, upstream: plain }",
        &world.upstreams().replace(
            "upstreams: {",
            &format!("upstreams: {{ plain: {{ endpoints: [\"127.0.0.1:{plain}\"] }},"),
        ),
    );
    assert_eq!(exchange(gate.connect(), b"SSH-2.0-x\r\n"), "plain SSH-2.0-x\r\n");
}

#[test]
fn curl_and_openssl_are_led_by_the_name_that_they_ask_for() {
    let world = World::new();
    let gate =
        Gate::start(&format!("tcp: {{ by_sni: {{ {BY_SNI} }}, upstream: fallback }}"), &world.upstreams());
    let port = gate.port;
    let out = curl(&[
        "-k",
        "--resolve",
        &format!("a.blue.test:{port}:127.0.0.1"),
        &format!("https://a.blue.test:{port}/"),
    ]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "blue", "{out:?}");
    for (arguments, expected) in [
        (["-servername", "green.test"].as_slice(), "CN = green"),
        (["-noservername"].as_slice(), "CN = fallback"),
    ] {
        let mut command = Command::new(real::program("openssl"));
        command.args(["s_client", "-connect", &format!("127.0.0.1:{port}")]).args(arguments);
        let out = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).replace("CN=", "CN = ");
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
}

#[test]
fn what_no_name_leads_on_is_closed_and_the_log_says_why() {
    let world = World::new();
    let gate = Gate::start(&format!("tcp: {{ by_sni: {{ {BY_SNI} }} }}"), &world.upstreams());
    assert_eq!(shown(gate.port, Some("other.test")), None);
    assert_eq!(gate.line_of_cause("sni_unmatched")["sni"], "other.test");
    assert_eq!(shown(gate.port, None), None);
    gate.gateway.connection_line(|line| line["cause"] == "sni_unmatched" && line["sni"].is_null());
    for (number, bytes) in [
        &b"GET / HTTP/1.1\r\nHost: green.test\r\n\r\n"[..],
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        b"\x16\x03\x01\x00\x05\x02\x00\x00\x01x",
        b"\x16\x03\x01\x00\x00",
    ]
    .into_iter()
    .enumerate()
    {
        let mut socket = gate.connect();
        socket.write_all(bytes).unwrap();
        assert!(is_closed(&mut socket), "{bytes:?}");
        let invalid = "vestibule_refused_connections_total{cause=\"client_hello_invalid\",listener=\"l4\"}";
        assert_eq!(gate.metric(invalid), number as u64 + 1, "{bytes:?}");
    }
    gate.line_of_cause("client_hello_invalid");
    gate.gateway.wait_for("  to mend it: add the name to `tcp: { by_sni }`");
    assert_eq!(shown(gate.port, Some("green.test")).as_deref(), Some("green"));
    for origin in &world.origins {
        assert!(origin.connections() <= 1, "what was closed has reached an upstream");
    }
}

#[test]
fn however_a_hello_is_split_every_byte_of_it_arrives() {
    let port = echo("");
    let gate = Gate::start(
        "tcp: { by_sni: { split.test: echo } }",
        &format!("upstreams: {{ echo: {{ endpoints: [\"127.0.0.1:{port}\"] }} }}"),
    );
    let hello = hello("split.test");
    let in_records = |size: usize| -> Vec<u8> {
        let record = |part: &[u8]| [&[22, 3, 1, (part.len() >> 8) as u8, part.len() as u8], part].concat();
        hello[5..].chunks(size).flat_map(record).collect()
    };
    for (bytes, packet) in [
        (hello.clone(), 1),
        (hello.clone(), 100),
        (in_records(1), 4096),
        (in_records(3), 1),
        (in_records(64), 70),
    ] {
        let sent = [&bytes[..], b"early data"].concat();
        let mut socket = gate.connect();
        for part in sent.chunks(packet) {
            socket.write_all(part).unwrap();
        }
        let mut got = vec![0; sent.len()];
        socket.read_exact(&mut got).unwrap();
        assert!(got == sent, "packets of {packet}");
    }
}

#[test]
fn a_client_that_does_not_say_its_name_in_time_is_closed() {
    let world = World::new();
    let gate =
        Gate::start(&format!("tcp: {{ by_sni: {{ {BY_SNI} }}, upstream: fallback }}"), &world.upstreams());
    let hello = hello("green.test");
    let sockets = [0, 3, hello.len() - 1].map(|length| {
        let mut socket = gate.connect();
        socket.write_all(&hello[..length]).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket
    });
    for mut socket in sockets {
        assert!(is_closed(&mut socket));
    }
    assert_eq!(
        gate.metric("vestibule_refused_connections_total{cause=\"client_silent\",listener=\"l4\"}"),
        3
    );
    gate.line_of_cause("client_silent");
    assert_eq!(world.origins.iter().map(Origin::connections).sum::<usize>(), 0);
}

#[test]
fn on_one_port_some_names_pass_through_and_all_others_are_ended_here() {
    let world = World::new();
    let gate = world.mixed();
    let port = gate.port;
    assert_eq!(shown(port, Some("a.blue.test")).as_deref(), Some("blue"));
    assert_eq!(shown(port, Some("green.test")).as_deref(), Some("green"));
    for sni in [Some("own.test"), Some("other.test"), Some("blue.test"), None] {
        let mut client = Client::tls(port, &ClientTls { sni, ..ClientTls::default() }).unwrap();
        assert_eq!(client.peer_name().as_deref(), Some("own.test"), "{sni:?}");
        assert_eq!(client.get("own.test", "/").text(), "ended here", "{sni:?}");
    }
    let resolve = format!("own.test:{port}:127.0.0.1");
    let url = format!("https://own.test:{port}/");
    let out = curl(&["-k", "--http2", "--resolve", &resolve, "-w", " %{http_version}", &url]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "ended here 2", "{out:?}");
    // A hello that came byte by byte is ended here all the same.
    let mut client = trickled(port, "own.test");
    client.write_all(b"GET / HTTP/1.1\r\nHost: own.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut got = String::new();
    let _ = client.read_to_string(&mut got);
    assert!(got.ends_with("ended here"), "{got}");
    // Neither is anything else than TLS served.
    let mut plain = connected(port);
    plain.write_all(b"GET / HTTP/1.1\r\nHost: own.test\r\n\r\n").unwrap();
    assert!(is_closed(&mut plain));
}

#[test]
fn a_name_that_is_passed_through_is_never_served_by_who_ends_the_rest() {
    let world = World::new();
    let gate = world.mixed();
    let tls = ClientTls { sni: Some("own.test"), ..ClientTls::default() };
    for host in ["a.blue.test", "A.BLUE.test:443", "green.test", "green.test."] {
        let mut client = Client::tls(gate.port, &tls).unwrap();
        assert_eq!(client.get(host, "/of-another").status, 421, "{host}");
    }
    assert_eq!(gate.gateway.log_of("/of-another")["cause"], "host_passed_through");
    // A browser that found both names in one certificate would ask so.
    let client = Http2Client::tls(gate.port, "own.test");
    let request = http::Request::get("https://a.blue.test/coalesced").body(()).unwrap();
    assert_eq!(client.send(request, true).head().status(), 421);
    assert_eq!(gate.gateway.log_of("/coalesced")["cause"], "host_passed_through");
}

#[test]
fn names_change_at_a_reload_for_new_connections() {
    let world = World::new();
    let port = ports::free();
    let yaml = |name: &str| {
        format!(
            "version: 1\nlisteners: {{ l4: {{ address: \"127.0.0.1:{port}\", tcp: {{ by_sni: {{ moved.test: {name} }} }} }} }}\n{}\n",
            world.upstreams()
        )
    };
    let gateway = Gateway::start(&yaml("blue"));
    let tls = ClientTls { sni: Some("moved.test"), ..ClientTls::default() };
    let mut open = Client::tls(port, &tls).unwrap();
    assert_eq!(open.get("moved.test", "/").text(), "blue");
    let told = gateway.reload(&yaml("green"));
    assert!(told.contains("applied"), "{told}");
    assert_eq!(shown(port, Some("moved.test")).as_deref(), Some("green"));
    assert_eq!(open.get("moved.test", "/").text(), "blue", "what is open stays where it is");
}

/// The first flight of a client that asks for this name.
fn hello(name: &str) -> Vec<u8> {
    let mut written = Recorded(Vec::new());
    let _ = SslStream::new(asking(name), &mut written).unwrap().connect();
    written.0
}

fn asking(name: &str) -> Ssl {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    let mut ssl = Ssl::new(&builder.build().into_context()).unwrap();
    ssl.set_hostname(name).unwrap();
    ssl
}

/// Keeps what is written, and has nothing to be read.
struct Recorded(Vec<u8>);

impl Read for Recorded {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Recorded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends each byte by itself.
struct Trickle(TcpStream);

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Trickle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection over TLS on which every byte is a packet.
fn trickled(port: u16, name: &str) -> SslStream<Trickle> {
    let mut stream = SslStream::new(asking(name), Trickle(connected(port))).unwrap();
    stream.connect().unwrap();
    stream
}
