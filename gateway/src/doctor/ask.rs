//! One request on a connection that is made, by hyper: any version of HTTP, a bounded body, a deadline.

use std::error::Error as StdError;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::diagnose::{self, Cause, Failure};

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.0.
    OneZero,
    /// HTTP/1.1.
    OneOne,
    /// HTTP/2.
    Two,
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
/// The cause that the access log gives for the same, as far as it can be told here.
pub async fn ask<S>(
    stream: S,
    version: Http,
    host: &str,
    path: &str,
    limit: Option<Duration>,
    shows_certificate: bool,
) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asking = exchange(stream, version, host, path);
    let done = match limit {
        Some(limit) => timeout(limit, asking).await,
        None => Ok(asking.await),
    };
    match done {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(failure(&*error, shows_certificate)),
        Err(_) => Err(Failure::new(
            Cause::UpstreamTimeout,
            format!("no answer to GET {path} after {:?}", limit.unwrap_or_default()),
        )),
    }
}

type Problem = Box<dyn StdError + Send + Sync>;

async fn exchange<S>(stream: S, version: Http, host: &str, path: &str) -> Result<Answer, Problem>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let request = Request::get(match version {
        Http::Two => format!("https://{host}{path}"),
        _ => path.to_owned(),
    });
    let request = request.header(header::USER_AGENT, "vestibule-doctor").header(header::ACCEPT, "*/*");
    if version == Http::Two {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        let request = request.body(Empty::<Bytes>::new())?;
        return beside(connection, async move { read(sender.send_request(request).await?).await }).await;
    }
    let (mut sender, connection) = http1::handshake(io).await?;
    let version = if version == Http::OneZero { Version::HTTP_10 } else { Version::HTTP_11 };
    let request = request.version(version).header(header::HOST, host).header(header::CONNECTION, "close");
    let request = request.body(Empty::<Bytes>::new())?;
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

fn failure(error: &(dyn StdError + 'static), shows_certificate: bool) -> Failure {
    if let Some(failure) = diagnose::of_read(error, shows_certificate) {
        return failure;
    }
    let cause = match error.downcast_ref::<hyper::Error>() {
        Some(error) if error.is_parse() => Cause::UpstreamInvalidResponse,
        _ => Cause::UpstreamReset,
    };
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        words = format!("{words}: {error}");
        next = error.source();
    }
    Failure::new(cause, words)
}
