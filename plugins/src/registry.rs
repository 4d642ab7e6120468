//! Which plugins there are: name to constructor and schema.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_yaml::{Mapping, Value};

use crate::decode::decode;
use crate::problem::{Path, Problem, did_you_mean};
use crate::{
    Build, Plugin, Setting, api_key, basic_auth, body_limit, client_certificate, cors, forward_auth, headers,
    ip_filter, jwt, kube_impersonate, path_rewrite, rate_limit, request_id, retry,
};

/// The plugins that a file may name. Starts with the built-in ones; a third party adds its own.
pub struct Registry {
    entries: BTreeMap<&'static str, Entry>,
}

type Constructor = fn(&Value, &Setting<'_>) -> Result<Arc<dyn Plugin>, Vec<Problem>>;

struct Entry {
    build: Constructor,
    schema: fn(&mut SchemaGenerator) -> Schema,
}

impl Registry {
    /// The plugins of this crate.
    pub fn builtin() -> Self {
        Self { entries: BTreeMap::new() }
            .with::<api_key::ApiKey>("api_key")
            .with::<basic_auth::BasicAuth>("basic_auth")
            .with::<client_certificate::ClientCertificate>("client_certificate")
            .with::<forward_auth::ForwardAuth>("forward_auth")
            .with::<body_limit::BodyLimit>("body_limit")
            .with::<cors::Cors>("cors")
            .with::<headers::Headers>("headers")
            .with::<jwt::Jwt>("jwt")
            .with::<kube_impersonate::KubeImpersonate>("kube_impersonate")
            .with::<ip_filter::IpFilter>("ip_filter")
            .with::<path_rewrite::PathRewrite>("path_rewrite")
            .with::<rate_limit::RateLimit>("rate_limit")
            .with::<request_id::RequestId>("request_id")
            .with::<retry::Retry>("retry")
    }

    /// One plugin more, under the name that the file calls it by.
    ///
    /// # Panics
    ///
    /// If there is a plugin of that name: one of the two would silently never run.
    pub fn with<P: Build>(mut self, name: &'static str) -> Self {
        let taken = self.entries.insert(name, Entry { build: build::<P>, schema: schema::<P> });
        assert!(taken.is_none(), "two plugins are registered as `{name}`; give one of them another name");
        self
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.entries.keys().copied()
    }

    /// Makes the plugin of this name. The paths of the problems start at the plugin's own map.
    pub fn build(
        &self,
        name: &str,
        config: &Value,
        setting: &Setting<'_>,
    ) -> Result<Arc<dyn Plugin>, Vec<Problem>> {
        match self.entries.get(name) {
            Some(entry) => (entry.build)(config, setting),
            None => Err(vec![self.unknown(name)]),
        }
    }

    /// The JSON Schema of one item of a `plugins:` list.
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        let items: Vec<Schema> = self
            .entries
            .iter()
            .map(|(name, entry)| {
                let config = (entry.schema)(generator);
                json_schema!({
                    "type": "object",
                    "properties": { *name: config },
                    "required": [name],
                    "additionalProperties": false,
                })
            })
            .collect();
        json_schema!({ "oneOf": items })
    }

    fn unknown(&self, name: &str) -> Problem {
        let names: Vec<String> = self.names().map(|name| format!("`{name}`")).collect();
        let problem = Problem::new(
            Path::root(),
            format!("no plugin is named `{name}`; there are {}", names.join(", ")),
        );
        match did_you_mean(name, self.names()) {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::builtin()
    }
}

fn build<P: Build>(config: &Value, setting: &Setting<'_>) -> Result<Arc<dyn Plugin>, Vec<Problem>> {
    // `- request_id:` with nothing behind it is the same as `- request_id: {}`.
    let empty = Value::Mapping(Mapping::new());
    let (decoded, problems) = decode::<P::Config>(if config.is_null() { &empty } else { config });
    match decoded.map(|config| P::build(config, setting)) {
        Some(Ok(plugin)) if problems.is_empty() => Ok(Arc::new(plugin)),
        Some(Err(more)) => Err(joined(problems, more)),
        Some(Ok(_)) | None => Err(problems),
    }
}

/// The problems of decoding, and those of building that are not their echo: a value that lost a bad entry in
/// decoding may look incomplete only because of that.
fn joined(mut decoding: Vec<Problem>, building: Vec<Problem>) -> Vec<Problem> {
    let echoes = |problem: &Problem| decoding.iter().any(|bad| problem.path.leads_to(&bad.path));
    let more: Vec<Problem> = building.into_iter().filter(|problem| !echoes(problem)).collect();
    decoding.extend(more);
    decoding
}

fn schema<P: Build>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<P::Config>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ROUTE, refusal, yaml};
    use crate::{Hooks, Plugin};

    struct Nothing;

    impl Plugin for Nothing {
        fn hooks(&self) -> Hooks {
            Hooks::default()
        }
    }

    impl Build for Nothing {
        type Config = BTreeMap<String, u16>;

        fn build(config: Self::Config, setting: &Setting<'_>) -> Result<Self, Vec<Problem>> {
            match (config.is_empty(), setting.route) {
                (true, Some(_)) => Ok(Self),
                _ => {
                    Err(config.keys().map(|key| Problem::new(Path::root().key(key), "is too much")).collect())
                }
            }
        }
    }

    #[test]
    fn the_builtin_plugins_are_named() {
        let names: Vec<_> = Registry::builtin().names().collect();
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
    }

    #[test]
    fn a_third_party_adds_its_own() {
        let registry = Registry::builtin().with::<Nothing>("nothing");
        assert!(registry.names().any(|name| name == "nothing"));
        for config in ["{}", "null"] {
            assert!(registry.build("nothing", &yaml(config), &ROUTE).is_ok(), "{config}");
        }
        let refused = registry.build("nothing", &yaml("{ a: 1, b: 2 }"), &ROUTE).map(|_| ()).unwrap_err();
        let paths: Vec<String> = refused.iter().map(|problem| problem.path.to_string()).collect();
        assert_eq!(paths, ["a", "b"]);
    }

    #[test]
    #[should_panic(expected = "two plugins are registered as `retry`")]
    fn a_name_is_given_once() {
        let _ = Registry::builtin().with::<Nothing>("retry");
    }

    #[test]
    fn an_unknown_plugin_is_refused_with_the_nearest_and_all() {
        assert_eq!(
            refusal("path-rewrit", "{}"),
            ": no plugin is named `path-rewrit`; there are \
             `api_key`, `basic_auth`, `body_limit`, `client_certificate`, `cors`, `forward_auth`, \
             `headers`, `ip_filter`, `jwt`, `kube_impersonate`, `path_rewrite`, `rate_limit`, `request_id`, \
             `retry` \
             (did you mean `path_rewrite`?)"
        );
        assert!(refusal("wasm", "{}").ends_with("`retry`"));
    }

    #[test]
    fn what_is_missing_because_it_could_not_be_decoded_is_told_once() {
        let at = |keys: &[&str]| {
            Problem::new(keys.iter().fold(Path::root(), |path, key| path.key(*key)), "is wrong")
        };
        let told = joined(
            vec![at(&["a", "b"])],
            vec![at(&[]), at(&["a"]), at(&["a", "b"]), at(&["a", "c"]), at(&["d"])],
        );
        assert_eq!(told, [at(&["a", "b"]), at(&["a", "c"]), at(&["d"])]);
    }

    #[test]
    fn the_schema_allows_one_key_of_the_known_ones() {
        let mut generator = SchemaGenerator::default();
        let schema = Registry::builtin().schema(&mut generator);
        let items = schema.get("oneOf").unwrap().as_array().unwrap();
        let keys: Vec<_> = items.iter().map(|item| item["required"][0].as_str().unwrap()).collect();
        assert_eq!(
            keys,
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
        for (item, key) in items.iter().zip(keys) {
            assert_eq!(item["additionalProperties"], false, "{key}");
            assert_eq!(item["properties"].as_object().unwrap().keys().collect::<Vec<_>>(), [key]);
        }
        assert!(generator.definitions().contains_key("RetryConfig"));
    }
}
