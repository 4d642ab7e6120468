//! A file of sample requests and what is expected of each: a configuration's own regression test.
//!
//! ```yaml
//! - request: GET https://shop.example/api/v1?x=1
//!   headers: { x-canary: always }
//!   listener: web-tls                 # where the URL does not tell it
//!   expect: { route: kube-api, path: /v1?x=1, upstream: blue, host: shop.example, sni: shop.example }
//! - request: GET http://shop.example/old
//!   expect: { status: 302, location: "https://shop.example/old", headers: { server: { present: false } } }
//! - request: GET https://shop.example/nothing
//!   expect: { route: none, status: 404 }
//! ```
//!
//! `route: none` is that no route takes it, `sni: none` that none is sent. `headers` are those that the upstream gets,
//! or those of the answer where the gateway answers itself. Of a split, what is expected has to hold for each part that
//! has a weight, or for those that `upstream` names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path as FilePath;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use vestibule_plugins::{Path, Problem, Text};

use super::{Explanation, Forward, Outcome, Sample, Typed};
use crate::config::{self, OneOrMany, Position, Status, TextMatchConfig, scalar};
use crate::route::TextPattern;
use crate::snapshot::{Report, Snapshot, pattern, unknown};

/// Sample requests, in the order of their file.
pub type Cases = Vec<Case>;

/// A sample request, and what is expected of it.
pub struct Case {
    /// Where it stands.
    pub at: Position,
    /// As it was typed: `GET https://shop.example/`.
    pub request: String,
    /// The same, made one that could have come in.
    pub sample: Sample,
    expect: Expect,
}

/// Something that is not as it was expected.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key under `expect`.
    pub key: String,
    /// What was expected.
    pub expected: String,
    /// What came of it.
    pub got: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseConfig {
    request: String,
    #[serde(default)]
    headers: BTreeMap<String, OneOrMany<Text>>,
    #[serde(default, deserialize_with = "scalar::given")]
    listener: Option<String>,
    #[serde(default)]
    expect: ExpectConfig,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ExpectConfig {
    #[serde(deserialize_with = "scalar::given")]
    route: Option<Text>,
    #[serde(deserialize_with = "scalar::given")]
    path: Option<Text>,
    #[serde(deserialize_with = "scalar::given")]
    upstream: Option<Text>,
    #[serde(deserialize_with = "scalar::given")]
    host: Option<Text>,
    #[serde(deserialize_with = "scalar::given")]
    sni: Option<Text>,
    #[serde(deserialize_with = "scalar::given")]
    status: Option<Status>,
    #[serde(deserialize_with = "scalar::given")]
    location: Option<Text>,
    headers: BTreeMap<String, TextMatchConfig>,
}

/// What is expected; nothing where the file names nothing.
struct Expect {
    /// By their keys, but for `headers`.
    texts: Vec<(&'static str, String)>,
    headers: Vec<(HeaderName, TextPattern)>,
}

/// What the cases are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be judged: each has to expect something, since it could not fail otherwise.
    Judge,
    /// To be listed with what becomes of them.
    List,
}

/// How `route`, `sni`, `upstream` and `location` spell that there is none.
const NONE: &str = "none";

/// Reads a file of cases for the requests that this snapshot serves.
///
/// # Errors
/// Every problem, with the place of each.
pub fn read(path: &FilePath, snapshot: &Snapshot, purpose: Purpose) -> Result<Cases, Report> {
    let (configs, document, problems) = config::list::<CaseConfig>(path)?;
    if !problems.is_empty() {
        return Err(Report::new(problems, &document));
    }
    let (mut cases, mut problems) = (Vec::new(), Vec::new());
    for (index, config) in configs.into_iter().enumerate() {
        let at = Path::root().index(index);
        let mut found = Vec::new();
        let expect = config.expect.compile(snapshot, &mut found);
        if purpose == Purpose::Judge && expect.texts.is_empty() && expect.headers.is_empty() {
            found.push(
                Problem::new(Path::root().key("expect"), "nothing is expected of this request")
                    .hint("name what is, as in `expect: { route: NAME }`"),
            );
        }
        let headers: Vec<(String, String)> = config
            .headers
            .into_iter()
            .flat_map(|(name, values)| values.0.into_iter().map(move |value| (name.clone(), value.0)))
            .collect();
        let sample = match config.request.split_ascii_whitespace().collect::<Vec<_>>().as_slice() {
            [method, url] => {
                let listener = config.listener.as_deref();
                Typed { method, url, headers: &headers, listener }.sample(snapshot)
            }
            _ => Err(vec![
                Problem::new(Path::root().key("request"), "a request is a method and a URL")
                    .hint("write `GET https://shop.example/path`"),
            ]),
        };
        match sample {
            Ok(sample) => {
                cases.push(Case { at: document.position(&at), request: config.request, sample, expect });
            }
            Err(wrong) => found.extend(wrong),
        }
        problems.extend(found.into_iter().map(|problem| problem.under(&at)));
    }
    match problems.is_empty() {
        true => Ok(cases),
        false => Err(Report::new(problems, &document)),
    }
}

impl ExpectConfig {
    fn compile(self, snapshot: &Snapshot, problems: &mut Vec<Problem>) -> Expect {
        let at = Path::root().key("expect");
        let routes: Vec<String> = snapshot.routes.iter().map(|route| route.name.clone()).collect();
        let upstreams: Vec<String> = snapshot.upstreams.iter().map(|it| it.name.clone()).collect();
        for (noun, given, known) in
            [("route", &self.route, &routes), ("upstream", &self.upstream, &upstreams)]
        {
            if let Some(Text(name)) = given.as_ref().filter(|name| name.0 != NONE) {
                problems.extend(unknown(noun, name, known, at.key(noun)));
            }
        }
        let mut headers = Vec::new();
        for (name, text) in &self.headers {
            let at = at.key("headers").key(name);
            let parsed = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| Problem::new(at.clone(), format!("`{name}` is not a header name")));
            match (parsed, pattern(text, &at)) {
                (Ok(name), Ok(pattern)) => headers.push((name, pattern)),
                (name, pattern) => problems.extend(name.err().into_iter().chain(pattern.err())),
            }
        }
        let status = self.status.map(|status| Text(status.to_string()));
        let texts = [
            ("route", self.route),
            ("upstream", self.upstream),
            ("path", self.path),
            ("host", self.host),
            ("sni", self.sni),
            ("status", status),
            ("location", self.location),
        ];
        let texts = texts.into_iter().filter_map(|(key, text)| Some((key, text?.0))).collect();
        Expect { texts, headers }
    }
}

