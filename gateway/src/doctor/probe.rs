//! One try at one address: connect, hand-shake, ask once. By the very code that `run` connects with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use openssl::ssl::{SslRef, SslVersion};
use pingora_core::protocols::l4::stream::Stream as L4;
use pingora_core::protocols::tls::SslStream;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::ask::{Answer, Http, ask};
use crate::diagnose::{self, Cause, Failure, HttpVersion};
use crate::proxy::attempt::bare;
use crate::upstream::connect::{chosen, connect, handshake};
use crate::upstream::{Origin, Protocol, Seen, Stream, Target, TlsPolicy, Transport, Verification};

/// How an address is reached.
#[derive(Clone)]
pub struct Way {
    /// The policy, and the SNI or the address verified in its stead; none is plain.
    pub tls: Option<(Arc<TlsPolicy>, String)>,
    /// What is spoken, as far as TLS does not choose it.
    pub protocol: Protocol,
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
        /// In this version of HTTP/1, unless HTTP/2 is spoken.
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
    let origin = Arc::new(Origin::new());
    let (transport, version) = match &way.tls {
        None if way.protocol == Protocol::H2c => (Transport::Plain(Box::new(stream)), HttpVersion::Http2),
        None => (Transport::Plain(Box::new(stream)), HttpVersion::Http1),
        Some((policy, identity)) => {
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
            origin.note_handshake(stream.ssl().session_reused(), shows);
            let version = chosen(way.protocol, stream.ssl().selected_alpn_protocol())?;
            // HTTP/2 is listened to all the while, and a byte that is taken here would be missed there.
            let may_listen = version == HttpVersion::Http1 || matches!(way.request, Request::None);
            let is_late = stream.ssl().version2() == Some(SslVersion::TLS1_3);
            if attempt.seen.asked && is_late && may_listen {
                last_word(&mut stream, shows).await?;
                lap();
            }
            (Transport::Tls(stream), version)
        }
    };
    let Request::Get { version: wanted, host, path } = &way.request else { return Ok(None) };
    let answer = ask(Stream::new(transport, origin, version), version, *wanted, host, path, way.limit).await;
    attempt.answered = Some(lap());
    judged(answer?, way, host)
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
fn judged(answer: Answer, way: &Way, host: &str) -> Result<Option<Answer>, Failure> {
    let identity = way.tls.as_ref().map(|(_, identity)| identity.as_str());
    let failure = diagnose::of_status(answer.status, &bare(host), identity).or_else(|| match answer.status {
        400 => diagnose::of_refusal(answer.body.as_bytes(), way.tls.is_some()),
        _ => None,
    });
    failure.map_or(Ok(Some(answer)), Err)
}

/// Whether nothing is verified.
pub fn is_off(policy: &TlsPolicy) -> bool {
    matches!(policy.settings.verification, Verification::Off)
}
