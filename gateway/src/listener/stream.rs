//! A client's connection as the engine reads and writes it, with three things that the engine gives to its own
//! listeners only or to none.
//!
//! A limit on how long a request's head may take: the engine bounds each read, so a head that comes byte by byte would
//! be waited for without end. And a buffer for writes: the engine writes the head of an answer and its body apart and
//! flushes behind the body, so that with a buffer they leave in one packet, and over TLS in one record. And an answer of
//! ours to a head that the engine refuses by itself: its own names the engine, and has no request id.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, IO, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::proxy::ctx::RequestId;
use crate::proxy::fail;
use crate::tunnel::{Found, HeadEnd, Tunnel};

/// A head and a small body fit; what does not goes out as it comes.
const BUFFER: usize = 4096;
/// How long a head may take from its first byte to its last.
const HEAD: Duration = Duration::from_secs(10);

/// What the stream and the request's hooks tell each other: whether a head is being read.
#[derive(Debug, Default)]
pub struct Heads {
    state: AtomicU8,
    refused: AtomicU16,
    /// Whether bytes of a new protocol may come before it is agreed on.
    upgrade: AtomicBool,
    tunnel: OnceLock<Arc<Tunnel>>,
}

const NONE: u8 = 0;
const AWAITED: u8 = 1;
const BEGUN: u8 = 2;

impl Heads {
    /// What comes next is a head.
    pub fn next(&self) {
        self.upgrade.store(false, Ordering::Relaxed);
        self.state.store(AWAITED, Ordering::Relaxed);
    }

    /// The request that has come wants to change the protocol. What its client says before there is an answer is kept
    /// back: the engine would take it for the breach of a request that is complete.
    pub fn await_upgrade(&self) {
        self.upgrade.store(true, Ordering::Relaxed);
    }

    /// The protocol is changed: from now on this is a tunnel.
    pub fn open(&self, tunnel: Arc<Tunnel>) {
        self.upgrade.store(false, Ordering::Relaxed);
        let _ = self.tunnel.set(tunnel);
    }

    /// The head is there.
    pub fn read(&self) {
        self.state.store(NONE, Ordering::Relaxed);
    }

    /// The status by which the engine refused the head, if it did.
    pub fn refused(&self) -> Option<u16> {
        Some(self.refused.load(Ordering::Relaxed)).filter(|status| *status != 0)
    }
}

/// The connection.
#[derive(Debug)]
pub struct Stream<S: IO> {
    inner: BufWriter<S>,
    heads: Arc<Heads>,
    id: RequestId,
    limit: Option<Pin<Box<Sleep>>>,
    /// Read while the answer to a request to upgrade was awaited, and not handed out yet.
    unread: Option<u8>,
    /// The head of that answer, while it is written.
    head: HeadEnd,
    /// Whether all of that head is written.
    switched: bool,
}

impl<S: IO> Stream<S> {
    /// A connection that is accepted, and its handshake made. A head that the engine refuses is answered under `id`.
    pub fn new(inner: S, heads: Arc<Heads>, id: RequestId) -> Self {
        let inner = BufWriter::with_capacity(BUFFER, inner);
        Self { inner, heads, id, limit: None, unread: None, head: HeadEnd::default(), switched: false }
    }

