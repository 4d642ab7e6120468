//! An HTTP/2 client that streams both ways.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::certs::Pair;
use crate::{PATIENCE, client, http2};

/// One connection to a TLS listener, on which ALPN chose HTTP/2.
pub struct Http2Client {
    requests: SendRequest<Bytes>,
    runtime: Runtime,
}

/// One request, and its answer as it comes.
pub struct Exchange<'a> {
    runtime: &'a Runtime,
    response: Option<ResponseFuture>,
    sender: SendStream<Bytes>,
    receiver: Option<RecvStream>,
    come: BytesMut,
}

impl Http2Client {
    /// Connects; whatever certificate comes is taken.
    pub fn tls(port: u16, sni: &str) -> Self {
        Self::tls_showing(port, sni, None)
    }

    /// The same, and shows a certificate.
    pub fn tls_showing(port: u16, sni: &str, certificate: Option<&Pair>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let requests = runtime.block_on(async {
            let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
            builder.set_verify(SslVerifyMode::NONE);
            builder.set_alpn_protos(b"\x02h2").unwrap();
            if let Some(pair) = certificate {
                builder.set_certificate_chain_file(&pair.cert).unwrap();
                builder.set_private_key_file(&pair.key, SslFiletype::PEM).unwrap();
            }
            let ssl = builder.build().configure().unwrap().verify_hostname(false).into_ssl(sni).unwrap();
            let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            socket.set_nodelay(true).unwrap();
            let mut socket = tokio_openssl::SslStream::new(ssl, socket).unwrap();
            Pin::new(&mut socket).connect().await.unwrap();
            assert_eq!(socket.ssl().selected_alpn_protocol(), Some(&b"h2"[..]));
            let (requests, connection) = h2::client::handshake(socket).await.unwrap();
            tokio::spawn(connection);
            requests
        });
        Self { requests, runtime }
    }

    /// Sends a head; the body follows, unless this is the end.
    pub fn send(&self, request: Request<()>, end: bool) -> Exchange<'_> {
        let mut requests = self.requests.clone();
        let (response, sender) = self.runtime.block_on(async {
            requests = requests.ready().await.unwrap();
            requests.send_request(request, end).unwrap()
        });
        let (receiver, come) = (None, BytesMut::new());
        Exchange { runtime: &self.runtime, response: Some(response), sender, receiver, come }
    }
}

impl Exchange<'_> {
    /// Sends a part of the body.
    pub fn write(&mut self, data: impl Into<Bytes>, end: bool) {
        self.within(async |it| http2::origin::send(&mut it.sender, data.into(), end).await).unwrap();
    }

    /// The answer's head.
    pub fn head(&mut self) -> Response<()> {
        let response = self.response.take().expect("asked for once");
        let (head, body) = self.within(async |_| response.await).unwrap().into_parts();
        self.receiver = Some(body);
        Response::from_parts(head, ())
    }

    /// The next gRPC message of the answer; `None` at its end.
    pub fn message(&mut self) -> Option<String> {
        self.within(async |it| {
            loop {
                if let Some(message) = http2::next_message(&mut it.come) {
                    return Some(message);
                }
                let data = it.receiver.as_mut().expect("after the head").data().await?.unwrap();
                it.receiver.as_mut()?.flow_control().release_capacity(data.len()).unwrap();
                it.come.extend_from_slice(&data);
            }
        })
    }

    /// The whole answer, where no part of it was asked for before.
    pub fn response(&mut self) -> client::Response {
        let (head, ()) = self.head().into_parts();
        let header = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let body = self.within(async |it| {
            let receiver = it.receiver.as_mut().expect("after the head");
            let mut body = Vec::new();
            while let Some(data) = receiver.data().await {
                let data = data.unwrap();
                receiver.flow_control().release_capacity(data.len()).unwrap();
                body.extend_from_slice(&data);
            }
            body
        });
        client::Response {
            version: format!("{:?}", head.version),
            status: head.status.as_u16(),
            headers: head.headers.iter().map(header).collect(),
            body,
        }
    }

    /// The answer's trailers, once its body has ended.
    pub fn trailers(&mut self) -> Option<HeaderMap> {
        self.within(async |it| it.receiver.as_mut().expect("after the head").trailers().await).unwrap()
    }

    fn within<T>(&mut self, work: impl AsyncFnOnce(&mut Self) -> T) -> T {
        let runtime = self.runtime;
        let patience: Duration = PATIENCE;
        runtime.block_on(async { timeout(patience, work(self)).await }).expect("it came to an end in time")
    }
}
