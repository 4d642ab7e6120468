//! `path_rewrite`: sends another path, or another Host, to the upstream than the client asked for.
//!
//! ```yaml
//! - path_rewrite: { strip_prefix: /api }                            # /api/v1 becomes /v1
//! - path_rewrite: { replace_prefix: { from: /foo, to: /xyz } }      # /foo/bar becomes /xyz/bar
//! - path_rewrite: { replace_prefix: /xyz }                          # the same, for the prefix that the route matched
//! - path_rewrite: { replace_path: "/tenants/${header.x-tenant}" }   # a template
//! - path_rewrite: { regex: "^/v1(/.*)$", replace: "$1" }            # the first match; $1, ${1}, ${name}
//! - path_rewrite: { strip_prefix: /api, host: "$route.internal" }   # `host` beside any of them, or alone
//! ```
//!
//! Prefixes go element by element, as in the Kubernetes Gateway API: `/foo` is a prefix of `/foo` and
//! `/foo/bar` and not of `/foobar`, and a `/` at its end means nothing. A path that does not begin with the
//! prefix, or that the pattern does not match, is left alone. The query survives, and every byte that is not
//! replaced goes through as it came, percent-escapes included. The result begins with one `/`. `host` is a
//! template; what renders to no host leaves the Host alone.

use std::fmt;

use http::uri::PathAndQuery;
use pingora_http::RequestHeader;
use regex::bytes::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::host::{self, HostRule};
use crate::prefix::replace_prefix_bytes;
use crate::problem::{Path, Problem};
use crate::target::{self, Target};
use crate::template::{Scope, Template};
use crate::{Build, Hooks, Plugin, Reply, RequestInfo, Setting, Verdict};

/// Changes the path and the Host of a request.
pub struct PathRewrite {
    path: Option<Rule>,
    host: Option<HostRule>,
}

enum Rule {
    Prefix { from: String, to: String },
    MatchedPrefix { to: String },
    Path(Template),
    Regex { pattern: Regex, replacement: String },
}

/// What to send instead of the path. At most one of `strip_prefix`, `replace_prefix`, `replace_path` and
/// `regex`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PathRewriteConfig {
    /// Takes this prefix away, element by element.
    strip_prefix: Option<String>,
    /// Puts one prefix in the place of another; a text alone replaces the prefix that the route matched.
    replace_prefix: Option<ReplacePrefixConfig>,
    /// Replaces the whole path, by a template.
    replace_path: Option<String>,
    /// What to look for in the path; needs `replace`.
    regex: Option<String>,
    /// What the first match of `regex` becomes: `$1`, `${1}` and `${name}` are its groups.
    replace: Option<String>,
    /// The Host to send, a template.
    host: Option<String>,
}

/// `/xyz`, or `{ from: /foo, to: /xyz }`.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum ReplacePrefixConfig {
    /// For the prefix that the route matched.
    Matched(String),
    /// For a prefix of its own.
    Given(FromToConfig),
}

/// Which prefix becomes which.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromToConfig {
    /// The prefix to look for.
    from: String,
    /// What it becomes; empty or `/` takes it away.
    to: String,
}

impl Build for PathRewrite {
    type Config = PathRewriteConfig;

    fn build(config: PathRewriteConfig, setting: &Setting<'_>) -> Result<Self, Vec<Problem>> {
        let mut problems = one_of_each(&config);
        let host = config.host.as_deref().and_then(|text| {
            HostRule::parse(text)
                .map_err(|problem| problems.push(problem.under(&Path::root().key("host"))))
                .ok()
        });
        let path = Rule::compile(&config, setting, &mut problems);
        if problems.is_empty() { Ok(Self { path, host }) } else { Err(problems) }
    }
}

impl Plugin for PathRewrite {
    fn hooks(&self) -> Hooks {
        Hooks { request: true, ..Hooks::default() }
    }

    fn request(&self, head: &mut RequestHeader, info: &RequestInfo<'_>) -> Verdict {
        // Both are rendered before either is written, so that they see the same request.
        let host = self.host.as_ref().and_then(|rule| rule.render(head, info));
        let path = self.path.as_ref().and_then(|rule| rule.rewritten(head, info));
        if let Some(path) = path
            && target::replace_path(head, &path).is_err()
        {
            // To send the path as it was would ask for something else than the file says.
            return Verdict::Respond(Reply { status: 414, headers: Vec::new(), body: bytes::Bytes::new() });
        }
        if let Some(host) = host {
            host::replace(head, host);
        }
        Verdict::Continue
    }
}