    /// One byte at most is read of what comes before the protocol is agreed on; an end is told.
    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_some() {
            return Poll::Pending;
        }
        let mut byte = [0];
        let mut read = ReadBuf::new(&mut byte);
        let polled = Pin::new(self.inner.get_mut()).poll_read(cx, &mut read);
        self.unread = read.filled().first().copied();
        if self.unread.is_some() { Poll::Pending } else { polled }
    }

    /// The same, of a tunnel.
    fn poll_tunnel(
        &mut self,
        tunnel: &Tunnel,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let end = tunnel.client();
        end.watch(cx);
        // A client that is gone cannot be told.
        if end.is_to_close() && Pin::new(&mut self.inner).poll_shutdown(cx).is_ready() {
            end.closed();
        }
        if end.has_ended() {
            return end.poll_over(cx);
        }
        let before = buf.filled().len();
        let polled = Pin::new(self.inner.get_mut()).poll_read(cx, buf);
        if matches!(polled, Poll::Ready(Ok(()))) && buf.filled().len() == before && buf.remaining() > 0 {
            end.ended();
            return end.poll_over(cx);
        }
        polled
    }

    /// Counts what has been written of the new protocol.
    fn wrote(&mut self, bufs: &[io::IoSlice<'_>], polled: &Poll<io::Result<usize>>) {
        let (Some(tunnel), Poll::Ready(Ok(count))) = (self.heads.tunnel.get(), polled) else { return };
        let mut left = *count;
        for buf in bufs {
            let written = buf.get(..left.min(buf.len())).unwrap_or_default();
            left -= written.len();
            let after = match self.switched {
                true => written.len(),
                false => match self.head.look(written) {
                    Found::Switch(after) => {
                        self.switched = true;
                        after
                    }
                    Found::Nothing | Found::Other => 0,
                },
            };
            tunnel.client().wrote(after);
        }
    }

    /// Whether the engine is answering a head that has reached no hook, which is then answered in its stead.
    fn refuses(&mut self, cx: &mut Context<'_>, answer: &[u8]) -> bool {
        if self.heads.refused().is_some() {
            return true;
        }
        if self.heads.state.load(Ordering::Relaxed) == NONE {
            return false;
        }
        let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let status = status.unwrap_or(400);
        self.heads.refused.store(status, Ordering::Relaxed);
        // It is smaller than the buffer, which is empty before the first answer and after each flush.
        let _ = Pin::new(&mut self.inner).poll_write(cx, fail::refusal(status, &self.id).as_bytes());
        true
    }
}

impl<S: IO> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(byte) = self.unread.filter(|_| !self.heads.upgrade.load(Ordering::Relaxed)) {
            if buf.remaining() > 0 {
                buf.put_slice(&[byte]);
                self.unread = None;
            }
            return Poll::Ready(Ok(()));
        }
        if let Some(tunnel) = self.heads.tunnel.get().cloned() {
            return self.poll_tunnel(&tunnel, cx, buf);
        }
        // The engine looks for the end of a client that has said all by reads of one byte, and reads a body by larger ones.
        if buf.remaining() == 1 && self.heads.upgrade.load(Ordering::Relaxed) {
            return self.poll_early(cx);
        }
        let polled = Pin::new(self.inner.get_mut()).poll_read(cx, buf);
        match (self.heads.state.load(Ordering::Relaxed), &polled) {
            (NONE, _) | (AWAITED, Poll::Pending) => polled,
            (AWAITED, Poll::Ready(_)) => {
                // No timer as yet: nearly every head comes whole with its first byte.
                self.heads.state.store(BEGUN, Ordering::Relaxed);
                self.limit = None;
                polled
            }
            (_, Poll::Ready(_)) if self.limit.is_none() => polled,
            _ => {
                // Polled after a byte too: one that sends without a pause is to be ended as well.
                let over = self.limit.get_or_insert_with(|| Box::pin(sleep(HEAD))).as_mut().poll(cx);
                if over.is_ready() { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { polled }
            }
        }
    }
}

impl<S: IO> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.refuses(cx, buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(&[io::IoSlice::new(buf)], &polled);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.refuses(cx, bufs.first().map_or(&[], |first| first)) {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(bufs, &polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl<S: IO> Shutdown for Stream<S> {
    async fn shutdown(&mut self) {
        // A client that is gone cannot be told the rest.
        let _ = self.inner.flush().await;
        Shutdown::shutdown(self.inner.get_mut()).await;
    }
}

impl<S: IO> UniqueID for Stream<S> {
    fn id(&self) -> UniqueIDType {
        self.inner.get_ref().id()
    }
}

impl<S: IO> Ssl for Stream<S> {
    fn get_ssl(&self) -> Option<&openssl::ssl::SslRef> {
        self.inner.get_ref().get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ref().get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.get_ref().selected_alpn_proto()
    }
}

impl<S: IO> GetTimingDigest for Stream<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_ref().get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.inner.get_ref().get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.inner.get_ref().get_write_pending_time()
    }
}

impl<S: IO> GetProxyDigest for Stream<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_ref().get_proxy_digest()
    }
}

