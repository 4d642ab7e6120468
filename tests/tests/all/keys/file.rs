//! Keys of listeners, of the access log and of the process: a gateway for each side of a case.

use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode, SslVersion};
use vestibule_tests::PATIENCE;
use vestibule_tests::certs::{Certs, Pair};
use vestibule_tests::client::{self, Client, ClientTls};
use vestibule_tests::gateway::Gateway;
use vestibule_tests::http2::frames;
use vestibule_tests::origin::{Answer, Opening, Origin};
use vestibule_tests::ports;

use crate::quoted;
use crate::raw::{connected, is_closed, is_silent};

pub const KEYS: &[&str] = &[
    "access_log.format",
    "access_log.path",
    "admin.address",
    "admin.token_file",
    "listeners.address",
    "listeners.keepalive.idle_timeout",
    "listeners.limits.http2.control_frames",
    "listeners.limits.http2.resets",
    "listeners.limits.http2.streams",
    "listeners.limits.send_idle",
    "listeners.max_connections",
    "listeners.max_connections_per_client",
    "listeners.proxy_protocol.from",
    "listeners.tcp.by_sni",
    "listeners.tcp.idle_timeout",
    "listeners.tcp.proxy_protocol",
    "listeners.tcp.upstream",
    "listeners.tls.certificates.cert",
    "listeners.tls.certificates.key",
    "listeners.tls.certificates.password_file",
    "listeners.tls.client_certificate.ca",
    "listeners.tls.client_certificate.require",
    "listeners.tls.min_version",
    "listeners.udp.idle_timeout",
    "listeners.udp.max_sessions",
    "listeners.udp.upstream",
    "plugins",
    "server.drain_timeout",
    "server.max_connections",
    "server.threads",
    "server.upstream_pool_size",
    "version",
];

/// A gateway with a listener of these keys, and the rest of its file.
fn gateway(listener: &str, rest: &str) -> (Gateway, u16) {
    let port = ports::free();
    let rest = if rest.contains("routes:") {
        rest
    } else {
        &format!("{rest}\nroutes: [{{ respond: {{ body: hello }} }}]")
    };
    let yaml = format!(
        "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\", {listener} }} }}\n{rest}\n"
    );
    (Gateway::start(&yaml), port)
}

#[test]
fn the_version_is_read() {
    let file = |version: &str| {
        let (status, stderr) = Gateway::run_to_exit(&format!(
            "version: {version}\nlisteners: {{ web: {{ address: \"127.0.0.1:1\" }} }}\nroutes: [{{ upstream: nobody }}]"
        ));
        assert!(!status.success());
        stderr.contains("version")
    };
    assert_eq!((file("1"), file("2")), (false, true));
}

#[test]
fn the_access_log_goes_where_and_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let file = |format: &str| {
        let (gateway, port) =
            gateway("", &format!("access_log: {{ format: {format}, path: {} }}", quoted(&path)));
        assert_eq!(client::get(port, "a.test", "/x").status, 200);
        gateway.stop();
        assert!(gateway.log().is_empty(), "it went to the standard output");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(&path);
        text
    };
    assert!(file("json").starts_with('{'));
    assert!(file("text").contains("\"GET a.test /x\" 200"));
    assert_eq!(file("none"), "");
    let (to_stderr, port) = gateway("", "access_log: { path: stderr }");
    client::get(port, "a.test", "/x");
    to_stderr.stop();
    assert!(to_stderr.stderr().contains("\"path\":\"/x\""));
}

#[test]
fn the_admin_endpoint_is_where_and_for_whom_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|token| {
        fs::write(folder.path().join(token), token).unwrap();
        quoted(&folder.path().join(token))
    });
    for (file, expected) in [(None, [200, 200]), (Some(one), [200, 401]), (Some(two), [401, 200])] {
        let admin = ports::free();
        let token = file.map(|file| format!(", token_file: {file}")).unwrap_or_default();
        let (_gateway, _) = gateway("", &format!("admin: {{ address: \"127.0.0.1:{admin}\"{token} }}"));
        let got = ["one", "two"].map(|token| {
            let request =
                format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
            Client::plain(admin).send(request).response().status
        });
        assert_eq!(got, expected);
    }
}

