//! `routes:`: which request goes where.
//!
//! Only the shape is checked here: what excludes what, and which names exist, is for `snapshot::compile`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::plugin::PluginConfig;
use super::scalar::{self, OneOrMany, Status, TextOrMap};
use super::tls::TlsConfig;

/// One route. Exactly one of `upstream`, `split`, `redirect`, `respond`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteConfig {
    /// Unique. Default: `routes[N]`.
    #[serde(deserialize_with = "scalar::given")]
    pub name: Option<String>,
    /// Absent or empty, it matches every request.
    pub r#match: MatchConfig,
    /// The name of the upstream that requests go to.
    #[serde(deserialize_with = "scalar::given")]
    pub upstream: Option<String>,
    /// Several upstreams, each with its share.
    #[serde(deserialize_with = "scalar::given")]
    pub split: Option<Vec<SplitConfig>>,
    /// The client is sent elsewhere.
    #[serde(deserialize_with = "scalar::given")]
    pub redirect: Option<RedirectConfig>,
    /// The gateway answers by itself.
    #[serde(deserialize_with = "scalar::given")]
    pub respond: Option<RespondConfig>,
    /// Overrides its upstream's, key by key.
    #[serde(deserialize_with = "scalar::given")]
    pub tls: Option<TlsConfig>,
    /// How long what may take.
    pub timeouts: TimeoutsConfig,
    /// Identity and forwarding headers of the client that this route lets through: names, or `prefix-*`.
    #[serde(deserialize_with = "scalar::one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub trust_headers: Vec<String>,
    /// Protocols that a client may change to, as its `Upgrade` names them; in any case of letters. Default `websocket`;
    /// `[]` for none.
    #[serde(deserialize_with = "upgrades")]
    #[schemars(with = "OneOrMany<String>")]
    pub upgrades: Option<Vec<String>>,
    /// The route's own chain, behind the one that every route runs.
    pub plugins: Vec<PluginConfig>,
}

/// Every field given must match; within a list, any one. Lists take one value or a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MatchConfig {
    /// Exact, or `*.suffix`: any number of labels, not the suffix itself. The port is ignored.
    #[serde(deserialize_with = "scalar::one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub hosts: Vec<String>,
    /// A prefix, or one of `exact`, `regex`, `prefix`.
    #[serde(deserialize_with = "scalar::one_or_many")]
    #[schemars(with = "OneOrMany<PathConfig>")]
    pub paths: Vec<PathConfig>,
    /// Such as GET.
    #[serde(deserialize_with = "scalar::one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub methods: Vec<String>,
    /// Header fields by name.
    pub headers: BTreeMap<String, TextMatchConfig>,
    /// Query parameters by name.
    pub query: BTreeMap<String, TextMatchConfig>,
    /// The names of the listeners that the request may have come by.
    #[serde(deserialize_with = "scalar::one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub listeners: Vec<String>,
}

/// What a path is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathConfig {
    /// Element by element: `/api` matches `/api` and `/api/v1`, never `/apix`.
    Prefix(String),
    /// The whole path.
    Exact(String),
    /// A regular expression over the path.
    Regex(String),
}

/// The map form of a path.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PathMap {
    /// Element by element.
    #[serde(deserialize_with = "scalar::given")]
    prefix: Option<String>,
    /// The whole path.
    #[serde(deserialize_with = "scalar::given")]
    exact: Option<String>,
    /// A regular expression over the path.
    #[serde(deserialize_with = "scalar::given")]
    regex: Option<String>,
}

impl TextOrMap for PathConfig {
    type Map = PathMap;
    const EXPECTED: &'static str = "a path such as `/api`, or a map of one of `exact`, `prefix`, `regex`";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self::Prefix(text.to_owned()))
    }

    fn from_map(map: PathMap) -> Result<Self, String> {
        match (map.prefix, map.exact, map.regex) {
            (Some(prefix), None, None) => Ok(Self::Prefix(prefix)),
            (None, Some(exact), None) => Ok(Self::Exact(exact)),
            (None, None, Some(regex)) => Ok(Self::Regex(regex)),
            _ => Err("a path takes exactly one of `exact`, `prefix`, `regex`\n\
                      hint: write one list item for each path"
                .into()),
        }
    }
}

impl<'de> Deserialize<'de> for PathConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::text_or_map(from)
    }
}

impl JsonSchema for PathConfig {
    fn schema_name() -> Cow<'static, str> {
        "PathConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`/api` is a prefix; or a map of one of `exact`, `prefix`, `regex`.",
            "anyOf": [{ "type": "string" }, generator.subschema_for::<PathMap>()]
        })
    }
}

/// What the value of a header field or a query parameter is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TextMatchConfig {
    /// The whole value.
    Exact(String),
    /// A regular expression over the value.
    Regex(String),
    /// Whether there is one at all.
    Present(bool),
}

