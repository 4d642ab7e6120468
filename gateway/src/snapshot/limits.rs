//! From a listener's `limits:` to what its clients may ask.

use vestibule_plugins::{Path, Problem};

use crate::config::{Http2LimitsConfig, LimitsConfig, ListenerConfig};

/// What a client may ask of a listener that speaks HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of a connection of HTTP/2.
    pub http2: Http2Limits,
}

/// What a client may ask of one connection of HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Limits {
    /// Requests open at once.
    pub streams: u32,
}

/// Compiles the `limits` of the listener that stands at `at`; where a listener speaks no such thing, what is given for it
/// is a problem.
pub fn compile(listener: &ListenerConfig, at: &Path, problems: &mut Vec<Problem>) -> Limits {
    let at = at.key("limits");
    let default = LimitsConfig::default();
    let given = listener.limits.as_ref();
    if given.is_some() && !listener.serves_http() {
        problems.push(
            Problem::new(at.clone(), "a `tcp` listener passes bytes through, so no limit of HTTP applies")
                .hint("its own limits are `max_connections` and `tcp: { idle_timeout }`"),
        );
    }
    let limits = given.unwrap_or(&default);
    if limits.http2.is_some() && listener.tls.is_none() && listener.tcp.is_none() {
        problems.push(
            Problem::new(at.key("http2"), "a listener without `tls` speaks no HTTP/2")
                .hint("clients choose HTTP/2 in the TLS handshake: add `tls`, or remove `http2`"),
        );
    }
    let Http2LimitsConfig { streams } = limits.http2.clone().unwrap_or_default();
    Limits { http2: Http2Limits { streams } }
}
