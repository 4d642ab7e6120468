//! One request on an HTTP/2 connection, as the engine sees it.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::uri::Scheme;
use http::{HeaderMap, StatusCode};
use pingora_core::protocols::http::custom::{BodyWrite, CustomMessageWrite, client};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{Digest, UniqueIDType};
use pingora_core::{Error, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use super::body::{BodyWriter, Exchange, Part};
use super::connection::Slot;
use super::failure::of_stream;
use super::patience::Patience;
use super::request;
use crate::diagnose::{Cause, Failure};
use crate::upstream::origin::Origin;

/// How much of a body is handed to the engine at once, if so much has come.
const CHUNK: usize = 64 * 1024;

/// A stream, from the request's head to the end of the answer.
pub struct Session {
    // Before the slot, so that the stream has ended when its place is given back.
    answer: Answer,
    writer: Option<SendStream<Part>>,
    head: Option<ResponseHeader>,
    exchange: Arc<Exchange>,
    patience: Patience,
    origin: Arc<Origin>,
    write_limit: Option<Duration>,
    digest: Digest,
    slot: Slot,
}

enum Answer {
    /// No request has been sent.
    Unasked,
    /// Its head is to come.
    Awaited(ResponseFuture),
    /// Its body is to come, or has come.
    Begun(RecvStream),
}

impl Session {
    /// A stream that has not been used.
    ///
    /// # Errors
    /// None that can happen.
    pub fn new(slot: Slot) -> Result<Self, Failure> {
        // Each stream has a deadline of its own, so the connection has none.
        let origin = Arc::new(Origin::with(slot.standing().clone()));
        origin.note_handshake(slot.resumed(), false);
        let blank = ResponseHeader::build(200, Some(0));
        let blank = blank.map_err(|error| Failure::new(Cause::Internal, error.to_string()))?;
        let digest = Digest {
            ssl_digest: slot.tls(),
            timing_digest: slot.timing(),
            proxy_digest: Some(Arc::new(ProxyDigest::new(Box::new(blank), Some(Box::new(origin.clone()))))),
            socket_digest: slot.socket(),
        };
        Ok(Self {
            answer: Answer::Unasked,
            writer: None,
            head: None,
            exchange: Arc::default(),
            patience: Patience::new(origin.clone(), None),
            origin,
            write_limit: None,
            digest,
            slot,
        })
    }

    /// The next head: an interim one (RFC 9110 section 15.2), or the answer's own.
    async fn next_head(&mut self) -> Result<ResponseHeader> {
        let Answer::Awaited(response) = &mut self.answer else { return Err(misused("no head is to come")) };
        let exchange = &self.exchange;
        let waited = self.patience.wait(|cx| {
            if let Some(failure) = exchange.failure(cx.waker()) {
                return Poll::Ready(Err(Broken::Sending(copy(failure))));
            }
            match response.poll_informational(cx) {
                Poll::Ready(Some(Ok(interim))) => return Poll::Ready(Ok((interim.into_parts().0, None))),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Broken::Stream(error))),
                // `poll_response` would skip an interim head that comes in between.
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {}
            }
            std::pin::Pin::new(&mut *response).poll(cx).map(|answered| {
                let (head, body) = answered.map_err(Broken::Stream)?.into_parts();
                Ok((head, Some(body)))
            })
        });
        let (head, body) = match waited.await {
            Ok(come) => come.map_err(|broken| self.told(broken))?,
            Err(failure) => return Err(self.late(failure)),
        };
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            // RFC 9113 section 8.6: there is no such thing in HTTP/2.
            return Err(Failure::new(Cause::UpstreamInvalidResponse, "101 over HTTP/2").into_error());
        }
        if let Some(body) = body {
            self.answer = Answer::Begun(body);
        }
        Ok(head.into())
    }

    /// Waits for something of the answer's body.
    async fn wait_for<T>(
        &mut self,
        mut poll: impl FnMut(&mut RecvStream, &mut Context<'_>) -> Poll<Result<T, h2::Error>>,
    ) -> Result<T> {
        let Answer::Begun(body) = &mut self.answer else { return Err(misused("no body is to come")) };
        let exchange = &self.exchange;
        let waited = self.patience.wait(|cx| {
            if let Some(failure) = exchange.failure(cx.waker()) {
                return Poll::Ready(Err(Broken::Sending(copy(failure))));
            }
            poll(body, cx).map_err(Broken::Stream)
        });
        match waited.await {
            Ok(come) => come.map_err(|broken| self.told(broken)),
            Err(failure) => Err(self.late(failure)),
        }
    }

    fn told(&self, broken: Broken) -> Box<Error> {
        match broken {
            Broken::Sending(failure) => self.late(failure),
            Broken::Stream(error) => of_stream(&error, self.slot.noted()),
        }
    }

    /// A wait that was over before anything came.
    fn late(&self, failure: Failure) -> Box<Error> {
        // What was broken off by this side says nothing of the connection.
        if let Some(since) = self.patience.waiting_since()
            && failure.cause == Cause::UpstreamTimeout
        {
            self.slot.suspect(since);
        }
        failure.into_error()
    }

    fn is_answered(&self) -> bool {
        matches!(&self.answer, Answer::Begun(body) if body.is_end_stream())
    }
}

