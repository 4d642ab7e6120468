//! `upstreams:`: where requests go.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::listener::KeepaliveConfig;
use super::scalar::{self, OneOrMany, TextOrMap};
use super::tls::TlsConfig;

/// A set of endpoints that answer alike, and how they are reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// At least one.
    #[serde(deserialize_with = "scalar::one_or_more")]
    #[schemars(with = "OneOrMany<EndpointConfig>")]
    pub endpoints: Vec<EndpointConfig>,
    /// Absent: plain HTTP.
    #[serde(default, deserialize_with = "scalar::given")]
    pub tls: Option<TlsConfig>,
    /// What is spoken to the endpoints. Default `http/1.1`.
    #[serde(default)]
    pub protocol: ProtocolConfig,
    /// The Host that is sent. Default `preserve`.
    #[serde(default)]
    pub host: HostConfig,
    /// TCP connect, and then the TLS handshake, may each take so long. Default 5s.
    #[serde(default = "five_seconds", deserialize_with = "scalar::duration")]
    #[schemars(with = "scalar::DurationText")]
    pub connect_timeout: Duration,
    /// Idle connections kept for reuse. Default: an idle_timeout of 50s.
    // Below the 60 seconds after which most servers close: theirs would race with our next request.
    #[serde(default = "fifty_seconds_idle")]
    pub keepalive: KeepaliveConfig,
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn fifty_seconds_idle() -> KeepaliveConfig {
    KeepaliveConfig { idle_timeout: Duration::from_secs(50) }
}

/// `host:port`, `ip:port` or `unix:/path`, or `{ address: …, weight: 3 }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Where it is.
    pub address: EndpointAddress,
    /// Its share of the upstream's requests: 1 to 1000; default 1.
    pub weight: u32,
}

/// The map form of an endpoint.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EndpointMap {
    /// `host:port`, `ip:port` or `unix:/path`.
    address: EndpointAddress,
    /// Its share of the upstream's requests: 1 to 1000. Default 1.
    #[serde(default = "one", deserialize_with = "weight")]
    #[schemars(range(min = 1, max = 1000))]
    weight: u32,
}

fn one() -> u32 {
    1
}

fn weight<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    scalar::whole_number(from, 1, 1000)
}

impl TextOrMap for EndpointConfig {
    type Map = EndpointMap;
    const EXPECTED: &'static str =
        "`host:port`, `ip:port` or `unix:/path`, or a map of `address` and `weight`";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self { address: text.parse()?, weight: 1 })
    }

    fn from_map(map: EndpointMap) -> Result<Self, String> {
        Ok(Self { address: map.address, weight: map.weight })
    }
}

impl<'de> Deserialize<'de> for EndpointConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::text_or_map(from)
    }
}

impl JsonSchema for EndpointConfig {
    fn schema_name() -> Cow<'static, str> {
        "EndpointConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`host:port`, `ip:port` or `unix:/path`, or a map of `address` and `weight`.",
            "anyOf": [generator.subschema_for::<EndpointAddress>(), generator.subschema_for::<EndpointMap>()]
        })
    }
}

/// Where an endpoint is; `Display` spells it as the file does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointAddress {
    /// `10.0.0.1:80` or `[::1]:80`.
    Ip(SocketAddr),
    /// `app.example:80`, resolved off the request's way.
    Name {
        /// The DNS name.
        host: String,
        /// The port, never 0.
        port: u16,
    },
    /// `unix:/run/app.sock`.
    Unix(PathBuf),
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for EndpointAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |what: &str| Err(format!("an endpoint is `host:port`, `ip:port` or `unix:/path`, {what}"));
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => wrong(&format!("got `{text}`\nhint: the path of a socket begins with `/`")),
            };
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            // A URL may hold a password in front of an `@`, and a token behind its path.
            let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
            let host = authority.rsplit('@').next().unwrap_or(authority);
            let port = match (is_host_name(host), scheme) {
                (true, "https") => ":443",
                (true, _) => ":80",
                (false, _) => "",
            };
            let tls = if scheme == "https" { ", and give the upstream a `tls` block" } else { "" };
            return wrong(&format!("got a URL\nhint: write `{host}{port}`{tls}"));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => wrong(&format!("got `{text}`\nhint: a port is a number from 1 to 65535")),
                _ => Ok(Self::Ip(address)),
            };
        }
        if let Ok(ip) = text.parse::<std::net::Ipv6Addr>() {
            return wrong(&format!("got `{text}`\nhint: an IPv6 address stands in brackets: `[{ip}]:443`"));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return wrong(&format!(
                "got `{text}`, which has no port\nhint: write `{text}:443`, or whichever port it is"
            ));
        };
        if !is_host_name(host) {
            return wrong(&format!("got `{text}`\nhint: `{host}` is neither a DNS name nor an IP address"));
        }
        match port.parse() {
            Ok(port) if port > 0 => Ok(Self::Name { host: host.to_owned(), port }),
            _ => wrong(&format!("got `{text}`\nhint: a port is a number from 1 to 65535")),
        }
    }
}