impl Rule {
    /// Every problem of the keys that say what becomes of the path; `None` where there are none of those
    /// keys.
    fn compile(
        config: &PathRewriteConfig,
        setting: &Setting<'_>,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let root = Path::root();
        let mut checked = |text: &str, may_be: Prefix, at: Path| {
            if let Err(problem) = check_prefix(text, may_be) {
                problems.push(problem.under(&at));
            }
            text.to_owned()
        };
        if let Some(prefix) = &config.strip_prefix {
            let from = checked(prefix, Prefix::Named, root.key("strip_prefix"));
            return Some(Self::Prefix { from, to: String::new() });
        }
        match &config.replace_prefix {
            Some(ReplacePrefixConfig::Given(FromToConfig { from, to })) => {
                let at = root.key("replace_prefix");
                return Some(Self::Prefix {
                    from: checked(from, Prefix::Any, at.key("from")),
                    to: checked(to, Prefix::Empty, at.key("to")),
                });
            }
            Some(ReplacePrefixConfig::Matched(to)) => {
                let at = root.key("replace_prefix");
                let to = checked(to, Prefix::Empty, at.clone());
                if !setting.matches_by_prefix {
                    problems.push(no_matched_prefix(at, &to, setting));
                }
                return Some(Self::MatchedPrefix { to });
            }
            None => {}
        }
        if let Some(text) = &config.replace_path {
            return path_template(text).map_err(|p| problems.push(p.under(&root.key("replace_path")))).ok();
        }
        let (regex, replacement) = (config.regex.as_ref()?, config.replace.as_ref()?);
        let pattern = pattern(regex).map_err(|p| problems.push(p.under(&root.key("regex")))).ok()?;
        problems.extend(
            check_replacement(replacement, &pattern).into_iter().map(|p| p.under(&root.key("replace"))),
        );
        Some(Self::Regex { pattern, replacement: replacement.clone() })
    }

    /// The path that is sent instead; `None` where the request keeps its own.
    fn rewritten(&self, head: &RequestHeader, info: &RequestInfo<'_>) -> Option<Vec<u8>> {
        let path = Target::of(head)?.path();
        match self {
            Self::Prefix { from, to } => replace_prefix_bytes(path, from, to),
            Self::MatchedPrefix { to } => replace_prefix_bytes(path, info.matched_prefix?, to),
            Self::Path(template) => Some(rooted(&template.render_bytes(head, info))),
            Self::Regex { pattern, replacement } => {
                let captures = pattern.captures(path)?;
                let matched = captures.get_match();
                let mut rewritten = path[..matched.start()].to_vec();
                captures.expand(replacement.as_bytes(), &mut rewritten);
                rewritten.extend_from_slice(&path[matched.end()..]);
                Some(rooted(&rewritten))
            }
        }
    }
}

/// The same path with one `/` at its beginning.
fn rooted(path: &[u8]) -> Vec<u8> {
    let slashes = path.iter().take_while(|byte| **byte == b'/').count();
    [b"/", &path[slashes..]].concat()
}

fn one_of_each(config: &PathRewriteConfig) -> Vec<Problem> {
    let root = Path::root();
    let mut problems = Vec::new();
    match (&config.regex, &config.replace) {
        (Some(_), None) => problems.push(
            Problem::new(root.key("regex"), "`regex` needs `replace` beside it")
                .hint("say what a match becomes, as in `replace: \"$1\"`"),
        ),
        (None, Some(_)) => problems.push(
            Problem::new(root.key("replace"), "`replace` needs `regex` beside it")
                .hint("say what to look for, as in `regex: \"^/v1(/.*)$\"`, or use `replace_path`"),
        ),
        _ => {}
    }
    let given: Vec<&str> = [
        ("strip_prefix", config.strip_prefix.is_some()),
        ("replace_prefix", config.replace_prefix.is_some()),
        ("replace_path", config.replace_path.is_some()),
        ("regex", config.regex.is_some()),
    ]
    .into_iter()
    .filter_map(|(key, given)| given.then_some(key))
    .collect();
    match given.split_first() {
        None if config.host.is_none() && config.replace.is_none() => problems.push(
            Problem::new(root, "nothing is rewritten")
                .hint("give one of `strip_prefix`, `replace_prefix`, `replace_path`, `regex`, or `host`"),
        ),
        None => {}
        Some((first, others)) => {
            for other in others {
                let message = format!("`{first}` already says what becomes of the path, so `{other}` cannot");
                problems.push(
                    Problem::new(root.key(*other), message)
                        .hint("use two `path_rewrite` plugins, one after the other"),
                );
            }
        }
    }
    problems
}

