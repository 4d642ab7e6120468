//! Clients of HTTP/1.0, who know no chunks.

use std::io::{Read, Write};

use vestibule_tests::client::Client;
use vestibule_tests::http2::Http2Origin;
use vestibule_tests::origin::{Answer, Origin, Reply};

use crate::Edge;
use crate::raw::{self, connected};

fn edge(upstream: &str) -> Edge {
    Edge::start(&format!("upstreams: {{ origin: {{ {upstream} }} }}\nroutes: [{{ upstream: origin }}]"))
}

/// Everything that comes of a request, up to the end of the connection.
fn all(port: u16, request: &str) -> String {
    let mut client = connected(port);
    client.write_all(request.as_bytes()).unwrap();
    let mut came = String::new();
    client.read_to_string(&mut came).unwrap();
    came.to_ascii_lowercase()
}

#[test]
fn an_answer_without_a_length_ends_with_the_connection_and_is_not_chunked() {
    let chunked = raw::server(|_, mut socket| {
        raw::head(&mut socket)?;
        socket.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")?;
        socket.write_all(b"6\r\n world\r\n0\r\n\r\n")
    });
    let until_close = raw::server(|_, mut socket| {
        raw::head(&mut socket)?;
        socket.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello world")
    });
    for port in [chunked, until_close] {
        let edge = edge(&format!("endpoints: [\"127.0.0.1:{port}\"]"));
        for fields in ["", "Connection: keep-alive\r\n"] {
            let came = all(edge.port, &format!("GET / HTTP/1.0\r\nHost: a.test\r\n{fields}\r\n"));
            let (head, body) = came.split_once("\r\n\r\n").unwrap();
            // As nginx does: the version is that of the server.
            assert!(head.starts_with("http/1.1 200 "), "{head}");
            assert!(head.contains("connection: close") && !head.contains("transfer-encoding"), "{head}");
            assert_eq!(body, "hello world");
        }
    }
}

#[test]
fn an_interim_answer_is_not_for_a_client_of_http_1_0() {
    let port = raw::server(|_, mut socket| {
        raw::head(&mut socket)?;
        socket.write_all(
            b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        )
    });
    let edge = edge(&format!("endpoints: [\"127.0.0.1:{port}\"]"));
    let came = all(edge.port, "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    assert!(came.starts_with("http/1.1 200 ") && came.ends_with("\r\n\r\nok"), "{came}");
}

#[test]
fn a_connection_is_kept_where_it_is_asked_for_and_only_there() {
    let origin = Origin::script(|_| Reply::ok("served").into());
    let edge = edge(&format!("endpoints: [\"{}\"]", origin.address()));
    let mut client = Client::plain(edge.port);
    for _ in 0..2 {
        let response =
            client.send("GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n").response();
        assert_eq!((response.status, response.header("connection")), (200, Some("keep-alive")));
    }
    let came = all(edge.port, "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    assert!(came.contains("connection: close") && came.ends_with("served"), "{came}");
}

#[test]
fn a_stream_reaches_the_client_as_it_comes() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let receiver = std::sync::Mutex::new(Some(receiver));
    let origin = Origin::script(move |_| Answer::Stream(receiver.lock().unwrap().take().unwrap()));
    let edge = edge(&format!("endpoints: [\"{}\"]", origin.address()));
    let mut client = Client::plain(edge.port);
    assert_eq!(
        client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").head().header("transfer-encoding"),
        None
    );
    for word in ["one", "two"] {
        sender.send(word.into()).unwrap();
        assert_eq!(client.exactly(3).unwrap(), word.as_bytes());
    }
    drop(sender);
    assert!(client.to_end().unwrap().is_empty());
}

#[test]
fn an_answer_of_an_http_2_upstream_is_not_chunked_either() {
    let origin = Http2Origin::plain(100, |mut call| async move {
        let mut body = call.head(http::Response::new(()), false);
        body.send_data("hello".into(), true).unwrap();
    });
    let edge = edge(&format!("endpoints: [\"127.0.0.1:{}\"], protocol: h2c", origin.port));
    let came = all(edge.port, "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    let (head, body) = came.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("connection: close") && !head.contains("transfer-encoding"), "{head}");
    assert_eq!(body, "hello");
}
