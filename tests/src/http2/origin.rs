//! An HTTP/2 upstream that does as a script says.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use openssl::ssl::{AlpnError, Ssl, SslAcceptor, SslFiletype, SslMethod};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::PATIENCE;
use crate::certs::Pair;

/// A running origin on 127.0.0.1. Dropping it ends all its connections.
pub struct Http2Origin {
    /// Where it listens.
    pub port: u16,
    record: Arc<Record>,
    _runtime: Runtime,
}

/// One request, to be answered.
pub struct Call {
    /// Which connection, counted from 0.
    pub connection: usize,
    /// Its head and its body.
    pub request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
}

type Script = dyn Fn(Call) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

#[derive(Default)]
struct Record {
    connections: AtomicUsize,
    /// The most requests that a single connection had at once.
    peak: AtomicUsize,
    /// Streams of each connection, and how many connections have ended.
    state: Mutex<(Vec<usize>, usize)>,
    changed: Condvar,
}

impl Http2Origin {
    /// HTTP/2 without TLS; at most so many streams on a connection at once.
    pub fn plain<F>(streams: u32, script: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::launch(None, streams, Arc::new(move |call| Box::pin(script(call))))
    }

    /// HTTP/2 over TLS; a connection whose ALPN offers HTTP/1.1 alone is answered 200 with `http/1.1` as its body.
    pub fn tls<F>(certificate: &Pair, script: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        builder.set_certificate_chain_file(&certificate.cert).unwrap();
        builder.set_private_key_file(&certificate.key, SslFiletype::PEM).unwrap();
        builder.set_alpn_select_callback(|_, offered| {
            openssl::ssl::select_next_proto(b"\x02h2\x08http/1.1", offered).ok_or(AlpnError::ALERT_FATAL)
        });
        Self::launch(Some(builder.build()), 100, Arc::new(move |call| Box::pin(script(call))))
    }

    /// How many connections have spoken HTTP/2.
    pub fn connections(&self) -> usize {
        self.record.connections.load(Ordering::Relaxed)
    }

    /// The most requests that a single connection had at once.
    pub fn peak(&self) -> usize {
        self.record.peak.load(Ordering::Relaxed)
    }

    /// How many requests came on each of them.
    pub fn streams(&self) -> Vec<usize> {
        self.record.state.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Waits until so many connections have ended.
    pub fn wait_for_ends(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.record.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.1 < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} of {count} connections have ended", state.1);
            state = self.record.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn launch(tls: Option<SslAcceptor>, streams: u32, script: Arc<Script>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let record = Arc::new(Record::default());
        let kept = record.clone();
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                let (tls, script, record) = (tls.clone(), script.clone(), kept.clone());
                tokio::spawn(async move {
                    let Some(tls) = tls else { return serve(socket, streams, script, record).await };
                    let ssl = Ssl::new(tls.context()).unwrap();
                    let mut socket = tokio_openssl::SslStream::new(ssl, socket).unwrap();
                    if Pin::new(&mut socket).accept().await.is_err() {
                        return;
                    }
                    match socket.ssl().selected_alpn_protocol() {
                        Some(b"h2") => serve(socket, streams, script, record).await,
                        _ => serve_http1(socket).await,
                    }
                });
            }
        });
        Self { port, record, _runtime: runtime }
    }
}

async fn serve(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    streams: u32,
    script: Arc<Script>,
    record: Arc<Record>,
) {
    let Ok(mut connection) =
        h2::server::Builder::new().max_concurrent_streams(streams).handshake::<_, Bytes>(io).await
    else {
        return;
    };
    let number = record.connections.fetch_add(1, Ordering::Relaxed);
    record.update(|(streams, _)| {
        let length = streams.len().max(number + 1);
        streams.resize(length, 0);
    });
    let active = Arc::new(AtomicUsize::new(0));
    while let Some(Ok((request, respond))) = connection.accept().await {
        record.update(|(streams, _)| streams[number] += 1);
        record.peak.fetch_max(active.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        let (answering, active) = (script(Call { connection: number, request, respond }), active.clone());
        tokio::spawn(async move {
            answering.await;
            active.fetch_sub(1, Ordering::Relaxed);
        });
    }
    record.update(|(_, ended)| *ended += 1);
}

async fn serve_http1(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    let mut come = Vec::new();
    while io.read_buf(&mut come).await.is_ok_and(|read| read > 0) {
        if come.ends_with(b"\r\n\r\n") {
            come.clear();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhttp/1.1";
            if io.write_all(answer).await.is_err() {
                return;
            }
        }
    }
}

impl Record {
    fn update(&self, change: impl FnOnce(&mut (Vec<usize>, usize))) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

impl Call {
    /// The whole body.
    pub async fn body(&mut self) -> Bytes {
        let mut come = BytesMut::new();
        while let Some(Ok(data)) = self.next().await {
            come.extend_from_slice(&data);
        }
        come.freeze()
    }

    /// The next piece of the body, and room for another.
    pub async fn next(&mut self) -> Option<Result<Bytes, h2::Error>> {
        let body = self.request.body_mut();
        let data = body.data().await?;
        if let Ok(data) = &data {
            let _ = body.flow_control().release_capacity(data.len());
        }
        Some(data)
    }

    /// Answers with a head; the body follows by what is returned, unless this is the end.
    pub fn head(&mut self, head: Response<()>, end: bool) -> SendStream<Bytes> {
        self.respond.send_response(head, end).unwrap()
    }

    /// 200 with this body.
    pub async fn ok(mut self, body: impl Into<Bytes>) {
        let mut stream = self.head(Response::new(()), false);
        let _ = send(&mut stream, body.into(), true).await;
    }

    /// RST_STREAM.
    pub fn reset(mut self, reason: h2::Reason) {
        self.respond.send_reset(reason);
    }

    /// Waits until the other side resets the stream, and tells why.
    pub async fn wait_for_reset(&mut self) -> h2::Reason {
        std::future::poll_fn(|cx| self.respond.poll_reset(cx)).await.unwrap()
    }
}

/// Sends as fast as the other side takes it.
pub async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, end: bool) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let capacity = match stream.capacity() {
            0 => std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap_or(Ok(0))?,
            capacity => capacity,
        };
        if capacity == 0 {
            return Err(h2::Reason::CANCEL.into());
        }
        stream.send_data(data.split_to(capacity.min(data.len())), false)?;
    }
    if end { stream.send_data(Bytes::new(), true) } else { Ok(()) }
}

/// Trailers of these names and values.
pub fn trailers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}
