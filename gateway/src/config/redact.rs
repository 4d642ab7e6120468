//! The configuration as others may see it: its tree without comments and places, and without secrets.
//!
//! Who asks is not known here: the same is told to everybody. What is said to be a secret is told by the name that it
//! stands under, so a rule that is too broad hides a value, and never a place in the tree.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use serde_json::Value;
use serde_yaml::Value as Yaml;

use super::document::Document;
use super::tree::Kind;

/// What stands where a secret stood.
pub const REDACTED: &str = "<redacted>";

/// What the name of a key, a header or a query parameter has in it where its value is a secret, in lower case.
const SECRET_NAMES: [&str; 12] = [
    "authorization",
    "cookie",
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "api-key",
    "apikey",
    "api_key",
    "credential",
    "private",
];

/// The tree, with `REDACTED` for each secret.
pub fn redacted(document: &Document) -> Value {
    told(&document.root, Place::Root, &|_| REDACTED.to_owned())
}

/// The tree, with a mark for each secret: equal for equal ones within this process, and of no use outside it. `unmarked`
/// turns it to what may be told.
pub fn marked(document: &Document) -> Value {
    static SALT: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    told(&document.root, Place::Root, &|secret| format!("<redacted:{:016x}>", SALT.hash_one(secret)))
}

/// The text without its marks.
pub fn unmarked(text: &str) -> String {
    const MARK: &str = "<redacted:";
    let mut pieces = text.split(MARK);
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        plain += REDACTED;
        plain += piece.split_once('>').map_or("", |(_, rest)| rest);
    }
    plain
}

/// The value of a header or a query parameter of this name, or `REDACTED` where it is a secret.
pub fn value_of(name: &str, value: &str) -> String {
    let hide = |_: &str| REDACTED.to_owned();
    match is_secret_name(name) && !is_of_the_environment(value) {
        true => hide(value),
        false => text_told(value, Place::Words, &hide),
    }
}

/// Whether something stood here that may not be told.
pub fn is_redacted(text: &str) -> bool {
    text.contains("<redacted")
}

/// What the keys of a map are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Sections of the file.
    Root,
    /// Names that the user chose: a listener called `token-web` is no secret.
    Names,
    /// Words of the format, and names of headers and query parameters.
    Words,
    /// Names again, where they are referred to: a route may be called `basic auth`.
    Verbatim,
    /// What a plugin takes, in a form that only the plugin knows.
    Plugin,
    /// Whatever stands under a secret's name.
    Secret,
}

type Hide<'a> = &'a dyn Fn(&str) -> String;

fn told(kind: &Kind, place: Place, hide: Hide<'_>) -> Value {
    match kind {
        Kind::Scalar(scalar) => scalar_told(scalar, place, hide),
        Kind::List(items) => {
            let items = items.iter().map(|item| match &item.kind {
                // `[authorization, "Bearer x"]` in a list of such pairs.
                Kind::List(pair)
                    if place == Place::Plugin && pair.len() == 2 && names_secret(&pair[0].kind) =>
                {
                    let value = told(&pair[1].kind, Place::Secret, hide);
                    Value::Array(vec![told(&pair[0].kind, place, hide), value])
                }
                kind => told(kind, place, hide),
            });
            items.collect()
        }
        Kind::Map(entries) => {
            // `{ name: authorization, value: "Bearer x" }`
            let is_named = place == Place::Plugin
                && entries.iter().any(|entry| {
                    matches!(entry.key.as_str(), "name" | "header" | "query" | "field" | "key")
                        && names_secret(&entry.value.kind)
                });
            let entries = entries.iter().map(|entry| {
                let key = entry.key.as_str();
                let inner = match place {
                    Place::Root if matches!(key, "listeners" | "upstreams") => Place::Names,
                    Place::Names => Place::Words,
                    Place::Secret if names_file(key, &entry.value.kind) => Place::Words,
                    Place::Secret => Place::Secret,
                    _ if is_secret_name(key) => match names_file(key, &entry.value.kind) {
                        true => Place::Words,
                        false => Place::Secret,
                    },
                    Place::Root | Place::Words if key == "plugins" => Place::Plugin,
                    Place::Root => Place::Words,
                    Place::Words if matches!(key, "name" | "upstream" | "listeners") => Place::Verbatim,
                    Place::Plugin if is_named && !names_secret(&entry.value.kind) => Place::Secret,
                    Place::Words | Place::Plugin | Place::Verbatim => place,
                };
                (entry.key.clone(), told(&entry.value.kind, inner, hide))
            });
            entries.collect()
        }
    }
}

fn scalar_told(scalar: &Yaml, place: Place, hide: Hide<'_>) -> Value {
    match scalar {
        Yaml::String(text) => match place {
            Place::Secret if is_of_the_environment(text) => text.clone().into(),
            Place::Secret => hide(text).into(),
            Place::Verbatim => text.clone().into(),
            _ => text_told(text, place, hide).into(),
        },
        Yaml::Number(number) if place == Place::Secret => hide(&number.to_string()).into(),
        Yaml::Number(number) => {
            let whole = number.as_i64().map(Into::into).or_else(|| number.as_u64().map(Into::into));
            whole.or_else(|| number.as_f64().map(Into::into)).unwrap_or(Value::Null)
        }
        // No secret is one of two words.
        Yaml::Bool(value) => (*value).into(),
        _ => Value::Null,
    }
}

