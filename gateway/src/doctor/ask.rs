//! One request on a connection that is made, with a bounded body and a deadline: HTTP/1 by hyper, HTTP/2 by the code that
//! `run` speaks it with.

use std::error::Error as StdError;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pingora_core::protocols::Ssl;
use tokio::time::timeout;

use crate::diagnose::{self, Cause, Failure, HttpVersion, of_http1};
use crate::upstream::{Facts, Pool, Stream, establish, of_stream};

/// A version of HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.0.
    OneZero,
    /// HTTP/1.1.
    OneOne,
}

/// What an upstream answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body's beginning.
    pub body: String,
}

/// No more of a body is read.
const MOST_BODY: usize = 8 * 1024;

/// Asks with GET.
///
/// # Errors
/// The cause that the access log gives for the same.
pub async fn ask(
    stream: Stream,
    spoken: HttpVersion,
    version: Http,
    host: &str,
    path: &str,
    limit: Option<Duration>,
) -> Result<Answer, Failure> {
    let asking = async {
        match spoken {
            HttpVersion::Http1 => http1(stream, version, host, path).await.map_err(|error| of_http1(&*error)),
            HttpVersion::Http2 => http2(stream, host, path).await,
        }
    };
    match limit {
        None => asking.await,
        Some(limit) => timeout(limit, asking).await.unwrap_or_else(|_| {
            Err(Failure::new(Cause::UpstreamTimeout, format!("no answer to GET {path} after {limit:?}")))
        }),
    }
}

fn get(target: String) -> http::request::Builder {
    Request::get(target).header(header::USER_AGENT, "vestibule-doctor").header(header::ACCEPT, "*/*")
}

async fn http2(stream: Stream, host: &str, path: &str) -> Result<Answer, Failure> {
    let scheme = if stream.get_ssl().is_some() { "https" } else { "http" };
    let request = get(format!("{scheme}://{host}{path}")).body(());
    let request = request.map_err(|error| Failure::new(Cause::Internal, error.to_string()))?;
    let facts = Facts { key: 0, idle_timeout: Duration::ZERO, resumed: false };
    let slot = establish(stream, facts, &Arc::new(Pool::new(0))).await?;
    let told = |error: h2::Error| diagnose::of_error(&of_stream(&error, slot.noted()), false);
    let mut requests = slot.requests.clone().ready().await.map_err(told)?;
    let (response, _) = requests.send_request(request, true).map_err(told)?;
    let (head, mut body) = response.await.map_err(told)?.into_parts();
    let mut read = Vec::new();
    while let Some(Ok(piece)) = body.data().await {
        read.extend_from_slice(&piece);
        if read.len() > MOST_BODY {
            break;
        }
    }
    Ok(Answer { status: head.status.as_u16(), body: String::from_utf8_lossy(&read).into_owned() })
}

type Problem = Box<dyn StdError + Send + Sync>;

async fn http1(stream: Stream, version: Http, host: &str, path: &str) -> Result<Answer, Problem> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let version = if version == Http::OneZero { Version::HTTP_10 } else { Version::HTTP_11 };
    let request = get(path.to_owned()).version(version).header(header::HOST, host);
    let request = request.header(header::CONNECTION, "close").body(Empty::<Bytes>::new())?;
    beside(connection, async move { read(sender.send_request(request).await?).await }).await
}

async fn read(response: Response<Incoming>) -> Result<Answer, hyper::Error> {
    let status = response.status().as_u16();
    // A body that is too long or breaks off says nothing against its head.
    let body = Limited::new(response.into_body(), MOST_BODY).collect().await;
    let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    Ok(Answer { status, body })
}

/// Drives the connection for as long as the exchange takes; the error that tells more wins.
async fn beside(
    connection: impl Future<Output = hyper::Result<()>>,
    exchange: impl Future<Output = Result<Answer, hyper::Error>>,
) -> Result<Answer, Problem> {
    tokio::pin!(connection, exchange);
    tokio::select! {
        done = &mut exchange => match done {
            Ok(answer) => Ok(answer),
            Err(error) if error.is_canceled() => match connection.await {
                Err(other) => Err(other.into()),
                Ok(()) => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        },
        ended = &mut connection => match (ended, exchange.await) {
            (_, Ok(answer)) => Ok(answer),
            (Err(error), Err(_)) => Err(error.into()),
            (Ok(()), Err(error)) => Err(error.into()),
        },
    }
}
