//! From a listener's `limits:` to what its clients may ask.

use std::time::Duration;

use vestibule_plugins::{Path, Problem};

use crate::config::{Http2LimitsConfig, LimitsConfig, ListenerConfig};
use crate::listener::RequestLimits;
use crate::route::normal::{PathRules, Slashes};

/// What a client may ask of a listener that speaks HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of its requests, in either version of HTTP as far as it has the like.
    pub requests: RequestLimits,
    /// How long it may take nothing of an answer that waits for it.
    pub send_idle: Duration,
    /// Of a connection of HTTP/2.
    pub http2: Http2Limits,
}

/// What a client may ask of one connection of HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Limits {
    /// Requests open at once.
    pub streams: u32,
    /// Streams reset in a second.
    pub resets: u32,
    /// Frames in a second that ask for nothing.
    pub control_frames: u32,
}

/// Compiles the `limits` of the listener that stands at `at`; where a listener speaks no such thing, what is given for it
/// is a problem.
pub fn compile(listener: &ListenerConfig, at: &Path, problems: &mut Vec<Problem>) -> Limits {
    let at = at.key("limits");
    let default = LimitsConfig::default();
    let given = listener.limits.as_ref();
    let passes_through = match listener {
        ListenerConfig { udp: Some(_), .. } => {
            Some(("udp", "datagrams", "`udp: { max_sessions, idle_timeout }`"))
        }
        ListenerConfig { tcp: Some(_), tls: None, .. } => {
            Some(("tcp", "bytes", "`max_connections` and `tcp: { idle_timeout }`"))
        }
        _ => None,
    };
    if let (Some(_), Some((kind, what, own))) = (given, passes_through) {
        let message = format!("a `{kind}` listener passes {what} through, so no limit of HTTP applies");
        problems.push(Problem::new(at.clone(), message).hint(format!("its own limits are {own}")));
    }
    let limits = given.unwrap_or(&default);
    if limits.http2.is_some() && listener.tls.is_none() && passes_through.is_none() {
        problems.push(
            Problem::new(at.key("http2"), "a listener without `tls` speaks no HTTP/2")
                .hint("clients choose HTTP/2 in the TLS handshake: add `tls`, or remove `http2`"),
        );
    }
    if limits.send_idle.is_zero() {
        problems.push(
            Problem::new(at.key("send_idle"), "`0s` lets a client keep an answer waiting for ever")
                .hint("write how long it may, such as `60s`"),
        );
    }
    let Http2LimitsConfig { streams, resets, control_frames } = limits.http2.clone().unwrap_or_default();
    let http2 = Http2Limits { streams, resets, control_frames };
    Limits { requests: requests(limits), send_idle: limits.send_idle, http2 }
}

fn requests(limits: &LimitsConfig) -> RequestLimits {
    RequestLimits {
        headers: limits.headers,
        head_size: limits.head_size,
        url: limits.url,
        head_timeout: limits.head_timeout,
        requests_per_connection: limits.requests_per_connection,
        body_idle: limits.body_idle,
        body_rate: limits.body_rate,
    }
}

/// Compiles the `paths` of the listener that stands at `at`.
pub fn paths(listener: &ListenerConfig, at: &Path, problems: &mut Vec<Problem>) -> PathRules {
    let Some(paths) = &listener.paths else { return PathRules::default() };
    if !listener.serves_http() {
        problems.push(
            Problem::new(at.key("paths"), "a listener that passes bytes through sees no path")
                .hint("remove `paths`"),
        );
    }
    PathRules {
        encoded_slashes: paths.encoded_slashes.into(),
        slashes: if paths.merge_slashes { Slashes::Merge } else { Slashes::Keep },
        dot_segments: paths.dot_segments.into(),
    }
}
