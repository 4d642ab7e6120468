//! A connection to an upstream as the engine reads and writes it: plain or TLS, with a deadline of the attempt's own.
//!
//! The engine bounds each read and each write, and that from settings made before it connects; what bounds a whole
//! attempt has to sit in the stream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use openssl::ssl::{self, ErrorCode};
use pingora_core::protocols::l4::stream::Stream as L4;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::{SslDigest, SslStream};
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use super::origin::Origin;
use super::standing::Standing;
use crate::diagnose::{self, Cause, Failure, HttpVersion};
use crate::tunnel::{Found, HeadEnd};

/// The connection.
#[derive(Debug)]
pub struct Stream {
    transport: Transport,
    origin: Arc<Origin>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Read while the last words of the upstream were looked for, and not handed out yet.
    unread: Option<u8>,
    /// What the upstream is to speak, until its first bytes have come.
    expected: Option<HttpVersion>,
    /// The head of the answer to a request to upgrade, while it comes.
    head: Option<HeadEnd>,
}

/// With or without TLS.
#[derive(Debug)]
pub enum Transport {
    /// Bytes as they are; boxed, as the other's transport is.
    Plain(Box<L4>),
    /// Encrypted.
    Tls(SslStream<L4>),
}

impl Stream {
    /// A connection that is made, and on which the upstream has said nothing yet.
    pub fn new(transport: Transport, origin: Arc<Origin>, expected: HttpVersion) -> Self {
        Self { transport, origin, timer: None, unread: None, expected: Some(expected), head: None }
    }

    /// Whether the connection may still be used.
    pub(super) fn standing(&self) -> &Arc<Standing> {
        self.origin.standing()
    }

    /// Whether what has come so far is what is expected.
    fn checked(&mut self, come: &[u8]) -> io::Result<()> {
        let is_tls = matches!(self.transport, Transport::Tls(_));
        let failure = match come {
            [] => None,
            first => {
                self.expected.take().and_then(|expected| diagnose::of_first_bytes(first, expected, is_tls))
            }
        };
        failure.map_or(Ok(()), |failure| Err(io::Error::new(io::ErrorKind::InvalidData, failure)))
    }

    /// Takes note of what has come: the answer to a request to upgrade, or bytes of a tunnel.
    fn look(&mut self, come: &[u8]) {
        if let Some(end) = self.origin.tunnel() {
            end.take(come.len());
        } else if self.origin.awaits_upgrade() {
            let found = self.head.get_or_insert_default().look(come);
            if found != Found::Nothing {
                self.head = None;
            }
            match found {
                Found::Nothing => {}
                Found::Switch(early) => self.origin.note_answer(Some(early)),
                Found::Other => self.origin.note_answer(None),
            }
        }
    }

    /// Closes the sending half once the client of a tunnel has said its last, and has the other end woken for the same.
    fn close_tunnel(&mut self, cx: &mut Context<'_>) {
        let Some(end) = self.origin.tunnel() else { return };
        end.watch(cx);
        if !end.is_to_close() {
            return;
        }
        let closed = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        };
        // An upstream that is gone cannot be told.
        if closed.is_ready() {
            end.closed();
        }
    }

    /// Ready with an error once the deadline has passed; called when the transport has nothing to say.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(deadline) = self.origin.deadline() else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
        if timer.deadline() != deadline.into() {
            timer.as_mut().reset(deadline.into());
        }
        timer.as_mut().poll(cx).map(|()| {
            let failure = Failure::new(Cause::UpstreamTimeout, "`timeouts` of the route are over");
            io::Error::new(io::ErrorKind::TimedOut, failure)
        })
    }

    /// The error of a write, or what the upstream said before it closed the connection: a TLS 1.3 server tells that a
    /// client certificate is missing only after the handshake, when the request may be on its way already.
    fn last_words(&mut self, error: io::Error, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Transport::Tls(stream) = &mut self.transport else { return Poll::Ready(error) };
        if self.unread.is_some() {
            return Poll::Ready(error);
        }
        let mut byte = [0];
        let mut read = ReadBuf::new(&mut byte);
        match Pin::new(stream).poll_read(cx, &mut read) {
            Poll::Ready(Err(told)) if told.get_ref().is_some() => Poll::Ready(self.explained(told)),
            // It has answered, before it has read all of the request: the answer counts, from its first byte on.
            Poll::Ready(Ok(())) => {
                self.unread = read.filled().first().copied();
                Poll::Ready(error)
            }
            // A write fails at once, and the runtime hears only at its next turn that there is something to read. There
            // is, at least the end: the other side has reset the connection. The write then fails once more.
            Poll::Pending if is_of_socket(&error) => self.poll_deadline(cx),
            _ => Poll::Ready(error),
        }
    }

    /// The error of a read with its cause, where TLS knows one.
    fn explained(&self, error: io::Error) -> io::Error {
        match diagnose::of_read(&error, self.origin.shows_certificate()) {
            Some(failure) => io::Error::new(error.kind(), failure),
            None => error,
        }
    }

    fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        if let (Some(end), Poll::Ready(Ok(count))) = (self.origin.tunnel(), polled) {
            end.wrote(*count);
        }
    }

    fn or_last_words<T>(&mut self, polled: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Err(error)) => self.last_words(error, cx).map(Err),
            other => self.or_deadline(other, cx),
        }
    }

    fn or_deadline<T>(&mut self, polled: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => self.poll_deadline(cx).map(Err),
        }
    }
}