/// Which prefixes a key takes besides `/a/b`.
#[derive(Clone, Copy, PartialEq)]
enum Prefix {
    Named,
    /// `/` too.
    Any,
    /// `/` and nothing too.
    Empty,
}

fn check_prefix(text: &str, may_be: Prefix) -> Result<(), Problem> {
    if text.is_empty() && may_be == Prefix::Empty {
        return Ok(());
    }
    if text.trim_end_matches('/').is_empty() && text.starts_with('/') && may_be == Prefix::Named {
        return Err(Problem::new(
            Path::root(),
            format!("`{text}` is a prefix of every path, and to strip it changes none"),
        )
        .hint("name the elements to strip, as in `/api`"));
    }
    check_path(text)
}

fn check_path(text: &str) -> Result<(), Problem> {
    let problem = |what: &str| Problem::new(Path::root(), format!("`{}` {what}", text.escape_debug()));
    if !text.starts_with('/') {
        return Err(problem("does not begin with `/`").hint(format!("write `/{}`", text.escape_debug())));
    }
    if text.contains(['?', '#']) {
        return Err(problem("is more than a path: it has a `?` or a `#`")
            .hint("leave it out; the request keeps its own query"));
    }
    if !text.is_ascii() || PathAndQuery::try_from(text).is_err() {
        return Err(problem("has a character that a path cannot carry")
            .hint("percent-encode it, as in `%20` for a space"));
    }
    Ok(())
}

fn no_matched_prefix(at: Path, to: &str, setting: &Setting<'_>) -> Problem {
    let why = match setting.route {
        Some(_) => "this route also takes requests that match no prefix",
        None => "not every route matches by a prefix",
    };
    Problem::new(at, format!("`{to}` is to replace the prefix that the route matched, but {why}"))
        .hint(format!("write `replace_prefix: {{ from: /…, to: {to} }}`, or give the route nothing but prefixes as `paths`"))
}

fn path_template(text: &str) -> Result<Rule, Problem> {
    let template = Template::parse(text, Scope::Request)?;
    match template.literal() {
        Some(literal) => check_path(literal)?,
        None if text.starts_with(['/', '$']) => {}
        None => {
            return Err(Problem::new(Path::root(), format!("`{text}` does not begin with `/`"))
                .hint(format!("write `/{text}`")));
        }
    }
    Ok(Rule::Path(template))
}

fn pattern(text: &str) -> Result<Regex, Problem> {
    // A path of bytes that are no UTF-8 is matched too, but `.` stays one character.
    RegexBuilder::new(text).build().map_err(|error| {
        let error = error.to_string();
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Problem::new(Path::root(), format!("`{text}` is not a regular expression: {reason}"))
    })
}

/// Groups that the pattern lacks would silently become nothing, as `$1a` does, which names the group `1a`.
fn check_replacement(text: &str, pattern: &Regex) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('$') {
        if let Some(behind) = after.strip_prefix('$') {
            rest = behind;
            continue;
        }
        let (name, behind) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some((name, behind)) => (name, behind),
            None => {
                after.split_at(after.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count())
            }
        };
        rest = behind;
        if name.is_empty() {
            problems.push(
                Problem::new(Path::root(), "a `$` is followed by no group's name")
                    .hint("write `$$` for a dollar sign"),
            );
        } else if !has_group(pattern, name) {
            problems.push(no_group(name, pattern));
        }
    }
    if text.contains(['?', '#']) {
        problems.push(
            Problem::new(Path::root(), format!("`{text}` is more than a path: it has a `?` or a `#`"))
                .hint("leave it out; the request keeps its own query"),
        );
    }
    problems
}

fn has_group(pattern: &Regex, name: &str) -> bool {
    match name.parse::<usize>() {
        Ok(number) => number < pattern.captures_len(),
        Err(_) => pattern.capture_names().flatten().any(|known| known == name),
    }
}

fn no_group(name: &str, pattern: &Regex) -> Problem {
    let groups = match pattern.captures_len() - 1 {
        0 => "none".to_owned(),
        last => format!("{last}"),
    };
    let problem = Problem::new(
        Path::root(),
        format!("the pattern has no group `{name}`; groups that it has: {groups}"),
    );
    let digits = name.bytes().take_while(u8::is_ascii_digit).count();
    let (number, tail) = name.split_at(digits);
    if digits > 0 && !tail.is_empty() && has_group(pattern, number) {
        problem.hint(format!("write `${{{number}}}{tail}` to end the name there"))
    } else {
        problem
    }
}

