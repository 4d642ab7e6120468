//! `ip_filter`: by the address that the client connects from.

use std::net::Ipv4Addr;

use http::Request;
use vestibule_tests::client::Client;
use vestibule_tests::http2::Http2Client;
use vestibule_tests::origin::{Origin, Reply};

use super::Doors;

#[test]
fn clients_pass_by_their_address() {
    let origin = Origin::script(|_| Reply::ok("served").into());
    let doors =
        Doors::start(&origin, "{ ip_filter: { allow: 127.0.0.0/8, deny: [127.0.0.2, 127.7.0.0/16] } }");
    for (address, status) in [([127, 0, 0, 1], 200), ([127, 0, 0, 2], 403), ([127, 7, 1, 1], 403)] {
        let mut client = Client::plain_from(Ipv4Addr::from(address), doors.plain);
        let path = format!("/{}", Ipv4Addr::from(address));
        let response = client.get("a.test", &path);
        assert_eq!(response.status, status, "{address:?}");
        assert_eq!(doors.cause(&path), if status == 403 { "not_allowed" } else { "-" });
    }
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn streams_of_http2_are_refused_alike() {
    let origin = Origin::script(|_| Reply::ok("served").into());
    let doors = Doors::start(&origin, "{ ip_filter: { allow: 10.0.0.0/8 } }");
    let client = Http2Client::tls(doors.tls, "a.test");
    for _ in 0..2 {
        let request = Request::get("https://a.test/").body(()).unwrap();
        let response = client.send(request, true).response();
        assert_eq!(response.status, 403);
        assert!(response.text().starts_with("403 Forbidden\nrequest id: "), "{}", response.text());
    }
    assert!(origin.requests().is_empty());
}
