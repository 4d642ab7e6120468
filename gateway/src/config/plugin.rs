//! One link of a `plugins:` list: a map of one key, the plugin's name.
//!
//! What stands under the name is the plugin's own affair, decoded when the snapshot is compiled.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_yaml::{Mapping, Value};
use vestibule_plugins::decode::shown;

/// `- headers: {…}`. The value is decoded by the plugin's own `Config` when the snapshot is compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginConfig {
    /// The name that the plugin is registered under.
    pub name: String,
    /// What stands under it; an empty map where nothing does, as in `- request_id:`.
    pub config: Value,
}

/// The name under which the schema describes one link of a chain. It is open here, since the plugins are
/// known to their registry only: who has one replaces `$defs/Plugin`.
pub const SCHEMA_NAME: &str = "Plugin";

impl JsonSchema for PluginConfig {
    fn schema_name() -> Cow<'static, str> {
        SCHEMA_NAME.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "One link of a chain: a map of one key, the plugin's name.",
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1
        })
    }
}

impl<'de> Deserialize<'de> for PluginConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OneKey)
    }
}

struct OneKey;

impl<'de> Visitor<'de> for OneKey {
    type Value = PluginConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plugin, a map of one key such as `request_id: {}`")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<PluginConfig, E> {
        let name = shown(name);
        Err(E::custom(format!(
            "expected a plugin, a map of one key such as `request_id: {{}}`, got the text `{name}`\n\
             hint: write `{name}: {{}}`"
        )))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PluginConfig, A::Error> {
        let Some((name, config)) = map.next_entry::<String, Value>()? else {
            return Err(de::Error::custom(
                "a plugin's name is missing\nhint: write one, such as `request_id: {}`",
            ));
        };
        let mut others = Vec::new();
        while let Some((other, _)) = map.next_entry::<String, Value>()? {
            others.push(format!("`{other}`"));
        }
        let config = match config {
            // The usual slip: what belongs to the plugin stands beside its name instead of below it.
            Value::Null if !others.is_empty() => {
                return Err(de::Error::custom(format!(
                    "a plugin is a map of one key, got `{name}` and {}\nhint: indent what belongs to `{name}` further \
                     than its name",
                    others.join(", ")
                )));
            }
            Value::Null => Value::Mapping(Mapping::new()),
            given => given,
        };
        if !others.is_empty() {
            return Err(de::Error::custom(format!(
                "a plugin is a map of one key, got `{name}` and {}\nhint: begin each plugin with a `-` of its own",
                others.join(", ")
            )));
        }
        Ok(PluginConfig { name, config })
    }
}