impl<'de> Deserialize<'de> for ReplacePrefixConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReplacePrefixVisitor)
    }
}

struct ReplacePrefixVisitor;

impl<'de> Visitor<'de> for ReplacePrefixVisitor {
    type Value = ReplacePrefixConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path, or a map of `from` and `to`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ReplacePrefixConfig, E> {
        Ok(ReplacePrefixConfig::Matched(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ReplacePrefixConfig, A::Error> {
        FromToConfig::deserialize(MapAccessDeserializer::new(map)).map(ReplacePrefixConfig::Given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{INFO, ROUTE, get, plugin, plugins_of_doc, refusal, told, yaml};
    use crate::{Registry, replace_prefix};

    /// The target that a request for `target` is sent on with.
    fn rewritten(config: &str, target: &[u8]) -> Vec<u8> {
        let plugin =
            plugin("path_rewrite", config).unwrap_or_else(|problems| panic!("{config}: {}", told(&problems)));
        let mut head = get(target);
        assert!(matches!(plugin.request(&mut head, &INFO), Verdict::Continue));
        head.raw_path().to_vec()
    }

    #[track_caller]
    fn check(target: &str, config: &str, expected: &str) {
        assert_eq!(
            String::from_utf8_lossy(&rewritten(config, target.as_bytes())),
            expected,
            "{config} on {target}"
        );
    }

    #[test]
    fn the_yaml_of_the_module_doc_loads() {
        let sent: Vec<String> = plugins_of_doc(include_str!("path_rewrite.rs"))
            .iter()
            .zip(["/api/v1", "/foo/bar", "/api/v1", "/api", "/v1/a", "/api"])
            .map(|(plugin, path)| {
                let mut head = get(path);
                head.insert_header("x-tenant", "blue").unwrap();
                plugin.request(&mut head, &INFO);
                format!("{}{}", head.headers["host"].to_str().unwrap(), head.uri)
            })
            .collect();
        assert_eq!(
            sent,
            [
                "Shop.Example:8443/v1",
                "Shop.Example:8443/xyz/bar",
                "Shop.Example:8443/xyz/v1",
                "Shop.Example:8443/tenants/blue",
                "Shop.Example:8443/a",
                "kube-api.internal/",
            ]
        );
    }

    #[test]
    fn prefixes_are_replaced_as_the_gateway_api_says() {
        for (path, from, to, expected) in [
            ("/foo/bar", "/foo", "/xyz", Some("/xyz/bar")),
            ("/foo/bar", "/foo", "/xyz/", Some("/xyz/bar")),
            ("/foo/bar", "/foo/", "/xyz", Some("/xyz/bar")),
            ("/foo/bar", "/foo/", "/xyz/", Some("/xyz/bar")),
            ("/foo", "/foo", "/xyz", Some("/xyz")),
            ("/foo", "/foo/", "/xyz/", Some("/xyz")),
            ("/foo/", "/foo", "/xyz", Some("/xyz/")),
            ("/foo/bar", "/foo", "", Some("/bar")),
            ("/foo/bar", "/foo", "/", Some("/bar")),
            ("/foo/bar", "/foo/", "/", Some("/bar")),
            ("/foo", "/foo", "", Some("/")),
            ("/foo", "/foo", "/", Some("/")),
            ("/foo/", "/foo", "", Some("/")),
            ("/foo/", "/foo", "/", Some("/")),
            ("/foobar", "/foo", "/xyz", None),
            ("/fo", "/foo", "/xyz", None),
            ("/Foo", "/foo", "/xyz", None),
            ("/a/foo", "/foo", "/xyz", None),
            ("/foo%2Fbar", "/foo", "/xyz", None),
            ("/foo/%2F%2e/%C3%A9", "/foo", "/xyz", Some("/xyz/%2F%2e/%C3%A9")),
            ("/", "/", "/xyz", Some("/xyz/")),
            ("/bar", "/", "/xyz", Some("/xyz/bar")),
            ("/bar", "/", "/", Some("/bar")),
            ("/foo/bar/baz", "/foo/bar", "/x/y/z", Some("/x/y/z/baz")),
            ("/foo//bar", "/foo", "/xyz", Some("/xyz//bar")),
            ("/foo//evil.example", "/foo", "/", Some("/evil.example")),
            ("/foo///evil.example", "/foo/", "", Some("/evil.example")),
            ("/foo//", "/foo", "", Some("/")),
            ("/foo/bar", "/foo", "//evil.example", Some("/evil.example/bar")),
            ("/é/ü", "/é", "/x", Some("/x/ü")),
        ] {
            assert_eq!(replace_prefix(path, from, to).as_deref(), expected, "{path}: {from} by {to}");
            if path.is_ascii() && !to.starts_with("//") {
                let config = format!("{{ replace_prefix: {{ from: '{from}', to: '{to}' }} }}");
                check(path, &config, expected.unwrap_or(path));
                check(&format!("{path}?x=%26/y"), &config, &format!("{}?x=%26/y", expected.unwrap_or(path)));
            }
        }
    }

    #[test]
    fn each_rule_rewrites_the_path_and_keeps_the_query() {
        check("/api/v1/x?a=b", "{ strip_prefix: /api }", "/v1/x?a=b");
        check("/apiary?a=b", "{ strip_prefix: /api }", "/apiary?a=b");
        check("/api?a=b", "{ strip_prefix: /api/ }", "/?a=b");
        check("/api/v1", "{ replace_prefix: /xyz }", "/xyz/v1");
        check("/api", "{ replace_prefix: '' }", "/");
        check("/other", "{ replace_prefix: /xyz }", "/other");
        check("/a?b", "{ replace_path: /x }", "/x?b");
        check("/a?b", "{ replace_path: /$method$path }", "/GET/a?b");
        check("/a%2F?p=%2fq%3F%20r%23", "{ replace_path: '${query.p}' }", "/q%3F%20r%23?p=%2fq%3F%20r%23");
        check("/a?p=//evil.example", "{ replace_path: '${query.p}' }", "/evil.example?p=//evil.example");
        check("/a?p=b", "{ replace_path: '${query.p}' }", "/b?p=b");
        check("/a", "{ replace_path: '${query.p}' }", "/");
        check("/v1/a%2Fb?x", "{ regex: '^/v1(/.*)$', replace: $1 }", "/a%2Fb?x");
        check("/v1/a", "{ regex: '^/v(?<n>\\d+)/', replace: '/${n}-${1}_$$/' }", "/1-1_$/a");
        check("/a/b/a", "{ regex: 'a', replace: c }", "/c/b/a");
        check("/v2/a?x", "{ regex: '^/v1(/.*)$', replace: $1 }", "/v2/a?x");
        check("/v1//evil.example", "{ regex: '^/v1(/.*)$', replace: $1 }", "/evil.example");
        check("/v1/a", "{ regex: '^/v1/(.*)$', replace: $1 }", "/a");
        check("/v1", "{ regex: '.*', replace: '' }", "/");
        check("*", "{ replace_path: /x }", "*");
        check("http://shop.example:8443/api/a?b", "{ strip_prefix: /api }", "http://shop.example:8443/a?b");
        check("http://shop.example:8443?b", "{ replace_path: /x }", "http://shop.example:8443/x?b");
    }

    #[test]
    fn bytes_that_are_no_utf8_go_through() {
        for config in ["{ strip_prefix: /api }", "{ regex: '^/api', replace: '' }"] {
            assert_eq!(rewritten(config, b"/api/\xff\xfe?\xfd"), b"/\xff\xfe?\xfd", "{config}");
        }
        assert_eq!(rewritten("{ replace_path: /x$path }", b"/\xff"), b"/x/\xff");
    }

    #[test]
    fn scheme_and_authority_of_http2_stay() {
        let (parts, ()) = http::Request::get("https://shop.example/api/a?b").body(()).unwrap().into_parts();
        let mut head = RequestHeader::from(parts);
        plugin("path_rewrite", "{ strip_prefix: /api }").unwrap().request(&mut head, &INFO);
        assert_eq!(head.uri, "https://shop.example/a?b");
    }

    #[test]
    fn the_host_is_replaced_beside_the_path_or_alone() {
        for (config, target, sent) in [
            ("{ host: blue.example }", "/a?b", "blue.example/a?b"),
            ("{ strip_prefix: /api, host: blue.example }", "/api/a", "blue.example/a"),
            ("{ strip_prefix: /api, host: '${query.t}.example' }", "/api?t=x", "x.example/?t=x"),
            ("{ host: '${query.t}' }", "/api", "Shop.Example:8443/api"),
            ("{ host: a.example, replace_path: /$host }", "/api", "a.example/shop.example"),
        ] {
            let mut head = get(target);
            plugin("path_rewrite", config).unwrap().request(&mut head, &INFO);
            let host = head.headers["host"].to_str().unwrap();
            assert_eq!(format!("{host}{}", head.uri), sent, "{config}");
            assert_eq!(head.headers.get_all("host").iter().count(), 1);
        }
    }

    #[test]
    fn a_path_that_grows_too_long_is_answered() {
        let plugin = plugin("path_rewrite", "{ replace_path: /$path$path }").unwrap();
        let mut head = get(format!("/{}", "a".repeat(40_000)));
        assert!(matches!(plugin.request(&mut head, &INFO), Verdict::Respond(reply) if reply.status == 414));
    }

    #[test]
    fn the_matched_prefix_needs_a_route_that_has_one() {
        for (setting, told_end) in [
            (
                Setting { matches_by_prefix: false, ..ROUTE },
                "this route also takes requests that match no prefix",
            ),
            (
                Setting { route: None, matches_by_prefix: false, ..ROUTE },
                "not every route matches by a prefix",
            ),
        ] {
            let problems = Registry::builtin()
                .build("path_rewrite", &yaml("{ replace_prefix: /xyz }"), &setting)
                .map(|_| ())
                .unwrap_err();
            assert_eq!(
                told(&problems),
                format!(
                    "replace_prefix: `/xyz` is to replace the prefix that the route matched, but {told_end} \
                     (write `replace_prefix: {{ from: /…, to: /xyz }}`, or give the route nothing but prefixes as `paths`)"
                )
            );
        }
    }

    #[test]
    fn what_cannot_be_a_rewrite_is_refused() {
        for (config, told) in [
            ("{}", ": nothing is rewritten (give one of"),
            (
                "{ strip_prefix: /a, replace_path: /b }",
                "replace_path: `strip_prefix` already says what becomes of the path",
            ),
            ("{ replace_prefix: /a, regex: a, replace: b }", "regex: `replace_prefix` already says"),
            ("{ regex: a }", "regex: `regex` needs `replace` beside it"),
            ("{ replace: a }", "replace: `replace` needs `regex` beside it"),
            ("{ regex: '^/(a', replace: b }", "regex: `^/(a` is not a regular expression: unclosed group"),
            (
                "{ regex: '(a)', replace: $1b }",
                "replace: the pattern has no group `1b`; groups that it has: 1 (write `${1}b`",
            ),
            (
                "{ regex: 'a', replace: '/${x}' }",
                "replace: the pattern has no group `x`; groups that it has: none",
            ),
            ("{ regex: 'a', replace: '/$' }", "replace: a `$` is followed by no group's name (write `$$`"),
            ("{ regex: 'a', replace: '/b?c=$0' }", "replace: `/b?c=$0` is more than a path"),
            ("{ strip_prefix: api }", "strip_prefix: `api` does not begin with `/` (write `/api`)"),
            ("{ strip_prefix: '' }", "strip_prefix: `` does not begin with `/`"),
            ("{ strip_prefix: / }", "strip_prefix: `/` is a prefix of every path"),
            (
                "{ replace_prefix: { from: foo, to: bar } }",
                "replace_prefix.from: `foo` does not begin with `/` (write `/foo`)\nreplace_prefix.to: `bar`",
            ),
            (
                "{ replace_prefix: { from: /a, to: '/b c' } }",
                "replace_prefix.to: `/b c` has a character that a path cannot carry",
            ),
            ("{ replace_prefix: { from: /é, to: /b } }", "replace_prefix.from: `/é` has a character"),
            ("{ replace_prefix: { from: /a } }", "`to` is missing"),
            ("{ replace_prefix: { from: /a, too: /b } }", "unknown key `too`"),
            ("{ replace_path: '/a?b=c' }", "replace_path: `/a?b=c` is more than a path"),
            (
                "{ replace_path: 'a$path' }",
                "replace_path: `a$path` does not begin with `/` (write `/a$path`)",
            ),
            ("{ replace_path: /$paht }", "replace_path: no variable is named `$paht`"),
            ("{ replace_path: /$sni }", "replace_path: `$sni` is known only once"),
            ("{ host: 'http://a' }", "host: `http://a` is not a host"),
            ("{ host: $endpoint }", "host: `$endpoint` is known only once"),
        ] {
            let refused = refusal("path_rewrite", config);
            assert!(refused.contains(told), "{config}: {refused}");
        }
    }
}
