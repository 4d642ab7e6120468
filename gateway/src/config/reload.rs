//! `reload:`: what brings a changed file in force, and how.
//!
//! A `StageConfig` is also what the admin endpoint takes as JSON and what the flags of `vestibule reload` say, so it is
//! written as it is read.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vestibule_plugins::Percent;

use super::scalar::{self, DurationText, OneOrMany};
use crate::reload::guard::Guard;
use crate::reload::stage::StageSettings;

/// What brings a changed file in force, and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReloadConfig {
    /// Whether a change of a file that the configuration came from or names reloads it. SIGHUP, the admin endpoint and
    /// `vestibule reload` do so anyway. Default true.
    pub watch: bool,
    /// Each reload shows the new configuration to a share of the clients first. Default: to all at once.
    #[serde(deserialize_with = "scalar::given")]
    pub stage: Option<StageConfig>,
}

impl Default for ReloadConfig {
    fn default() -> Self {
        Self { watch: true, stage: None }
    }
}

/// How a new configuration, the candidate, is tried beside the running one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StageConfig {
    /// How many of the clients, by their address, the candidate answers: 0.01% to 100%. Default 10%.
    #[serde(
        deserialize_with = "scalar::given",
        serialize_with = "spelt",
        skip_serializing_if = "Option::is_none"
    )]
    pub share: Option<Percent>,
    /// After this time it is promoted, if every guard holds: 1s to 24h. Default 60s.
    #[serde(
        deserialize_with = "scalar::given",
        serialize_with = "spelt",
        skip_serializing_if = "Option::is_none"
    )]
    pub r#for: Option<DurationText>,
    /// What must hold of it, or else it is rolled back: one or a list. Default `error_rate < 1%` and `p99 < 1.5x`.
    #[serde(deserialize_with = "guards", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<GuardConfig>")]
    pub guards: Option<Vec<GuardConfig>>,
    /// The header by which a tester's request chooses its side: its value is `candidate` or `running`. Whoever knows it
    /// may do so. Default none.
    #[serde(deserialize_with = "scalar::given", skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Requests that the candidate must have answered to be judged, and at the end to be promoted. Default 50.
    #[serde(deserialize_with = "scalar::given", skip_serializing_if = "Option::is_none")]
    pub min_requests: Option<u64>,
}

impl StageConfig {
    /// These keys, and those of `base` that are absent here.
    pub fn over(&self, base: &Self) -> Self {
        Self {
            share: self.share.or(base.share),
            r#for: self.r#for.or(base.r#for),
            guards: self.guards.clone().or_else(|| base.guards.clone()),
            header: self.header.clone().or_else(|| base.header.clone()),
            min_requests: self.min_requests.or(base.min_requests),
        }
    }
}

impl From<&StageSettings> for StageConfig {
    /// Every key as it would have to be typed.
    fn from(settings: &StageSettings) -> Self {
        Self {
            share: Some(settings.share),
            r#for: Some(DurationText(settings.lasts)),
            guards: Some(settings.guards.iter().copied().map(GuardConfig).collect()),
            header: settings.header.as_ref().map(|name| name.as_str().to_owned()),
            min_requests: Some(settings.min_requests),
        }
    }
}

/// A guard as it is typed: `p99 < 1.5x`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardConfig(pub Guard);

impl<'de> Deserialize<'de> for GuardConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar::text(from, Guard::EXPECTED, Guard::parse).map(Self)
    }
}

impl Serialize for GuardConfig {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl JsonSchema for GuardConfig {
    fn schema_name() -> Cow<'static, str> {
        "GuardConfig".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`error_rate`, `p50`, `p90`, `p95` or `p99`, then `<`, then a share such as `1%`, a duration \
                            such as `250ms`, or a multiple of the running side's figure such as `1.5x`.",
            "type": "string",
            "pattern": "^\\s*(error_rate|p50|p90|p95|p99)\\s*<",
            "examples": ["error_rate < 1%", "error_rate < 2x", "p99 < 250ms", "p99 < 1.5x"]
        })
    }
}

/// `[]` is no guard at all. `guards:` with nothing behind it is refused, so that guards are never lost by commenting
/// out what stood below.
fn guards<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<GuardConfig>>, D::Error> {
    match Option::<OneOrMany<GuardConfig>>::deserialize(from)? {
        Some(OneOrMany(guards)) => Ok(Some(guards)),
        None => Err(serde::de::Error::custom(format!(
            "expected {}, or a list of them, got nothing\nhint: write `[]` for no guard",
            Guard::EXPECTED
        ))),
    }
}

fn spelt<T: fmt::Display, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => to.collect_str(value),
        None => to.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(json: &Value) -> StageConfig {
        serde_json::from_value(json.clone()).unwrap()
    }

    #[test]
    fn a_stage_is_written_as_it_is_read() {
        for (given, written) in [
            (json!({}), json!({})),
            (json!({ "guards": [] }), json!({ "guards": [] })),
            (json!({ "guards": "p99<1.50x" }), json!({ "guards": ["p99 < 1.5x"] })),
            (
                json!({ "share": "0.01%", "for": "90s", "guards": ["error_rate < 2x", "p50<1s"],
                        "header": "X-Side", "min_requests": 0 }),
                json!({ "share": "0.01%", "for": "1m30s", "guards": ["error_rate < 2x", "p50 < 1s"],
                        "header": "X-Side", "min_requests": 0 }),
            ),
        ] {
            let config = config(&given);
            let told = serde_json::to_value(&config).unwrap();
            assert_eq!(told, written);
            let again: StageConfig = serde_json::from_value(told).unwrap();
            assert_eq!(again, config);
        }
    }

    #[test]
    fn a_key_that_says_nothing_or_is_unknown_is_refused_in_json_too() {
        for (key, value) in [
            ("share", Value::Null),
            ("share", 10.into()),
            ("for", 60.into()),
            ("guards", Value::Null),
            ("guards", json!(["p99 > 1s"])),
            ("header", Value::Null),
            ("min_requests", (-1).into()),
            ("lasts", "60s".into()),
        ] {
            let given = json!({ key: value });
            assert!(serde_json::from_value::<StageConfig>(given.clone()).is_err(), "{given}");
        }
    }

    #[test]
    fn each_key_that_is_given_is_laid_over_the_base() {
        let base = json!({ "share": "5%", "for": "30s", "guards": ["p50 < 1s"], "header": "x-a", "min_requests": 7 });
        let check = |key: &str, value: Value| {
            let over = config(&json!({ key: value })).over(&config(&base));
            let mut expected = base.clone();
            expected[key] = value;
            assert_eq!(serde_json::to_value(over).unwrap(), expected);
        };
        check("share", "20%".into());
        check("for", "2m".into());
        check("guards", json!([]));
        check("header", "x-b".into());
        check("min_requests", 0.into());
        let whole = config(&base);
        assert_eq!(StageConfig::default().over(&whole), whole);
        assert_eq!(whole.over(&StageConfig::default()), whole);
    }

    #[test]
    fn settings_are_told_with_every_key() {
        let told = serde_json::to_value(StageConfig::from(&StageSettings::default())).unwrap();
        assert_eq!(
            told,
            json!({ "share": "10%", "for": "1m", "guards": ["error_rate < 1%", "p99 < 1.5x"], "min_requests": 50 })
        );
    }
}
