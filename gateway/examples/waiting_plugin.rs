//! A plugin that has to wait, as one that asks another server would: `pause` holds each request back for a moment.
//!
//! ```yaml
//! plugins:
//!   - pause: { time: 5ms }
//! ```

use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;
use vestibule::plugins::{
    Build, DurationText, Hooks, Plugin, Problem, Registry, RequestInfo, Setting, Verdict, duration,
};

/// Waits, and then lets the request go on.
struct Pause(Duration);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PauseConfig {
    /// For how long.
    #[serde(deserialize_with = "duration::deserialize")]
    #[schemars(with = "DurationText")]
    time: Duration,
}

impl Build for Pause {
    type Config = PauseConfig;

    fn build(config: PauseConfig, _setting: &Setting<'_>) -> Result<Self, Vec<Problem>> {
        Ok(Self(config.time))
    }
}

impl Plugin for Pause {
    fn hooks(&self) -> Hooks {
        Hooks { wait: true, ..Hooks::default() }
    }

    fn wait<'a>(
        &'a self,
        head: &'a mut RequestHeader,
        _info: &'a RequestInfo<'a>,
    ) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>> {
        Box::pin(async move {
            tokio::time::sleep(self.0).await;
            // A header block that is full stays as it is: the request passes unmarked.
            let _ = head.insert_header("x-paused", "yes");
            Verdict::Continue
        })
    }
}

fn main() -> ExitCode {
    vestibule::main(Registry::builtin().with::<Pause>("pause"))
}