#[test]
fn plugins_of_the_file_run_on_every_route() {
    for value in ["one", "two"] {
        let (_gateway, port) = gateway(
            "",
            &format!("plugins: [{{ headers: {{ response: {{ set: {{ x-all: {value} }} }} }} }}]"),
        );
        assert_eq!(client::get(port, "a.test", "/").header("x-all"), Some(value));
    }
}

#[test]
fn a_listener_is_where_its_address_says() {
    let (_gateway, port) = gateway("", "");
    assert_eq!(client::get(port, "a.test", "/").text(), "hello");
    assert!(std::net::TcpStream::connect(("127.0.0.1", ports::free())).is_err());
}

#[test]
fn a_listeners_idle_timeout_is_its_own() {
    let closes = |limit: &str| {
        let (_gateway, port) = gateway(&format!("keepalive: {{ idle_timeout: {limit} }}"), "");
        let mut client = connected(port);
        let begun = Instant::now();
        assert!(is_closed(&mut client));
        begun.elapsed() > Duration::from_millis(1800)
    };
    assert_eq!((closes("1s"), closes("2s")), (false, true));
    let (_gateway, port) = gateway("keepalive: { idle_timeout: 0s }", "");
    let mut client = Client::plain(port);
    let response = client.get("a.test", "/");
    assert_eq!(response.header("connection").map(str::to_lowercase).as_deref(), Some("close"));
    assert!(client.to_end().is_ok());
}

#[test]
fn max_connections_is_how_many_are_let_in() {
    let waits = |limit: u32| {
        let (_gateway, port) = gateway(&format!("max_connections: {limit}"), "");
        let mut first = Client::plain(port);
        first.get("a.test", "/");
        let mut second = connected(port);
        second.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
        is_silent(&second, Duration::from_millis(300))
    };
    assert_eq!((waits(1), waits(2)), (true, false));
}

/// A listener that speaks HTTP/2, with these keys.
fn http2_gateway(keys: &str) -> (Gateway, u16, Certs) {
    let certs = Certs::new();
    let leaf = certs.server(&certs.authority("ca"), &["a.test"]);
    let (cert, key) = (quoted(&leaf.cert), quoted(&leaf.key));
    let (gateway, port) =
        gateway(&format!("tls: {{ certificates: [{{ cert: {cert}, key: {key} }}] }}, {keys}"), "");
    (gateway, port, certs)
}

#[test]
fn limits_of_http2_are_what_clients_are_told() {
    let told = |keys: &str| {
        let (_gateway, port, _certs) = http2_gateway(keys);
        let settings =
            frames::Client::tls(port, &[]).wait_for(|frame| frame.kind == frames::SETTINGS).unwrap();
        let values = settings
            .payload
            .chunks(6)
            .map(|one| (one[1], u32::from_be_bytes([one[2], one[3], one[4], one[5]])));
        // SETTINGS_MAX_CONCURRENT_STREAMS is 3.
        values.filter(|(id, _)| *id == 3).map(|(_, value)| value).next()
    };
    assert_eq!(told(""), Some(100));
    assert_eq!(told("limits: { http2: { streams: 7 } }"), Some(7));
}

