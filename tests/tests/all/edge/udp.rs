//! UDP listeners: sessions, and what ends them.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use vestibule_tests::PATIENCE;
use vestibule_tests::gateway::Gateway;

use super::metric;

/// How long a test waits for what must not come.
const A_WHILE: Duration = Duration::from_millis(300);

/// An upstream that answers each datagram with its name and what it got; `from` tells who asked.
fn echo(address: &str, name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind(address).unwrap();
    let bound = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let answer = [format!("{name} {} ", from.port()).as_bytes(), &buffer[..length]].concat();
            // A client that is gone is not its affair.
            let _ = socket.send_to(&answer, from);
        }
    });
    bound
}

/// A port of UDP that nobody has.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A client of a port of this machine.
fn client(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(client: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 65536];
    let length = client.recv(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

/// What is answered: by whom, the upstream's client port, and what was sent.
fn ask(client: &UdpSocket, text: &str) -> (String, String) {
    client.send(text.as_bytes()).unwrap();
    let answer = String::from_utf8(receive(client).unwrap()).unwrap();
    let (name, rest) = answer.split_once(' ').unwrap();
    let (port, asked) = rest.split_once(' ').unwrap();
    assert_eq!(asked, text);
    (name.to_owned(), port.to_owned())
}

fn yaml(admin: u16, port: u16, udp: &str, endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|endpoint| format!("\"{endpoint}\"")).collect();
    format!(
        "version: 1\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\n\
         listeners: {{ dns: {{ address: \"127.0.0.1:{port}\", udp: {{ upstream: dns, {udp} }} }} }}\n\
         upstreams: {{ dns: {{ endpoints: [{}] }} }}",
        endpoints.join(", ")
    )
}

#[test]
fn datagrams_pass_both_ways_and_each_client_keeps_its_endpoint() {
    let endpoints = [echo("127.0.0.1:0", "one"), echo("127.0.0.1:0", "two")];
    let (admin, port) = (vestibule_tests::ports::free(), free_port());
    let gateway = Gateway::start(&yaml(admin, port, "", &endpoints));
    let clients: Vec<UdpSocket> = (0..40).map(|_| client(port)).collect();
    let first: Vec<_> = clients.iter().map(|client| ask(client, "first")).collect();
    for (client, first) in clients.iter().zip(&first) {
        assert_eq!(ask(client, "again"), *first, "another session");
    }
    assert_eq!(first.iter().filter(|(name, _)| name == "one").count(), 20);
    // Nothing, and the most that a datagram holds: both come as they are.
    let (name, session) = &first[0];
    let large = "l".repeat(60_000);
    for text in ["", &large] {
        assert_eq!(ask(&clients[0], text), (name.clone(), session.clone()));
    }
    assert_eq!(metric(admin, "vestibule_open_connections{listener=\"dns\"}"), 40);
    assert_eq!(metric(admin, "vestibule_upstream_attempts_total{cause=\"none\",upstream=\"dns\"}"), 40);
    gateway.stop();
    let lines = gateway.log();
    assert_eq!(lines.len(), 40);
    let line = lines.iter().find(|line| line["bytes_in"] == 10 + large.len()).unwrap();
    assert_eq!((&line["listener"], &line["upstream"]), (&"dns".into(), &"dns".into()));
    let answered = |text: &str| name.len() + session.len() + 2 + text.len();
    let expected: usize = ["first", "again", "", &large].into_iter().map(answered).sum();
    assert_eq!(line["bytes_out"], expected, "{line}");
}

#[test]
fn a_burst_comes_whole() {
    let endpoints = [echo("127.0.0.1:0", "one")];
    let (admin, port) = (vestibule_tests::ports::free(), free_port());
    let _gateway = Gateway::start(&yaml(admin, port, "", &endpoints));
    let client = client(port);
    ask(&client, "the session is there");
    for round in 0..20 {
        for n in 0..20 {
            client.send(format!("{round} {n}").as_bytes()).unwrap();
        }
        for n in 0..20 {
            let answer = String::from_utf8(receive(&client).unwrap()).unwrap();
            assert!(answer.ends_with(&format!(" {round} {n}")), "{answer}");
        }
    }
}

#[test]
fn a_session_ends_when_it_is_idle() {
    let endpoints = [echo("127.0.0.1:0", "one")];
    let (admin, port) = (vestibule_tests::ports::free(), free_port());
    let gateway = Gateway::start(&yaml(admin, port, "idle_timeout: 300ms", &endpoints));
    let client = client(port);
    let (_, session) = ask(&client, "one");
    gateway.log_line(|line| line["listener"] == "dns");
    let (_, next) = ask(&client, "two");
    assert_ne!(session, next);
}

#[test]
fn one_session_more_than_allowed_is_not_begun() {
    let endpoints = [echo("127.0.0.1:0", "one")];
    let (admin, port) = (vestibule_tests::ports::free(), free_port());
    let gateway = Gateway::start(&yaml(admin, port, "max_sessions: 2, idle_timeout: 1h", &endpoints));
    let (first, second, third) = (client(port), client(port), client(port));
    ask(&first, "first");
    ask(&second, "second");
    third.send(b"third").unwrap();
    gateway.wait_for("127.0.0.1: udp_sessions: ");
    third.set_read_timeout(Some(A_WHILE)).unwrap();
    assert!(receive(&third).is_err());
    assert_eq!(
        metric(admin, "vestibule_listener_over_limit_total{listener=\"dns\",reason=\"udp_sessions\"}"),
        1
    );
    ask(&first, "goes on");
}

#[test]
fn sessions_go_on_over_a_reload_and_new_ones_follow_it() {
    let (one, two) = (echo("127.0.0.1:0", "one"), echo("127.0.0.1:0", "two"));
    let (admin, port) = (vestibule_tests::ports::free(), free_port());
    let gateway = Gateway::start(&yaml(admin, port, "", &[one]));
    let old = client(port);
    let session = ask(&old, "before");
    gateway.reload(&yaml(admin, port, "max_sessions: 50", &[two]));
    assert_eq!(ask(&old, "after"), session);
    assert_eq!(ask(&client(port), "new").0, "two");
    // Another listener comes at once, and the old address is free as soon as the reload is over.
    let other = free_port();
    gateway.reload(&yaml(admin, other, "", &[two]));
    assert_eq!(ask(&client(other), "elsewhere").0, "two");
    drop(UdpSocket::bind(("127.0.0.1", port)).unwrap());
    gateway.reload(&yaml(admin, port, "", &[one]));
    assert_eq!(ask(&client(port), "back").0, "one");
}

#[test]
fn an_endpoint_where_nobody_listens_is_left_for_another() {
    let nobody: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().unwrap();
    let endpoints = [nobody, echo("127.0.0.1:0", "one")];
    let (admin, port) = (vestibule_tests::ports::free(), free_port());
    let gateway = Gateway::start(&yaml(admin, port, "", &endpoints));
    let unlucky = client(port);
    unlucky.send(b"to nobody").unwrap();
    let line = gateway.log_line(|line| line["cause"] == "connect_refused");
    assert_eq!(line["endpoint"], nobody.to_string());
    // Its next datagram begins a session where somebody listens.
    assert_eq!(ask(&unlucky, "once more").0, "one");
}

#[test]
fn clients_of_ipv6_and_of_every_address_are_answered_from_where_they_asked() {
    let one = echo("[::1]:0", "one");
    let (admin, port) = (vestibule_tests::ports::free(), free_port());
    let at = |address: &str| yaml(admin, port, "", &[one]).replace(&format!("127.0.0.1:{port}"), address);
    let _gateway = Gateway::start(&at(&format!("[::]:{port}")));
    for (from, to) in [("[::1]:0", "[::1]"), ("127.0.0.1:0", "127.0.0.1"), ("127.0.0.1:0", "127.0.0.3")] {
        let socket = UdpSocket::bind(from).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // A connected socket takes an answer from nowhere else.
        socket.connect(format!("{to}:{port}")).unwrap();
        assert_eq!(ask(&socket, to).0, "one");
    }
}

#[test]
fn a_stop_waits_for_no_client_that_has_been_answered() {
    let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
    upstream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (admin, port) = (vestibule_tests::ports::free(), free_port());
    let gateway = Gateway::start(&yaml(admin, port, "idle_timeout: 1h", &[upstream.local_addr().unwrap()]));
    let client = client(port);
    client.send(b"question").unwrap();
    let (_, session) = upstream.recv_from(&mut [0; 64]).unwrap();
    upstream.send_to(b"answer", session).unwrap();
    assert_eq!(receive(&client).unwrap(), b"answer");
    assert!(gateway.stop().success());
    assert!(!gateway.stderr().contains("drain timeout"), "{}", gateway.stderr());
}
