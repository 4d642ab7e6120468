//! A binary of one's own with a plugin of one's own: everything that `vestibule` does, and `maintenance` besides.
//!
//! In a project of your own, depend on `vestibule` and write just this file. Then, in the configuration:
//!
//! ```yaml
//! plugins:
//!   - maintenance: { retry_after: 5m }
//! ```

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, header};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;
use vestibule::plugins::{
    Build, DurationText, Hooks, Plugin, Problem, Registry, Reply, RequestInfo, Setting, Verdict, duration,
};

/// Answers 503 in the upstream's stead, and says when to come back.
struct Maintenance {
    retry_after: HeaderValue,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MaintenanceConfig {
    /// When clients may come back.
    #[serde(deserialize_with = "duration::deserialize")]
    #[schemars(with = "DurationText")]
    retry_after: Duration,
}

impl Build for Maintenance {
    type Config = MaintenanceConfig;

    fn build(config: MaintenanceConfig, _setting: &Setting<'_>) -> Result<Self, Vec<Problem>> {
        Ok(Self { retry_after: HeaderValue::from(config.retry_after.as_secs()) })
    }
}

impl Plugin for Maintenance {
    fn hooks(&self) -> Hooks {
        Hooks { request: true, ..Hooks::default() }
    }

    fn request(&self, _head: &mut RequestHeader, _info: &RequestInfo<'_>) -> Verdict {
        Verdict::Respond(Reply {
            status: 503,
            headers: vec![(header::RETRY_AFTER, self.retry_after.clone())],
            body: Bytes::from_static(b"back soon\n"),
        })
    }
}

fn main() -> ExitCode {
    vestibule::main(Registry::builtin().with::<Maintenance>("maintenance"))
}