#[test]
fn limits_of_http2_are_what_ends_a_connection() {
    let ends = |keys: &str, attack: &[u8]| {
        let (_gateway, port, _certs) = http2_gateway(keys);
        let mut client = frames::Client::tls(port, &[]);
        client.send(attack).unwrap();
        let ping = frames::frame(frames::PING, 0, 0, b"the last");
        let _ = client.send(&ping);
        let last = |frame: &frames::Frame| frame.kind == frames::GOAWAY || frame.payload == b"the last";
        client.wait_for(last).unwrap().kind == frames::GOAWAY
    };
    let reset = |stream| {
        let open = frames::frame(frames::HEADERS, frames::END_HEADERS, stream, &frames::get());
        [open, frames::frame(frames::RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    };
    let resets: Vec<u8> = (0..20).flat_map(|n| reset(2 * n + 1)).collect();
    let pings: Vec<u8> = (0..20).flat_map(|_| frames::frame(frames::PING, 0, 0, &[0; 8])).collect();
    assert!(ends("limits: { http2: { resets: 10 } }", &resets));
    assert!(!ends("limits: { http2: { resets: 30 } }", &resets));
    assert!(ends("limits: { http2: { control_frames: 10 } }", &pings));
    assert!(!ends("limits: { http2: { control_frames: 30 } }", &pings));
}

#[test]
fn send_idle_is_how_long_an_answer_waits_for_a_client() {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let resets = |limit: &str, within: Duration| {
        let (_gateway, port, _certs) = http2_gateway(&format!("limits: {{ send_idle: {limit} }}"));
        let mut client = frames::Client::tls(port, &[(INITIAL_WINDOW_SIZE, 0)]);
        client.socket().set_read_timeout(Some(within)).unwrap();
        client.send(&frames::frame(frames::HEADERS, 5, 1, &frames::get())).unwrap();
        client.wait_for(|frame| frame.kind == frames::RST_STREAM).is_ok()
    };
    assert!(resets("200ms", PATIENCE));
    assert!(!resets("1m", Duration::from_secs(1)));
}

#[test]
fn max_connections_of_the_server_are_those_of_all_listeners() {
    let waits = |limit: u32, how_long: Duration| {
        let other = ports::free();
        let (_gateway, port) = gateway(
            &format!("}}, other: {{ address: \"127.0.0.1:{other}\""),
            &format!("server: {{ max_connections: {limit} }}"),
        );
        let mut first = Client::plain(port);
        first.get("a.test", "/");
        let mut second = connected(other);
        second.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
        let waits = is_silent(&second, how_long);
        drop(first);
        assert!(!is_silent(&second, PATIENCE), "it is never served");
        waits
    };
    assert!(waits(1, Duration::from_millis(300)));
    assert!(!waits(2, PATIENCE));
}

#[test]
fn max_connections_per_client_is_how_many_one_may_have() {
    let served = |limit: u32| {
        let (_gateway, port) = gateway(&format!("max_connections_per_client: {limit}"), "");
        let mut first = Client::plain(port);
        first.get("a.test", "/");
        let mut second = connected(port);
        let _ = second.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        crate::raw::head(&mut second).is_ok()
    };
    assert_eq!((served(1), served(2)), (false, true));
}

#[test]
fn a_tcp_listener_leads_where_and_for_as_long_as_it_says() {
    let (echo, silent) = (Origin::echo(), Origin::opening(|_| Opening::Stall));
    let upstreams = format!(
        "upstreams: {{ echo: {{ endpoints: [\"{}\"] }}, silent: {{ endpoints: [\"{}\"] }} }}",
        echo.address(),
        silent.address()
    );
    let took = |tcp: &str| {
        let (_gateway, port) = gateway(&format!("tcp: {{ {tcp} }}"), &upstreams);
        let mut client = connected(port);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
        let begun = Instant::now();
        let mut got = Vec::new();
        // What cuts it may be a reset.
        let _ = std::io::Read::read_to_end(&mut client, &mut got);
        (!got.is_empty(), begun.elapsed() > Duration::from_secs(2))
    };
    assert_eq!(took("upstream: silent, idle_timeout: 250ms"), (false, false));
    assert_eq!(took("upstream: silent, idle_timeout: 4s"), (false, true));
    assert_eq!(took("upstream: echo, idle_timeout: 250ms"), (true, false));
}

#[test]
fn a_tcp_listener_tells_names_apart_and_clients_addresses_as_it_says() {
    let sends_back = crate::raw::server(|_, mut socket| {
        socket.write_all(b"upstream ")?;
        let mut from = socket.try_clone()?;
        std::io::copy(&mut from, &mut socket).map(drop)
    });
    let upstreams = format!("upstreams: {{ u: {{ endpoints: [\"127.0.0.1:{sends_back}\"] }} }}");
    let first = |tcp: &str, sent: &[u8]| {
        let (_gateway, port) = gateway(tcp, &upstreams);
        let mut client = connected(port);
        client.write_all(sent).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut got = String::new();
        std::io::Read::read_to_string(&mut client, &mut got).unwrap();
        got
    };
    assert!(
        first("tcp: { upstream: u, proxy_protocol: v1 }", b"").starts_with("upstream PROXY TCP4 127.0.0.1 ")
    );
    assert_eq!(first("tcp: { upstream: u }", b""), "upstream ");
    let asks = |tcp: &str| {
        let (_gateway, port) = gateway(tcp, &upstreams);
        let tls = ClientTls { sni: Some("one.test"), ..ClientTls::default() };
        // What comes back is no handshake, but it comes from somewhere.
        let refused = Client::tls(port, &tls).err().unwrap();
        format!("{refused:?}").contains("wrong version number")
    };
    assert!(asks("tcp: { by_sni: { one.test: u } }"));
    assert!(!asks("tcp: { by_sni: { two.test: u } }"));
}

#[test]
fn proxy_protocol_says_whose_word_is_taken() {
    let header = "PROXY TCP4 192.0.2.7 198.51.100.1 80 443\r\n";
    let client_ip = |keys: &str, header: &str| {
        let rest = "routes: [{ respond: { body: hello }, plugins: [{ headers: { response: { set: { x-ip: $client_ip } } } }] }]";
        let (_gateway, port) = gateway(keys, rest);
        let mut client = Client::plain(port);
        let sent = client.try_send(format!("{header}GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        let response = sent.and_then(|()| client.try_response()).ok()?;
        response.header("x-ip").map(str::to_owned)
    };
    for (keys, bare, told) in [
        ("proxy_protocol: false", Some("127.0.0.1"), None),
        ("proxy_protocol: true", None, Some("192.0.2.7")),
        ("proxy_protocol: { from: [127.0.0.0/8] }", None, Some("192.0.2.7")),
        ("proxy_protocol: { from: [10.0.0.0/8] }", Some("127.0.0.1"), None),
    ] {
        assert_eq!(client_ip(keys, "").as_deref(), bare, "{keys}");
        assert_eq!(client_ip(keys, header).as_deref(), told, "{keys}");
    }
}

#[test]
fn a_udp_listener_leads_where_and_for_whom_it_says() {
    let [one, two] = ["one", "two"].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    let upstreams = format!(
        "upstreams: {{ one: {{ endpoints: [\"{}\"] }}, two: {{ endpoints: [\"{}\"] }} }}",
        one.local_addr().unwrap(),
        two.local_addr().unwrap()
    );
    // Of so many clients' datagrams, whether the last one arrives; and whether a session has ended.
    let arrives = |udp: &str, at: &UdpSocket, clients: usize, within: Duration, ends: bool| {
        let (gateway, port) = gateway(&format!("udp: {{ {udp} }}"), &upstreams);
        let mut arrived = false;
        for n in 0..clients {
            at.set_read_timeout(Some(if n + 1 == clients { within } else { PATIENCE })).unwrap();
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.send_to(b"?", ("127.0.0.1", port)).unwrap();
            arrived = at.recv_from(&mut [0; 8]).is_ok();
        }
        if ends {
            gateway.log_line(|line| line["bytes_in"] == 1);
        } else {
            assert!(gateway.log().is_empty());
        }
        arrived
    };
    let a_while = Duration::from_millis(300);
    assert!(arrives("upstream: one", &one, 1, PATIENCE, false));
    assert!(arrives("upstream: two", &two, 1, PATIENCE, false));
    assert!(arrives("upstream: two, idle_timeout: 50ms", &two, 1, PATIENCE, true));
    assert!(arrives("upstream: one, max_sessions: 2", &one, 2, PATIENCE, false));
    assert!(!arrives("upstream: one, max_sessions: 1", &one, 2, a_while, false));
}

#[test]
fn tls_of_a_listener_is_as_it_says() {
    let certs = Certs::new();
    let (ca, other) = (certs.authority("ca"), certs.authority("other"));
    let (one, two) = (certs.server(&ca, &["one.test"]), certs.server(&ca, &["two.test"]));
    let (friend, stranger) = (certs.client(&ca, "friend"), certs.client(&other, "stranger"));
    let serve = |pair: &Pair, rest: &str| {
        let (cert, key) = (quoted(&pair.cert), quoted(&pair.key));
        gateway(&format!("tls: {{ certificates: [{{ cert: {cert}, key: {key} }}], {rest} }}"), "")
    };
    for pair in [&one, &two] {
        let (_gateway, port) = serve(pair, "");
        let shown = Client::tls(port, &ClientTls::default()).unwrap().peer_name().unwrap();
        assert!(pair.cert.display().to_string().contains(&shown), "{shown}");
    }
    let (locked, password) = certs.encrypted(&one, "sesame");
    let wrong = certs.encrypted(&one, "another").1;
    let opened_by = |password: &Path| {
        let (cert, key) = (quoted(&locked.cert), quoted(&locked.key));
        let pair = format!("{{ cert: {cert}, key: {key}, password_file: {} }}", quoted(password));
        format!("tls: {{ certificates: [{pair}] }}")
    };
    let (_gateway, port) = gateway(&opened_by(&password), "");
    assert!(Client::tls(port, &ClientTls::default()).is_ok());
    let refused = format!(
        "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{}\", {} }} }}",
        ports::free(),
        opened_by(&wrong)
    );
    assert!(Gateway::run_to_exit(&refused).1.contains("does not open"));
    let ask = |port: u16, certificate: Option<&Pair>| {
        let mut client = Client::tls(port, &ClientTls { certificate, ..ClientTls::default() }).ok()?;
        client.try_send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").ok()?;
        client.try_response().ok().map(|response| response.status)
    };
    for (ca, certificate, require, expected) in [
        (&ca, Some(&friend), true, Some(200)),
        (&other, Some(&friend), true, None),
        (&other, Some(&stranger), true, Some(200)),
        (&ca, None, true, None),
        (&ca, None, false, Some(200)),
    ] {
        let rest = format!("client_certificate: {{ ca: {}, require: {require} }}", quoted(&ca.cert));
        let (_gateway, port) = serve(&one, &rest);
        assert_eq!(ask(port, certificate), expected, "{rest}");
    }
    for (version, expected) in [("1.2", true), ("1.3", false)] {
        let (_gateway, port) = serve(&one, &format!("min_version: \"{version}\""));
        let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
        connector.set_verify(SslVerifyMode::NONE);
        connector.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
        assert_eq!(connector.build().connect("one.test", connected(port)).is_ok(), expected, "{version}");
    }
}

#[test]
fn drain_timeout_is_how_long_a_stop_waits() {
    let origin = Origin::script(|_| Answer::Stall);
    let waits = |limit: &str| {
        let upstreams = format!("upstreams: {{ u: {{ endpoints: [\"{}\"] }} }}", origin.address());
        let (gateway, port) = gateway(
            "",
            &format!("server: {{ drain_timeout: {limit} }}\n{upstreams}\nroutes: [{{ upstream: u }}]"),
        );
        let before = origin.requests().len();
        let mut client = Client::plain(port);
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        origin.wait_for("the request", |all| all.len() > before);
        let begun = Instant::now();
        gateway.stop();
        begun.elapsed() > Duration::from_millis(700)
    };
    assert_eq!((waits("200ms"), waits("1200ms")), (false, true));
}

#[test]
fn threads_is_how_many_there_are() {
    for threads in [1, 3] {
        let (gateway, _) = gateway("", &format!("server: {{ threads: {threads} }}"));
        let named = || {
            let tasks = fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
            let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
            names.filter(|name| name == "vestibule\n").count()
        };
        // The main thread bears the name too. A thread takes its name only once it runs.
        let end = Instant::now() + PATIENCE;
        while named() != threads + 1 {
            assert!(Instant::now() < end, "{} threads where {threads} were asked for", named() - 1);
            std::thread::yield_now();
        }
    }
}

#[test]
fn upstream_pool_size_is_how_many_idle_connections_are_kept() {
    let is_kept = |size: u32| {
        let origins = [Origin::echo(), Origin::echo()];
        let [one, two] = origins.each_ref().map(Origin::address);
        let (_gateway, port) = gateway(
            "",
            &format!(
                "server: {{ threads: 1, upstream_pool_size: {size} }}\n\
                 upstreams: {{ one: {{ endpoints: [\"{one}\"] }}, two: {{ endpoints: [\"{two}\"] }} }}\n\
                 routes: [{{ match: {{ paths: [/one] }}, upstream: one }}, {{ upstream: two }}]"
            ),
        );
        let mut client = Client::plain(port);
        for path in ["/one", "/two", "/one"] {
            assert_eq!(client.get("a.test", path).status, 200);
        }
        origins[0].connections() == 1
    };
    assert_eq!((is_kept(1), is_kept(2)), (false, true));
}
