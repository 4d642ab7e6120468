//! Tunnels: which protocols a route lets its clients change to, what of a request to do so is passed on, that no tunnel is
//! lost where it begins, that each direction ends by itself, and that nothing but idleness ends a silent one.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod};
use vestibule_tests::PATIENCE;
use vestibule_tests::certs::{Certs, Pair};
use vestibule_tests::client::{Client, ClientTls};
use vestibule_tests::gateway::{Gateway, binary};
use vestibule_tests::origin::{Answer, Origin, Reply};
use vestibule_tests::ports;

use crate::claims::example_binary;
use crate::page::Page;
use crate::raw::{self, connected};
use crate::{Edge, quoted};

const BOTH: &str = "upgrades: [websocket, spdy/3.1]";

fn request(token: &str) -> String {
    format!(
        "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: {token}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A 101 with the tunnel's first bytes behind it.
fn switch(token: &str, first: &str) -> String {
    format!("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {token}\r\n\r\n{first}")
}

/// Answers 101 at once with the tunnel's first bytes in the same packet, then sends everything back.
fn hasty(token: &'static str) -> u16 {
    raw::server(move |_, mut socket| {
        raw::head(&mut socket)?;
        socket.write_all(switch(token, "hello").as_bytes())?;
        let mut back = socket.try_clone()?;
        io::copy(&mut socket, &mut back).map(|_| ())
    })
}

fn to(address: &str, route: &str) -> String {
    format!(
        "upstreams: {{ origin: {{ endpoints: [\"{address}\"] }} }}\nroutes: [{{ upstream: origin, {route} }}]"
    )
}

fn edge(port: u16, route: &str) -> Edge {
    Edge::start(&to(&format!("127.0.0.1:{port}"), route))
}

/// A gateway that has the plugin `pause`, which waits.
fn with_pause(port: u16, route: &str) -> Edge {
    let own = ports::free();
    let yaml = format!(
        "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{own}\" }} }}\n{}",
        to(&format!("127.0.0.1:{port}"), route)
    );
    Edge { gateway: Gateway::start_by(&example_binary("waiting_plugin"), &yaml), port: own }
}

/// A tunnel that has said hello.
fn tunnel(port: u16, token: &str) -> io::Result<TcpStream> {
    let mut client = connected(port);
    client.write_all(request(token).as_bytes())?;
    let mut came = String::new();
    while !came.ends_with("hello") {
        let mut buffer = [0; 1024];
        match client.read(&mut buffer)? {
            0 => return Err(io::Error::other(format!("it ended after: {came}"))),
            count => came += &String::from_utf8_lossy(&buffer[..count]),
        }
    }
    assert!(came.starts_with("HTTP/1.1 101 "), "{came}");
    Ok(client)
}

fn echo(client: &mut TcpStream, text: &[u8]) -> io::Result<()> {
    client.write_all(text)?;
    let mut back = vec![0; text.len()];
    client.read_exact(&mut back)?;
    assert_eq!(back, text);
    Ok(())
}

/// Both at once, since each waits more than it works.
#[test]
fn none_of_3000_upgrades_is_cut_though_the_first_bytes_come_with_the_101_and_a_plugin_waits() {
    std::thread::scope(|scope| {
        for token in ["websocket", "SPDY/3.1"] {
            scope.spawn(move || {
                let edge =
                    with_pause(hasty(token), &format!("{BOTH}, plugins: [{{ pause: {{ time: 1ms }} }}]"));
                let mut kept = Vec::new();
                for number in 0..3000 {
                    let case = format!("{token}, upgrade {number}");
                    let mut client = tunnel(edge.port, token).expect(&case);
                    echo(&mut client, b"ping").expect(&case);
                    kept.push(client);
                    // Not all at once, which would be a test of how many files a process may have.
                    if kept.len() > 100 {
                        echo(&mut kept.remove(0), b"still there").expect(&case);
                    }
                }
                for mut client in kept {
                    echo(&mut client, b"still there").unwrap();
                }
            });
        }
    });
}

#[test]
fn a_route_lets_its_own_protocols_pass_and_takes_others_for_plain_requests() {
    let origin = Origin::script(|request| match request.header("upgrade") {
        Some(_) => Answer::Upgrade,
        None => Reply::ok("plain").into(),
    });
    let check = |route: &str, given: &str, expected: Option<&str>| {
        let edge = Edge::start(&to(&origin.address(), route));
        let before = origin.requests().len();
        let mut client = Client::plain(edge.port);
        let answer = client.send(request(given)).head();
        let seen = origin.requests()[before].clone();
        let case = format!("`{given}` where `{route}`");
        assert_eq!(seen.header("upgrade"), expected, "{case}");
        assert_eq!(seen.header("connection"), expected.map(|_| "Upgrade"), "{case}");
        assert_eq!(answer.status, if expected.is_some() { 101 } else { 200 }, "{case}");
        if expected.is_some() {
            assert_eq!(client.send("any bytes").exactly(9).unwrap(), b"any bytes", "{case}");
        }
    };
    check("", "websocket", Some("websocket"));
    check("", "WebSocket", Some("WebSocket"));
    check("", "SPDY/3.1", None);
    check("upgrades: []", "websocket", None);
    check("upgrades: spdy/3.1", "SPDY/3.1", Some("SPDY/3.1"));
    check("upgrades: SPDY/3.1", "websocket", None);
    check(BOTH, "h2c, SPDY/3.1, foo", Some("SPDY/3.1"));
    check("upgrades: [my-own]", "My-Own", Some("My-Own"));
}

#[test]
fn what_the_page_says_of_upgrades_is_so() {
    let page = Page::read("docs/upgrades.md");
    let rows = page.table("| Host | the client's `Upgrade` | the upstream's |");
    let (mut example, origin) = (page.configuration(), Origin::echo());
    example.endpoints("app", [origin.address()]);
    let port = example.port("web");
    let _gateway = example.start();
    assert!(rows.len() >= 5);
    for row in rows {
        let answer = Client::plain(port).send(request(&row[1]).replace("a.test", &row[0])).response();
        let upgrade = answer.json()["headers"]["upgrade"].as_str().unwrap_or_default().to_owned();
        assert_eq!(upgrade, row[2], "{row:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let yaml = "version: 1\nlisteners: { web: { address: \"0.0.0.0:8080\" } }\n\
        upstreams: { app: { endpoints: [\"10.0.0.5:8080\"] } }\nroutes:\n  - upstream: app\n\
        \x20   upgrades: [websocket, spdy/3.1]\n    timeouts: { idle: 30m, request: 60s }\n";
    fs::write(folder.path().join("gateway.yaml"), yaml).unwrap();
    let mut check = Command::new(binary());
    let told = check.args(["check", "-c", "gateway.yaml"]).current_dir(&folder).output().unwrap();
    let printed = page.blocks().into_iter().find(|block| block.kind == "text").unwrap().text;
    assert!(String::from_utf8_lossy(&told.stderr).starts_with(&printed), "{told:?}");
}

#[test]
fn an_upgrade_in_http_1_0_is_a_plain_request() {
    let origin = Origin::echo();
    let edge = Edge::start(&to(&origin.address(), BOTH));
    let mut client = Client::plain(edge.port);
    let answer = client
        .send("GET / HTTP/1.0\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
        .response();
    assert_eq!(answer.status, 200);
    assert_eq!(origin.requests()[0].header("upgrade"), None);
}

#[test]
fn what_concerns_the_clients_connection_does_not_pass_with_an_upgrade() {
    for token in ["websocket", "SPDY/3.1"] {
        let (sender, heads) = mpsc::channel();
        let port = raw::server(move |_, mut socket| {
            let _ = sender.send(raw::head(&mut socket)?.to_ascii_lowercase());
            socket.write_all(switch(token, "").as_bytes())?;
            let mut byte = [0];
            socket.read(&mut byte).map(|_| ())
        });
        // A connection that is not kept is told so by `Connection: close`, which must not take the upgrade's place.
        let edge = Edge::start(&format!(
            "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{port}\"], keepalive: {{ idle_timeout: 0s }} }} }}\n\
             routes: [{{ upstream: origin, {BOTH} }}]"
        ));
        let mut client = Client::plain(edge.port);
        client.send(format!(
            "POST /exec HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade, X-Named\r\nUpgrade: {token}\r\n\
             X-Named: 1\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic secret\r\n\
             TE: trailers\r\nTrailer: x\r\nImpersonate-User: admin\r\nX-Remote-User: admin\r\n\
             X-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n"
        ));
        assert_eq!(client.head().status, 101, "{token}");
        let head = heads.recv_timeout(PATIENCE).unwrap();
        for gone in ["x-named", "keep-alive", "proxy-", "te:", "trailer", "impersonate-", "x-remote-"] {
            assert!(!head.contains(&format!("\r\n{gone}")), "{token}: {gone} in {head}");
        }
        for kept in
            ["connection: upgrade", &format!("upgrade: {token}"), "x-stream-protocol-version: v4.channel"]
        {
            assert!(
                head.contains(&format!("\r\n{}", kept.to_ascii_lowercase())),
                "{token}: no {kept} in {head}"
            );
        }
    }
}

#[test]
fn the_whole_chain_runs_on_an_upgrade_and_the_access_log_has_the_tunnels_bytes() {
    let origin = Origin::script(|_| Answer::Upgrade);
    let plugins = "plugins: [{ headers: { request: { set: { x-set: yes } }, response: { set: { x-answer: yes } } } }, \
                   { pause: { time: 1ms } }]";
    let edge = with_pause(origin.port, &format!("{BOTH}, {plugins}"));
    let mut client = Client::plain(edge.port);
    let answer = client.send(request("SPDY/3.1")).head();
    assert_eq!((answer.status, answer.header("x-answer")), (101, Some("yes")));
    let seen = &origin.requests()[0];
    assert_eq!((seen.header("x-set"), seen.header("x-paused")), (Some("yes"), Some("yes")));
    let bytes = vec![b'x'; 100_000];
    assert_eq!(client.send(&bytes).exactly(bytes.len()).unwrap(), bytes);
    drop(client);
    let line = edge.gateway.log_of("/chat");
    assert_eq!(
        (&line["status"], &line["bytes_in"], &line["bytes_out"]),
        (&101.into(), &100_000.into(), &100_000.into()),
        "{line}"
    );
    assert!(line.get("cause").is_none(), "{line}");
}

/// An origin that answers an upgrade when it is told to, and then sends everything back.
fn slow(answer: &'static str) -> (u16, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (asked, is_asked) = mpsc::channel();
    let (go, gone) = mpsc::channel();
    let gone = Arc::new(Mutex::new(gone));
    let port = raw::server(move |_, mut socket| {
        raw::head(&mut socket)?;
        let _ = asked.send(());
        let _ = gone.lock().unwrap().recv();
        socket.write_all(answer.as_bytes())?;
        let mut back = socket.try_clone()?;
        io::copy(&mut socket, &mut back).map(|_| ())
    });
    (port, is_asked, go)
}

#[test]
fn bytes_that_a_client_sends_before_the_101_arrive_behind_it() {
    let (port, is_asked, go) =
        slow("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: spdy/3.1\r\n\r\n");
    let edge = edge(port, BOTH);
    let mut client = Client::plain(edge.port);
    client.send(request("spdy/3.1"));
    is_asked.recv_timeout(PATIENCE).unwrap();
    // In a packet of their own, which the gateway reads while it waits for the answer.
    client.send("early");
    assert!(edge.gateway.stays_for(Duration::from_millis(100)));
    go.send(()).unwrap();
    assert_eq!(client.head().status, 101);
    assert_eq!(client.exactly(5).unwrap(), b"early");
    assert_eq!(client.send("late").exactly(4).unwrap(), b"late");
}

#[test]
fn a_refusal_reaches_a_client_that_has_sent_more_already() {
    let (port, is_asked, go) = slow("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
    let edge = edge(port, BOTH);
    let mut client = Client::plain(edge.port);
    client.send(request("spdy/3.1"));
    is_asked.recv_timeout(PATIENCE).unwrap();
    client.send("early");
    assert!(edge.gateway.stays_for(Duration::from_millis(100)));
    go.send(()).unwrap();
    let answer = client.response();
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
}

#[test]
fn a_connection_on_which_an_upgrade_was_refused_takes_the_next_request() {
    let origin = Origin::script(|request| match request.target.as_str() {
        "/chat" => Reply::new(403, "no").into(),
        _ => Reply::ok("served").into(),
    });
    let edge = Edge::start(&to(&origin.address(), BOTH));
    let mut client = Client::plain(edge.port);
    for _ in 0..3 {
        assert_eq!(client.send(request("spdy/3.1")).response().status, 403);
        assert_eq!(client.get("a.test", "/").text(), "served");
    }
    let connections: std::collections::BTreeSet<_> =
        origin.requests().iter().map(|it| it.connection).collect();
    assert_eq!(connections.len(), 1, "the upstream's connection was not kept");
}

/// Reads to the end and then answers how much it was; over TLS where a certificate is given.
fn counting(certificate: Option<&Pair>) -> u16 {
    fn serve(socket: &mut (impl Read + Write)) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte)?;
            head.extend(byte);
        }
        socket.write_all(switch("spdy/3.1", "hello").as_bytes())?;
        let count = io::copy(socket, &mut io::sink())?;
        socket.write_all(format!("{count} bytes").as_bytes())
    }
    let acceptor = certificate.map(|pair| {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        builder.set_certificate_chain_file(&pair.cert).unwrap();
        builder.set_private_key_file(&pair.key, SslFiletype::PEM).unwrap();
        builder.build()
    });
    raw::server(move |_, mut socket| match &acceptor {
        None => serve(&mut socket),
        Some(acceptor) => {
            let mut stream = acceptor.accept(socket).map_err(io::Error::other)?;
            serve(&mut stream)?;
            stream.shutdown().map(|_| ()).map_err(io::Error::other)
        }
    })
}

#[test]
fn a_client_that_has_said_its_last_still_gets_what_the_upstream_has_to_say() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let pair = certs.server(&ca, &["a.test"]);
    let own = ports::free();
    for upstream_tls in [false, true] {
        let port = counting(upstream_tls.then_some(&pair));
        let tls = if upstream_tls {
            format!(", tls: {{ verify: {{ ca: {} }} }}", quoted(&ca.cert))
        } else {
            String::new()
        };
        let web = ports::free();
        let _gateway = Gateway::start(&format!(
            "version: 1\nlisteners:\n  web: {{ address: \"127.0.0.1:{web}\" }}\n  web-tls:\n    address: \"127.0.0.1:{own}\"\n    \
             tls: {{ certificates: [{{ cert: {}, key: {} }}] }}\n\
             upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{port}\"]{tls} }} }}\nroutes: [{{ upstream: origin, {BOTH} }}]\n",
            quoted(&pair.cert),
            quoted(&pair.key),
        ));
        for client_tls in [false, true] {
            let case = format!("TLS: client {client_tls}, upstream {upstream_tls}");
            let mut client = match client_tls {
                true => Client::tls(own, &ClientTls { sni: Some("a.test"), ..ClientTls::default() }).unwrap(),
                false => Client::plain(web),
            };
            client.send(request("spdy/3.1"));
            assert_eq!(client.head().status, 101, "{case}");
            assert_eq!(client.exactly(5).unwrap(), b"hello", "{case}");
            client.send(vec![b'x'; 3_000_000]);
            client.finish_sending();
            assert_eq!(client.to_end().unwrap(), b"3000000 bytes", "{case}");
        }
    }
}

#[test]
fn an_upstream_that_has_said_its_last_still_gets_what_the_client_has_to_say() {
    let (sender, counts) = mpsc::channel();
    let port = raw::server(move |_, mut socket| {
        raw::head(&mut socket)?;
        // All that it has to say comes at once: the 101, the last bytes, and the end.
        socket.write_all(switch("spdy/3.1", "bye").as_bytes())?;
        socket.shutdown(Shutdown::Write)?;
        let _ = sender.send(io::copy(&mut socket, &mut io::sink())?);
        Ok(())
    });
    let edge = edge(port, BOTH);
    for _ in 0..20 {
        let mut client = Client::plain(edge.port);
        client.send(request("spdy/3.1"));
        assert_eq!(client.head().status, 101);
        // The end itself comes too: this returns.
        assert_eq!(client.to_end().unwrap(), b"bye");
        client.send(vec![b'x'; 1_000_000]);
        client.finish_sending();
        assert_eq!(counts.recv_timeout(PATIENCE).unwrap(), 1_000_000);
    }
}

#[test]
fn a_client_that_is_gone_ends_the_tunnel_of_an_upstream_that_ends_with_it() {
    let origin = Origin::script(|_| Answer::Upgrade);
    let edge = Edge::start(&to(&origin.address(), BOTH));
    let mut client = Client::plain(edge.port);
    assert_eq!(client.send(request("websocket")).head().status, 101);
    drop(client);
    origin.wait_for_close();
    assert!(edge.gateway.log_of("/chat").get("cause").is_none());
}

#[test]
fn only_idleness_ends_a_tunnel() {
    let edge = edge(hasty("websocket"), "timeouts: { request: 300ms, attempt: 200ms, idle: 2s }");
    let mut client = tunnel(edge.port, "websocket").unwrap();
    // Each pause is longer than either deadline and shorter than the idle timeout.
    for _ in 0..4 {
        assert!(raw::is_silent(&client, Duration::from_millis(400)), "cut by a deadline");
        echo(&mut client, b"ping").unwrap();
    }
    assert!(raw::is_closed(&mut client));
}

#[test]
fn a_tunnel_whose_bytes_flow_one_way_is_not_idle() {
    let silent = raw::server(|_, mut socket| {
        raw::head(&mut socket)?;
        socket.write_all(switch("websocket", "hello").as_bytes())?;
        // Says nothing more until the client says the last word.
        let mut came = Vec::new();
        while !came.ends_with(b"over") {
            let mut buffer = [0; 64];
            match socket.read(&mut buffer)? {
                0 => return Ok(()),
                count => came.extend(&buffer[..count]),
            }
        }
        socket.write_all(b"out")
    });
    let edge = edge(silent, "timeouts: { idle: 2s }");
    let mut client = tunnel(edge.port, "websocket").unwrap();
    for _ in 0..8 {
        client.write_all(b"word").unwrap();
        assert!(raw::is_silent(&client, Duration::from_millis(400)), "cut though bytes went up");
    }
    client.write_all(b"over").unwrap();
    let mut back = [0; 3];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"out");
}
