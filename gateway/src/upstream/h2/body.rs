//! The request's direction of a stream: its body, as fast as the upstream takes it.

use std::sync::atomic::{AtomicBool, Ordering};
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
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Exchange {
    /// The answer is complete: what is left of the request is of no use to anybody.
    pub fn note_answered(&self) {
        self.answered.store(true, Ordering::Release);
        self.writer.wake();
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

/// Writes the body.
///
/// It never fails. The engine takes a failed write for the end of the request, but an upstream may answer before it has
/// seen the whole of one, and stop reading (RFC 9113 section 8.1): what went wrong is told by the answer's direction,
/// which knows whether an answer came.
pub struct BodyWriter {
    /// Absent once nothing more is to be sent.
    stream: Option<SendStream<Bytes>>,
    exchange: Arc<Exchange>,
    patience: Patience,
}

impl BodyWriter {
    /// Writes to `stream`; absent where the head was all.
    pub fn new(stream: Option<SendStream<Bytes>>, exchange: Arc<Exchange>, patience: Patience) -> Self {
        Self { stream, exchange, patience }
    }

    /// As much of `data` as the upstream takes now, once it takes some; `None` where it takes no more.
    async fn some_of(&mut self, data: &mut Bytes) -> Option<()> {
        let stream = self.stream.as_mut()?;
        let exchange = &self.exchange;
        stream.reserve_capacity(data.len());
        let waited = self
            .patience
            .wait(|cx| {
                exchange.writer.register(cx.waker());
                if exchange.answered.load(Ordering::Acquire) {
                    return Poll::Ready(None);
                }
                // What is there already is not told by `poll_capacity` once more.
                match stream.capacity() {
                    0 => stream.poll_capacity(cx).map(|capacity| capacity?.ok()),
                    capacity => Poll::Ready(Some(capacity)),
                }
            })
            .await;
        let capacity = match waited {
            Ok(capacity) => capacity?,
            Err(failure) => {
                exchange.note_failure(failure);
                stream.send_reset(Reason::CANCEL);
                return None;
            }
        };
        let part = data.split_to(capacity.min(data.len()));
        stream.send_data(part, false).ok()
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
            let _ = stream.send_data(Bytes::new(), true);
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
