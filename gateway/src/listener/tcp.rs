//! Layer 4: bytes pass between a client and an upstream untouched, so that TLS is the two ends' own. Which upstream may
//! be decided by the name that the client asks for.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tokio::io::AsyncWriteExt;

use super::opening::{Hello, Opening};
use super::relay::{End, Watch, relay};
use super::{Services, refuse};
use crate::diagnose::{Cause, Failure};
use crate::observe::access_log::told;
use crate::observe::due;
use crate::observe::{Line, ListenerMeter};
use crate::proxy::ctx::Client;
use crate::snapshot::PassThrough;
use crate::upstream::connect::{Socket, dial};
use crate::upstream::{Tried, Upstream};

/// A connection on its way to an upstream.
pub struct Passage<'a> {
    /// Where it goes.
    pub upstream: &'a Upstream,
    /// The name by which it goes there.
    pub sni: Option<&'a str>,
    /// On which terms.
    pub pass: &'a PassThrough,
}

/// A connection of a listener that ends nothing itself: to the upstream of the name that the client asks for, or to the
/// one for all others.
pub async fn serve(mut opening: Opening, pass: &PassThrough, client: &Client, services: &Services) {
    let hello = match pass.by_sni.is_empty() {
        true => Ok(Hello::Nameless),
        false => opening.hello().await,
    };
    let hello = match hello {
        Ok(hello) => hello,
        Err(failure) => return refuse(&failure, None, client, services),
    };
    let sni = hello.name();
    match (pass.named(&hello).or(pass.upstream.as_ref()), &hello) {
        (Some(upstream), _) => {
            pass_through(opening, Passage { upstream, sni, pass }, client, services).await;
        }
        (None, Hello::NotTls) => {
            let failure = Failure::new(Cause::ClientHelloInvalid, "it is another protocol than TLS");
            refuse(&failure, None, client, services);
        }
        (None, Hello::Named(_) | Hello::Nameless) => {
            let asked = sni.map_or("no name at all".to_owned(), |name| format!("`{name}`"));
            refuse(&Failure::new(Cause::SniUnmatched, asked), sni, client, services);
        }
    }
}

impl Hello {
    /// The name that is asked for.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            Self::Nameless | Self::NotTls => None,
        }
    }
}

impl PassThrough {
    /// The upstream of the name that is asked for.
    pub fn named(&self, hello: &Hello) -> Option<&Arc<Upstream>> {
        self.by_sni.find(hello.name()?)
    }
}

/// Connects to an endpoint, another one where the first fails, and moves bytes both ways until both ends are done. An end
/// that stops sending may still receive.
pub async fn pass_through(opening: Opening, passage: Passage<'_>, client: &Client, services: &Services) {
    let (time, started) = (Timestamp::now(), Instant::now());
    // It may go on for days, under the configuration that it began under.
    let config = services.live.pin().hash.clone();
    let Passage { upstream, sni, pass } = passage;
    let mut tried = Tried::new();
    let mut passed = Passed { meter: &client.listener.meter, received: 0, sent: 0 };
    let cause = match reach(&opening, &passage, &mut tried).await {
        Err(failure) => {
            warn(&failure, upstream, client);
            Some(failure.cause)
        }
        Ok(mut far) => {
            let (mut near, first) = opening.into_parts();
            passed.passed(first.len() as u64, 0);
            let idle = pass.idle_timeout;
            let end = match &mut far {
                Socket::Tcp(far) => relay(&mut near, far, first, idle, &mut passed).await,
                Socket::Unix(far) => relay(&mut near, far, first, idle, &mut passed).await,
            };
            match end {
                End::Idle => Some(Cause::ConnectionIdle),
                End::Finished | End::Broken => None,
            }
        }
    };
    services.log.write(&Line {
        time: told(time),
        listener: &client.listener.name,
        client_ip: client.ip,
        bytes_in: passed.received,
        bytes_out: passed.sent,
        duration_ms: (started.elapsed().as_secs_f64() * 1e6).round() / 1e3,
        upstream: Some(&upstream.name),
        endpoint: tried.last().map(|address| &*address.text),
        attempts: Some(tried.len() as u32),
        sni,
        cause: cause.map(Cause::code),
        config: &config,
        ..Line::default()
    });
}

async fn reach(opening: &Opening, passage: &Passage<'_>, tried: &mut Tried) -> Result<Socket, Failure> {
    let upstream = passage.upstream;
    let mut last = Failure::new(Cause::DnsNotFound, upstream.name.as_str());
    while let Some(pick) = upstream.balance.pick(tried).filter(|pick| !tried.contains(&pick.address)) {
        tried.push(pick.address.clone());
        let made = match dial(&pick.address.target, upstream.connect_timeout).await {
            Ok(socket) => announced(socket, opening, passage.pass).await,
            Err(failure) => Err(failure),
        };
        match made {
            Ok(socket) => {
                upstream.attempt_succeeded(&pick, Timestamp::now());
                return Ok(socket);
            }
            Err(failure) => {
                upstream.attempt_failed(Some(&pick), &failure);
                last = Failure::new(failure.cause, format!("{}: {}", pick.address, failure.detail));
            }
        }
    }
    if tried.is_empty() {
        upstream.attempt_failed(None, &last);
    }
    Err(last)
}

/// Tells the upstream whose connection it is, where it wants to know.
async fn announced(mut socket: Socket, opening: &Opening, pass: &PassThrough) -> Result<Socket, Failure> {
    let Some(version) = pass.announce else { return Ok(socket) };
    let failed = |error: std::io::Error| Failure::new(Cause::ConnectFailed, error.to_string());
    let header = version.header(&opening.addresses().map_err(failed)?);
    // A new connection takes so little without waiting.
    match &mut socket {
        Socket::Tcp(stream) => stream.write_all(&header).await,
        Socket::Unix(stream) => stream.write_all(&header).await,
    }
    .map_err(failed)?;
    Ok(socket)
}

fn warn(failure: &Failure, upstream: &Upstream, client: &Client) {
    if due(&client.listener.warned) {
        log::warn!(
            "listener `{}`, upstream `{}`: {}: {failure}\n  to mend it: {}",
            client.listener.name,
            upstream.name,
            failure.cause.code(),
            failure.cause.remedy(),
        );
    }
}

/// What has passed, counted while it passes: a connection may last for days.
struct Passed<'a> {
    meter: &'a ListenerMeter,
    received: u64,
    sent: u64,
}

impl Watch for Passed<'_> {
    fn passed(&mut self, from_near: u64, from_far: u64) {
        self.received += from_near;
        self.sent += from_far;
        self.meter.passed(from_near, from_far);
    }
}
