//! What goes wrong on an HTTP/2 connection, and which requests are made again.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use http::Response;
use serde_json::{Value, json};
use vestibule_tests::PATIENCE;
use vestibule_tests::certs::Certs;
use vestibule_tests::client::Client;
use vestibule_tests::http2::frames::{HEADERS, RST_STREAM, Server};
use vestibule_tests::http2::{Call, Http2Origin};

use super::h2c;
use crate::{Edge, quoted, raw};

const REFUSED_STREAM: u32 = 7;

/// A server of frames, by connection.
fn server(serve: impl Fn(usize, Server<TcpStream>) -> io::Result<()> + Clone + Send + 'static) -> u16 {
    raw::server(move |number, socket| serve(number, Server::greet(socket)?))
}

/// The status of a POST, and its line in the access log.
fn post(edge: &Edge, path: &str) -> (u16, Value) {
    let status = Client::plain(edge.port).post("a.test", path, b"body").status;
    (status, edge.gateway.log_of(path))
}

#[test]
fn a_request_that_the_upstream_refused_is_made_again_whatever_its_method() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let port = server(move |_, mut server| {
        loop {
            let stream = server.request()?;
            match count.fetch_add(1, Ordering::Relaxed) {
                0 => server.reset(stream, REFUSED_STREAM)?,
                _ => server.ok(stream)?,
            }
        }
    });
    let edge = h2c(port, "", "");
    let (status, line) = post(&edge, "/refused");
    assert_eq!((status, &line["attempts"]), (200, &json!(2)), "{line}");
    assert_eq!(refused.load(Ordering::Relaxed), 2);

    let port = server(|_, mut server| {
        loop {
            let stream = server.request()?;
            server.reset(stream, REFUSED_STREAM)?;
        }
    });
    let edge = h2c(port, "", "");
    let (status, line) = post(&edge, "/always");
    assert_eq!(
        (status, &line["attempts"], &line["cause"]),
        (502, &json!(3), &json!("upstream_reset")),
        "{line}"
    );
}

#[test]
fn a_goaway_loses_no_request_and_its_connection_gets_no_other() {
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let port = server(move |number, mut server| {
        let stream = server.request()?;
        if number == 0 {
            // The first stream counts, the second does not.
            let unserved = server.request()?;
            assert!(unserved > stream);
            server.goaway(stream)?;
            released.lock().unwrap().recv().unwrap();
            return server.ok(stream).and_then(|()| server.request().map(|_| panic!("after GOAWAY")));
        }
        server.ok(stream)?;
        loop {
            let stream = server.request()?;
            server.ok(stream)?;
        }
    });
    let edge = h2c(port, "", "");
    let attempts = |path: &str| edge.gateway.log_of(path)["attempts"].as_u64().unwrap();
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        for number in 0..2 {
            let (tell, edge) = (tell.clone(), &edge);
            scope.spawn(move || tell.send((number, post(edge, &format!("/{number}")).0)).unwrap());
        }
        let (unserved, status) = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!((status, attempts(&format!("/{unserved}"))), (200, 2), "made again");
        // The connection still has the stream that counts, and nothing else comes to it.
        assert_eq!((post(&edge, "/after").0, attempts("/after")), (200, 1));
        release.send(()).unwrap();
        let (served, status) = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!((status, attempts(&format!("/{served}"))), (200, 1));
    });
}

#[test]
fn a_request_that_may_have_been_processed_is_not_made_again() {
    const INTERNAL_ERROR: u32 = 2;
    let port = server(|_, mut server| {
        loop {
            let stream = server.request()?;
            server.reset(stream, INTERNAL_ERROR)?;
        }
    });
    let edge = h2c(port, "", "");
    let (status, line) = post(&edge, "/reset");
    assert_eq!(
        (status, &line["attempts"], &line["cause"]),
        (502, &json!(1), &json!("upstream_reset")),
        "{line}"
    );
}

#[test]
fn a_kept_connection_that_closes_under_a_request_is_as_with_http1() {
    let serve = |_, mut server: Server<TcpStream>| {
        let stream = server.request()?;
        server.ok(stream)?;
        // The second request is read, and the connection closed.
        server.request().map(|_| ())
    };
    let edge = h2c(server(serve), "", "");
    assert_eq!(edge.get("a.test", "/first").status, 200);
    assert_eq!(edge.outcome("a.test", "/again"), (200, json!("upstream_closed_idle")));
    assert_eq!(edge.gateway.log_of("/again")["attempts"], 2);
    // The one of the retry is the next that closes.
    let (status, line) = post(&edge, "/post");
    assert_eq!(
        (status, &line["attempts"], &line["cause"]),
        (502, &json!(1), &json!("upstream_closed_idle")),
        "{line}"
    );
}

#[test]
fn an_answer_before_the_end_of_the_request_is_not_lost_with_the_request() {
    let port = server(|_, mut server| {
        loop {
            let stream = server.request()?;
            server.ok(stream)?;
            if stream % 4 == 1 {
                // NO_ERROR: the rest of the body is not wanted (RFC 9113 section 8.1). Not every server says so.
                server.reset(stream, 0)?;
            }
        }
    });
    let edge = h2c(port, "", "");
    for number in 0..6 {
        let path = format!("/early{number}");
        // No window update ever comes, so most of this body can never be sent; to the client all is in order.
        assert_eq!(Client::plain(edge.port).post("a.test", &path, &vec![b'x'; 1 << 20]).status, 200);
        assert_eq!(edge.gateway.log_of(&path)["cause"], Value::Null);
    }
}

