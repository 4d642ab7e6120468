//! What is open when the configuration changes: it ends as it began, and what comes next goes by the new one.

use std::io::{Read, Write};
use std::sync::{Mutex, mpsc};

use vestibule_tests::certs::{Certs, Pair};
use vestibule_tests::client::Client;
use vestibule_tests::gateway::Gateway;
use vestibule_tests::origin::{Answer, Origin, Reply};
use vestibule_tests::ports;
use vestibule_tests::real::{Clients, Nginx, NginxTls};

use crate::raw::{self, connected};
use crate::{Edge, quoted};

#[test]
fn a_request_in_flight_ends_on_the_snapshot_that_it_began_on() {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    let receiver = Mutex::new(Some(receiver));
    let blue = Origin::script(move |_| Answer::Stream(receiver.lock().unwrap().take().expect("one request")));
    let green = Origin::script(|_| Answer::Reply(Reply::ok("green")));
    let port = ports::free();
    let yaml = |address: String| {
        format!(
            "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\n\
             upstreams: {{ app: {{ endpoints: [\"{address}\"] }} }}\nroutes: [{{ upstream: app }}]\n"
        )
    };
    let gateway = Gateway::start(&yaml(blue.address()));
    let mut slow = Client::plain(port);
    slow.send("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n");
    blue.wait_for("the request", |all| all.len() == 1);
    let before = replaced(&gateway.reload(&yaml(green.address())));
    sender.send("still ".into()).unwrap();
    assert_eq!(slow.head().status, 200);
    assert_eq!(slow.chunk().unwrap(), b"still ");
    sender.send("blue".into()).unwrap();
    assert_eq!(slow.chunk().unwrap(), b"blue");
    drop(sender);
    assert!(slow.chunk().unwrap().is_empty());
    let line = gateway.log_of("/slow");
    assert_eq!((line["config"].as_str(), &line["status"]), (Some(before.as_str()), &200.into()));
    // The connection goes on, under the new configuration.
    assert_eq!(slow.get("a.test", "/next").text(), "green");
    assert_ne!(gateway.log_of("/next")["config"], line["config"]);
}

/// The hash of the configuration that a reload took out of force.
fn replaced(told: &str) -> String {
    let (_, old) = told.split_once(" runs in place of ").unwrap_or_else(|| panic!("{told}"));
    old.to_owned()
}

#[test]
fn a_tunnel_and_a_passed_through_connection_outlive_the_upstreams_that_they_go_to() {
    let echo = raw::server(|_, mut socket| {
        raw::head(&mut socket)?;
        socket.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        )?;
        let mut back = socket.try_clone()?;
        std::io::copy(&mut socket, &mut back).map(|_| ())
    });
    let [web, raw] = [ports::free(), ports::free()];
    let gateway = Gateway::start(&format!(
        "version: 1\nlisteners:\n  web: {{ address: \"127.0.0.1:{web}\" }}\n  \
         raw: {{ address: \"127.0.0.1:{raw}\", tcp: {{ upstream: echo }} }}\n\
         upstreams: {{ echo: {{ endpoints: [\"127.0.0.1:{echo}\"] }} }}\nroutes: [{{ upstream: echo }}]\n"
    ));
    let upgraded = |port: u16| {
        let mut socket = connected(port);
        socket
            .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .unwrap();
        assert!(raw::head(&mut socket).unwrap().starts_with("HTTP/1.1 101 "));
        socket
    };
    let (mut tunnel, mut passed) = (upgraded(web), upgraded(raw));
    let mut ping = |text: &[u8]| {
        for socket in [&mut tunnel, &mut passed] {
            socket.write_all(text).unwrap();
            let mut back = vec![0; text.len()];
            socket.read_exact(&mut back).unwrap();
            assert_eq!(back, text);
        }
    };
    ping(b"before");
    let told = gateway.reload(&format!(
        "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{web}\" }} }}\nroutes: [{{ respond: {{ body: new }} }}]\n"
    ));
    assert!(told.starts_with("signal: applied: "), "{told}");
    for _ in 0..10 {
        ping(b"and after");
    }
    assert_eq!(Client::plain(web).get("a.test", "/").text(), "new");
}

#[test]
fn a_rotated_client_certificate_is_shown_from_the_next_connection_on_and_the_old_connection_is_closed() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let server = certs.server(&ca, &["a.test"]);
    let [old, new] = ["old", "new"].map(|name| certs.client(&ca, name));
    for protocol in ["http/1.1", "h2"] {
        let nginx =
            Nginx::start(&NginxTls { clients: Clients::Required(&ca.cert), ..NginxTls::new(&server) });
        let at = if protocol == "h2" { nginx.h2_port } else { nginx.port };
        let (cert, key) = (certs.folder().join("rotated.crt"), certs.folder().join("rotated.key"));
        let put = |pair: &Pair| {
            std::fs::copy(&pair.cert, &cert).unwrap();
            std::fs::copy(&pair.key, &key).unwrap();
        };
        put(&old);
        // Watched: a rotated file is noticed without anybody's word.
        let edge = Edge::start(&format!(
            "admin: {{ address: \"127.0.0.1:{}\" }}\nupstreams: {{ app: {{ endpoints: [\"127.0.0.1:{at}\"], host: a.test, protocol: {protocol}, \
             tls: {{ verify: {{ ca: {} }}, client_certificate: {{ cert: {}, key: {} }} }} }} }}\nroutes: [{{ upstream: app }}]",
            ports::free(),
            quoted(&ca.cert),
            quoted(&cert),
            quoted(&key)
        ));
        let subject = |path: &str| {
            let answer = edge.get("a.test", path).json();
            (answer["client"].as_str().unwrap_or_default().to_owned(), answer["connection"].clone())
        };
        let (first, connection) = subject("/1");
        assert!(first.contains("CN=old"), "{first}");
        assert_eq!(subject("/2").1, connection, "{protocol}: kept");

        put(&new);
        edge.gateway.wait_for("reload by files: applied: ");
        let (second, other) = subject("/3");
        assert!(second.contains("CN=new"), "{protocol}: {second}");
        assert_ne!(other, connection);
        assert_eq!(subject("/4").1, other, "{protocol}: kept in turn");
        wait_for_one_connection(&edge, at);
    }
}

/// Waits until the gateway has just one connection to this port of this machine.
fn wait_for_one_connection(edge: &Edge, port: u16) {
    let deadline = std::time::Instant::now() + vestibule_tests::PATIENCE;
    let pid = edge.gateway.pid();
    loop {
        let count = established(pid, port);
        if count == 1 {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{count} connections to port {port}");
        std::thread::yield_now();
    }
}

/// How many TCP connections of this network namespace lead to a port, as the kernel lists them.
fn established(pid: i32, port: u16) -> usize {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let leads = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        let (remote, state) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        remote.ends_with(&format!(":{port:04X}")) && state == "01"
    };
    table.lines().filter(leads).count()
}
