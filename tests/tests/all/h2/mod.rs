//! HTTP/2 to upstreams: real servers, streams both ways, what is shared, and what goes wrong.

mod faults;
mod grpc;
mod servers;
mod sharing;

use std::thread;

use vestibule_tests::client::{Client, Response};

use crate::Edge;

/// A gateway whose every request goes to this port, without TLS.
fn h2c(port: u16, upstream: &str, route: &str) -> Edge {
    Edge::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{port}\"], protocol: h2c, {upstream} }} }}\n\
         routes: [{{ upstream: origin, {route} }}]"
    ))
}

/// So many GETs at once, each on a connection of its own.
fn at_once(port: u16, host: &str, path: &str, count: usize) -> Vec<Response> {
    let clients: Vec<_> = (0..count).map(|_| Client::plain(port)).collect();
    thread::scope(|scope| {
        let asked: Vec<_> =
            clients.into_iter().map(|mut client| scope.spawn(move || client.get(host, path))).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    })
}