#[test]
fn an_interim_answer_reaches_the_client_before_the_answer() {
    const DATA: u8 = 0;
    let port = server(|_, mut server| {
        let stream = server.request()?;
        // `:status: 100`, its name from the static table (RFC 7541 appendix A).
        server.write(HEADERS, 4, stream, b"\x48\x03100")?;
        while server.frame()?.kind != DATA {}
        server.ok(stream)?;
        server.frame().map(|_| ())
    });
    let edge = h2c(port, "", "");
    let mut client = Client::plain(edge.port);
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.head().status, 100);
    assert_eq!(client.send("body").response().status, 200);
}

#[test]
fn an_upstream_that_wants_http1_gets_it_under_auto_and_is_named_otherwise() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let pair = certs.server(&ca, &["a.test"]);
    let origin = Http2Origin::tls(&pair, |call: Call| async { call.reset(h2::Reason::HTTP_1_1_REQUIRED) });
    let edge = |protocol: &str| {
        Edge::start(&format!(
            "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{}\"], protocol: {protocol}, \
             tls: {{ verify: {{ ca: {} }} }} }} }}\nroutes: [{{ upstream: origin }}]",
            origin.port,
            quoted(&ca.cert)
        ))
    };
    let auto = edge("auto");
    assert_eq!(auto.get("a.test", "/first").text(), "http/1.1");
    assert_eq!(auto.gateway.log_of("/first")["attempts"], 2);
    assert_eq!(auto.get("a.test", "/next").text(), "http/1.1");
    assert_eq!(auto.gateway.log_of("/next")["attempts"], 1, "it is remembered");
    assert_eq!(edge("h2").outcome("a.test", "/h2"), (502, json!("alpn_mismatch")));
}

#[test]
fn each_timeout_ends_one_stream_and_leaves_the_others_alone() {
    let origin = Http2Origin::plain(100, |mut call: Call| async move {
        match call.request.uri().path() {
            "/silent" => drop(call.wait_for_reset().await),
            "/half" => {
                let mut stream = call.head(Response::new(()), false);
                stream.send_data("half".into(), false).unwrap();
                let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            }
            "/slow" => {
                tokio::time::sleep(Duration::from_millis(1500)).await;
                call.ok("late").await;
            }
            _ => call.ok("ok").await,
        }
    });
    for timeouts in ["attempt: 500ms", "request: 500ms", "idle: 500ms"] {
        let edge = Edge::start(&format!(
            "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{}\"], protocol: h2c }} }}\n\
             routes:\n  - {{ match: {{ paths: [/slow, /ok] }}, upstream: origin }}\n  \
             - {{ upstream: origin, timeouts: {{ {timeouts} }} }}",
            origin.port
        ));
        let before = origin.connections();
        let mut slow = Client::plain(edge.port);
        slow.send("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let begun = Instant::now();
        assert_eq!(edge.outcome("a.test", "/silent"), (504, json!("upstream_timeout")), "{timeouts}");
        assert!(begun.elapsed() < Duration::from_millis(1400), "{timeouts}: {:?}", begun.elapsed());
        let mut half = Client::plain(edge.port);
        half.send("GET /half HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert!(half.try_response().is_err(), "{timeouts}: half an answer is no answer");
        assert_eq!(edge.gateway.log_of("/half")["cause"], "upstream_timeout", "{timeouts}");
        assert_eq!(slow.response().text(), "late", "{timeouts}");
        assert_eq!(edge.get("a.test", "/ok").text(), "ok");
        // A connection from which nothing came in all that time gets no further request; its streams go on.
        assert!(origin.connections() - before <= 3, "{timeouts}: {}", origin.connections() - before);
    }
}

#[test]
fn a_connection_that_has_gone_silent_gets_no_further_request() {
    let port = server(|number, mut server| {
        // The first answer comes behind everything that the two sides say of themselves at the start.
        let stream = server.request()?;
        server.ok(stream)?;
        if number == 0 {
            server.request()?;
            // Not even the end of the connection is noticed.
            loop {
                server.frame()?;
            }
        }
        Ok(())
    });
    let edge = h2c(port, "", "timeouts: { attempt: 1s }");
    assert_eq!(edge.get("a.test", "/first").status, 200);
    assert_eq!(edge.get("a.test", "/lost").status, 504);
    assert_eq!(edge.get("a.test", "/next").status, 200);
}

#[test]
fn a_client_that_goes_away_resets_its_own_stream_alone() {
    let (tell, told) = mpsc::channel();
    let port = server(move |_, mut server| {
        let (one, two) = (server.request()?, server.request()?);
        tell.send(None).unwrap();
        let reset = loop {
            let frame = server.frame()?;
            if frame.kind == RST_STREAM {
                break frame;
            }
        };
        tell.send(Some(reset)).unwrap();
        for stream in [one, two] {
            server.ok(stream)?;
        }
        server.frame().map(|_| ())
    });
    let edge = h2c(port, "", "");
    let mut stays = Client::plain(edge.port);
    stays.send("GET /stays HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let mut leaves = Client::plain(edge.port);
    leaves.send("GET /leaves HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), None, "both are there");
    drop(leaves);
    let reset = told.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(reset.payload, 8_u32.to_be_bytes(), "CANCEL");
    assert_eq!(stays.response().status, 200);
    assert_eq!(edge.gateway.log_of("/leaves")["cause"], "client_closed");
}
