//! `limits:` of a listener: what one client may ask of it. Each is finite by default.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::scalar;

/// What a client may ask of a listener that speaks HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
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
        Self { send_idle: Duration::from_secs(60), http2: None }
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
