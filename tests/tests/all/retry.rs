//! Retries: what is made again, and above all what is not.

use std::collections::BTreeSet;
use std::sync::Mutex;

use serde_json::json;
use vestibule_tests::client::Client;
use vestibule_tests::origin::{Answer, Origin, Reply};
use vestibule_tests::ports;

use crate::Edge;

/// One route that tries these endpoints.
fn edge(endpoints: &[u16], retry: &str) -> Edge {
    let endpoints: Vec<String> = endpoints.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    Edge::start(&format!(
        "upstreams: {{ three: {{ endpoints: {endpoints:?} }} }}\nroutes: [{{ upstream: three, plugins: [{{ retry: {retry} }}] }}]"
    ))
}

const THREE: &str =
    "{ attempts: 3, retry_on: [connect_failure, reset, 503], backoff: { base: 1ms, max: 5ms } }";

/// Beyond the 64 KiB that are kept for another try.
const TOO_LARGE: usize = 64 * 1024 + 1;

#[test]
fn every_get_succeeds_past_one_endpoint_that_refuses_and_one_that_is_busy() {
    let busy = Origin::script(|_| Reply::new(503, "busy").into());
    let good = Origin::script(|_| Reply::ok("good").into());
    let edge = edge(&[ports::free(), busy.port, good.port], THREE);
    let mut client = Client::plain(edge.port);
    for number in 0..60 {
        let response = client.get("a.test", &format!("/{number}"));
        assert_eq!((response.status, response.text().as_str()), (200, "good"), "request {number}");
    }
    assert!(busy.count("GET") > 0, "the busy endpoint was never tried");
    assert_eq!(good.count("GET"), 60);
    edge.gateway.log_of("/59");
    let lines = edge.gateway.log();
    let retried = lines.iter().find(|line| line["attempts"] == 3).expect("no request needed three attempts");
    assert_eq!(retried["endpoint"], json!(good.address()));
    assert!(!retried["cause"].is_null(), "{retried}");
}

#[test]
fn what_may_have_reached_an_upstream_is_sent_again_only_where_that_is_safe() {
    let check = |method: &str, fault: fn() -> Answer, expected: u16, sent: usize| {
        let origins: Vec<Origin> = (0..3).map(|_| Origin::script(move |_| fault())).collect();
        let ports: Vec<u16> = origins.iter().map(|origin| origin.port).collect();
        let edge = edge(&ports, THREE);
        let request = format!("{method} / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello");
        let response = Client::plain(edge.port).send(request).response();
        assert_eq!(response.status, expected, "{method}");
        let total: usize = origins.iter().map(|origin| origin.count(method)).sum();
        assert_eq!(total, sent, "{method}");
    };
    check("POST", || Answer::ResetAfterBody, 502, 1);
    check("POST", || Answer::Close, 502, 1);
    check("POST", || Reply::new(503, "busy").into(), 503, 1);
    check("PATCH", || Answer::ResetAfterHead, 502, 1);
    check("PUT", || Answer::ResetAfterBody, 502, 3);
    check("PUT", || Reply::new(503, "busy").into(), 503, 3);
    check("DELETE", || Answer::Close, 502, 3);
    check("PUT", || Reply::new(500, "not in retry_on").into(), 500, 1);
}

#[test]
fn a_post_goes_to_the_next_endpoint_where_none_of_it_was_sent() {
    let good = Origin::script(|_| Reply::ok("good").into());
    let edge = edge(&[ports::free(), ports::free(), good.port], THREE);
    for _ in 0..6 {
        let response = Client::plain(edge.port).post("a.test", "/", &vec![b'x'; TOO_LARGE]);
        assert_eq!(response.status, 200);
    }
    assert_eq!(good.count("POST"), 6);
    assert!(good.requests().iter().all(|request| request.body.len() == TOO_LARGE));
}