/// All that has come of a body, up to `CHUNK`: the engine's own pipe counts pieces, however small they are.
fn poll_data(body: &mut RecvStream, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, h2::Error>> {
    let mut data = match body.poll_data(cx) {
        Poll::Ready(Some(data)) => data?,
        Poll::Ready(None) => return Poll::Ready(Ok(None)),
        Poll::Pending => return Poll::Pending,
    };
    if data.len() < CHUNK && !body.is_end_stream() {
        let mut more = BytesMut::new();
        // An error comes again with the next poll, after what has come before it.
        while data.len() + more.len() < CHUNK
            && let Poll::Ready(Some(Ok(next))) = body.poll_data(cx)
        {
            if more.is_empty() {
                more.reserve(CHUNK);
                more.extend_from_slice(&data);
                data = Bytes::new();
            }
            more.extend_from_slice(&next);
        }
        if !more.is_empty() {
            data = more.freeze();
        }
    }
    // The engine's pipe is short, so what is handed to it is as good as sent on.
    body.flow_control().release_capacity(data.len())?;
    Poll::Ready(Ok(Some(data)))
}

/// Why there is no more of an answer.
enum Broken {
    Stream(h2::Error),
    /// The request could not be sent.
    Sending(Failure),
}

fn copy(failure: &Failure) -> Failure {
    Failure::new(failure.cause, failure.detail.clone())
}

fn misused(what: &str) -> Box<Error> {
    Failure::new(Cause::Internal, what).into_error()
}

#[async_trait]
impl client::Session for Session {
    async fn write_request_header(&mut self, request: Box<RequestHeader>, end: bool) -> Result<()> {
        let scheme = if self.digest.ssl_digest.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let request = request::head(*request, scheme).map_err(Failure::into_error)?;
        let sent = self.slot.requests.send_request(request, end);
        let (response, writer) = sent.map_err(|error| of_stream(&error, self.slot.noted()))?;
        self.answer = Answer::Awaited(response);
        self.writer = (!end).then_some(writer);
        Ok(())
    }

    // The engine writes a body through `take_request_body_writer`.
    async fn write_request_body(&mut self, _data: Bytes, _end: bool) -> Result<()> {
        Err(misused("the body has a writer of its own"))
    }

    async fn finish_request_body(&mut self) -> Result<()> {
        Err(misused("the body has a writer of its own"))
    }

    fn take_request_body_writer(&mut self) -> Option<Box<dyn BodyWrite>> {
        let patience = Patience::new(self.origin.clone(), self.write_limit);
        Some(Box::new(BodyWriter::new(self.writer.take(), self.exchange.clone(), patience)))
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.patience.set_limit(timeout);
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_limit = timeout;
    }

    async fn read_response_header(&mut self) -> Result<()> {
        self.head = Some(self.next_head().await?);
        Ok(())
    }

    async fn read_response_body(&mut self) -> Result<Option<Bytes>> {
        if self.is_answered() {
            return Ok(None);
        }
        self.exchange.note_asked();
        let data = self.wait_for(poll_data).await?;
        if data.is_some() {
            self.exchange.note_handed();
        }
        Ok(data)
    }

    async fn read_trailers(&mut self) -> Result<Option<HeaderMap>> {
        let trailers = match self.is_answered() {
            true => None,
            false => self.wait_for(|body, cx| body.poll_trailers(cx)).await?,
        };
        self.exchange.note_answered();
        Ok(trailers)
    }

    async fn check_response_end_or_error(&mut self, _headers: bool) -> Result<bool> {
        let ended = self.is_answered();
        if ended {
            self.exchange.note_answered();
        }
        Ok(ended)
    }

    fn response_header(&self) -> Option<&ResponseHeader> {
        self.head.as_ref()
    }

    fn response_finished(&self) -> bool {
        self.is_answered()
    }

    async fn shutdown(&mut self, code: u32, _context: &str) {
        if let Some(mut writer) = self.writer.take() {
            writer.send_reset(Reason::from(code));
        }
        // Without its reading end, too, a stream that has not ended is reset.
        self.answer = Answer::Unasked;
    }

    async fn abandon(&mut self, context: &str) {
        self.shutdown(Reason::CANCEL.into(), context).await;
    }

    fn was_upgraded(&self) -> bool {
        false
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Some(&mut self.digest)
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.peer_addr()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.local_addr()
    }

    fn fd(&self) -> UniqueIDType {
        self.slot.fd()
    }

    // HTTP/2 has no messages beside the body, and the engine wants the ends of an empty channel for them.
    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        Some(Box::new(futures_util::stream::empty()))
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        Some(Box::new(()))
    }

    async fn drain_custom_messages(&mut self) -> Result<()> {
        Ok(())
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }
}
