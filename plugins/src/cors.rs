//! `cors`: which web pages of other origins may read the answers, by the Fetch standard's CORS protocol.
//!
//! ```yaml
//! - cors:
//!     allow_origins: ["https://app.example.com", "https://*.example.com", "http://localhost:3000"]
//!     allow_methods: [GET, PUT, DELETE]         # GET, HEAD and POST are always allowed
//!     allow_headers: [authorization, x-tenant]  # besides those that every page may send
//!     expose_headers: [x-request-id]            # besides those that every page may read
//!     allow_credentials: true                   # cookies, client certificates; default false
//!     max_age: 10m                              # how long a browser may keep a preflight's answer; default 5s
//! - cors: { allow_origins: "*" }
//! ```
//!
//! A preflight, which is an OPTIONS request with `Origin` and `Access-Control-Request-Method`, is answered here with 204 and
//! reaches neither the plugins behind this one nor an upstream; so the route has to match OPTIONS, and plugins that ask who
//! the client is belong behind this one. To an origin that is not allowed the same 204 says nothing of CORS, by which its
//! browser knows. Other requests pass whatever their origin: it is the browser that keeps the answer from the page.
//!
//! An origin is compared exactly, as scheme, host and port. `*.` stands for any number of labels, never for none, as in a
//! route's `hosts`. `*` alone is every origin, and is refused beside `allow_credentials`, since every page could then act as
//! its user. `*` in `allow_methods` and `allow_headers` is everything; beside `allow_credentials`, where browsers take it
//! for a name, what the preflight asks for is said in its stead. Without credentials `*` does not hold for `Authorization`,
//! which has to be named.
//!
//! Each `Access-Control-*` field of the upstream's answer is removed, so that only one side rules; `Vary: Origin` is added
//! wherever the answer depends on the origin. All of it follows the Gateway API's HTTPCORSFilter, but for `*` with
//! credentials.

use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, HeaderValue, ORIGIN, VARY,
};
use http::{HeaderMap, Method};
use pingora_http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::duration::DurationText;
use crate::field::FieldPattern;
use crate::one_or_many::OneOrMany;
use crate::origin::{self, OriginPattern};
use crate::problem::{Path, Problem};
use crate::{Build, Hooks, Plugin, Reply, RequestInfo, Setting, Verdict};

/// Answers preflights, and tells browsers which pages may read the other answers.
pub struct Cors {
    origins: Origins,
    methods: Listed,
    headers: Listed,
    expose: Option<HeaderValue>,
    credentials: Credentials,
    max_age: HeaderValue,
    /// Every `Access-Control-*` field.
    foreign: FieldPattern,
}

enum Origins {
    Any,
    These(Vec<OriginPattern>),
}

/// A list that a preflight is told.
enum Listed {
    Nothing,
    Fixed(HeaderValue),
    /// What it asks for.
    Asked,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Credentials {
    Allowed,
    Left,
}

/// Which web pages of other origins may read the answers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorsConfig {
    /// `https://app.example.com`, `https://*.example.com`, or `*` for every page.
    allow_origins: OneOrMany<String>,
    /// Methods besides GET, HEAD and POST, or `*`.
    #[serde(default)]
    allow_methods: Option<OneOrMany<String>>,
    /// Header fields that pages may send, or `*`.
    #[serde(default)]
    allow_headers: Option<OneOrMany<String>>,
    /// Header fields of the answer that pages may read, or `*`.
    #[serde(default)]
    expose_headers: Option<OneOrMany<String>>,
    /// Whether a page's requests may carry its user's cookies. Default: false.
    #[serde(default)]
    allow_credentials: bool,
    /// For how long a browser may keep the answer to a preflight. Default: 5s.
    #[serde(default = "default_max_age")]
    max_age: DurationText,
}

fn default_max_age() -> DurationText {
    DurationText(Duration::from_secs(5))
}

impl Build for Cors {
    type Config = CorsConfig;

