//! What a plugin writes is not a client's to take away.

use vestibule_tests::client::Client;
use vestibule_tests::origin::Origin;

use crate::Edge;

#[test]
fn a_client_cannot_have_a_header_of_a_plugins_stripped() {
    let origin = Origin::echo();
    let edge = Edge::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\n\
         routes: [{{ upstream: origin, plugins: [{{ headers: {{ request: {{ set: {{ x-injected: by the gateway }} }} }} }}] }}]",
        origin.address()
    ));
    for nominated in [
        "Connection: x-injected\r\n",
        "Connection: close, X-Injected\r\n",
        "Connection: keep-alive\r\nConnection: x-injected,\r\n",
        "Connection: Upgrade, x-injected\r\nUpgrade: websocket\r\n",
        "Connection: x-injected\r\nX-Injected: by the client\r\n",
        "Connection: ,x-injected\t,, \r\n",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{nominated}\r\n");
        let response = Client::plain(edge.port).send(request).response();
        assert_eq!(response.json()["headers"]["x-injected"], "by the gateway", "{nominated:?}");
    }
    let before = origin.requests().len();
    for refused in ["x-forwarded-port, x-injected", "\"x-injected\", x-injected", "x-injected, host"] {
        let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: {refused}\r\n\r\n");
        assert_eq!(Client::plain(edge.port).send(request).response().status, 400, "{refused}");
    }
    assert_eq!(origin.requests().len(), before);
}

#[test]
fn a_client_cannot_have_the_gateways_forwarding_headers_stripped() {
    let origin = Origin::echo();
    let edge = Edge::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: origin }}]",
        origin.address()
    ));
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "host"] {
        let mut client = Client::plain(edge.port);
        let response =
            client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: {name}\r\n\r\n")).response();
        // Refused outright is as good.
        if response.status == 200 {
            assert!(!response.json()["headers"][name].is_null(), "{name} was taken away");
        } else {
            assert_eq!(response.status, 400, "{name}");
        }
    }
}
