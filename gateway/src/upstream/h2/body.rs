//! The request's direction of a stream: its body, as fast as the upstream takes it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use h2::{Reason, SendStream};
use pingora_core::Result;
use pingora_core::protocols::http::custom::BodyWrite;

use super::patience::Patience;
use crate::diagnose::Failure;

/// What the two directions of one stream tell each other.
#[derive(Default)]
pub struct Exchange {
    /// Why the request could not be sent to its end.
    failure: OnceLock<Failure>,
    answered: AtomicBool,
    /// Whether the engine has a part of the answer and has not come back for more.
    handed: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Exchange {
    /// The answer is complete: what is left of the request is of no use to anybody.
    pub fn note_answered(&self) {
        self.answered.store(true, Ordering::Release);
        self.writer.wake();
    }

    /// The engine has been given a part of the answer. If it does not come back for more at once, it has no room for
    /// it until it is done with the request's part that is being written.
    pub fn note_handed(&self) {
        self.handed.store(true, Ordering::Release);
        self.writer.wake();
    }

    /// The engine has come back for more.
    pub fn note_asked(&self) {
        self.handed.store(false, Ordering::Release);
    }

    /// Why the request could not be sent, for the answer's direction, which waits with this task.
    pub fn failure(&self, waiting: &std::task::Waker) -> Option<&Failure> {
        self.reader.register(waiting);
        self.failure.get()
    }

    fn note_failure(&self, failure: Failure) {
        let _ = self.failure.set(failure);
        self.reader.wake();
    }
}

/// How much may be owed on one stream. The engine takes more of an answer at each turn than it reads of a request, so
/// it comes near this in no exchange that goes on.
const MAX_OWED: usize = 4 * 1024 * 1024;

/// How a part of the body is passed on.
enum Room {
    /// The upstream takes so much of it now.
    Taken(usize),
    /// The library keeps it until the upstream does.
    Owed,
}

/// Writes the body.
///
/// It never fails. The engine takes a failed write for the end of the request, but an upstream may answer before it has
/// seen the whole of one, and stop reading (RFC 9113 section 8.1): what went wrong is told by the answer's direction,
/// which knows whether an answer came.
pub struct BodyWriter {
    /// Absent once nothing more is to be sent.
    stream: Option<SendStream<Part>>,
    exchange: Arc<Exchange>,
    patience: Patience,
    /// What the library has been given and not written yet.
    owed: Arc<AtomicUsize>,
}

impl BodyWriter {
    /// Writes to `stream`; absent where the head was all.
    pub fn new(stream: Option<SendStream<Part>>, exchange: Arc<Exchange>, patience: Patience) -> Self {
        Self { stream, exchange, patience, owed: Arc::default() }
    }

    /// As much of `data` as the upstream takes now, once it takes some; `None` where it takes no more.
    async fn some_of(&mut self, data: &mut Bytes) -> Option<()> {
        let stream = self.stream.as_mut()?;
        let exchange = &self.exchange;
        stream.reserve_capacity(data.len());
        // The engine takes nothing of an answer while it writes a part of the request. An upstream that answers as it
        // reads, and stops reading while nobody takes its answer, would wait for us as we wait for it: so where the
        // answer waits for the engine, the part is owed, and the engine goes on.
        // Not before the answer's direction has had a turn, since only then does it come back for more.
        let mut turned = false;
        let may_owe = self.owed.load(Ordering::Relaxed) + data.len() <= MAX_OWED;
        let waited = self
            .patience
            .wait(|cx| {
                exchange.writer.register(cx.waker());
                if exchange.answered.load(Ordering::Acquire) {
                    return Poll::Ready(None);
                }
                // What is there already is not told by `poll_capacity` once more.
                match (stream.capacity(), stream.poll_capacity(cx)) {
                    (capacity @ 1.., _) => Poll::Ready(Some(Room::Taken(capacity))),
                    (0, Poll::Ready(capacity)) => Poll::Ready(capacity.and_then(Result::ok).map(Room::Taken)),
                    (0, Poll::Pending) if may_owe && exchange.handed.load(Ordering::Acquire) => {
                        if std::mem::replace(&mut turned, true) {
                            return Poll::Ready(Some(Room::Owed));
                        }
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                    (0, Poll::Pending) => Poll::Pending,
                }
            })
            .await;
        let capacity = match waited {
            Ok(Some(Room::Taken(capacity))) => capacity,
            Ok(Some(Room::Owed)) => data.len(),
            Ok(None) => return None,
            Err(failure) => {
                exchange.note_failure(failure);
                stream.send_reset(Reason::CANCEL);
                return None;
            }
        };
        let part = data.split_to(capacity.min(data.len()));
        stream.send_data(Part::new(part, &self.owed), false).ok()
    }
}

/// A part of a body that counts down what is left of it, as the library writes it or drops it.
#[derive(Debug)]
pub struct Part {
    data: Bytes,
    owed: Arc<AtomicUsize>,
}

impl Part {
    fn new(data: Bytes, owed: &Arc<AtomicUsize>) -> Self {
        owed.fetch_add(data.len(), Ordering::Relaxed);
        Self { data, owed: owed.clone() }
    }
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
        self.owed.fetch_sub(count, Ordering::Relaxed);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.owed.fetch_sub(self.data.len(), Ordering::Relaxed);
    }
}

#[async_trait]
impl BodyWrite for BodyWriter {
    async fn write_all_buf(&mut self, data: &mut Bytes) -> Result<()> {
        while !data.is_empty() {
            if self.some_of(data).await.is_none() {
                self.stream = None;
                data.advance(data.remaining());
            }
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        if let Some(mut stream) = self.stream.take() {
            // It can only be that the stream is closed, which the answer's direction tells.
            let _ = stream.send_data(Part::new(Bytes::new(), &self.owed), true);
        }
        Ok(())
    }

    async fn cleanup(&mut self) -> Result<()> {
        // A stream that is dropped before its end is reset.
        self.stream = None;
        Ok(())
    }

    fn upgrade_body_writer(&mut self) {}
}
