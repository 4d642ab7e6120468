//! `server:`: what is read at start only.

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::scalar::{self, TextOrNumber};

/// What is read at start only.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Worker threads: a number, or `auto` for one per core. Default `auto`.
    pub threads: Threads,
    /// At stop: how long requests in flight may go on. Default 30s.
    #[serde(deserialize_with = "scalar::duration")]
    #[schemars(with = "scalar::DurationText")]
    pub drain_timeout: Duration,
    /// Connections of clients open at once, at all listeners together; one more waits in the kernel's queue. Default
    /// 20000: two listeners' own.
    #[serde(deserialize_with = "connections")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub max_connections: u32,
    /// How many idle upstream connections are kept, in all. Default 512.
    pub upstream_pool_size: NonZeroUsize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        const POOL: NonZeroUsize = NonZeroUsize::new(512).unwrap();
        Self {
            threads: Threads::Auto,
            drain_timeout: Duration::from_secs(30),
            max_connections: 20_000,
            upstream_pool_size: POOL,
        }
    }
}

fn connections<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    scalar::whole_number(from, 1, 100_000_000)
}

/// `auto`, or a number from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// One per core.
    Auto,
    /// Just so many.
    Count(NonZeroUsize),
}

impl TextOrNumber for Threads {
    const EXPECTED: &'static str = "`auto` or a whole number from 1";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            digits => digits.parse().ok().map(Self::Count),
        }
    }
}

impl<'de> Deserialize<'de> for Threads {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::text_or_number(from)
    }
}

impl JsonSchema for Threads {
    fn schema_name() -> Cow<'static, str> {
        "Threads".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`auto`, or a number from 1.",
            "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1 }]
        })
    }
}
