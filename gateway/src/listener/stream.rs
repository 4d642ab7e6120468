//! A client's connection as the engine reads and writes it, with what the engine gives to its own listeners only or to
//! none.
//!
//! It looks at what comes before the engine does: each head by `head`, each chunked body by `chunked`, and at how long
//! they take, since the engine bounds each read and would wait for a head that comes byte by byte without end. It buffers
//! writes: the engine writes the head of an answer and its body apart and flushes behind the body, so that they leave in
//! one packet, and over TLS in one record. And it answers a head that is refused, by itself or by the engine, in our
//! words: the engine's own name the engine, and have no request id.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, IO, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::chunked::Chunks;
use super::head::{Fault, Framing, Head, RequestLimits};
use crate::diagnose::{Cause, Failure};
use crate::proxy::ctx::RequestId;
use crate::proxy::fail;
use crate::tunnel::{Found, HeadEnd, Tunnel};

/// A head and a small body fit; what does not goes out as it comes.
const BUFFER: usize = 4096;
/// How long a client that was refused may go on sending. One that is closed upon while it sends never reads why.
const LINGER: Duration = Duration::from_secs(2);

/// What the stream and the request's hooks tell each other: whether a head is being read, and how many there were.
#[derive(Debug, Default)]
pub struct Heads {
    state: AtomicU8,
    requests: AtomicUsize,
    refused: OnceLock<Fault>,
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

