//! `tls:` of an upstream or a route: which name is asked for, what is verified, what is shown.

use std::borrow::Cow;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::listener::KeyPairConfig;
use super::scalar::{self, OneOrMany, TextOrMap, TextOrNumber};

/// Each key absent means "as the upstream has it", or the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// The name that is asked for: a template, or `none` to send none. Default: the Host that is sent.
    #[serde(deserialize_with = "scalar::given")]
    pub sni: Option<SniConfig>,
    /// What is verified. Default: on, with the system's roots, and the name is the SNI.
    #[serde(deserialize_with = "scalar::given")]
    pub verify: Option<VerifyConfig>,
    /// Shown to the upstream; `none` drops the upstream's for one route.
    #[serde(deserialize_with = "scalar::given")]
    pub client_certificate: Option<ClientCertificateConfig>,
    /// The lowest version offered. Default 1.2.
    #[serde(deserialize_with = "scalar::given")]
    pub min_version: Option<UpstreamTlsVersion>,
    /// The highest version offered. Default 1.3.
    #[serde(deserialize_with = "scalar::given")]
    pub max_version: Option<UpstreamTlsVersion>,
    /// OpenSSL's names of ciphers, in order of preference. Those that begin with `TLS_` are for TLS 1.3, the others
    /// for the versions before; the kind that is not named keeps its default.
    #[serde(deserialize_with = "scalar::given")]
    pub ciphers: Option<OneOrMany<String>>,
    /// OpenSSL's names of key exchange groups, in order of preference, such as `X25519` and `P-256`.
    #[serde(deserialize_with = "scalar::given")]
    pub curves: Option<OneOrMany<String>>,
    /// Whether sessions are kept and resumed. Default true.
    #[serde(deserialize_with = "scalar::given")]
    pub session_reuse: Option<bool>,
    /// A file that the secrets of each connection are appended to, for Wireshark: whoever reads it reads the traffic.
    #[serde(deserialize_with = "scalar::given")]
    pub key_log: Option<PathBuf>,
}

/// `none`, or a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SniConfig {
    /// No name is sent.
    None,
    /// A name, or a template of one.
    Template(String),
}

impl<'de> Deserialize<'de> for SniConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::text(from, "a name, a template such as `$host`, or `none`", |text| match text {
            "" => Err("the SNI is empty\nhint: write `none` to send none".into()),
            "none" => Ok(Self::None),
            template => Ok(Self::Template(template.to_owned())),
        })
    }
}

impl JsonSchema for SniConfig {
    fn schema_name() -> Cow<'static, str> {
        "SniConfig".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "A name, a template of one, or `none` to send none.", "type": "string" })
    }
}

/// `off` (or false), or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyConfig {
    /// Any certificate will do.
    Off,
    /// The chain and the name are verified.
    On(Box<TrustConfig>),
}

/// Whose signature counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaConfig {
    /// The roots of this system.
    System,
    /// A PEM file, or a folder of them.
    File(PathBuf),
}

/// The map form of what is verified. Each key absent means "as the upstream has it", or the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrustConfig {
    /// A PEM file, a folder of them, or `system`. Default `system`.
    #[serde(deserialize_with = "scalar::given")]
    pub ca: Option<CaConfig>,
    /// Verified instead of the SNI: a DNS name, an IP address or a URI.
    #[serde(deserialize_with = "scalar::given")]
    pub name: Option<String>,
    /// Verified instead of the SNI: any one of them satisfies.
    #[serde(deserialize_with = "names")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub names: Option<Vec<String>>,
    /// PEM file of revocation lists: one for each CA of the chain.
    #[serde(deserialize_with = "scalar::given")]
    pub crl: Option<PathBuf>,
    /// How many CAs may stand between the certificate and the trusted one. Default: any number.
    #[serde(deserialize_with = "depth")]
    #[schemars(with = "u32", range(min = 0, max = 100))]
    pub depth: Option<u32>,
    /// `sha256/` and the base64 SHA-256 of a public key (RFC 7469 section 2.4): the certificate's has to be one of
    /// them, besides everything else.
    #[serde(deserialize_with = "pins")]
    #[schemars(with = "OneOrMany<String>")]
    pub pins: Option<Vec<String>>,
    /// Whether a certificate without alternative names is matched by its common name. Default false.
    #[serde(deserialize_with = "scalar::given")]
    pub allow_common_name: Option<bool>,
}

fn names<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    scalar::at_least_one(from).map(Some)
}

fn pins<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    scalar::one_or_more(from).map(Some)
}

pub(super) fn depth<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    scalar::whole_number(from, 0, 100).map(Some)
}

const VERIFICATION_IS_ON: &str =
    "verification is on by default: leave the key out, or write `{}` to override an `off`";

