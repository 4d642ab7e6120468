//! `/routes`: each route, what it asks of a request, and what becomes of one.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use vestibule_plugins::DurationText;

use crate::config::redact;
use crate::route::{ListenerId, PathPattern, Rule, TextPattern};
use crate::snapshot::{Action, Redirect, RedirectPath, Route, Snapshot, Timeouts};

/// The whole page.
#[derive(Serialize, JsonSchema)]
pub struct Routes<'a> {
    /// The hash of the configuration that runs.
    config: &'a str,
    /// In the order of the file, which is not that of precedence.
    routes: Vec<RouteRow<'a>>,
    /// Requests that no route took, and that are over.
    unrouted_requests: u64,
}

#[derive(Serialize, JsonSchema)]
struct RouteRow<'a> {
    /// Its name, or `routes[N]`.
    name: &'a str,
    /// What it asks of a request, in the file's words.
    r#match: MatchRow<'a>,
    /// Where requests go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    upstreams: Vec<TargetRow<'a>>,
    /// Where clients are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    redirect: Option<RedirectRow<'a>>,
    /// What the gateway answers by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    respond: Option<RespondRow>,
    /// What is absent is not limited.
    timeouts: TimeoutsRow,
    /// By name: the common ones, then its own.
    plugins: Vec<&'a str>,
    /// Requests that it took, and that are over.
    requests: u64,
}

#[derive(Serialize, JsonSchema)]
struct MatchRow<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    hosts: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    paths: Vec<PathRow<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    methods: Vec<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    headers: BTreeMap<&'a str, TextRow>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    query: BTreeMap<&'a str, TextRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    listeners: Vec<&'a str>,
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum PathRow<'a> {
    Prefix(&'a str),
    Exact { exact: &'a str },
    Regex { regex: &'a str },
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum TextRow {
    Exact(String),
    Regex { regex: String },
    Present { present: bool },
}

#[derive(Serialize, JsonSchema)]
struct TargetRow<'a> {
    upstream: &'a str,
    /// Its share among those of the route.
    weight: u32,
}

#[derive(Serialize, JsonSchema)]
struct RedirectRow<'a> {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheme: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replace_prefix: Option<&'a str>,
}

#[derive(Serialize, JsonSchema)]
struct RespondRow {
    status: u16,
}

#[derive(Serialize, JsonSchema)]
struct TimeoutsRow {
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle: Option<String>,
}

/// Those of the running snapshot.
pub fn told(snapshot: &Snapshot) -> Routes<'_> {
    let routes = snapshot.routes.iter().zip(snapshot.table.rules());
    Routes {
        config: &snapshot.hash,
        routes: routes.map(|(route, rule)| of_route(route, rule, snapshot)).collect(),
        unrouted_requests: snapshot.unrouted.requests(),
    }
}

fn of_route<'a>(route: &'a Route, rule: &'a Rule, snapshot: &'a Snapshot) -> RouteRow<'a> {
    let (mut upstreams, mut redirect, mut respond) = (Vec::new(), None, None);
    match &route.action {
        Action::Forward { targets, .. } => {
            let rows = targets.iter();
            upstreams.extend(
                rows.map(|target| TargetRow { upstream: &target.upstream.name, weight: target.weight }),
            );
        }
        Action::Redirect(to) => redirect = Some(of_redirect(to)),
        Action::Respond { head, .. } => respond = Some(RespondRow { status: head.status.as_u16() }),
    }
    let text = |duration: Option<Duration>| duration.map(|duration| DurationText(duration).to_string());
    let Timeouts { request, attempt, idle } = route.timeouts;
    RouteRow {
        name: &route.name,
        r#match: of_rule(rule, snapshot),
        upstreams,
        redirect,
        respond,
        timeouts: TimeoutsRow { request: text(request), attempt: text(attempt), idle: text(idle) },
        plugins: route.chain.names().collect(),
        requests: route.meter.requests(),
    }
}

fn of_rule<'a>(rule: &'a Rule, snapshot: &'a Snapshot) -> MatchRow<'a> {
    let listener = |id: &ListenerId| {
        snapshot.listeners.iter().find(|listener| listener.id == *id).map(|listener| listener.name.as_str())
    };
    MatchRow {
        hosts: rule.hosts.iter().map(ToString::to_string).collect(),
        paths: rule.paths.iter().map(of_path).collect(),
        methods: rule.methods.iter().map(http::Method::as_str).collect(),
        headers: rule
            .headers
            .iter()
            .map(|(name, text)| (name.as_str(), of_text(name.as_str(), text)))
            .collect(),
        query: rule.query.iter().map(|(name, text)| (name.as_str(), of_text(name, text))).collect(),
        listeners: rule.listeners.iter().filter_map(listener).collect(),
    }
}

fn of_path(path: &PathPattern) -> PathRow<'_> {
    match path {
        PathPattern::Prefix(prefix) if prefix.is_empty() => PathRow::Prefix("/"),
        PathPattern::Prefix(prefix) => PathRow::Prefix(prefix),
        PathPattern::Exact(exact) => PathRow::Exact { exact },
        PathPattern::Regex(regex) => PathRow::Regex { regex: regex.as_str() },
    }
}

/// A route may tell its clients by a secret: `x-api-key: …`.
fn of_text(name: &str, text: &TextPattern) -> TextRow {
    match text {
        TextPattern::Exact(text) => TextRow::Exact(redact::value_of(name, text)),
        TextPattern::Regex(regex) => TextRow::Regex { regex: redact::value_of(name, regex.as_str()) },
        TextPattern::Present(present) => TextRow::Present { present: *present },
    }
}

fn of_redirect(redirect: &Redirect) -> RedirectRow<'_> {
    let (path, replace_prefix) = match &redirect.path {
        RedirectPath::Keep => (None, None),
        RedirectPath::Full(path) => (Some(path.as_str()), None),
        RedirectPath::ReplacePrefix(to) => (None, Some(to.as_str())),
    };
    RedirectRow {
        status: redirect.status,
        scheme: redirect.scheme.as_deref(),
        host: redirect.host.as_deref(),
        port: redirect.port,
        path,
        replace_prefix,
    }
}
