//! Fields behind a body: of HTTP/1.1 none passes, and none is ever taken for a header.

use std::io::Write;

use vestibule_tests::client::Client;
use vestibule_tests::origin::Origin;

use crate::Edge;
use crate::raw;

#[test]
fn trailers_of_a_request_reach_nobody() {
    let origin = Origin::echo();
    let edge = Edge::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: origin }}]",
        origin.address()
    ));
    let mut client = Client::plain(edge.port);
    client.send(
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTrailer: x-checksum, authorization\r\n\r\n\
         2\r\nhi\r\n0\r\nx-checksum: 1\r\nAuthorization: Bearer x\r\nX-Remote-User: root\r\nHost: b.test\r\n\
         Content-Length: 0\r\nTransfer-Encoding: identity\r\n\r\n",
    );
    let seen = client.response().json();
    for name in ["x-checksum", "authorization", "x-remote-user", "trailer", "content-length"] {
        assert!(seen["headers"][name].is_null(), "{name}: {seen}");
    }
    assert_eq!(
        (&seen["headers"]["host"], &seen["headers"]["transfer-encoding"]),
        (&"a.test".into(), &"chunked".into())
    );
    let request = origin.requests().pop().unwrap();
    assert_eq!((request.body.as_slice(), request.complete), (&b"hi"[..], true));
    assert_eq!(client.get("a.test", "/next").status, 200, "what follows them is the next request");
}

#[test]
fn trailers_of_an_answer_reach_nobody() {
    let port = raw::server(|_, mut socket| {
        raw::head(&mut socket)?;
        socket.write_all(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-checksum\r\n\r\n\
              2\r\nhi\r\n0\r\nx-checksum: 1\r\nset-cookie: a=b\r\n\r\n",
        )
    });
    let edge = Edge::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{port}\"] }} }}\nroutes: [{{ upstream: origin }}]"
    ));
    let mut client = Client::plain(edge.port);
    let head = client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").head();
    assert_eq!((head.header("x-checksum"), head.header("set-cookie")), (None, None));
    assert_eq!(client.chunk().unwrap(), b"hi");
    assert!(client.chunk().unwrap().is_empty(), "a last chunk, and behind it the empty line at once");
}