impl TextOrMap for VerifyConfig {
    type Map = TrustConfig;
    const EXPECTED: &'static str =
        "`off`, or a map of `ca`, `name`, `names`, `crl`, `depth`, `pins`, `allow_common_name`";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "on" => {
                Err(format!("expected {}, got the text `on`\nhint: {VERIFICATION_IS_ON}", Self::EXPECTED))
            }
            other => Err(scalar::unexpected_text(Self::EXPECTED, other)),
        }
    }

    fn from_map(map: TrustConfig) -> Result<Self, String> {
        if map.name.is_some() && map.names.is_some() {
            return Err("`name` and `names` exclude each other\nhint: put every name into `names`".into());
        }
        Ok(Self::On(Box::new(map)))
    }

    // A tool that speaks YAML 1.1 writes `off` as `false`.
    fn from_bool(value: bool) -> Option<Result<Self, String>> {
        Some(match value {
            false => Ok(Self::Off),
            true => Err(format!("expected {}, got `true`\nhint: {VERIFICATION_IS_ON}", Self::EXPECTED)),
        })
    }
}

impl<'de> Deserialize<'de> for VerifyConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::text_or_map(from)
    }
}

impl JsonSchema for VerifyConfig {
    fn schema_name() -> Cow<'static, str> {
        "VerifyConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`off`, or a map of what is verified.",
            "anyOf": [{ "enum": ["off", false] }, generator.subschema_for::<TrustConfig>()]
        })
    }
}

impl<'de> Deserialize<'de> for CaConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::text(from, "the path of a PEM file or of a folder of them, or `system`", |text| match text {
            "" => Err("the CA's path is empty\nhint: write `system` for the roots of this system".into()),
            "system" => Ok(Self::System),
            file => Ok(Self::File(file.into())),
        })
    }
}

impl JsonSchema for CaConfig {
    fn schema_name() -> Cow<'static, str> {
        "CaConfig".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The path of a PEM file or of a folder of them, or `system`.",
            "type": "string",
            "examples": ["system"]
        })
    }
}

/// `none`, or `{ cert, key, password_file }`: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificateConfig {
    /// None is shown.
    None,
    /// The chain and its key.
    Files(KeyPairConfig),
}

impl TextOrMap for ClientCertificateConfig {
    type Map = KeyPairConfig;
    const EXPECTED: &'static str = "`none`, or a map of `cert`, `key` and `password_file`";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            other => Err(scalar::unexpected_text(Self::EXPECTED, other)),
        }
    }

    fn from_map(pair: KeyPairConfig) -> Result<Self, String> {
        Ok(Self::Files(pair))
    }
}

impl<'de> Deserialize<'de> for ClientCertificateConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::text_or_map(from)
    }
}

impl JsonSchema for ClientCertificateConfig {
    fn schema_name() -> Cow<'static, str> {
        "ClientCertificateConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`none`, or a map of `cert`, `key` and `password_file`.",
            "anyOf": [{ "const": "none" }, generator.subschema_for::<KeyPairConfig>()]
        })
    }
}

/// A version of TLS towards clients: `1.2` or `1.3`, in quotes or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl TextOrNumber for TlsVersion {
    const EXPECTED: &'static str = "`1.2` or `1.3`";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "1.2" => Some(Self::Tls12),
            "1.3" => Some(Self::Tls13),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for TlsVersion {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::text_or_number(from)
    }
}

impl JsonSchema for TlsVersion {
    fn schema_name() -> Cow<'static, str> {
        "TlsVersion".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "A version of TLS.", "enum": ["1.2", "1.3", 1.2, 1.3] })
    }
}

/// A version of TLS towards an upstream: `1.0` to `1.3`, in quotes or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UpstreamTlsVersion {
    /// RFC 2246.
    Tls10,
    /// RFC 4346.
    Tls11,
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl TextOrNumber for UpstreamTlsVersion {
    const EXPECTED: &'static str = "`1.0`, `1.1`, `1.2` or `1.3`";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            // YAML makes the number 1 of an unquoted 1.0.
            "1.0" | "1" => Some(Self::Tls10),
            "1.1" => Some(Self::Tls11),
            "1.2" => Some(Self::Tls12),
            "1.3" => Some(Self::Tls13),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for UpstreamTlsVersion {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::text_or_number(from)
    }
}

impl JsonSchema for UpstreamTlsVersion {
    fn schema_name() -> Cow<'static, str> {
        "UpstreamTlsVersion".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A version of TLS.",
            "enum": ["1.0", "1.1", "1.2", "1.3", 1.0, 1.1, 1.2, 1.3]
        })
    }
}