/// A text that stands under no secret's name, without the secrets in it.
fn text_told(text: &str, place: Place, hide: Hide<'_>) -> String {
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
        return hide(text);
    }
    if let Some((scheme, credentials)) = text.split_once(' ')
        && ["bearer", "basic"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
        && !is_of_the_environment(credentials)
    {
        return format!("{scheme} {}", hide(credentials));
    }
    // A header as one line, as some plugin may take it.
    if place == Place::Plugin
        && let Some(at) = text.find([':', '='])
        && let (name, value) = text.split_at(at)
        && is_secret_name(name)
        && !name.contains([' ', '/', '?'])
        && let (mark, value) = value.split_at(1)
        && !value.trim().is_empty()
        && !is_of_the_environment(value.trim())
    {
        return format!("{name}{mark}{}", hide(value));
    }
    without_parameters(&without_userinfo(text, hide), hide)
}

/// `scheme://user:password@host` without what stands before the `@`.
fn without_userinfo(text: &str, hide: Hide<'_>) -> String {
    let mut told = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        told += before;
        let end = after.find(['/', '?', '#', '"', '\'', ' ', '\n']).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(at) => {
                let userinfo = &after[..at];
                told += &if is_of_the_environment(userinfo) { userinfo.to_owned() } else { hide(userinfo) };
                &after[at..]
            }
            None => after,
        };
    }
    told + rest
}

/// `?token=…&x=1` without the values of parameters whose names are those of secrets.
fn without_parameters(text: &str, hide: Hide<'_>) -> String {
    let mut told = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['?', '&']) {
        let (before, after) = rest.split_at(at + 1);
        told += before;
        rest = after;
        let name = after.split(['=', '&', '?', '#', ' ']).next().unwrap_or_default();
        let Some(value) = after[name.len()..].strip_prefix('=').filter(|_| is_secret_name(name)) else {
            continue;
        };
        let end = value.find(['&', '#', '"', '\'', ' ', ')', ']', '\n']).unwrap_or(value.len());
        let (value, behind) = value.split_at(end);
        let value =
            if value.is_empty() || is_of_the_environment(value) { value.to_owned() } else { hide(value) };
        told += &format!("{name}={value}");
        rest = behind;
    }
    told + rest
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|secret| name.contains(secret))
}

fn names_secret(kind: &Kind) -> bool {
    matches!(kind, Kind::Scalar(Yaml::String(name)) if is_secret_name(name) && !name.contains(' '))
}

/// Whether a key names a file, where a secret stands in that file and not here.
fn names_file(key: &str, kind: &Kind) -> bool {
    key.ends_with("_file")
        && matches!(kind, Kind::Scalar(Yaml::String(path)) if !path.contains(['\n', ' ']) && !path.contains("-----"))
}