    fn build(config: CorsConfig, _: &Setting<'_>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let credentials = if config.allow_credentials { Credentials::Allowed } else { Credentials::Left };
        let origins = origins(&config.allow_origins.0, credentials, &mut problems);
        let mut list =
            |list: Option<OneOrMany<String>>, key: &str, check: fn(&str) -> Result<(), Problem>| {
                names(list.map_or_else(Vec::new, |list| list.0), &Path::root().key(key), check, &mut problems)
            };
        let methods = list(config.allow_methods, "allow_methods", method);
        let headers = list(config.allow_headers, "allow_headers", header);
        let expose = list(config.expose_headers, "expose_headers", header);
        if expose == Names::All && credentials == Credentials::Allowed {
            problems.push(
                Problem::new(
                    Path::root().key("expose_headers"),
                    "`*` beside `allow_credentials` is taken by browsers for a header of that name",
                )
                .hint("name the headers that pages may read"),
            );
        }
        if config.max_age.0.subsec_millis() != 0 {
            let told =
                format!("`{}` is not in whole seconds, which are all that can be sent", config.max_age);
            problems.push(Problem::new(Path::root().key("max_age"), told));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            origins,
            methods: methods.told(credentials),
            headers: headers.told(credentials),
            expose: match expose.told(credentials) {
                Listed::Fixed(value) => Some(value),
                Listed::Nothing | Listed::Asked => None,
            },
            credentials,
            max_age: HeaderValue::from(config.max_age.0.as_secs()),
            foreign: FieldPattern::Prefix("access-control-".to_owned()),
        })
    }
}

impl Plugin for Cors {
    fn hooks(&self) -> Hooks {
        Hooks { request: true, response: true, wait: false }
    }

    fn request(&self, head: &mut RequestHeader, _: &RequestInfo<'_>) -> Verdict {
        if !is_preflight(head) {
            return Verdict::Continue;
        }
        // `response` writes what there is to say, as in every other answer.
        Verdict::Respond(Reply { status: 204, headers: Vec::new(), body: bytes::Bytes::new() })
    }

