//! `limits:` of a listener: what one client may ask of it. Each is finite by default.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::scalar;

/// What a client may ask of a listener that speaks HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Connections of HTTP/2.
    #[serde(deserialize_with = "scalar::given")]
    pub http2: Option<Http2LimitsConfig>,
}

/// What a client may ask of one connection of HTTP/2.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2LimitsConfig {
    /// Requests open at once; one more is refused. Default 100.
    #[serde(deserialize_with = "streams")]
    #[schemars(range(min = 1, max = 10_000))]
    pub streams: u32,
}

impl Default for Http2LimitsConfig {
    fn default() -> Self {
        Self { streams: 100 }
    }
}

fn streams<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    scalar::whole_number(from, 1, 10_000)
}
