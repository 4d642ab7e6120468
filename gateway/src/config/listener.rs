//! `listeners:`: where clients connect.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::limits::LimitsConfig;
use super::paths::PathsConfig;
use super::scalar::{self, TextOrMap, Word};
use super::tls::TlsVersion;

/// One address, and what is spoken on it: HTTP, HTTP over TLS, or bytes passed through.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// `ip:port`; `0.0.0.0` or `[::]` for every interface.
    #[serde(deserialize_with = "scalar::address")]
    #[schemars(with = "String")]
    pub address: SocketAddr,
    /// TLS towards clients. HTTP/2 is offered by ALPN.
    #[serde(default, deserialize_with = "scalar::given")]
    pub tls: Option<DownstreamTlsConfig>,
    /// Layer 4: bytes pass through untouched, and routes do not apply. With `tls`, only those of the names in `by_sni`.
    #[serde(default, deserialize_with = "scalar::given")]
    pub tcp: Option<TcpConfig>,
    /// Connections come by a proxy that tells whose they are, by the PROXY protocol version 1 or 2. Default false.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocolConfig,
    /// Datagrams pass through untouched. Excludes `tls` and `tcp`, and routes do not apply.
    #[serde(default, deserialize_with = "scalar::given")]
    pub udp: Option<UdpConfig>,
    /// Connections open at once; one more waits in the kernel's queue. Default 10000.
    #[serde(default = "ten_thousand", deserialize_with = "scalar::from_one")]
    #[schemars(range(min = 1))]
    pub max_connections: usize,
    /// The same of one client, by its address; one more is closed at once. Default: `max_connections`, since those behind
    /// one proxy have one address.
    #[serde(default, deserialize_with = "scalar::given")]
    pub max_connections_per_client: Option<NonZeroUsize>,
    /// What one client may ask. Each limit is finite by default.
    #[serde(default, deserialize_with = "scalar::given")]
    pub limits: Option<LimitsConfig>,
    /// What becomes of paths that can be read in more than one way.
    #[serde(default, deserialize_with = "scalar::given")]
    pub paths: Option<PathsConfig>,
    /// How long a client may stay idle. Default 60s.
    #[serde(default = "a_minute_idle")]
    pub keepalive: KeepaliveConfig,
}

fn ten_thousand() -> usize {
    10_000
}

fn a_minute_idle() -> KeepaliveConfig {
    KeepaliveConfig { idle_timeout: Duration::from_secs(60) }
}

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DownstreamTlsConfig {
    /// Chosen by SNI from each certificate's own names; the first is the default. At least one.
    #[serde(deserialize_with = "scalar::at_least_one")]
    #[schemars(length(min = 1))]
    pub certificates: Vec<KeyPairConfig>,
    /// Clients show a certificate.
    #[serde(default, deserialize_with = "scalar::given")]
    pub client_certificate: Option<DownstreamClientCertificateConfig>,
    /// What differs for clients that ask for certain names: exact ones, or `*.suffix` for every name below it. An exact
    /// name comes before a suffix, a longer suffix before a shorter one.
    #[serde(default)]
    pub by_sni: BTreeMap<String, SniPolicyConfig>,
    /// The lowest version accepted. Default 1.2.
    #[serde(default)]
    pub min_version: TlsVersion,
}

/// What differs for clients that ask for a name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SniPolicyConfig {
    /// In the listener's stead: which certificates these clients show, or `none` that they need not.
    pub client_certificate: SniClientCertificateConfig,
}

/// `none`, or which client certificates are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SniClientCertificateConfig {
    /// None is asked for.
    None,
    /// These.
    Asked(DownstreamClientCertificateConfig),
}

impl TextOrMap for SniClientCertificateConfig {
    type Map = DownstreamClientCertificateConfig;
    const EXPECTED: &'static str = "`none`, or a map of `ca`, `require`, `crl` and `depth`";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            other => Err(scalar::unexpected_text(Self::EXPECTED, other)),
        }
    }

    fn from_map(map: DownstreamClientCertificateConfig) -> Result<Self, String> {
        Ok(Self::Asked(map))
    }
}

impl<'de> Deserialize<'de> for SniClientCertificateConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::text_or_map(from)
    }
}

impl JsonSchema for SniClientCertificateConfig {
    fn schema_name() -> Cow<'static, str> {
        "SniClientCertificateConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`none`, or a map of `ca`, `require`, `crl` and `depth`.",
            "anyOf": [{ "const": "none" }, generator.subschema_for::<DownstreamClientCertificateConfig>()]
        })
    }
}

/// A certificate chain and its key, PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyPairConfig {
    /// The certificate, and behind it those that lead to its root.
    pub cert: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The file whose first line opens the key, where that is encrypted.
    #[serde(default, deserialize_with = "scalar::given")]
    pub password_file: Option<PathBuf>,
}

/// Which client certificates are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DownstreamClientCertificateConfig {
    /// PEM file of the CAs that may have signed it.
    pub ca: PathBuf,
    /// Whether a client without one is refused. Default true.
    #[serde(default = "yes")]
    pub require: bool,
    /// PEM file of revocation lists: one for each CA of the chain.
    #[serde(default, deserialize_with = "scalar::given")]
    pub crl: Option<PathBuf>,
    /// How many CAs may stand between the certificate and the trusted one. Default: any number.
    #[serde(default, deserialize_with = "super::tls::depth")]
    #[schemars(with = "u32", range(min = 0, max = 100))]
    pub depth: Option<u32>,
}

