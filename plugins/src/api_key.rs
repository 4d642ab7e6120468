//! `api_key`: lets pass who has one of these keys.
//!
//! ```yaml
//! - api_key:
//!     header: x-api-key          # or `query: key`
//!     keys:                      # each by its SHA-256: printf %s KEY | sha256sum
//!       - { name: shop, sha256: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b }
//!     forward: true              # the key goes to the upstream too; default false
//! ```
//!
//! `keys_file: FILE` takes the keys from a file of lines `name:sha256`, which a reload follows; both may be given. A key has
//! to be random (`openssl rand -hex 32`): a word could be found by its hash. Its name is `$user` in templates behind this
//! plugin.

use std::path::PathBuf;

use http::HeaderValue;
use http::header::WWW_AUTHENTICATE;
use openssl::memcmp;
use openssl::sha::sha256;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::credential::{Place, Several};
use crate::problem::{Path, Problem};
use crate::{Build, Hooks, Plugin, Refusal, RequestInfo, Setting, Verdict, Why};

/// Lets pass who has a key.
pub struct ApiKey {
    place: Place,
    keys: Vec<Key>,
    forward: bool,
}

struct Key {
    name: String,
    hash: [u8; 32],
}

/// Lets pass who has one of these keys.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// The header that holds the key.
    header: Option<String>,
    /// The parameter of the query that holds it.
    query: Option<String>,
    /// The keys.
    #[serde(default)]
    keys: Vec<KeyConfig>,
    /// A file of lines `name:sha256`.
    keys_file: Option<PathBuf>,
    /// Whether the key goes to the upstream too. Default false.
    #[serde(default)]
    forward: bool,
}

/// A key, which does not stand in the file itself.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KeyConfig {
    /// Whose it is.
    name: String,
    /// The SHA-256 of the key in hex.
    sha256: String,
}

const LONGEST: usize = 1024;

impl Build for ApiKey {
    type Config = ApiKeyConfig;

    fn build(config: ApiKeyConfig, setting: &Setting<'_>) -> Result<Self, Vec<Problem>> {
        let root = Path::root();
        let (mut problems, mut keys) = (Vec::new(), Vec::new());
        let place = Place::parse(config.header.as_deref(), None, config.query.as_deref());
        let place = place.map_err(|problem| {
            problems.push(match problem.path == root {
                true => Problem::new(root.clone(), "the key comes in a header or in the query")
                    .hint("write one of `header: x-api-key` or `query: key`"),
                false => problem,
            });
        });
        let listed = config.keys.into_iter().enumerate();
        let mut named: Vec<(Path, String, String)> =
            listed.map(|(index, key)| (root.key("keys").index(index), key.name, key.sha256)).collect();
        let mut in_file = 0;
        if let Some(file) = &config.keys_file {
            let at = root.key("keys_file");
            match setting.files.secret(file, &at).map(String::from_utf8) {
                Ok(Ok(text)) => {
                    for line in
                        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
                    {
                        in_file += 1;
                        let (name, hash) = line.split_once(':').unwrap_or(("", ""));
                        named.push((at.clone(), name.trim().to_owned(), hash.trim().to_owned()));
                    }
                }
                Ok(Err(_)) => problems.push(Problem::new(at, format!("`{}` is no UTF-8", file.display()))),
                Err(problem) => problems.push(problem),
            }
        }
        if named.is_empty() && problems.is_empty() {
            problems.push(
                Problem::new(root.clone(), "there are no keys, so nobody would pass")
                    .hint("write `keys: [{ name: NAME, sha256: HASH }]`, or `keys_file: FILE`"),
            );
        }
        let first_of_file = named.len() - in_file;
        for (index, (at, name, hash)) in named.into_iter().enumerate() {
            let of_file =
                index.checked_sub(first_of_file).map(|line| format!("key {} of the file: ", line + 1));
            let told =
                |what: &str| Problem::new(at.clone(), format!("{}{what}", of_file.as_deref().unwrap_or("")));
            match bytes_of(&hash) {
                _ if name.is_empty() => problems.push(told("a key has a name")),
                Some(hash) => keys.push(Key { name, hash }),
                None => problems.push(
                    told("a SHA-256 has 64 digits of hex")
                        .hint("`printf %s KEY | sha256sum` prints it; the key itself does not belong here"),
                ),
            }
        }
        match place {
            Ok(place) if problems.is_empty() => Ok(Self { place, keys, forward: config.forward }),
            _ => Err(problems),
        }
    }
}