/// Whether it is the socket that failed. OpenSSL keeps the system's error in a queue of its own, so its kind is lost.
fn is_of_socket(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<ssl::Error>());
    tls.map_or(error.raw_os_error().is_some(), |tls| tls.code() == ErrorCode::SYSCALL)
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.origin.poll_readable(cx).is_pending() {
            return match self.poll_deadline(cx) {
                Poll::Ready(error) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            };
        }
        self.close_tunnel(cx);
        if let Some(end) = self.origin.tunnel().filter(|end| end.has_ended()) {
            return end.poll_over(cx);
        }
        // Nobody waits for what it would say: an end, for whoever keeps it.
        if self.standing().is_over() {
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() > 0
            && let Some(byte) = self.unread.take()
        {
            buf.put_slice(&[byte]);
            self.look(&[byte]);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if let Poll::Ready(Err(error)) = polled {
            return Poll::Ready(Err(self.explained(error)));
        }
        let come = buf.filled().get(before..).unwrap_or_default();
        if self.expected.is_some() && polled.is_ready() {
            self.checked(come)?;
        }
        if polled.is_ready() {
            self.look(come);
            if let Some(end) = self.origin.tunnel().filter(|_| come.is_empty() && buf.remaining() > 0) {
                end.ended();
                return end.poll_over(cx);
            }
        }
        if polled.is_pending() && self.standing().poll_over(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        self.or_deadline(polled, cx)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.wrote(&polled);
        self.or_last_words(polled, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        self.or_last_words(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.wrote(&polled);
        self.or_last_words(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

#[async_trait]
impl Shutdown for Stream {
    async fn shutdown(&mut self) {
        match &mut self.transport {
            Transport::Plain(stream) => Shutdown::shutdown(stream.as_mut()).await,
            Transport::Tls(stream) => Shutdown::shutdown(stream).await,
        }
    }
}

impl UniqueID for Stream {
    fn id(&self) -> UniqueIDType {
        match &self.transport {
            Transport::Plain(stream) => stream.id(),
            Transport::Tls(stream) => stream.id(),
        }
    }
}

impl Ssl for Stream {
    fn get_ssl(&self) -> Option<&openssl::ssl::SslRef> {
        match &self.transport {
            Transport::Plain(_) => None,
            Transport::Tls(stream) => stream.get_ssl(),
        }
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        match &self.transport {
            Transport::Plain(_) => None,
            Transport::Tls(stream) => stream.get_ssl_digest(),
        }
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        match &self.transport {
            Transport::Plain(_) => None,
            Transport::Tls(stream) => stream.selected_alpn_proto(),
        }
    }
}

impl GetTimingDigest for Stream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        match &self.transport {
            Transport::Plain(stream) => stream.get_timing_digest(),
            Transport::Tls(stream) => stream.get_timing_digest(),
        }
    }

    fn get_read_pending_time(&self) -> Duration {
        match &self.transport {
            Transport::Plain(stream) => stream.get_read_pending_time(),
            Transport::Tls(stream) => stream.get_read_pending_time(),
        }
    }

    fn get_write_pending_time(&self) -> Duration {
        match &self.transport {
            Transport::Plain(stream) => stream.get_write_pending_time(),
            Transport::Tls(stream) => stream.get_write_pending_time(),
        }
    }
}

impl GetProxyDigest for Stream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        match &self.transport {
            Transport::Plain(stream) => stream.get_proxy_digest(),
            Transport::Tls(stream) => stream.get_proxy_digest(),
        }
    }
}

impl GetSocketDigest for Stream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        match &self.transport {
            Transport::Plain(stream) => stream.get_socket_digest(),
            Transport::Tls(stream) => stream.get_socket_digest(),
        }
    }
}

