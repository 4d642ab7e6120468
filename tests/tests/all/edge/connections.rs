//! How many connections one client may have.

use std::net::Ipv4Addr;

use vestibule_tests::client::Client;
use vestibule_tests::gateway::Gateway;
use vestibule_tests::ports;

use super::metric;
use crate::raw::{connected, is_closed};

#[test]
fn one_client_cannot_take_the_connections_of_the_others() {
    let (port, admin) = (ports::free(), ports::free());
    let yaml = |limit: u32| {
        format!(
            "version: 1\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\n\
             listeners: {{ web: {{ address: \"0.0.0.0:{port}\", max_connections_per_client: {limit} }} }}\n\
             routes: [{{ respond: {{ body: hello }} }}]"
        )
    };
    let gateway = Gateway::start(&yaml(2));
    let (mut first, mut second) = (Client::plain(port), Client::plain(port));
    assert_eq!((first.get("a.test", "/").status, second.get("a.test", "/").status), (200, 200));
    for _ in 0..20 {
        assert!(is_closed(&mut connected(port)));
    }
    let sample = "vestibule_listener_over_limit_total{listener=\"web\",reason=\"connections_per_client\"}";
    assert_eq!(metric(admin, sample), 20);
    gateway.wait_for("127.0.0.1: connections_per_client: ");
    let other = Client::plain_from(Ipv4Addr::new(127, 0, 0, 2), port).get("a.test", "/");
    assert_eq!(other.status, 200, "another address");
    // What is open goes on under a smaller limit, and counts.
    gateway.reload(&yaml(1));
    assert_eq!(second.get("a.test", "/").status, 200);
    drop(first);
    assert!(is_closed(&mut connected(port)));
    gateway.reload(&yaml(3));
    assert_eq!(Client::plain(port).get("a.test", "/").status, 200);
}