fn bytes_of(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, index) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(index..index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

impl Plugin for ApiKey {
    fn hooks(&self) -> Hooks {
        Hooks { request: true, ..Hooks::default() }
    }

    fn request(&self, head: &mut RequestHeader, info: &RequestInfo<'_>) -> Verdict {
        let given = match self.place.find(head) {
            Ok(Some(given)) if given.len() <= LONGEST => sha256(given.as_bytes()),
            Ok(Some(_)) => return refused("the key is too long"),
            Ok(None) => return refused("there is no key"),
            Err(Several) => return refused("there are several keys"),
        };
        // All of them each time, and each as a whole, so that the time tells nothing.
        let found = self.keys.iter().fold(None, |found, key| match memcmp::eq(&key.hash, &given) {
            true => found.or(Some(key)),
            false => found,
        });
        let Some(key) = found else { return refused("the key is not known") };
        info.identity.set_user(key.name.clone());
        if !self.forward {
            self.place.remove_from(head);
        }
        Verdict::Continue
    }

    fn authenticates(&self) -> bool {
        true
    }
}

fn refused(detail: &str) -> Verdict {
    // RFC 9110 section 15.5.2 asks for a challenge.
    let challenge = HeaderValue::from_static("ApiKey realm=\"vestibule\"");
    Verdict::Refuse(Refusal {
        status: 401,
        headers: vec![(WWW_AUTHENTICATE, challenge)],
        why: Why::Unauthenticated,
        detail: format!("api_key: {detail}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;
    use crate::testing::{INFO, get, plugin, plugins_of_doc, refusal};

    const OF_KEY: &str = "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"; // "key"

    #[test]
    fn the_yaml_of_the_module_doc_loads() {
        assert_eq!(plugins_of_doc(include_str!("api_key.rs")).len(), 1);
    }

    #[test]
    fn who_has_a_key_passes_under_its_name() {
        let keys = format!(
            "keys: [{{ name: other, sha256: {} }}, {{ name: shop, sha256: {OF_KEY} }}]",
            "0".repeat(64)
        );
        for (config, target, header, forwarded) in [
            ("header: x-api-key", "/a", Some("key"), None),
            ("header: x-api-key, forward: true", "/a", Some("key"), Some("key")),
            ("query: k", "/a?b=1&k=key", None, None),
        ] {
            let plugin = plugin("api_key", &format!("{{ {config}, {keys} }}")).unwrap();
            let (mut head, identity) = (get(target), Identity::new());
            if let Some(key) = header {
                head.insert_header("x-api-key", key).unwrap();
            }
            let info = RequestInfo { identity: &identity, ..INFO };
            assert!(matches!(plugin.request(&mut head, &info), Verdict::Continue), "{config}");
            assert_eq!(identity.user(), Some("shop"));
            assert_eq!(head.headers.get("x-api-key").map(|key| key.to_str().unwrap()), forwarded);
            assert!(!head.raw_path().ends_with(b"key"));
        }
        let plugin = plugin("api_key", &format!("{{ header: x-api-key, {keys} }}")).unwrap();
        for given in
            [vec![], vec![""], vec!["Key"], vec![OF_KEY], vec!["key", "key"], vec![&*"k".repeat(2000)]]
        {
            let mut head = get("/");
            given.iter().for_each(|key| drop(head.append_header("x-api-key", *key)));
            let Verdict::Refuse(refusal) = plugin.request(&mut head, &INFO) else { panic!("{given:?}") };
            assert_eq!((refusal.status, refusal.why), (401, Why::Unauthenticated));
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let keys = format!("keys: [{{ name: shop, sha256: {OF_KEY} }}]");
        for (config, told) in [
            (format!("{{ {keys} }}"), ": the key comes in a header or in the query"),
            (format!("{{ header: a, query: b, {keys} }}"), ": the key comes in a header or in the query"),
            (format!("{{ query: '', {keys} }}"), "query: an empty text is no name"),
            ("{ header: a }".into(), ": there are no keys"),
            ("{ header: a, keys: [{ name: x, sha256: abc }] }".into(), "keys[0]: a SHA-256 has 64 digits"),
            (
                format!("{{ header: a, keys: [{{ name: '', sha256: {OF_KEY} }}] }}"),
                "keys[0]: a key has a name",
            ),
            ("{ header: a, keys_file: f }".into(), "keys_file: `f` cannot be read"),
        ] {
            let refused = refusal("api_key", &config);
            assert!(refused.contains(told), "{config}: {refused}");
        }
    }
}