impl Peek for Stream {}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::upstream::Lease;
    use futures_util::FutureExt;
    use pingora_core::connectors::TransportConnector;
    use pingora_core::upstreams::peer::{HttpPeer, Peer as _};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test(start_paused = true)]
    async fn a_read_ends_at_the_deadline_and_not_before() {
        let (mut stream, origin, _far) = connected().await;
        let begun = tokio::time::Instant::now();
        origin.arm(Instant::now() + Duration::from_secs(5));
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_was_taken_back_ends_nothing() {
        let (mut stream, origin, far) = connected().await;
        let first = origin.arm(Instant::now() + Duration::from_secs(1));
        origin.disarm(first);
        assert!(tokio::time::timeout(Duration::from_secs(60), stream.read_u8()).await.is_err());
        let earlier = origin.arm(Instant::now() + Duration::from_secs(1));
        origin.arm(Instant::now() + Duration::from_secs(2));
        origin.disarm(earlier);
        assert_eq!(
            stream.read_u8().await.unwrap_err().kind(),
            io::ErrorKind::TimedOut,
            "the later one stays"
        );
        drop(far);
    }

    #[tokio::test]
    async fn a_retired_connection_ends_once_no_request_uses_it() {
        let (mut stream, origin, mut far) = connected().await;
        let lease = Lease::new(origin.clone(), None);
        origin.standing().retire();
        far.write_all(b"H").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'H', "the exchange goes on");
        // As the engine does it: the next request has the connection before the one before has ended.
        let next = Lease::new(origin, None);
        drop(lease);
        assert!(stream.read(&mut [0]).now_or_never().is_none());
        let rest = tokio::spawn(async move { stream.read(&mut [0]).await.unwrap() });
        // So that it waits by then, and has to be woken.
        tokio::task::yield_now().await;
        drop(next);
        let rest = tokio::time::timeout(Duration::from_secs(5), rest).await;
        assert_eq!(rest.expect("woken").unwrap(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_reader_of_a_retired_connection_sleeps_on() {
        for _ in 0..2000 {
            let (mut stream, origin, far) = connected().await;
            let lease = Lease::new(origin.clone(), None);
            let reader = tokio::spawn(async move { stream.read(&mut [0]).await.unwrap() });
            let release = tokio::spawn(async move { drop(lease) });
            origin.standing().retire();
            release.await.unwrap();
            let read = tokio::time::timeout(Duration::from_secs(5), reader).await;
            assert_eq!(read.expect("woken").unwrap(), 0);
            drop(far);
        }
    }

    #[tokio::test]
    async fn the_engines_pool_closes_a_retired_connection_and_hands_it_to_nobody() {
        let pool = TransportConnector::new(None);
        let (stream, origin, mut far) = connected().await;
        let peer = HttpPeer::new(far.local_addr().unwrap(), false, String::new());
        pool.release_stream(Box::new(stream), peer.reuse_hash(), None);
        origin.standing().retire();
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0, "closed while it was idle");

        let (stream, origin, mut far) = connected().await;
        let peer = HttpPeer::new(far.local_addr().unwrap(), false, String::new());
        let key = peer.reuse_hash();
        // The engine puts a connection back before the last hook of its request.
        let lease = Lease::new(origin.clone(), None);
        pool.release_stream(Box::new(stream), key, None);
        let stream = pool.reused_stream(&peer).await.unwrap();
        pool.release_stream(stream, key, None);
        origin.standing().retire();
        drop(lease);
        assert!(pool.reused_stream(&peer).await.is_none());
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0, "closed as soon as it was idle");
    }

    async fn connected() -> (Stream, Arc<Origin>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let origin = Arc::new(Origin::new());
        let transport = Transport::Plain(Box::new(L4::from(near)));
        (Stream::new(transport, origin.clone(), HttpVersion::Http1), origin, far)
    }
}
