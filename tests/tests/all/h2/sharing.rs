//! How many connections there are, and for how long.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use vestibule_tests::client::Client;
use vestibule_tests::http2::{Call, Http2Origin};

use super::{at_once, h2c};

async fn later(call: Call) {
    tokio::time::sleep(Duration::from_millis(200)).await;
    let connection = call.connection.to_string();
    call.ok(connection).await;
}

fn by_connection(port: u16, count: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for answer in at_once(port, "a.test", "/", count) {
        assert_eq!(answer.status, 200, "{answer:?}");
        *counts.entry(answer.text()).or_default() += 1;
    }
    counts
}

#[test]
fn a_connection_takes_as_many_requests_as_its_upstream_allows() {
    let origin = Http2Origin::plain(10, later);
    let edge = h2c(origin.port, "", "");
    let counts = by_connection(edge.port, 30);
    assert_eq!(origin.peak(), 10);
    assert!((2..=5).contains(&counts.len()), "{counts:?}");
    let made = origin.connections();
    // What is there is used again, and none of it is turned away.
    by_connection(edge.port, 20);
    assert_eq!(origin.connections(), made, "{:?}", origin.streams());
    assert!(edge.gateway.log().iter().all(|line| line["attempts"] == 1));
}

#[test]
fn a_burst_beyond_a_hundred_takes_a_connection_for_each_hundred() {
    let origin = Http2Origin::plain(1000, later);
    let edge = h2c(origin.port, "", "");
    let counts = by_connection(edge.port, 250);
    assert!((2..=5).contains(&counts.len()), "{counts:?}");
    assert_eq!(origin.peak(), 100);
}

#[test]
fn an_idle_connection_closes_after_its_time_and_not_before() {
    let origin = Http2Origin::plain(100, |call: Call| call.ok("ok"));
    let edge = h2c(origin.port, "keepalive: { idle_timeout: 1s }", "");
    let mut client = Client::plain(edge.port);
    for _ in 0..3 {
        client.get("a.test", "/");
        std::thread::sleep(Duration::from_millis(400));
    }
    assert_eq!(origin.connections(), 1, "each request came before its time was over");
    let idle = Instant::now();
    origin.wait_for_ends(1);
    let took = idle.elapsed();
    assert!(took > Duration::from_millis(400) && took < Duration::from_millis(1500), "{took:?}");
    client.get("a.test", "/");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn no_more_connections_are_kept_idle_than_the_pool_may_hold() {
    let origin = Http2Origin::plain(1, later);
    let port = vestibule_tests::ports::free();
    let yaml = |size: u32| {
        format!(
            "version: 1\nserver: {{ threads: 1, upstream_pool_size: {size} }}\n\
             listeners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\n\
             upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{}\"], protocol: h2c }} }}\n\
             routes: [{{ upstream: origin }}]\n",
            origin.port
        )
    };
    let _gateway = vestibule_tests::gateway::Gateway::start(&yaml(2));
    assert_eq!(by_connection(port, 6).len(), 6, "one stream each");
    origin.wait_for_ends(4);
    assert_eq!(by_connection(port, 2).len(), 2);
    assert_eq!(origin.connections(), 6, "the two that were kept");
}
