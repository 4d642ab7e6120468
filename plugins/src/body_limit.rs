//! `body_limit`: how large the body of a request may be.
//!
//! ```yaml
//! - body_limit: { max: 10MiB }
//! - body_limit: { max: 0B }      # no body at all
//! ```
//!
//! A request whose Content-Length says more gets 413 before anything of its body is read, and before `100 Continue`. That is
//! decided when every plugin of the chain has let it pass. A body that comes in pieces is counted on its way; where it
//! becomes too large the client gets 413, if no answer has begun, and the request to the upstream is broken off, so
//! that it is never taken for whole. Either way the connection is closed, which in HTTP/2 is the stream.
//!
//! A route's own limit takes the place of the common one. What goes through an upgraded connection is no body.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::problem::Problem;
use crate::size::SizeText;
use crate::{Build, Hooks, Plugin, Setting};

/// Says how large a body may be; the chain and the gateway see to it.
pub struct BodyLimit {
    max: u64,
}

/// How large the body of a request may be.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BodyLimitConfig {
    /// The most bytes, without those that HTTP/1.1 puts between chunks.
    max: SizeText,
}

impl Build for BodyLimit {
    type Config = BodyLimitConfig;

    fn build(config: BodyLimitConfig, _: &Setting<'_>) -> Result<Self, Vec<Problem>> {
        Ok(Self { max: config.max.0 })
    }
}

impl Plugin for BodyLimit {
    fn hooks(&self) -> Hooks {
        Hooks::default()
    }

    fn body_limit(&self) -> Option<u64> {
        Some(self.max)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{plugin, plugins_of_doc, refusal};

    #[test]
    fn the_yaml_of_the_module_doc_loads() {
        let plugins = plugins_of_doc(include_str!("body_limit.rs"));
        let limits: Vec<_> = plugins.iter().map(|it| it.body_limit()).collect();
        assert_eq!(limits, [Some(10 << 20), Some(0)]);
    }

    #[test]
    fn what_is_no_size_is_refused() {
        assert!(plugin("body_limit", "{ max: 1KiB }").is_ok());
        for (config, told) in [
            ("{ max: 10M }", "max: `10M` is not a size; write `10MiB`"),
            ("{ max: 10 }", "max: `10` has no unit; write `10B` for bytes"),
            ("{}", "`max` is missing"),
        ] {
            assert!(refusal("body_limit", config).contains(told), "{}", refusal("body_limit", config));
        }
    }
}
