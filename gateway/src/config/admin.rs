//! `admin:`: where the gateway tells about itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::scalar;

/// Metrics, and why attempts failed, over plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// `ip:port`. Any address but a loopback one needs a `token_file`. Default 127.0.0.1:9901.
    #[serde(deserialize_with = "scalar::address")]
    #[schemars(with = "String")]
    pub address: SocketAddr,
    /// File that holds the token which a client has to show: `Authorization: Bearer TOKEN`. Default none.
    #[serde(deserialize_with = "scalar::given")]
    pub token_file: Option<PathBuf>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 9901)), token_file: None }
    }
}