impl DownstreamTlsConfig {
    /// Which client certificates are accepted anywhere: the listener's own, and then those by name, with the names.
    pub fn client_certificates(
        &self,
    ) -> impl Iterator<Item = (Option<&str>, &DownstreamClientCertificateConfig)> {
        let by_name = self.by_sni.iter().filter_map(|(name, entry)| match &entry.client_certificate {
            SniClientCertificateConfig::None => None,
            SniClientCertificateConfig::Asked(clients) => Some((Some(name.as_str()), clients)),
        });
        self.client_certificate.iter().map(|clients| (None, clients)).chain(by_name)
    }
}

fn yes() -> bool {
    true
}

impl ListenerConfig {
    /// Whether routes apply to it.
    pub fn serves_http(&self) -> bool {
        self.tls.is_some() || (self.tcp.is_none() && self.udp.is_none())
    }
}

/// Whose word on the client's address is taken, by the PROXY protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ProxyProtocolConfig {
    /// `false`: nobody's.
    #[default]
    No,
    /// `true`: every connection begins with a header.
    Yes,
    /// Connections from these addresses do, and no others.
    From(ProxiesConfig),
}

/// The proxies whose word is taken.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxiesConfig {
    /// Addresses, or blocks of them such as `10.0.0.0/8`. From elsewhere, a header is refused.
    #[serde(deserialize_with = "scalar::one_or_more")]
    #[schemars(with = "scalar::OneOrMany<String>")]
    pub from: Vec<Block>,
}

/// A block of addresses: `10.0.0.0/8`, or one address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block(pub IpNet);

impl TextOrMap for ProxyProtocolConfig {
    type Map = ProxiesConfig;
    const EXPECTED: &'static str = "`true`, `false`, or `{ from: [CIDR] }`";

    fn from_text(text: &str) -> Result<Self, String> {
        Err(match text {
            "v1" | "v2" => format!(
                "{}\nhint: both versions are taken; the one that is sent to an upstream is `tcp: {{ proxy_protocol: {text} }}`",
                scalar::unexpected_text(Self::EXPECTED, text)
            ),
            _ => scalar::unexpected_text(Self::EXPECTED, text),
        })
    }

    fn from_map(map: ProxiesConfig) -> Result<Self, String> {
        Ok(Self::From(map))
    }

    fn from_bool(value: bool) -> Option<Result<Self, String>> {
        Some(Ok(if value { Self::Yes } else { Self::No }))
    }
}

impl<'de> Deserialize<'de> for ProxyProtocolConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::text_or_map(from)
    }
}

impl JsonSchema for ProxyProtocolConfig {
    fn schema_name() -> Cow<'static, str> {
        "ProxyProtocolConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Whether connections begin with a header of the PROXY protocol, or just those from these addresses.",
            "anyOf": [{ "type": "boolean" }, generator.subschema_for::<ProxiesConfig>()]
        })
    }
}

impl<'de> Deserialize<'de> for Block {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "a block of addresses such as `10.0.0.0/8`, or an address";
        scalar::text(from, EXPECTED, |text| {
            if let Ok(ip) = text.parse::<IpAddr>() {
                return Ok(Self(ip.into()));
            }
            let block: IpNet = text.parse().map_err(|_| scalar::unexpected_text(EXPECTED, text))?;
            match block.trunc() == block {
                true => Ok(Self(block)),
                false => Err(format!(
                    "`{text}` has bits behind its prefix\nhint: write `{}` for the block, or `{}` for the address",
                    block.trunc(),
                    block.addr()
                )),
            }
        })
    }
}

/// Bytes passed through to an upstream. At least one of `upstream` and `by_sni`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpConfig {
    /// The name of the upstream, where `by_sni` names no other. Its `tls` and `protocol` do not apply: nothing is
    /// decrypted.
    #[serde(default, deserialize_with = "scalar::given")]
    pub upstream: Option<String>,
    /// Upstreams by the name that the client asks for: `api.example`, or `*.example` for all below it. It is read off
    /// the ClientHello.
    #[serde(default)]
    pub by_sni: BTreeMap<String, String>,
    /// No byte either way for so long ends the connection. Default 10m; 0s is none.
    #[serde(default = "ten_minutes", deserialize_with = "scalar::duration")]
    #[schemars(with = "scalar::DurationText")]
    pub idle_timeout: Duration,
    /// Tells the upstream the client's address, by this version of the PROXY protocol. Default: not at all.
    #[serde(default, deserialize_with = "scalar::given")]
    pub proxy_protocol: Option<ProxyVersionConfig>,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyVersionConfig {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl Word for ProxyVersionConfig {
    const WORDS: &'static [(&'static str, Self)] = &[("v1", Self::V1), ("v2", Self::V2)];
}

impl<'de> Deserialize<'de> for ProxyVersionConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::word(from)
    }
}

/// Datagrams passed through to an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UdpConfig {
    /// The upstream's name. Its `tls` and `protocol` do not apply.
    pub upstream: String,
    /// No datagram either way for so long ends a client's session. Default 30s.
    #[serde(default = "half_a_minute", deserialize_with = "scalar::duration")]
    #[schemars(with = "scalar::DurationText")]
    pub idle_timeout: Duration,
    /// Sessions at once; what one more client sends is dropped. Default 10000.
    #[serde(default = "ten_thousand", deserialize_with = "scalar::from_one")]
    #[schemars(range(min = 1))]
    pub max_sessions: usize,
}

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

/// Idle connections.
// No default of its own: a listener and an upstream each have theirs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepaliveConfig {
    /// How long a connection without a request is kept; 0s closes it after its response.
    #[serde(deserialize_with = "scalar::duration")]
    #[schemars(with = "scalar::DurationText")]
    pub idle_timeout: Duration,
}