/// Whether the text is a template that takes all that is secret in it from the environment.
fn is_of_the_environment(text: &str) -> bool {
    let scheme = text.split_once(' ').filter(|(scheme, _)| {
        ["bearer", "basic", "token", "digest"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
    });
    let mut rest = scheme.map_or(text, |(_, credentials)| credentials);
    let mut is_any = false;
    while !rest.is_empty() {
        let after = rest.strip_prefix("${env.").and_then(|rest| rest.split_once('}'));
        rest = match after {
            Some((name, after)) if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
                is_any = true;
                after
            }
            Some(_) => return false,
            None => match rest.strip_prefix([':', ' ']) {
                Some(after) => after,
                None => return false,
            },
        };
    }
    is_any
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::config::parse;

    /// What is told of this, put below `version: 1`.
    fn redacted_of(yaml: &str) -> Value {
        redacted(&parse("gateway.yaml", format!("version: 1\n{yaml}\n"), Path::new("")).unwrap().document)
    }

    #[test]
    fn no_secret_is_told_however_it_is_written() {
        const SECRET: &str = "s3cr3t-7d1f";
        for yaml in [
            "plugins: [{ headers: { request: { set: { authorization: \"Bearer s3cr3t-7d1f\" } } } }]",
            "plugins: [{ headers: { request: { set: { Authorization: s3cr3t-7d1f } } } }]",
            "plugins: [{ headers: { request: { add: { X-API-Key: [a, s3cr3t-7d1f] } } } }]",
            "plugins: [{ headers: { request: { set: { x-upstream: \"basic s3cr3t-7d1f\" } } } }]",
            "plugins: [{ headers: { response: { set: { set-cookie: \"id=s3cr3t-7d1f; Path=/\" } } } }]",
            "plugins: [{ own: { headers: [{ name: Authorization, value: s3cr3t-7d1f }] } }]",
            "plugins: [{ own: { headers: [{ value: s3cr3t-7d1f, header: x-auth-token }] } }]",
            "plugins: [{ own: { headers: [[authorization, s3cr3t-7d1f]] } }]",
            "plugins: [{ own: { headers: [\"Authorization: s3cr3t-7d1f\"] } }]",
            "plugins: [{ own: { headers: [\"api_key=s3cr3t-7d1f\"] } }]",
            "plugins: [{ own: { credentials: { of: { anybody: [s3cr3t-7d1f] } } } }]",
            "plugins: [{ own: { client_secret: s3cr3t-7d1f, url: 'https://a.test' } }]",
            "plugins: [{ own: { url: 'https://me:s3cr3t-7d1f@a.test/x' } }]",
            "plugins: [{ own: { url: 'https://me:s3cr3t-7d1f@part@a.test/x' } }]",
            "plugins: [{ own: { url: 'https://a.test/x?a=1&access_token=s3cr3t-7d1f&b=2' } }]",
            "plugins: [{ own: { note: \"${env.HOME}\", password: \"${env.A}s3cr3t-7d1f\" } }]",
            "plugins: [{ own: { password: \"$s3cr3t-7d1f\" } }]",
            "plugins: [{ own: { token_file: \"-----BEGIN s3cr3t-7d1f\" } }]",
            "plugins: [{ own: { key: \"-----BEGIN PRIVATE KEY-----\\ns3cr3t-7d1f\" } }]",
            "routes: [{ match: { headers: { X-Secret: s3cr3t-7d1f } }, upstream: a }]",
            "routes: [{ match: { headers: { cookie: { regex: \"s3cr3t-7d1f\" } } }, upstream: a }]",
            "routes: [{ match: { query: { apiKey: { exact: s3cr3t-7d1f } } }, upstream: a }]",
            "routes: [{ redirect: { path: \"/in?token=s3cr3t-7d1f\" } }]",
            "routes: [{ plugins: [&x { headers: { request: { set: { x-token: s3cr3t-7d1f } } } }, *x], upstream: a }]",
            "future: { password: s3cr3t-7d1f }",
            "upstreams: { token: { password: s3cr3t-7d1f } }",
        ] {
            let told = redacted_of(yaml).to_string();
            assert!(!told.contains(SECRET) && !told.contains("7d1f"), "{yaml}\n{told}");
            assert!(told.contains(REDACTED), "{yaml}\n{told}");
        }
        // Numbers are secrets too.
        assert!(
            !redacted_of("routes: [{ match: { query: { token: 271828 } } }]").to_string().contains("271828")
        );
    }

    #[test]
    fn what_is_no_secret_is_told_as_it_was_typed() {
        let check = |yaml: &str, at: &str, expected: Value| {
            let told = redacted_of(yaml);
            assert_eq!(told.pointer(at), Some(&expected), "{told}");
        };
        let file = "upstreams: { token-service: { endpoints: 'token-service:80', connect_timeout: 2s, tls: { client_certificate: { cert: a.crt, key: a.key, password_file: tls/a.pass } } } }";
        check(file, "/upstreams/token-service/endpoints", json!("token-service:80"));
        check(file, "/upstreams/token-service/connect_timeout", json!("2s"));
        check(file, "/upstreams/token-service/tls/client_certificate/password_file", json!("tls/a.pass"));
        check("admin: { token_file: admin.token }", "/admin/token_file", json!("admin.token"));
        let remove = "plugins: [{ headers: { request: { remove: [authorization, x-remote-user] } } }]";
        check(remove, "/plugins/0/headers/request/remove", json!(["authorization", "x-remote-user"]));
        let environment =
            "plugins: [{ headers: { request: { set: { authorization: \"Bearer ${env.TOKEN}\" } } } }]";
        check(environment, "/plugins/0/headers/request/set/authorization", json!("Bearer ${env.TOKEN}"));
        let own = "plugins: [{ own: { url: 'https://${env.USER}:${env.PASS}@a.test/?x=1&token=${env.T}' } }]";
        check(own, "/plugins/0/own/url", json!("https://${env.USER}:${env.PASS}@a.test/?x=1&token=${env.T}"));
        let present = "routes: [{ name: token, match: { headers: { authorization: { present: true } } }, upstream: token }]";
        check(present, "/routes/0/match/headers/authorization/present", json!(true));
        check(present, "/routes/0/upstream", json!("token"));
        let named = "routes: [{ name: basic auth, upstream: bearer of news }]";
        check(named, "/routes/0/name", json!("basic auth"));
        check(named, "/routes/0/upstream", json!("bearer of news"));
        check("server: { threads: 3 }", "/server/threads", json!(3));
    }

    #[test]
    fn marks_tell_secrets_apart_and_are_taken_out_again() {
        let of = |secret: &str| {
            let text =
                format!("version: 1\nplugins: [{{ own: {{ token: {secret}, x: 'https://{secret}@a' }} }}]\n");
            marked(&parse("gateway.yaml", &text, Path::new("")).unwrap().document).to_string()
        };
        assert_eq!(of("one"), of("one"));
        assert_ne!(of("one"), of("two"));
        assert!(!of("one").contains("one"));
        assert_eq!(unmarked(&of("one")), unmarked(&of("two")));
        assert!(unmarked(&of("one")).contains("https://<redacted>@a"));
    }
}
