//! Bytes on their way: both directions, where they go, when they end, and what an idle connection costs.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::json;
use vestibule_tests::ports;

use super::{Gate, echo, exchange};
use crate::raw::{self, is_closed, is_silent};

#[test]
fn large_transfers_pass_both_ways_at_once_and_are_counted() {
    let gate = to(&[echo("")], "");
    let socket = gate.connect();
    let sent: Vec<u8> = (0..8_000_000_u32).map(|number| (number / 241) as u8).collect();
    let mut reading = socket.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        reading.read_to_end(&mut got).map(|_| got)
    });
    (&socket).write_all(&sent).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    assert!(reader.join().unwrap().unwrap() == sent, "what came back is not what was sent");
    let line = gate.gateway.connection_line(|line| line["upstream"] == "u");
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&json!(8_000_000), &json!(8_000_000)), "{line}");
    assert_eq!(
        (&line["cause"], &line["attempts"], &line["client_ip"]),
        (&json!(null), &json!(1), &json!("127.0.0.1"))
    );
    assert_eq!(gate.metric("vestibule_tcp_received_bytes_total{listener=\"l4\"}"), 8_000_000);
    assert_eq!(gate.metric("vestibule_tcp_sent_bytes_total{listener=\"l4\"}"), 8_000_000);
}

#[test]
fn either_end_may_stop_sending_and_still_receives() {
    // It ends what it sends before it has read anything.
    let server = raw::server(|_, mut socket| {
        socket.write_all(b"greeting")?;
        socket.shutdown(Shutdown::Write)?;
        let mut got = String::new();
        socket.read_to_string(&mut got).map(drop)
    });
    let gate = to(&[server], "");
    let mut socket = gate.connect();
    let mut got = String::new();
    socket.read_to_string(&mut got).unwrap();
    assert_eq!(got, "greeting");
    socket.write_all(b"an answer").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let line = gate.gateway.connection_line(|line| line["upstream"] == "u");
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&json!(9), &json!(8)), "{line}");
    assert_eq!(exchange(to(&[echo("named ")], "").connect(), b"question"), "named question");
}

#[test]
fn where_an_endpoint_refuses_the_next_one_is_tried_and_where_all_do_the_client_is_closed() {
    let (refusing, other) = (ports::free(), ports::free());
    let gate = to(&[refusing, echo("live")], "");
    for _ in 0..2 {
        assert_eq!(exchange(gate.connect(), b""), "live");
    }
    gate.gateway.connection_line(|line| line["attempts"] == 2 && line["cause"].is_null());
    let gate = to(&[refusing, other], "");
    assert!(is_closed(&mut gate.connect()));
    let line = gate.line_of_cause("connect_refused");
    assert_eq!((&line["attempts"], &line["upstream"]), (&json!(2), &json!("u")), "{line}");
    gate.gateway.wait_for("listener `l4`, upstream `u`: connect_refused: ");
}

#[test]
fn weights_decide_how_many_connections_an_endpoint_gets() {
    let (heavy, light) = (echo("heavy"), echo("light"));
    let gate = Gate::start(
        "tcp: { upstream: u }",
        &format!(
            "upstreams: {{ u: {{ endpoints: [{{ address: \"127.0.0.1:{heavy}\", weight: 3 }}, \"127.0.0.1:{light}\"] }} }}"
        ),
    );
    let got: Vec<String> = (0..8).map(|_| exchange(gate.connect(), b"")).collect();
    assert_eq!(got.iter().filter(|name| *name == "light").count(), 2, "{got:?}");
}

#[test]
fn past_the_limit_a_connection_waits_until_another_one_closes() {
    let gate = to(&[echo("hello")], "max_connections: 1, ");
    let mut first = gate.connect();
    first.read_exact(&mut [0; 5]).unwrap();
    let mut second = gate.connect();
    assert!(is_silent(&second, Duration::from_millis(300)), "it was let in");
    drop(first);
    second.read_exact(&mut [0; 5]).unwrap();
}

#[test]
fn a_connection_that_is_idle_too_long_is_closed_and_the_log_says_so() {
    let gate = Gate::start(
        "tcp: { upstream: u, idle_timeout: 200ms }",
        &format!("upstreams: {{ u: {{ endpoints: [\"127.0.0.1:{}\"] }} }}", echo("")),
    );
    assert!(is_closed(&mut gate.connect()));
    gate.line_of_cause("connection_idle");
}

#[test]
fn a_unix_socket_may_be_the_upstream() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("l4.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let serving = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept()?;
        let mut got = String::new();
        socket.read_to_string(&mut got)?;
        socket.write_all(format!("got {got}").as_bytes())
    });
    let gate = Gate::start(
        "tcp: { upstream: u }",
        &format!("upstreams: {{ u: {{ endpoints: [\"unix:{}\"] }} }}", path.display()),
    );
    assert_eq!(exchange(gate.connect(), b"it"), "got it");
    serving.join().unwrap().unwrap();
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    let gate = to(&[echo("")], "");
    let body = [b'x'; 64 * 1024];
    // Each has moved more than a buffer's worth both ways.
    let idle = |count: usize| -> Vec<TcpStream> {
        let used = |_| {
            let mut socket = gate.connect();
            socket.write_all(&body).unwrap();
            socket.read_exact(&mut [0; 64 * 1024]).unwrap();
            socket
        };
        (0..count).map(used).collect()
    };
    let resident = || -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gate.gateway.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    };
    let _first = idle(50);
    let before = resident();
    let _rest = idle(200);
    let each = resident().saturating_sub(before) / 200;
    // Two buffers of a read's worth would be 64 KiB, and were 128 KiB.
    assert!(each < 32 * 1024, "{each} bytes for each");
}

#[test]
fn a_server_that_speaks_first_is_heard_without_a_word_of_the_client() {
    let gate = to(&[echo("220 ready")], "");
    let mut greeting = [0; 9];
    gate.connect().read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ready");
}

#[test]
fn an_end_that_breaks_off_ends_the_other() {
    let server = raw::server(|_, socket| {
        let mut socket = socket;
        socket.read_exact(&mut [0; 1])?;
        // What has not been read makes the system break the connection off.
        io::Result::Ok(())
    });
    let gate = to(&[server], "");
    let mut socket = gate.connect();
    socket.write_all(b"0123456789").unwrap();
    assert!(is_closed(&mut socket));
}

/// A `tcp` listener in front of these ports.
fn to(ports: &[u16], keys: &str) -> Gate {
    let endpoints: Vec<String> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    Gate::start(
        &format!("{keys}tcp: {{ upstream: u }}"),
        &format!("upstreams: {{ u: {{ endpoints: [{}] }} }}", endpoints.join(", ")),
    )
}