    /// The head is there; of which request of the connection, counted from 1.
    pub fn read(&self) -> usize {
        self.state.store(NONE, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Why a head was refused, if one was.
    pub fn refused(&self) -> Option<Fault> {
        self.refused.get().copied()
    }
}

/// The connection.
#[derive(Debug)]
pub struct Stream<S: IO> {
    inner: BufWriter<S>,
    heads: Arc<Heads>,
    id: RequestId,
    limits: RequestLimits,
    part: Part,
    /// When the head, or the next piece of the body, is late; while it is waited for.
    late: Option<Pin<Box<Sleep>>>,
    /// Read while the answer to a request to upgrade was awaited, and not handed out yet.
    unread: Option<u8>,
    /// The head of that answer, while it is written.
    head: HeadEnd,
    /// Whether all of that head is written.
    switched: bool,
}

/// What is being read.
#[derive(Debug)]
enum Part {
    /// Nothing that is looked at: between requests, behind the end of one, in a tunnel.
    Any,
    Head(Head),
    Body(Body),
    /// Nothing any more: the client was told that it is refused, or is being told.
    Refused {
        told: bool,
    },
}

/// A body of which a part has come.
#[derive(Debug)]
struct Body {
    rest: Rest,
    received: u64,
    /// How long the client was waited for.
    waited: Duration,
    /// Since when it is waited for now.
    since: Option<Instant>,
}

#[derive(Debug)]
enum Rest {
    Bytes(u64),
    Chunks(Chunks),
}

impl<S: IO> Stream<S> {
    /// A connection that is accepted, and its handshake made. A head that is refused is answered under `id`.
    pub fn new(inner: S, heads: Arc<Heads>, id: RequestId, limits: RequestLimits) -> Self {
        let inner = BufWriter::with_capacity(BUFFER, inner);
        Self {
            inner,
            heads,
            id,
            limits,
            part: Part::Any,
            late: None,
            unread: None,
            head: HeadEnd::default(),
            switched: false,
        }
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

    /// What comes next, that which was kept back first.
    fn poll_next(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let handed_out = !self.heads.upgrade.load(Ordering::Relaxed) && buf.remaining() > 0;
        if let Some(byte) = self.unread.take_if(|_| handed_out) {
            buf.put_slice(&[byte]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(self.inner.get_mut()).poll_read(cx, buf)
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

    /// Looks at what has come.
    fn look(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        if self.heads.state.load(Ordering::Relaxed) == AWAITED {
            // No timer as yet: nearly every head comes whole with its first byte.
            self.heads.state.store(BEGUN, Ordering::Relaxed);
            self.late = None;
            self.part = Part::Head(Head::new(self.limits));
        }
        match &mut self.part {
            Part::Head(head) => match head.read(bytes) {
                // Looked at after a byte too: one that sends without a pause is to be ended as well.
                Ok(None) if self.late.as_mut().is_some_and(|late| late.as_mut().poll(cx).is_ready()) => {
                    self.refuse(cx, LATE);
                }
                Ok(None) => {}
                Ok(Some((length, framing))) => {
                    self.late = None;
                    self.part = Body::part(framing);
                    // No hook has seen the head as yet.
                    if let Err(fault) = self.look_at_body(&bytes[length..]) {
                        self.refuse(cx, fault);
                    }
                }
                Err(fault) => self.refuse(cx, fault),
            },
            Part::Body(_) => {
                return self.look_at_body(bytes).map_err(|fault| {
                    let failure = Failure::new(Cause::RequestInvalid, fault.words);
                    io::Error::new(io::ErrorKind::InvalidData, failure)
                });
            }
            Part::Any | Part::Refused { .. } => {}
        }
        Ok(())
    }

    fn look_at_body(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let Part::Body(body) = &mut self.part else { return Ok(()) };
        let legal = body.read(bytes);
        if !matches!(legal, Ok(Over::No)) {
            self.part = Part::Any;
            self.late = None;
        }
        legal.map(|_| ())
    }

    /// While nothing comes: whether it has been too long.
    fn wait(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match &mut self.part {
            Part::Head(_) => {
                let limit = self.limits.head_timeout;
                let late = self.late.get_or_insert_with(|| Box::pin(sleep(limit)));
                if late.as_mut().poll(cx).is_ready() {
                    self.refuse(cx, LATE);
                }
                Ok(())
            }
            Part::Body(body) => {
                let Some(until) = body.until(&self.limits) else { return Ok(()) };
                let late = self.late.get_or_insert_with(|| Box::pin(sleep_until(until)));
                if late.deadline() != until {
                    late.as_mut().reset(until);
                }
                match late.as_mut().poll(cx) {
                    Poll::Pending => Ok(()),
                    Poll::Ready(()) => {
                        let failure = Failure::new(Cause::ClientTooSlow, "a body slower than `body_rate`");
                        Err(io::Error::new(io::ErrorKind::TimedOut, failure))
                    }
                }
            }
            Part::Any | Part::Refused { .. } => Ok(()),
        }
    }

    fn refuse(&mut self, cx: &mut Context<'_>, fault: Fault) {
        // It is the first, or the part would be another.
        let _ = self.heads.refused.set(fault);
        self.part = Part::Refused { told: false };
        self.late = Some(Box::pin(sleep(LINGER)));
        self.tell(cx, fault.status);
    }

    fn tell(&mut self, cx: &mut Context<'_>, status: u16) {
        // It is smaller than the buffer, which is empty before the first answer and after each flush.
        let _ = Pin::new(&mut self.inner).poll_write(cx, fail::refusal(status, &self.id).as_bytes());
    }

    /// Sends what a refused client is told, and lets go of it once it has had the time to read it.
    fn part(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Part::Refused { told } = &mut self.part else { return Poll::Ready(Ok(())) };
        let over = self.late.as_mut().is_none_or(|late| late.as_mut().poll(cx).is_ready());
        if over {
            return Poll::Ready(Ok(()));
        }
        if !*told {
            *told = ready!(Pin::new(&mut self.inner).poll_shutdown(cx)).is_ok();
        }
        let before = buf.filled().len();
        loop {
            ready!(Pin::new(self.inner.get_mut()).poll_read(cx, buf))?;
            if buf.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            buf.set_filled(before);
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
        let fault = Fault { status: status.unwrap_or(400), words: "a head that the engine does not take" };
        let _ = self.heads.refused.set(fault);
        self.tell(cx, fault.status);
        true
    }
}

const LATE: Fault = Fault { status: 408, words: "a head that takes longer than `head_timeout`" };

/// Whether a body is over.
enum Over {
    Yes,
    No,
}

impl Body {
    fn part(framing: Framing) -> Part {
        let rest = match framing {
            Framing::Empty => return Part::Any,
            Framing::Length(length) => Rest::Bytes(length),
            Framing::Chunked => Rest::Chunks(Chunks::new()),
        };
        Part::Body(Self { rest, received: 0, waited: Duration::ZERO, since: None })
    }

    fn read(&mut self, bytes: &[u8]) -> Result<Over, Fault> {
        if bytes.is_empty() {
            return Ok(Over::No);
        }
        self.received += bytes.len() as u64;
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
        let over = match &mut self.rest {
            Rest::Bytes(left) => {
                *left = left.saturating_sub(bytes.len() as u64);
                *left == 0
            }
            Rest::Chunks(chunks) => {
                chunks.read(bytes)?;
                chunks.is_over()
            }
        };
        Ok(if over { Over::Yes } else { Over::No })
    }

    /// How long it may be waited for from now. What counts is time that it was waited for: a client is not slow where
    /// the upstream is. And none before the first byte, which may wait for a 100: the engine bounds that.
    fn until(&mut self, limits: &RequestLimits) -> Option<Instant> {
        if limits.body_rate == 0 || self.received == 0 {
            return None;
        }
        let due = Duration::from_secs_f64(self.received as f64 / limits.body_rate as f64);
        let since = *self.since.get_or_insert_with(Instant::now);
        Some(since + (limits.body_idle + due).saturating_sub(self.waited))
    }
}

impl<S: IO> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(tunnel) = self.heads.tunnel.get().cloned() {
            return match self.unread.take_if(|_| buf.remaining() > 0) {
                Some(byte) => {
                    buf.put_slice(&[byte]);
                    Poll::Ready(Ok(()))
                }
                None => self.poll_tunnel(&tunnel, cx, buf),
            };
        }
        // The engine looks for the end of a client that has said all by reads of one byte, and reads a body by larger ones.
        if buf.remaining() == 1 && self.heads.upgrade.load(Ordering::Relaxed) {
            return self.poll_early(cx);
        }
        let before = buf.filled().len();
        if !matches!(self.part, Part::Refused { .. }) {
            match self.poll_next(cx, buf) {
                Poll::Ready(Ok(())) if buf.filled().len() > before => {
                    let looked = self.look(cx, &buf.filled()[before..]);
                    if looked.is_err() || matches!(self.part, Part::Refused { .. }) {
                        // The engine gets nothing of it.
                        buf.set_filled(before);
                    }
                    looked?;
                }
                Poll::Pending => self.wait(cx)?,
                ended => return ended,
            }
        }
        match self.part {
            Part::Refused { .. } => self.part(cx, buf),
            _ if buf.filled().len() > before => Poll::Ready(Ok(())),
            _ => Poll::Pending,
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
    async fn a_head_that_comes_byte_by_byte_is_given_up_and_told_so() {
        let (mut stream, heads, mut far) = connected().await;
        heads.next();
        let mut begun = None;
        loop {
            // It has ended its side once it is told, and may be gone.
            let _ = far.write_all(b"x").await;
            // Where nothing comes, the clock moves on by itself.
            match timeout(Duration::from_secs(1), stream.read_u8()).await {
                Ok(Ok(_)) => begun = begun.or(Some(Instant::now())),
                Ok(Err(_)) => break,
                Err(_) if heads.refused().is_some() => {}
                Err(_) => {}
            }
            let silence = timeout(Duration::from_secs(1), stream.read_u8()).await;
            if heads.refused().is_some() || silence.is_ok() {
                break;
            }
        }
        let took = begun.unwrap().elapsed();
        assert!((9..=14).contains(&took.as_secs()), "{took:?}");
        assert_eq!(heads.refused(), Some(LATE));
        drop(stream);
        let mut got = [0; 13];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"HTTP/1.1 408 ");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up_and_one_that_keeps_the_rate_is_not() {
        for (every, fast_enough) in [(Duration::from_millis(5), true), (Duration::from_millis(500), false)] {
            let (mut stream, heads, mut far) = connected().await;
            heads.next();
            far.write_all(b"POST / HTTP/1.1\r\nContent-Length: 300\r\n\r\n").await.unwrap();
            stream.read_exact(&mut [0; 40]).await.unwrap();
            heads.read();
            let mut ended = None;
            for _ in 0..300 {
                far.write_all(b"x").await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), b'x');
                if let Ok(Err(error)) = timeout(every, stream.read_u8()).await {
                    ended = Some(error.kind());
                    break;
                }
            }
            assert_eq!(ended, (!fast_enough).then_some(io::ErrorKind::TimedOut), "{every:?}");
        }
    }

    #[tokio::test]
    async fn what_is_not_to_the_letter_never_reaches_the_engine() {
        let (mut stream, heads, mut far) = connected().await;
        heads.next();
        far.write_all(b"GET / HTTP/1.1\nHost: a.test\r\n\r\n").await.unwrap();
        far.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0; 64]).await.unwrap(), 0);
        assert_eq!(heads.refused().map(|fault| fault.status), Some(400));
        let mut got = String::new();
        far.read_to_string(&mut got).await.unwrap();
        assert!(got.starts_with("HTTP/1.1 400 "), "{got}");

        let (mut stream, heads, mut far) = connected().await;
        heads.next();
        far.write_all(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0; 47]).await.unwrap();
        heads.read();
        far.write_all(b"1;x\nx\r\n").await.unwrap();
        assert_eq!(stream.read(&mut [0; 64]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(heads.refused(), None, "the hooks answer");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_head_may_take_its_time() {
        let (mut stream, heads, mut far) = connected().await;
        let minute = Duration::from_secs(60);
        heads.next();
        assert!(timeout(minute, stream.read_u8()).await.is_err(), "it ended before its first byte");
        far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'G');
        heads.read();
        stream.read_exact(&mut [0; 17]).await.unwrap();
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
        assert_eq!(heads.refused().map(|fault| fault.status), Some(405));
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
        let limits =
            RequestLimits { body_idle: Duration::from_secs(1), body_rate: 100, ..RequestLimits::default() };
        (Stream::new(L4::from(near), heads.clone(), RequestId::new(), limits), heads, far)
    }
}
