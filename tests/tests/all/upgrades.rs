//! Tunnels: none is lost where it begins, and only idleness ends one.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use vestibule_tests::PATIENCE;

use crate::Edge;
use crate::raw::{self, connected};

const UPGRADE: &[u8] = b"GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Answers 101 at once with the tunnel's first bytes in the same packet, then sends everything back.
fn hasty() -> u16 {
    raw::server(|_, mut socket| {
        raw::head(&mut socket)?;
        socket.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
              sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello",
        )?;
        let mut back = socket.try_clone()?;
        io::copy(&mut socket, &mut back).map(|_| ())
    })
}

fn edge(port: u16, route: &str) -> Edge {
    Edge::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{port}\"] }} }}\nroutes: [{{ upstream: origin, {route} }}]"
    ))
}

/// A tunnel that has said hello.
fn tunnel(port: u16) -> io::Result<TcpStream> {
    let mut client = connected(port);
    client.write_all(UPGRADE)?;
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

#[test]
fn none_of_500_upgrades_is_cut_though_the_first_bytes_come_with_the_101() {
    let edge = edge(hasty(), "");
    let mut kept = Vec::new();
    for number in 0..500 {
        let mut client = tunnel(edge.port).unwrap_or_else(|e| panic!("upgrade {number}: {e}"));
        echo(&mut client, b"ping").unwrap_or_else(|e| panic!("upgrade {number}: {e}"));
        kept.push(client);
        // Not all at once, which would be a test of how many files a process may have.
        if kept.len() > 100 {
            echo(&mut kept.remove(0), b"still there").unwrap_or_else(|e| panic!("an earlier one: {e}"));
        }
    }
    for mut client in kept {
        echo(&mut client, b"still there").unwrap();
    }
}

#[test]
fn only_idleness_ends_a_tunnel() {
    let edge = edge(hasty(), "timeouts: { request: 300ms, attempt: 200ms, idle: 800ms }");
    let mut client = tunnel(edge.port).unwrap();
    let begun = Instant::now();
    // Each pause is longer than either deadline and shorter than the idle timeout.
    while begun.elapsed() < Duration::from_millis(1500) {
        assert!(raw::is_silent(&client, Duration::from_millis(400)), "cut after {:?}", begun.elapsed());
        echo(&mut client, b"ping").unwrap();
    }
    let last = Instant::now();
    assert!(raw::is_closed(&mut client));
    let took = last.elapsed();
    assert!(took >= Duration::from_millis(700) && took < Duration::from_secs(3), "ended after {took:?}");
}

#[test]
fn a_tunnel_whose_bytes_flow_one_way_is_not_idle() {
    let silent = raw::server(|_, mut socket| {
        raw::head(&mut socket)?;
        socket.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello",
        )?;
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
    let edge = edge(silent, "timeouts: { idle: 600ms }");
    let mut client = tunnel(edge.port).unwrap();
    for _ in 0..5 {
        client.write_all(b"word").unwrap();
        assert!(raw::is_silent(&client, Duration::from_millis(300)), "cut though bytes went up");
    }
    client.write_all(b"over").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut back = [0; 3];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"out");
}
