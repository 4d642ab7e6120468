//! What was typed: one serde type for each noun of the file, and how a file becomes such a value.
//!
//! Nothing here is read after load: `snapshot::compile` turns it into what requests run on.

pub mod access_log;
pub mod admin;
mod document;
pub mod edit;
pub mod limits;
pub mod listener;
pub mod load;
pub mod paths;
pub mod plugin;
pub mod redact;
pub mod reload;
pub mod route;
pub mod scalar;
pub mod server;
mod size;
mod syntax;
pub mod tls;
mod tree;
pub mod upstream;

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use vestibule_plugins::Registry;

pub use access_log::{AccessLogConfig, AccessLogFormat, AccessLogPath};
pub use admin::AdminConfig;
pub use document::{Document, Position};
pub use limits::{Http2LimitsConfig, LimitsConfig};
pub use listener::{
    Block, DownstreamClientCertificateConfig, DownstreamTlsConfig, KeepaliveConfig, KeyPairConfig,
    ListenerConfig, ProxiesConfig, ProxyProtocolConfig, ProxyVersionConfig, SniClientCertificateConfig,
    SniPolicyConfig, TcpConfig, UdpConfig,
};
pub use load::{Loaded, list, load, parse};
pub use paths::{DotSegmentsConfig, EncodedSlashesConfig, PathsConfig};
pub use plugin::PluginConfig;
pub use reload::{GuardConfig, ReloadConfig, StageConfig};
pub use route::{
    MatchConfig, PathConfig, RedirectConfig, RespondConfig, RouteConfig, SplitConfig, TextMatchConfig,
    TimeoutsConfig,
};
pub use scalar::{OneOrMany, Status, Version};
pub use server::{ServerConfig, Threads};
pub use tls::{
    CaConfig, ClientCertificateConfig, SniConfig, TlsConfig, TlsVersion, TrustConfig, UpstreamTlsVersion,
    VerifyConfig,
};
pub use upstream::{EndpointAddress, EndpointConfig, HostConfig, ProtocolConfig, UpstreamConfig};

/// The whole file, or all files of a folder joined.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The version of this format: 1.
    pub version: Version,
    /// What is read at start only.
    #[serde(default)]
    pub server: ServerConfig,
    /// Where the gateway tells about itself: metrics, and why attempts failed. Absent: nowhere.
    #[serde(default, deserialize_with = "scalar::given")]
    pub admin: Option<AdminConfig>,
    /// What brings a changed file in force, and how.
    #[serde(default)]
    pub reload: ReloadConfig,
    /// One line for each request.
    #[serde(default)]
    pub access_log: AccessLogConfig,
    /// Where clients connect, by name.
    #[serde(default)]
    pub listeners: BTreeMap<String, ListenerConfig>,
    /// Where requests go, by name.
    #[serde(default)]
    pub upstreams: BTreeMap<String, UpstreamConfig>,
    /// The chain that every route runs before its own.
    #[serde(default)]
    pub plugins: Vec<PluginConfig>,
    /// Which request goes where.
    #[serde(default)]
    pub routes: Vec<RouteConfig>,
}

/// The JSON Schema of the file, with the plugins of this registry.
pub fn schema(registry: &Registry) -> Schema {
    let mut generator = SchemaGenerator::default();
    let plugin = registry.schema(&mut generator);
    generator.definitions_mut().insert(plugin::SCHEMA_NAME.to_owned(), plugin.into());
    generator.into_root_schema_for::<Config>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_describes_the_built_in_plugins_by_their_own_keys() {
        let schema = schema(&Registry::builtin()).to_value();
        let plugins = schema["$defs"]["Plugin"]["oneOf"].as_array().unwrap();
        let names: Vec<&str> = plugins
            .iter()
            .flat_map(|plugin| plugin["properties"].as_object().unwrap().keys())
            .map(String::as_str)
            .collect();
        assert_eq!(
            names,
            [
                "api_key",
                "basic_auth",
                "body_limit",
                "client_certificate",
                "cors",
                "forward_auth",
                "headers",
                "ip_filter",
                "jwt",
                "kube_impersonate",
                "path_rewrite",
                "rate_limit",
                "request_id",
                "retry",
            ]
        );
        let text = schema.to_string();
        assert!(["strip_prefix", "retry_on", "trust_headers"].iter().all(|key| text.contains(key)), "{text}");
    }
}
