//! gRPC end to end: an HTTP/2 client through the TLS listener, an HTTP/2 origin, messages both ways, trailers.

use std::fs;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use vestibule_tests::certs::Certs;
use vestibule_tests::client::curl;
use vestibule_tests::gateway::Gateway;
use vestibule_tests::http2::{Call, Http2Client, Http2Origin, message, next_message, send, trailers};
use vestibule_tests::ports;

use crate::quoted;

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

/// A service of four methods, one for each way of streaming, and none else.
async fn service(mut call: Call) {
    assert_eq!(call.request.headers()["te"], "trailers");
    let path = call.request.uri().path().to_owned();
    if path == "/echo.Echo/Unknown" {
        let head = Response::builder().header("content-type", "application/grpc").header("grpc-status", "12");
        call.head(head.body(()).unwrap(), true);
        return;
    }
    let mut answer = call.head(head(), false);
    let (mut come, mut count) = (BytesMut::new(), 0);
    while let Some(Ok(data)) = call.next().await {
        come.extend_from_slice(&data);
        while let Some(text) = next_message(&mut come) {
            count += 1;
            match path.as_str() {
                "/echo.Echo/Collect" => {}
                "/echo.Echo/Expand" => {
                    for part in 0..3 {
                        answer.send_data(message(&format!("{text} {part}")), false).unwrap();
                    }
                }
                _ => answer.send_data(message(&text), false).unwrap(),
            }
        }
    }
    if path == "/echo.Echo/Collect" {
        answer.send_data(message(&format!("{count} came")), false).unwrap();
    }
    answer.send_trailers(trailers(&[("grpc-status", "0"), ("grpc-message", "done")])).unwrap();
}

fn gateway(upstream: &str) -> (Gateway, Http2Client, Certs) {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let pair = certs.server(&ca, &["grpc.test"]);
    let port = ports::free();
    let gateway = Gateway::start(&format!(
        "version: 1\n\
         listeners: {{ web: {{ address: \"127.0.0.1:{port}\", tls: {{ certificates: [{{ cert: {}, key: {} }}] }} }} }}\n\
         upstreams: {{ origin: {{ {upstream} }} }}\nroutes: [{{ upstream: origin }}]\n",
        quoted(&pair.cert),
        quoted(&pair.key)
    ));
    let client = Http2Client::tls(port, "grpc.test");
    (gateway, client, certs)
}

fn request(method: &str) -> Request<()> {
    Request::post(format!("https://grpc.test/echo.Echo/{method}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap()
}

fn exercise(client: &Http2Client) {
    // Both ways at once: each message is answered before the next one is sent.
    let mut both = client.send(request("Both"), false);
    both.write(message("first"), false);
    assert_eq!(both.head().headers()["content-type"], "application/grpc");
    assert_eq!(both.message().unwrap(), "first");
    for number in 0..20 {
        both.write(message(&format!("no. {number}")), false);
        assert_eq!(both.message().unwrap(), format!("no. {number}"));
    }
    both.write(Bytes::new(), true);
    assert_eq!(both.message(), None);
    let told = both.trailers().unwrap();
    assert_eq!(
        (&told["grpc-status"], &told["grpc-message"]),
        (&"0".parse().unwrap(), &"done".parse().unwrap())
    );

    let mut collect = client.send(request("Collect"), false);
    for _ in 0..5 {
        collect.write(message("part"), false);
    }
    collect.write(Bytes::new(), true);
    collect.head();
    assert_eq!(collect.message().unwrap(), "5 came");
    assert_eq!(collect.message(), None);
    assert_eq!(collect.trailers().unwrap()["grpc-status"], "0");

    let mut expand = client.send(request("Expand"), false);
    expand.write(message("a"), true);
    expand.head();
    let parts: Vec<_> = std::iter::from_fn(|| expand.message()).collect();
    assert_eq!(parts, ["a 0", "a 1", "a 2"]);
    assert_eq!(expand.trailers().unwrap()["grpc-status"], "0");

    // An error without a message is one head, which is the end as well.
    let mut unknown = client.send(request("Unknown"), false);
    unknown.write(message("a"), true);
    assert_eq!(unknown.head().headers()["grpc-status"], "12");
    assert_eq!((unknown.message(), unknown.trailers()), (None, None));
}

#[test]
fn messages_and_trailers_pass_both_ways_without_tls_to_the_upstream() {
    let origin = Http2Origin::plain(100, service);
    let (_gateway, client, _certs) =
        gateway(&format!("endpoints: [\"127.0.0.1:{}\"], protocol: h2c", origin.port));
    exercise(&client);
    assert_eq!(origin.streams(), [4]);
}

#[test]
fn messages_and_trailers_pass_both_ways_over_tls() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let origin = Http2Origin::tls(&certs.server(&ca, &["grpc.test"]), service);
    let (_gateway, client, _own) = gateway(&format!(
        "endpoints: [\"127.0.0.1:{}\"], protocol: h2, tls: {{ verify: {{ ca: {} }} }}",
        origin.port,
        quoted(&ca.cert)
    ));
    exercise(&client);
}

#[test]
fn a_body_larger_than_every_window_comes_back_while_it_is_sent() {
    let origin = Http2Origin::plain(100, service);
    let (_gateway, client, _certs) =
        gateway(&format!("endpoints: [\"127.0.0.1:{}\"], protocol: h2c", origin.port));
    let text = "x".repeat(300_000);
    let mut both = client.send(request("Both"), false);
    both.write(message(&text), false);
    both.head();
    assert!(both.message().unwrap() == text);
    for _ in 0..10 {
        both.write(message(&text), false);
        assert!(both.message().unwrap() == text);
    }
    both.write(Bytes::new(), true);
    assert_eq!(both.message(), None);
}

#[test]
fn eight_mebibytes_come_back_while_they_are_sent() {
    let origin = Http2Origin::plain(100, |mut call: Call| async move {
        let mut answer = call.head(Response::new(()), false);
        while let Some(Ok(data)) = call.next().await {
            send(&mut answer, data, false).await.unwrap();
        }
        answer.send_data(Bytes::new(), true).unwrap();
    });
    let edge = super::h2c(origin.port, "", "");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sent");
    let sent: Vec<u8> = (0..8 << 20).map(|at| (at * 31 % 251) as u8).collect();
    fs::write(&file, &sent).unwrap();
    let file = format!("@{}", file.display());
    let url = format!("http://127.0.0.1:{}/", edge.port);
    for _ in 0..3 {
        let back = curl(&["-H", "Expect:", "--data-binary", &file, &url]);
        assert!(back.stdout == sent, "{} bytes came: {back:?}", back.stdout.len());
    }
}