/// The map form of a text to compare with.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TextMatchMap {
    /// The whole value.
    #[serde(deserialize_with = "scalar::given")]
    exact: Option<String>,
    /// A regular expression over the value.
    #[serde(deserialize_with = "scalar::given")]
    regex: Option<String>,
    /// Whether there is one at all.
    #[serde(deserialize_with = "scalar::given")]
    present: Option<bool>,
}

impl TextOrMap for TextMatchConfig {
    type Map = TextMatchMap;
    const EXPECTED: &'static str = "a text, or a map of one of `exact`, `regex`, `present`";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self::Exact(text.to_owned()))
    }

    fn from_map(map: TextMatchMap) -> Result<Self, String> {
        match (map.exact, map.regex, map.present) {
            (Some(exact), None, None) => Ok(Self::Exact(exact)),
            (None, Some(regex), None) => Ok(Self::Regex(regex)),
            (None, None, Some(present)) => Ok(Self::Present(present)),
            _ => Err("expected exactly one of `exact`, `regex`, `present`".into()),
        }
    }

    // `query: { version: 2, debug: true }` means what it looks like.
    fn from_bool(value: bool) -> Option<Result<Self, String>> {
        Some(Ok(Self::Exact(value.to_string())))
    }

    fn from_integer(value: i128) -> Option<Result<Self, String>> {
        Some(Ok(Self::Exact(value.to_string())))
    }

    // YAML has dropped the zero of `1.10` by now, so a fraction cannot be taken as its text.
    fn from_fraction(_: f64) -> Option<Result<Self, String>> {
        Some(Err("a number with a fraction is not compared as it is spelt: `1.10` would be `1.1`\n\
                  hint: put it in quotes"
            .into()))
    }
}

impl<'de> Deserialize<'de> for TextMatchConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::text_or_map(from)
    }
}

impl JsonSchema for TextMatchConfig {
    fn schema_name() -> Cow<'static, str> {
        "TextMatchConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text is exact; or a map of one of `exact`, `regex`, `present`.",
            "anyOf": [{ "type": ["string", "integer", "boolean"] }, generator.subschema_for::<TextMatchMap>()]
        })
    }
}

/// One upstream's share of a route.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// The upstream's name.
    pub upstream: String,
    /// Its share of the sum of all weights: 0 to 1000000. Default 1.
    #[serde(default = "one", deserialize_with = "share")]
    #[schemars(range(max = 1_000_000))]
    pub weight: u32,
}

fn upgrades<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    scalar::one_or_many(from).map(Some)
}

fn one() -> u32 {
    1
}

fn share<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    scalar::whole_number(from, 0, 1_000_000)
}

/// Where the client is sent; what is absent stays as it was asked for. `path` and `replace_prefix` exclude
/// each other.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedirectConfig {
    /// `http` or `https`.
    #[serde(deserialize_with = "scalar::given")]
    pub scheme: Option<String>,
    /// The host name.
    #[serde(deserialize_with = "scalar::given")]
    pub host: Option<String>,
    /// The port.
    #[serde(deserialize_with = "scalar::given")]
    pub port: Option<u16>,
    /// The whole path.
    #[serde(deserialize_with = "scalar::given")]
    pub path: Option<String>,
    /// What stands instead of the prefix that the route matched by.
    #[serde(deserialize_with = "scalar::given")]
    pub replace_prefix: Option<String>,
    /// 301, 302, 303, 307 or 308. Default 302.
    pub status: Status,
}

impl Default for RedirectConfig {
    fn default() -> Self {
        Self { scheme: None, host: None, port: None, path: None, replace_prefix: None, status: Status::FOUND }
    }
}

/// What the gateway answers. `body` and `file` exclude each other.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RespondConfig {
    /// Default 200.
    pub status: Status,
    /// The body.
    #[serde(deserialize_with = "scalar::given")]
    pub body: Option<String>,
    /// A file with the body, read at load.
    #[serde(deserialize_with = "scalar::given")]
    pub file: Option<PathBuf>,
    /// The Content-Type.
    #[serde(deserialize_with = "scalar::given")]
    pub content_type: Option<String>,
}

impl Default for RespondConfig {
    fn default() -> Self {
        Self { status: Status::OK, body: None, file: None, content_type: None }
    }
}

/// How long what may take; 0s is none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsConfig {
    /// Bounds everything, retries and backoff included. Default none.
    #[serde(deserialize_with = "scalar::duration")]
    #[schemars(with = "scalar::DurationText")]
    pub request: Duration,
    /// Bounds each try. Default none.
    #[serde(deserialize_with = "scalar::duration")]
    #[schemars(with = "scalar::DurationText")]
    pub attempt: Duration,
    /// No byte from the upstream for so long. Default 60s.
    #[serde(deserialize_with = "scalar::duration")]
    #[schemars(with = "scalar::DurationText")]
    pub idle: Duration,
}

impl Default for TimeoutsConfig {
    fn default() -> Self {
        Self { request: Duration::ZERO, attempt: Duration::ZERO, idle: Duration::from_secs(60) }
    }
}
