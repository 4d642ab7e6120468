//! `body_limit`: refused by its length before it is read, or cut on its way.

use std::sync::mpsc;

use http::Request;
use vestibule_tests::PATIENCE;
use vestibule_tests::client::Client;
use vestibule_tests::http2::Http2Client;
use vestibule_tests::http2::Http2Origin;
use vestibule_tests::origin::{Answer, Origin, Reply};

use super::Doors;

const LIMIT: &str = "{ body_limit: { max: 1KiB } }";

fn served() -> Origin {
    Origin::script(|_| Reply::ok("served").into())
}

fn post(path: &str) -> Request<()> {
    Request::post(format!("https://a.test{path}")).body(()).unwrap()
}

#[test]
fn a_body_is_refused_by_its_length_and_nothing_reaches_the_upstream() {
    let origin = served();
    let doors = Doors::start(&origin, LIMIT);
    for (size, status) in [(1024, 200), (1025, 413), (4 << 20, 413)] {
        let path = format!("/{size}");
        let mut client = Client::plain(doors.plain);
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {size}\r\n\r\n"));
        // The whole of it, though the answer may be there before: a client that is not cut off reads it.
        client.send(vec![b'x'; size]);
        let response = client.response();
        assert_eq!(response.status, status, "{size}");
        if status == 413 {
            assert_eq!(response.header("connection"), Some("close"));
            assert!(
                response.text().starts_with("413 Payload Too Large\nrequest id: "),
                "{}",
                response.text()
            );
            assert_eq!(doors.cause(&path), "body_too_large");
        }
    }
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn who_waits_for_100_continue_gets_413_in_its_stead() {
    let origin = served();
    let doors = Doors::start(&origin, LIMIT);
    let mut client = Client::plain(doors.plain);
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.response().status, 413);
    assert!(client.to_end().unwrap().is_empty(), "the connection is closed");
    assert!(origin.requests().is_empty());
}

#[test]
fn a_body_in_pieces_is_cut_where_it_becomes_too_large_and_is_never_whole() {
    let origin = served();
    let doors = Doors::start(&origin, LIMIT);
    let chunk = |length: usize| format!("{length:x}\r\n{}\r\n", "x".repeat(length));
    let begin = |path: &str| {
        let mut client = Client::plain(doors.plain);
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"));
        client
    };
    let mut client = begin("/small");
    assert_eq!(client.send(chunk(1000)).send(chunk(24)).send("0\r\n\r\n").response().status, 200);

    let mut client = begin("/large");
    client.send(chunk(1000));
    origin.wait_for("the first piece", |all| {
        all.iter().any(|it| it.target == "/large" && it.body.len() == 1000)
    });
    // The end comes with the piece that is too much: the upstream must not see it.
    client.send(chunk(25) + "0\r\n\r\n");
    assert_eq!(client.response().status, 413);
    assert!(client.to_end().unwrap().is_empty(), "the connection is closed");
    assert_eq!(doors.cause("/large"), "body_too_large");
    // The broken connection has ended, and so has the kept one once the gateway has.
    doors.gateway.stop();
    origin.wait_for_close();
    let large = origin.requests().into_iter().filter(|it| it.target == "/large").collect::<Vec<_>>();
    assert_eq!(large.len(), 1, "it is not tried again");
    assert!(!large[0].complete, "{:?}", large[0]);
}

#[test]
fn an_answer_that_has_begun_is_cut_off() {
    let origin = Origin::script(|_| Answer::Duplex);
    let doors = Doors::start(&origin, LIMIT);
    let mut client = Client::plain(doors.plain);
    client.send("POST /duplex HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.chunk().unwrap(), b"12345");
    client.send(format!("400\r\n{}\r\n0\r\n\r\n", "x".repeat(1024)));
    // Without the chunk that would make it whole.
    assert!(!matches!(client.to_end(), Ok(rest) if rest.ends_with(b"0\r\n\r\n")));
    assert_eq!(doors.cause("/duplex"), "body_too_large");
    assert!(!origin.requests()[0].complete);
}

#[test]
fn streams_of_http2_are_refused_one_by_one() {
    let origin = served();
    let doors = Doors::start(&origin, LIMIT);
    let client = Http2Client::tls(doors.tls, "a.test");
    let announced =
        Request::post("https://a.test/announced").header("content-length", "2000").body(()).unwrap();
    assert_eq!(client.send(announced, false).response().status, 413);
    assert!(origin.requests().is_empty());
    let mut exchange = client.send(post("/streamed"), false);
    exchange.write("x".repeat(1000), false);
    origin.wait_for("the first piece", |all| all.iter().any(|it| it.body.len() == 1000));
    exchange.write("x".repeat(25), false);
    assert_eq!(exchange.response().status, 413);
    assert_eq!(doors.cause("/streamed"), "body_too_large");
    // The connection goes on.
    let mut exchange = client.send(post("/small"), false);
    exchange.write("x".repeat(1024), true);
    assert_eq!(exchange.response().text(), "served");
    let streamed = origin.requests().into_iter().find(|it| it.target == "/streamed").unwrap();
    assert!(!streamed.complete);
}

#[test]
fn a_stream_to_an_http2_upstream_is_reset() {
    let (told, resets) = mpsc::channel();
    let origin = Http2Origin::plain(100, move |mut call| {
        let told = told.clone();
        async move {
            let mut come = 0;
            let whole = loop {
                match call.next().await {
                    Some(Ok(data)) => come += data.len(),
                    Some(Err(_)) => break false,
                    None => break true,
                }
            };
            told.send((come, whole)).unwrap();
            call.ok("served").await;
        }
    });
    let doors = Doors::to(&format!("endpoints: \"127.0.0.1:{}\", protocol: h2c", origin.port), LIMIT);
    let client = Http2Client::tls(doors.tls, "a.test");
    let mut exchange = client.send(post("/large"), false);
    exchange.write("x".repeat(1000), false);
    exchange.write("x".repeat(1000), true);
    assert_eq!(exchange.response().status, 413);
    let (come, whole) = resets.recv_timeout(PATIENCE).unwrap();
    assert!(come <= 1024 && !whole, "{come} bytes, whole: {whole}");
}

#[test]
fn what_goes_through_a_tunnel_is_not_counted() {
    let origin = Origin::script(|_| Answer::Upgrade);
    let doors = Doors::start(&origin, "{ body_limit: { max: 10B } }");
    let mut client = Client::plain(doors.plain);
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.head().status, 101);
    for _ in 0..10 {
        assert_eq!(client.send("0123456789").exactly(10).unwrap(), b"0123456789");
    }
}

#[test]
fn a_routes_own_limit_takes_the_place_of_the_common_one() {
    let origin = served();
    let port = vestibule_tests::ports::free();
    let _gateway = vestibule_tests::gateway::Gateway::start(&format!(
        "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\nplugins: [{{ body_limit: {{ max: 10B }} }}]\n\
         upstreams: {{ origin: {{ endpoints: \"{}\" }} }}\nroutes:\n  - {{ match: {{ paths: /own }}, upstream: origin, \
         plugins: [{{ body_limit: {{ max: 20B }} }}] }}\n  - {{ upstream: origin }}\n",
        origin.address()
    ));
    for (path, size, status) in
        [("/own", 20, 200), ("/own", 21, 413), ("/", 10, 200), ("/", 11, 413), ("/", 20, 413)]
    {
        let response = Client::plain(port).post("a.test", path, &vec![b'x'; size]);
        assert_eq!(response.status, status, "{size} to {path}");
    }
}