/// Letters, digits, `-` and `_` between single dots: what resolvers accept, which is more than RFC 1123
/// allows.
fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // Four numbers that did not parse as an address are a mistyped address, not a name.
    let is_numeric = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    host.len() <= 253 && !is_numeric && host.strip_suffix('.').unwrap_or(host).split('.').all(is_label)
}

impl<'de> Deserialize<'de> for EndpointAddress {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::text(from, "`host:port`, `ip:port` or `unix:/path`", str::parse)
    }
}

impl JsonSchema for EndpointAddress {
    fn schema_name() -> Cow<'static, str> {
        "EndpointAddress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`host:port`, `ip:port` or `unix:/path`.",
            "type": "string",
            "examples": ["app.example:443", "10.0.0.1:80", "unix:/run/app.sock"]
        })
    }
}

/// What is spoken to an upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProtocolConfig {
    /// `http/1.1`, with or without TLS.
    #[default]
    Http1,
    /// `h2`: HTTP/2 over TLS.
    H2,
    /// `h2c`: HTTP/2 without TLS, known beforehand.
    H2c,
    /// `auto`: HTTP/2 or HTTP/1.1 over TLS, as ALPN chooses.
    Auto,
}

impl ProtocolConfig {
    const ALLOWED: &str = "`http/1.1`, `h2`, `h2c` or `auto`";
}

impl<'de> Deserialize<'de> for ProtocolConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::text(from, Self::ALLOWED, |text| match text {
            "http/1.1" => Ok(Self::Http1),
            "h2" => Ok(Self::H2),
            "h2c" => Ok(Self::H2c),
            "auto" => Ok(Self::Auto),
            _ => {
                let hint = match text.to_ascii_lowercase().trim_start_matches("http").trim_start_matches('/')
                {
                    "" | "1" | "1.1" => "\nhint: write `http/1.1`",
                    "2" | "2.0" | "grpc" | "h2" => "\nhint: write `h2` with TLS, `h2c` without",
                    _ => "",
                };
                Err(format!("a protocol is {}, got `{text}`{hint}", Self::ALLOWED))
            }
        })
    }
}

impl JsonSchema for ProtocolConfig {
    fn schema_name() -> Cow<'static, str> {
        "ProtocolConfig".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`http/1.1`; `h2`, HTTP/2 over TLS; `h2c`, HTTP/2 without; `auto`, as ALPN chooses.",
            "enum": ["http/1.1", "h2", "h2c", "auto"]
        })
    }
}

/// The Host that is sent upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum HostConfig {
    /// The client's.
    #[default]
    Preserve,
    /// The endpoint's own name.
    Endpoint,
    /// A literal or a template.
    Template(String),
}

impl<'de> Deserialize<'de> for HostConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::text(from, "`preserve`, `endpoint`, a name or a template", |text| match text {
            "" => Err("the host is empty\nhint: write `preserve` to send the client's".into()),
            "preserve" => Ok(Self::Preserve),
            "endpoint" => Ok(Self::Endpoint),
            template => Ok(Self::Template(template.to_owned())),
        })
    }
}

impl JsonSchema for HostConfig {
    fn schema_name() -> Cow<'static, str> {
        "HostConfig".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`preserve` the client's, the `endpoint`'s own name, or a name or a template.",
            "type": "string",
            "examples": ["preserve", "endpoint"]
        })
    }
}
