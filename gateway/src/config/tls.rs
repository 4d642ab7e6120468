//! `tls:` of an upstream or a route: which name is asked for, what is verified, what is shown.

use std::borrow::Cow;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::listener::KeyPairConfig;
use super::scalar::{self, TextOrMap, TextOrNumber};

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
    On {
        /// Whose signature counts; the system's roots where absent.
        ca: Option<CaConfig>,
        /// DNS names or IP addresses; any one of them satisfies. From `name` or `names`. Never empty when
        /// `Some`.
        names: Option<Vec<String>>,
    },
}

/// Whose signature counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaConfig {
    /// The roots of this system.
    System,
    /// A PEM file.
    File(PathBuf),
}

/// The map form of what is verified.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct VerifyMap {
    /// A PEM file, or `system`. Default `system`.
    #[serde(deserialize_with = "scalar::given")]
    ca: Option<CaConfig>,
    /// Verified instead of the SNI.
    #[serde(deserialize_with = "scalar::given")]
    name: Option<String>,
    /// Verified instead of the SNI: any one of them satisfies.
    #[serde(deserialize_with = "names")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    names: Option<Vec<String>>,
}

fn names<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    scalar::at_least_one(from).map(Some)
}

const VERIFICATION_IS_ON: &str =
    "verification is on by default: leave the key out, or write `{}` to override an `off`";

impl TextOrMap for VerifyConfig {
    type Map = VerifyMap;
    const EXPECTED: &'static str = "`off`, or a map of `ca`, `name`, `names`";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "on" => {
                Err(format!("expected {}, got the text `on`\nhint: {VERIFICATION_IS_ON}", Self::EXPECTED))
            }
            other => Err(scalar::unexpected_text(Self::EXPECTED, other)),
        }
    }

    fn from_map(map: VerifyMap) -> Result<Self, String> {
        let names = match (map.name, map.names) {
            (Some(_), Some(_)) => {
                return Err("`name` and `names` exclude each other\nhint: put every name into `names`".into());
            }
            (Some(name), None) => Some(vec![name]),
            (None, names) => names,
        };
        Ok(Self::On { ca: map.ca, names })
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
            "description": "`off`, or a map of `ca`, `name`, `names`.",
            "anyOf": [{ "enum": ["off", false] }, generator.subschema_for::<VerifyMap>()]
        })
    }
}

impl<'de> Deserialize<'de> for CaConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::text(from, "the path of a PEM file, or `system`", |text| match text {
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
            "description": "The path of a PEM file, or `system`.",
            "type": "string",
            "examples": ["system"]
        })
    }
}

/// `none`, or `{ cert, key }`: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificateConfig {
    /// None is shown.
    None,
    /// The chain and its key.
    Files {
        /// The certificate, and behind it those that lead to its root.
        cert: PathBuf,
        /// The certificate's private key.
        key: PathBuf,
    },
}

impl TextOrMap for ClientCertificateConfig {
    type Map = KeyPairConfig;
    const EXPECTED: &'static str = "`none`, or a map of `cert` and `key`";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            other => Err(scalar::unexpected_text(Self::EXPECTED, other)),
        }
    }

    fn from_map(pair: KeyPairConfig) -> Result<Self, String> {
        Ok(Self::Files { cert: pair.cert, key: pair.key })
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
            "description": "`none`, or a map of `cert` and `key`.",
            "anyOf": [{ "const": "none" }, generator.subschema_for::<KeyPairConfig>()]
        })
    }
}

/// A version of TLS: `1.2` or `1.3`, in quotes or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
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