#[test]
fn a_body_is_replayed_whole_or_not_at_all() {
    let check = |size: usize, expected: u16, sent: usize| {
        let busy: Vec<Origin> = (0..2).map(|_| Origin::script(|_| Reply::new(503, "busy").into())).collect();
        let edge = edge(&[busy[0].port, busy[1].port], THREE.replace("3,", "2,").as_str());
        let body: Vec<u8> = (0..size).map(|n| n as u8).collect();
        let head = format!("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {size}\r\n\r\n");
        let response = Client::plain(edge.port).send(head).send(&body).response();
        assert_eq!(response.status, expected, "{size} bytes");
        let requests: Vec<_> = busy.iter().flat_map(|origin| origin.requests()).collect();
        assert_eq!(requests.len(), sent, "{size} bytes");
        assert!(requests.iter().all(|request| request.body == body), "{size} bytes: a body was cut");
    };
    check(0, 503, 2);
    check(1000, 503, 2);
    check(60 * 1024, 503, 2);
    check(TOO_LARGE, 503, 1);
    check(1024 * 1024, 503, 1);
}

#[test]
fn methods_that_the_file_names_are_made_again() {
    let origins: Vec<Origin> = (0..2).map(|_| Origin::script(|_| Answer::ResetAfterBody)).collect();
    let edge = edge(&[origins[0].port, origins[1].port], "{ attempts: 2, retry_on: reset, methods: [POST] }");
    assert_eq!(Client::plain(edge.port).post("a.test", "/", b"twice").status, 502);
    assert_eq!(origins.iter().map(|origin| origin.count("POST")).sum::<usize>(), 2);
    assert_eq!(edge.get("a.test", "/").status, 502);
    assert_eq!(origins.iter().map(|origin| origin.count("GET")).sum::<usize>(), 1, "GET is not among them");
}

#[test]
fn a_kept_connection_that_the_upstream_has_closed_is_replaced_without_a_word() {
    let origin = Origin::script(|request| match request.target.as_str() {
        "/last" => Answer::ReplyAndClose(Reply::ok("last")),
        _ => Reply::ok("next").into(),
    });
    let edge = edge(&[origin.port], THREE);
    for next in (0..5).map(|round| format!("/next{round}")) {
        assert_eq!(edge.get("a.test", "/last").status, 200);
        origin.wait_for_close();
        assert_eq!(edge.get("a.test", &next).text(), "next");
        // Its line is written once its connection is back in the pool, where `/last` has to find it.
        edge.gateway.log_of(&next);
    }
}

#[test]
fn a_kept_connection_that_breaks_under_a_request_costs_a_get_nothing_and_a_post_its_answer() {
    let seen = Mutex::new(BTreeSet::new());
    let origin = Origin::script(move |request| match seen.lock().unwrap().insert(request.connection) {
        true => Reply::ok("first").into(),
        false => Answer::ResetAfterHead,
    });
    let edge = edge(&[origin.port], THREE);
    // A request's line is written once its connection is back in the pool, where the next one finds it.
    let get = |path| (edge.get("a.test", path).status, edge.gateway.log_of(path)).0;
    assert_eq!(get("/opens"), 200);
    assert_eq!(get("/breaks"), 200);
    assert_eq!((origin.connections(), origin.count("GET")), (2, 3));
    assert_eq!(Client::plain(edge.port).post("a.test", "/breaks", b"once").status, 502);
    assert_eq!(origin.count("POST"), 1);
}

#[test]
fn the_second_try_goes_to_another_endpoint() {
    let busy = Origin::script(|_| Reply::new(503, "busy").into());
    let good = Origin::script(|_| Reply::ok("good").into());
    let edge = edge(&[busy.port, good.port], "{ attempts: 2, retry_on: 5xx }");
    for _ in 0..20 {
        assert_eq!(edge.get("a.test", "/").status, 200);
    }
    assert!(busy.count("GET") > 0);
}