impl Case {
    /// What is not as it was expected.
    pub fn differences(&self, explanation: &Explanation) -> Vec<Difference> {
        let parts = self.parts(explanation);
        let texts = self.expect.texts.iter().filter_map(|(key, expected)| {
            let got = got(key, explanation, &parts);
            let is_met = got.len() == 1 && got.contains(expected);
            (!is_met).then(|| Difference {
                key: (*key).to_owned(),
                expected: expected.clone(),
                got: or(&got),
            })
        });
        let headers = self.expect.headers.iter().filter_map(|(name, pattern)| {
            let sections = match &explanation.outcome {
                Outcome::Refused(_) => Vec::new(),
                Outcome::Answered(answer) => vec![map(&answer.headers)],
                Outcome::Forwarded { .. } => parts.iter().map(|part| map(&part.headers)).collect(),
            };
            let is_met = !sections.is_empty() && sections.iter().all(|it| pattern.matches_header(name, it));
            let values = || sections.iter().map(|section| value(section, name)).collect();
            (!is_met).then(|| Difference {
                key: format!("headers.{name}"),
                expected: told(pattern),
                got: or(&values()),
            })
        });
        texts.chain(headers).collect()
    }

    /// The upstreams that the expectations are about.
    fn parts<'a>(&self, explanation: &'a Explanation) -> Vec<&'a Forward> {
        let Outcome::Forwarded { upstreams } = &explanation.outcome else { return Vec::new() };
        let with_weight: Vec<_> = upstreams.iter().filter(|part| part.weight > 0).collect();
        let wanted = self.expect.texts.iter().find(|(key, _)| *key == "upstream");
        let named =
            with_weight.iter().copied().filter(|part| Some(&part.upstream.name) == wanted.map(|it| &it.1));
        match named.collect::<Vec<_>>() {
            named if named.is_empty() => with_weight,
            named => named,
        }
    }
}

/// What came of a key: more than one text where the parts of a split, or an upstream's endpoints, differ.
fn got(key: &str, explanation: &Explanation, parts: &[&Forward]) -> BTreeSet<String> {
    let none = || NONE.to_owned();
    let one = |text: Option<String>| BTreeSet::from([text.unwrap_or_else(none)]);
    let outcome = &explanation.outcome;
    match key {
        "route" => one(explanation.route.clone()),
        "status" => one(Some(match outcome {
            Outcome::Refused(refusal) => refusal.status.to_string(),
            Outcome::Answered(answer) => answer.status.to_string(),
            Outcome::Forwarded { .. } => "the upstream's".into(),
        })),
        "location" => one(match outcome {
            Outcome::Answered(answer) => answer.location.clone(),
            _ => None,
        }),
        _ if parts.is_empty() => one(None),
        "upstream" => parts.iter().map(|part| part.upstream.name.clone()).collect(),
        "path" => parts.iter().map(|part| part.target.clone()).collect(),
        "host" => parts.iter().flat_map(|part| &part.endpoints).map(|it| it.host.clone()).collect(),
        _ => parts
            .iter()
            .flat_map(|part| &part.endpoints)
            .map(|it| it.sni.clone().unwrap_or_else(none))
            .collect(),
    }
}

fn map(fields: &[(String, String)]) -> HeaderMap {
    let parsed = fields.iter().filter_map(|(name, value)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
    });
    let mut map = HeaderMap::new();
    for (name, value) in parsed {
        map.append(name, value);
    }
    map
}

fn value(section: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<_> =
        section.get_all(name).iter().map(|it| String::from_utf8_lossy(it.as_bytes())).collect();
    if values.is_empty() { NONE.into() } else { values.join(", ") }
}

fn told(pattern: &TextPattern) -> String {
    match pattern {
        TextPattern::Exact(text) => text.clone(),
        TextPattern::Regex(regex) => format!("regex {regex}"),
        TextPattern::Present(true) => "any value".into(),
        TextPattern::Present(false) => NONE.into(),
    }
}

fn or(texts: &BTreeSet<String>) -> String {
    match texts.is_empty() {
        true => NONE.into(),
        false => texts.iter().map(String::as_str).collect::<Vec<_>>().join(" or "),
    }
}