impl<S: IO> GetSocketDigest for Stream<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_ref().get_socket_digest()
    }
}

impl<S: IO> Peek for Stream<S> {}

#[cfg(test)]
mod tests {
    use super::*;
    use pingora_core::protocols::l4::stream::Stream as L4;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{Instant, timeout};

    #[tokio::test(start_paused = true)]
    async fn a_head_that_comes_byte_by_byte_is_given_up() {
        let (mut stream, heads, mut far) = connected().await;
        heads.next();
        let mut begun = None;
        let error = loop {
            far.write_all(b"x").await.unwrap();
            match stream.read_u8().await {
                Ok(_) => begun = begun.or(Some(Instant::now())),
                Err(error) => break error,
            }
            // Nothing comes: the clock moves on by itself.
            let silence = timeout(Duration::from_secs(1), stream.read_u8()).await;
            if let Ok(ended) = silence {
                break ended.unwrap_err();
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let took = begun.unwrap().elapsed();
        assert!((9..=12).contains(&took.as_secs()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_head_may_take_its_time() {
        let (mut stream, heads, mut far) = connected().await;
        let minute = Duration::from_secs(60);
        heads.next();
        assert!(timeout(minute, stream.read_u8()).await.is_err(), "it ended before its first byte");
        far.write_all(b"head").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'h');
        heads.read();
        stream.read_exact(&mut [0; 3]).await.unwrap();
        assert!(timeout(minute, stream.read_u8()).await.is_err(), "a body ended");
        drop(far);
    }

    #[tokio::test]
    async fn what_the_engine_says_to_a_head_that_it_refuses_is_said_in_our_words() {
        let (mut stream, heads, mut far) = connected().await;
        heads.next();
        stream.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nServer: Engine\r\n\r\n").await.unwrap();
        stream.write_all(b"body").await.unwrap();
        Shutdown::shutdown(&mut stream).await;
        let mut got = String::new();
        far.read_to_string(&mut got).await.unwrap();
        assert!(got.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{got}");
        assert!(
            got.ends_with(&format!("405 Method Not Allowed\nrequest id: {}\n", stream.id.as_str())),
            "{got}"
        );
        assert!(!got.contains("Engine") && !got.contains("body"), "{got}");
        assert_eq!(heads.refused(), Some(405));
    }

    #[tokio::test]
    async fn writes_leave_together_at_the_flush() {
        let (mut stream, _, mut far) = connected().await;
        stream.write_all(b"head").await.unwrap();
        stream.write_all(b"body").await.unwrap();
        let mut got = [0; 64];
        assert_eq!(far.try_read(&mut got).unwrap_err().kind(), io::ErrorKind::WouldBlock, "before the flush");
        stream.flush().await.unwrap();
        assert_eq!(far.read(&mut got).await.unwrap(), 8);
        stream.write_all(b"more").await.unwrap();
        Shutdown::shutdown(&mut stream).await;
        assert_eq!(far.read(&mut got).await.unwrap(), 4, "nothing is lost at the end");
    }

    #[tokio::test]
    async fn what_exceeds_the_buffer_goes_out_in_order() {
        let (mut stream, _, mut far) = connected().await;
        let body = vec![b'x'; 3 * BUFFER];
        stream.write_all(b"head").await.unwrap();
        stream.write_all(&body).await.unwrap();
        stream.flush().await.unwrap();
        let mut got = vec![0; 4 + body.len()];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!((&got[..4], &got[4..]), (&b"head"[..], &body[..]));
    }

    async fn connected() -> (Stream<L4>, Arc<Heads>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (near, _) = listener.accept().await.unwrap();
        let heads = Arc::new(Heads::default());
        (Stream::new(L4::from(near), heads.clone(), RequestId::new()), heads, far)
    }
}
