//! One try at one address: connect, hand-shake, ask once. By the very code that `run` connects with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use openssl::ssl::{SslRef, SslVersion};
use pingora_core::protocols::l4::stream::Stream as L4;
use pingora_core::protocols::tls::SslStream;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::ask::{Answer, Http, ask};
use crate::diagnose::{self, Cause, Failure};
use crate::upstream::connect::{connect, handshake};
use crate::upstream::{Alpn, Seen, Target, TlsPolicy, Verification};

/// How an address is reached.
#[derive(Clone)]
pub struct Way {
    /// The policy, and the SNI or the address verified in its stead; none is plain.
    pub tls: Option<(Arc<TlsPolicy>, String)>,
    /// What is sent once the connection is made.
    pub request: Request,
    /// Each step may take so long; `None` is no limit.
    pub limit: Option<Duration>,
}

/// What is sent once the connection is made.
#[derive(Clone, Debug)]
pub enum Request {
    /// Nothing at all.
    None,
    /// A GET.
    Get {
        /// In this version; over TLS, what ALPN chose wins.
        version: Http,
        /// The Host.
        host: String,
        /// The path and the query.
        path: String,
    },
}

/// What came of it.
#[derive(Debug)]
pub struct Attempt {
    /// How long the TCP connection took, where one was made.
    pub connected: Option<Duration>,
    /// How long the handshake took, where it was done.
    pub shaken: Option<Duration>,
    /// How long it took until the answer's head was there.
    pub answered: Option<Duration>,
    /// How long it took in all.
    pub took: Duration,
    /// What the handshake showed.
    pub seen: Seen,
    /// What was agreed on.
    pub tls: Option<Agreed>,
    /// The answer, if one was asked for.
    pub result: Result<Option<Answer>, Failure>,
}

/// What a handshake agreed on.
#[derive(Clone, Debug)]
pub struct Agreed {
    /// `TLSv1.3`, say.
    pub version: String,
    /// OpenSSL's name of the cipher.
    pub cipher: String,
    /// The protocol, where the upstream chose one.
    pub alpn: Option<String>,
}

impl Attempt {
    /// One that came to nothing.
    pub fn failed(failure: Failure) -> Self {
        Self { result: Err(failure), ..Self::begun() }
    }

    fn begun() -> Self {
        Self {
            connected: None,
            shaken: None,
            answered: None,
            took: Duration::ZERO,
            seen: Seen::default(),
            tls: None,
            result: Ok(None),
        }
    }

    /// Why it failed, where it did.
    pub fn cause(&self) -> Option<Cause> {
        self.result.as_ref().err().map(|failure| failure.cause)
    }

    /// The answer's status.
    pub fn status(&self) -> Option<u16> {
        self.result.as_ref().ok()?.as_ref().map(|answer| answer.status)
    }
}

/// An upstream of TLS 1.3 tells only after the handshake what it thinks of our certificate (RFC 8446 section 4.4.2.4):
/// one that asked for it is listened to for so long.
const LAST_WORD: Duration = Duration::from_millis(250);

/// Makes the try.
pub async fn attempt(target: &Target, way: &Way) -> Attempt {
    let began = Instant::now();
    let mut attempt = Attempt::begun();
    attempt.result = steps(target, way, &mut attempt).await;
    attempt.took = began.elapsed();
    attempt
}

async fn steps(target: &Target, way: &Way, attempt: &mut Attempt) -> Result<Option<Answer>, Failure> {
    let mut began = Instant::now();
    let mut lap = || std::mem::replace(&mut began, Instant::now()).elapsed();
    let stream = connect(target, way.limit).await?;
    attempt.connected = Some(lap());
    let Some((policy, identity)) = &way.tls else {
        let Request::Get { version, host, path } = &way.request else { return Ok(None) };
        let answer = ask(stream, *version, host, path, way.limit, false).await;
        attempt.answered = Some(lap());
        return judged(answer?, false);
    };
    let mut stream = match handshake(stream, policy, target, identity, way.limit).await {
        Ok(stream) => stream,
        Err((failure, seen)) => {
            attempt.seen = *seen;
            return Err(failure);
        }
    };
    attempt.shaken = Some(lap());
    attempt.seen = Seen::of(stream.ssl());
    attempt.tls = Some(agreed(stream.ssl()));
    let shows = policy.settings.identity.is_some();
    if attempt.seen.asked && stream.ssl().version2() == Some(SslVersion::TLS1_3) {
        last_word(&mut stream, shows).await?;
        lap();
    }
    let Request::Get { version, host, path } = &way.request else { return Ok(None) };
    let chosen = attempt.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
    let version = match (policy.settings.alpn, chosen) {
        (_, Some("h2")) => Http::Two,
        (Alpn::H2, chosen) => {
            let told =
                chosen.map_or("it chose no protocol".to_owned(), |chosen| format!("it chose `{chosen}`"));
            return Err(Failure::new(Cause::AlpnMismatch, format!("offered `h2`, and {told}")));
        }
        _ => *version,
    };
    let answer = ask(stream, version, host, path, way.limit, shows).await;
    attempt.answered = Some(lap());
    judged(answer?, shows)
}

async fn last_word(stream: &mut SslStream<L4>, shows: bool) -> Result<(), Failure> {
    let mut byte = [0];
    match timeout(LAST_WORD, stream.read(&mut byte)).await {
        Ok(Err(error)) => match diagnose::of_read(&error, shows) {
            Some(failure) => Err(failure),
            None => Err(Failure::new(about_certificate(shows), error.to_string())),
        },
        Ok(Ok(0)) => {
            Err(Failure::new(about_certificate(shows), "it closed the connection behind the handshake"))
        }
        _ => Ok(()),
    }
}

fn about_certificate(shows: bool) -> Cause {
    match shows {
        true => Cause::TlsClientCertificateRejected,
        false => Cause::TlsClientCertificateRequired,
    }
}

fn agreed(ssl: &SslRef) -> Agreed {
    Agreed {
        version: ssl.version_str().to_owned(),
        cipher: ssl.current_cipher().map_or("", |cipher| cipher.name()).to_owned(),
        alpn: ssl
            .selected_alpn_protocol()
            .map(|alpn| String::from_utf8_lossy(alpn).escape_debug().to_string()),
    }
}

/// Answers that tell of the connection and not of the resource.
fn judged(answer: Answer, shows: bool) -> Result<Option<Answer>, Failure> {
    let says = |text: &str| answer.body.contains(text);
    let cause = match answer.status {
        421 => Cause::Upstream421,
        426 => Cause::Upstream426,
        400 if says("plain HTTP request was sent to HTTPS port") => Cause::PlainToTlsPort,
        400 if says("Client sent an HTTP request to an HTTPS server") => Cause::PlainToTlsPort,
        400 if says("No required SSL certificate was sent") => Cause::TlsClientCertificateRequired,
        400 if says("The SSL certificate error") => about_certificate(shows),
        _ => return Ok(Some(answer)),
    };
    Err(Failure::new(cause, format!("it answered {}", answer.status)))
}

/// Whether nothing is verified.
pub fn is_off(policy: &TlsPolicy) -> bool {
    matches!(policy.settings.verification, Verification::Off)
}