    fn response(&self, head: &mut ResponseHeader, request: &RequestHeader, _: &RequestInfo<'_>) {
        self.foreign.remove_from(head);
        if matches!(self.origins, Origins::These(_)) {
            add_to_vary(head, "Origin");
        }
        let Some(allowed) = request.headers.get(ORIGIN).and_then(|origin| self.allowed(origin)) else {
            return;
        };
        let mut set = |name: HeaderName, value: HeaderValue| {
            // Writing fails for a head of 2^15 fields, where the new one is left out.
            let _ = head.insert_header(name, value);
        };
        set(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials == Credentials::Allowed {
            set(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if !is_preflight(request) {
            if let Some(expose) = &self.expose {
                set(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
            }
            return;
        }
        for (name, listed, asked) in [
            (ACCESS_CONTROL_ALLOW_METHODS, &self.methods, ACCESS_CONTROL_REQUEST_METHOD),
            (ACCESS_CONTROL_ALLOW_HEADERS, &self.headers, ACCESS_CONTROL_REQUEST_HEADERS),
        ] {
            if let Some(value) = listed.told(&request.headers, &asked) {
                set(name, value);
            }
        }
        set(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
    }
}

impl Cors {
    /// What an allowed origin is told.
    fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match &self.origins {
            Origins::Any => Some(HeaderValue::from_static("*")),
            Origins::These(patterns) => {
                patterns.iter().any(|it| it.matches(origin.as_bytes())).then(|| origin.clone())
            }
        }
    }
}

/// The Fetch standard's CORS-preflight request.
fn is_preflight(head: &RequestHeader) -> bool {
    head.method == Method::OPTIONS
        && head.headers.contains_key(ORIGIN)
        && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Some caches look at one Vary field only, so there is to be one.
fn add_to_vary(head: &mut ResponseHeader, name: &'static str) {
    let mut listed = String::new();
    for value in head.headers.get_all(VARY).iter().filter_map(|value| value.to_str().ok()) {
        if value.split(',').map(str::trim).any(|it| it == "*" || it.eq_ignore_ascii_case(name)) {
            return;
        }
        if !value.trim().is_empty() {
            listed.push_str(value.trim());
            listed.push_str(", ");
        }
    }
    listed.push_str(name);
    if let Ok(value) = HeaderValue::from_str(&listed) {
        let _ = head.insert_header(VARY, value);
    }
}

impl Listed {
    fn told(&self, request: &HeaderMap, asked: &HeaderName) -> Option<HeaderValue> {
        match self {
            Self::Nothing => None,
            Self::Fixed(value) => Some(value.clone()),
            Self::Asked => request.get(asked).cloned(),
        }
    }
}

/// A list of names as typed.
#[derive(PartialEq, Eq)]
enum Names {
    These(Vec<String>),
    All,
}

impl Names {
    fn told(&self, credentials: Credentials) -> Listed {
        match (self, credentials) {
            (Self::These(names), _) if names.is_empty() => Listed::Nothing,
            // Names were checked, so they make a value.
            (Self::These(names), _) => {
                HeaderValue::from_str(&names.join(", ")).map_or(Listed::Nothing, Listed::Fixed)
            }
            (Self::All, Credentials::Left) => Listed::Fixed(HeaderValue::from_static("*")),
            (Self::All, Credentials::Allowed) => Listed::Asked,
        }
    }
}

fn names(
    list: Vec<String>,
    at: &Path,
    check: fn(&str) -> Result<(), Problem>,
    problems: &mut Vec<Problem>,
) -> Names {
    if list == ["*"] {
        return Names::All;
    }
    for (index, text) in list.iter().enumerate() {
        let checked = if text == "*" { Err(beside()) } else { check(text) };
        problems.extend(checked.err().map(|problem| problem.under(&at.index(index))));
    }
    Names::These(list)
}

fn origins(list: &[String], credentials: Credentials, problems: &mut Vec<Problem>) -> Origins {
    let at = Path::root().key("allow_origins");
    if list.is_empty() {
        let problem = Problem::new(at.clone(), "the list is empty, so no page could read anything");
        problems.push(problem.hint("name origins, as in `https://app.example.com`, or leave `cors` out"));
    }
    if list == ["*"] {
        if credentials == Credentials::Allowed {
            problems.push(
                Problem::new(at, "`*` beside `allow_credentials` would let every page act as its user")
                    .hint("name the origins, or leave `allow_credentials` out"),
            );
        }
        return Origins::Any;
    }
    let parsed = list.iter().enumerate().filter_map(|(index, text)| {
        let parsed = if text == "*" { Err(beside()) } else { origin::OriginPattern::parse(text) };
        parsed.map_err(|problem| problems.push(problem.under(&at.index(index)))).ok()
    });
    Origins::These(parsed.collect())
}

fn beside() -> Problem {
    Problem::new(Path::root(), "`*` is everything, so nothing can stand beside it").hint("write `*` alone")
}

fn method(text: &str) -> Result<(), Problem> {
    let upper = text.to_ascii_uppercase();
    match Method::from_bytes(text.as_bytes()) {
        Ok(_) if text == upper => Ok(()),
        Ok(_) => Err(Problem::new(
            Path::root(),
            format!("`{text}` is no method that is in use; case counts in a method"),
        )
        .hint(format!("write `{upper}`"))),
        Err(_) => {
            let shown = crate::decode::shown(text);
            Err(Problem::new(Path::root(), format!("`{shown}` is not a method, such as `GET`")))
        }
    }
}

fn header(text: &str) -> Result<(), Problem> {
    match HeaderName::from_bytes(text.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => {
            let shown = crate::decode::shown(text);
            Err(Problem::new(Path::root(), format!("`{shown}` is not a header name, such as `x-tenant`")))
        }
    }
}

#[cfg(test)]
#[path = "cors_tests.rs"]
mod tests;
