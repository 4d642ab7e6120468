//! `limits:` of a listener: what one client may ask of it. Each is finite by default.

use std::time::Duration;

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use vestibule_plugins::SizeText;

use super::scalar;
use super::size::size;
use crate::listener::RequestLimits;

/// What a client may ask of a listener that speaks HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Fields of a request's head; one more is a 431. From 1 to 256, default 100.
    #[serde(deserialize_with = "headers")]
    #[schemars(range(min = 1, max = 256))]
    pub headers: usize,
    /// The whole head of a request, request line and fields; beyond it a 431. From 1KiB to 512KiB, default 64KiB.
    #[serde(deserialize_with = "head_size")]
    #[schemars(with = "SizeText")]
    pub head_size: usize,
    /// The target of a request, path and query; beyond it a 414. From 64B to 32KiB, default 16KiB.
    #[serde(deserialize_with = "url")]
    #[schemars(with = "SizeText")]
    pub url: usize,
    /// How long the head of a request may take from its first byte to its last; beyond it a 408. Default 10s.
    #[serde(deserialize_with = "some_time")]
    #[schemars(with = "scalar::DurationText")]
    pub head_timeout: Duration,
    /// Requests on one connection, which closes behind the last. Default 10000.
    #[serde(deserialize_with = "scalar::from_one")]
    #[schemars(range(min = 1))]
    pub requests_per_connection: usize,
    /// How long the next piece of a request's body may take; beyond it a 408. Default 60s.
    #[serde(deserialize_with = "some_time")]
    #[schemars(with = "scalar::DurationText")]
    pub body_idle: Duration,
    /// Bytes a second that a request's body comes with at least, on average over the time that it is waited for, less
    /// `body_idle`; below it a 408. HTTP/1.1 only. Default 100B; 0B is none.
    #[serde(deserialize_with = "body_rate")]
    #[schemars(with = "SizeText")]
    pub body_rate: usize,
    /// How long a client may take nothing of an answer that waits for it. Default 60s; 0s is refused.
    #[serde(deserialize_with = "scalar::duration")]
    #[schemars(with = "scalar::DurationText")]
    pub send_idle: Duration,
    /// Connections of HTTP/2.
    #[serde(deserialize_with = "scalar::given")]
    pub http2: Option<Http2LimitsConfig>,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let RequestLimits {
            headers,
            head_size,
            url,
            head_timeout,
            requests_per_connection,
            body_idle,
            body_rate,
        } = RequestLimits::default();
        Self {
            headers,
            head_size,
            url,
            head_timeout,
            requests_per_connection,
            body_idle,
            body_rate,
            send_idle: Duration::from_secs(60),
            http2: None,
        }
    }
}

/// What a client may ask of one connection of HTTP/2.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2LimitsConfig {
    /// Requests open at once; one more is refused. Default 100.
    #[serde(deserialize_with = "streams")]
    #[schemars(range(min = 1, max = 10_000))]
    pub streams: u32,
    /// Streams reset in a second, by the client or by what it does wrong; with more the connection is closed. Default
    /// 200.
    #[serde(deserialize_with = "per_second")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub resets: u32,
    /// SETTINGS, PING, PRIORITY, WINDOW_UPDATE and the like in a second, beyond ten for each frame of an answer; with
    /// more the connection is closed. Default 1000.
    #[serde(deserialize_with = "per_second")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub control_frames: u32,
}

impl Default for Http2LimitsConfig {
    fn default() -> Self {
        Self { streams: 100, resets: 200, control_frames: 1000 }
    }
}

fn streams<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    scalar::whole_number(from, 1, 10_000)
}

fn per_second<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    scalar::whole_number(from, 1, 1_000_000)
}

// More than these the engine refuses by itself, or cannot hold.

fn headers<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    scalar::whole_number(from, 1, 256).map(|number| number as usize)
}

fn head_size<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    size(from, 1 << 10, 512 << 10)
}

fn url<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    size(from, 64, 32 << 10)
}

fn body_rate<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    size(from, 0, 1 << 30)
}

/// A duration that is not none: a limit that never comes is no limit.
fn some_time<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    match scalar::duration(from)? {
        Duration::ZERO => Err(D::Error::custom("`0s` is no limit; write how long is waited, as in `10s`")),
        time => Ok(time),
    }
}
