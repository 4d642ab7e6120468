//! From `routes:` to rules, actions and chains.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::{HeaderName, Method};
use vestibule_plugins::problem::did_you_mean;
use vestibule_plugins::{Chain, Link, Path, Problem};

use super::files::Files;
use super::kept::{Kept, Owner, UpstreamDefinition};
use super::plugins::{Place, Plugins};
use super::tls::{self, Block};
use super::{
    Action, Host, Http1, Route, Target, TargetTls, Timeouts, TrustedHeaders, Upgrades, answers, upstreams,
};
use crate::config::{
    Config, ListenerConfig, MatchConfig, PathConfig, PluginConfig, RouteConfig, TextMatchConfig,
    TimeoutsConfig, UpstreamConfig,
};
use crate::listener::ListenerIds;
use crate::observe::Metrics;
use crate::route::{HostPattern, ListenerId, PathPattern, Rule, TextPattern};
use crate::upstream::{Alpn, Policies, Protocol, Upstream};

/// What routes are compiled with.
pub struct Bench<'a> {
    /// The whole file.
    pub config: &'a Config,
    /// The upstreams that compiled, by name.
    pub upstreams: &'a HashMap<&'a str, Arc<Upstream>>,
    /// Upstream names that stand in the file, those with problems of their own included.
    pub upstream_names: &'a [String],
    /// Listener names that stand in the file, likewise.
    pub listener_names: &'a [String],
    /// The plugins of this file.
    pub plugins: &'a Plugins<'a>,
    /// The numbers of the listeners' names, all of which are known by now.
    pub listener_ids: &'a ListenerIds,
    /// Known TLS policies.
    pub policies: &'a Policies,
    /// Where requests are counted.
    pub metrics: &'a Metrics,
    /// What earlier snapshots had.
    pub kept: &'a Kept,
    /// Certificates and pages.
    pub files: &'a Files<'a>,
    /// The plugins that every route runs first.
    pub common: &'a [Link],
}

impl Bench<'_> {
    /// Compiles the route at `position`, or tells every problem that it has.
    pub fn route(
        &self,
        position: usize,
        config: &RouteConfig,
        problems: &mut Vec<Problem>,
    ) -> Option<(Rule, Route)> {
        let at = Path::root().key("routes").index(position);
        let before = problems.len();
        let name = config.name.clone().unwrap_or_else(|| at.to_string());
        let rule = self.rule(&config.r#match, &at.key("match"), problems);
        let action = self.action(config, &at, problems);
        let timeouts = timeouts(&config.timeouts);
        let trusted = trusted(&config.trust_headers, &at.key("trust_headers"), problems);
        let upgrades = self.upgrades(config, &at.key("upgrades"), problems);
        let place = Place { route: Some(&name), matches_by_prefix: matches_by_prefix(&config.r#match) };
        let owner = Owner::of(config);
        let own = self::plugins(&config.plugins, &at.key("plugins"), &owner, self.plugins, place, problems);
        if problems.len() > before {
            return None;
        }
        if !matches!(action, Some(Action::Forward { .. }))
            && let Some(index) = own.iter().position(|link| link.plugin.retry().is_some())
        {
            let at = at.key("plugins").index(index).key(&config.plugins[index].name);
            problems.push(
                Problem::new(at, "this route asks no upstream, so there is nothing to try again")
                    .hint("remove it, or give the route an `upstream`"),
            );
            return None;
        }
        let links: Vec<Link> = self.common.iter().cloned().chain(own).collect();
        problems.extend(not_behind(&links));
        problems.extend(not_to_trust(&links, &config.trust_headers, &at.key("trust_headers")));
        if problems.len() > before {
            return None;
        }
        let meter = self.metrics.route(&name, self.listener_ids.count());
        Some((
            rule,
            Route { name, action: action?, chain: Chain::new(links), timeouts, trusted, upgrades, meter },
        ))
    }

    fn rule(&self, config: &MatchConfig, at: &Path, problems: &mut Vec<Problem>) -> Rule {
        let id = |name: &str| self.listener_ids.intern(name);
        rule(config, &self.config.listeners, self.listener_names, &id, at, problems)
    }

    fn action(&self, config: &RouteConfig, at: &Path, problems: &mut Vec<Problem>) -> Option<Action> {
        let given: Vec<&str> = [
            ("upstream", config.upstream.is_some()),
            ("split", config.split.is_some()),
            ("redirect", config.redirect.is_some()),
            ("respond", config.respond.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, is_given)| is_given.then_some(key))
        .collect();
        match given.as_slice() {
            [_] => {}
            [] => {
                problems.push(
                    Problem::new(at.clone(), "this route says nothing of what becomes of its requests")
                        .hint("give it one of `upstream`, `split`, `redirect` or `respond`"),
                );
                return None;
            }
            [_, second, ..] => {
                let keys = given.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" and ");
                problems.push(
                    Problem::new(at.key(*second), format!("a route has just one of `upstream`, `split`, `redirect` and `respond`; this one has {keys}"))
                        .hint("keep the one that is meant"),
                );
                return None;
            }
        }
        if config.tls.is_some() && config.upstream.is_none() && config.split.is_none() {
            problems.push(
                Problem::new(
                    at.key("tls"),
                    format!("`{}` goes to no upstream, so there is no TLS to set", given[0]),
                )
                .hint("remove `tls`, or give the route an `upstream`"),
            );
        }
        if let Some(name) = &config.upstream {
            let target = self.target(name, 1, &at.key("upstream"), config, at, problems)?;
            return Some(Action::Forward { targets: vec![target], total_weight: 1 });
        }
        if let Some(split) = &config.split {
            let at_split = at.key("split");
            let total_weight = split.iter().map(|part| part.weight).sum();
            if total_weight == 0 {
                problems.push(
                    Problem::new(at_split.clone(), "no part of the split has a weight above 0")
                        .hint("give one a `weight: 1`"),
                );
            }
            let targets: Vec<_> = split
                .iter()
                .enumerate()
                .map(|(index, part)| {
                    let at_part = at_split.index(index).key("upstream");
                    self.target(&part.upstream, part.weight, &at_part, config, at, problems)
                })
                .collect();
            return Some(Action::Forward {
                targets: targets.into_iter().collect::<Option<_>>()?,
                total_weight,
            });
        }
        if let Some(redirect) = &config.redirect {
            let by_prefix = matches_by_prefix(&config.r#match);
            return Some(Action::Redirect(answers::redirect(
                redirect,
                &at.key("redirect"),
                by_prefix,
                problems,
            )));
        }
        config
            .respond
            .as_ref()
            .and_then(|config| answers::respond(config, &at.key("respond"), self.files, problems))
    }

    /// What a route's clients may change to. What could never be honoured is a problem, and so is what would open a way
    /// round everything that a route checks.
    fn upgrades(&self, config: &RouteConfig, at: &Path, problems: &mut Vec<Problem>) -> Upgrades {
        let Some(tokens) = &config.upgrades else { return Upgrades(vec!["websocket".into()]) };
        for (index, token) in tokens.iter().enumerate() {
            let at = at.index(index);
            let mut parts = token.splitn(2, '/');
            // RFC 9110 section 7.8: a name and perhaps a version, and section 5.6.2 for what a token is: so a method.
            let is_token = parts.all(|part| Method::from_bytes(part.as_bytes()).is_ok());
            if !is_token {
                problems.push(
                    Problem::new(at, format!("`{token}` is not a protocol"))
                        .hint("write it as `Upgrade` has it: `websocket`, or with a version `spdy/3.1`"),
                );
            } else if ["h2c", "h2", "http/2", "http/2.0"].iter().any(|it| token.eq_ignore_ascii_case(it)) {
                problems.push(
                    Problem::new(at, format!("`{token}` would let requests pass that no route has seen"))
                        .hint("leave it out: RFC 9113 has no upgrade to HTTP/2 any more"),
                );
            }
        }
        let names = config.upstream.iter().chain(config.split.iter().flatten().map(|part| &part.upstream));
        let mut upstreams =
            names.filter_map(|name| Some((name, self.config.upstreams.get(name)?))).peekable();
        if tokens.is_empty() {
            return Upgrades(Vec::new());
        }
        if config.upstream.is_none() && config.split.is_none() {
            problems.push(
                Problem::new(
                    at.clone(),
                    "this route asks no upstream, so there is nobody to change the protocol with",
                )
                .hint("remove it, or give the route an `upstream`"),
            );
        }
        if let Some((name, _)) = upstreams
            .find(|(_, upstream)| matches!(upstreams::protocol(upstream), Protocol::H2 | Protocol::H2c))
        {
            problems.push(
                Problem::new(
                    at.clone(),
                    format!("the upstream `{name}` speaks HTTP/2, which has no upgrades"),
                )
                .hint("give it `protocol: auto` or `http/1.1`"),
            );
        }
        Upgrades(tokens.iter().map(|token| token.to_ascii_lowercase().into()).collect())
    }

    fn target(
        &self,
        name: &str,
        weight: u32,
        at_name: &Path,
        route: &RouteConfig,
        at: &Path,
        problems: &mut Vec<Problem>,
    ) -> Option<Target> {
        let (Some(config), Some(upstream)) = (self.config.upstreams.get(name), self.upstreams.get(name))
        else {
            problems.extend(unknown("upstream", name, self.upstream_names, at_name.clone()));
            return None;
        };
        let at_upstream = Path::root().key("upstreams").key(name);
        let mut tls = match target_tls(
            config,
            &at_upstream,
            route.tls.as_ref().map(|tls| (tls, at.key("tls"))),
            self.files,
            self.policies,
        ) {
            Ok(tls) => tls,
            Err(found) => {
                problems.extend(found);
                return None;
            }
        };
        if let Some(TargetTls { policy, http1: Some(http1), .. }) = &mut tls {
            let definition = (Owner::of(route), UpstreamDefinition::new(name, config), policy.key);
            http1.required = self.kept.wants_http1.take_over(definition, Arc::default);
        }
        // Its problem, if any, is told with the upstream.
        let host = upstreams::host(config, &at_upstream).unwrap_or(Host::Preserve);
        Some(Target { upstream: upstream.clone(), weight, host, tls, warned: AtomicU64::new(0) })
    }
}

/// Compiles what a route asks of a request. `listeners` are those of the file, `listener_names` also those that have
/// problems of their own, and `id` is the number of one of them.
pub fn rule(
    config: &MatchConfig,
    listeners: &BTreeMap<String, ListenerConfig>,
    listener_names: &[String],
    id: &dyn Fn(&str) -> ListenerId,
    at: &Path,
    problems: &mut Vec<Problem>,
) -> Rule {
    let mut rule = Rule::default();
    for (index, host) in config.hosts.iter().enumerate() {
        match HostPattern::parse(host) {
            Ok(host) => rule.hosts.push(host),
            Err(message) => problems.push(Problem::new(at.key("hosts").index(index), message)),
        }
    }
    for (index, path) in config.paths.iter().enumerate() {
        let parsed = match path {
            PathConfig::Prefix(prefix) => PathPattern::prefix(prefix),
            PathConfig::Exact(path) => PathPattern::exact(path),
            PathConfig::Regex(regex) => PathPattern::regex(regex),
        };
        match parsed {
            Ok(path) => rule.paths.push(path),
            Err(message) => problems.push(Problem::new(at.key("paths").index(index), message)),
        }
    }
    for (index, method) in config.methods.iter().enumerate() {
        match Method::from_bytes(method.as_bytes()) {
            Ok(parsed) if *method == method.to_ascii_uppercase() => rule.methods.push(parsed),
            _ => problems.push(
                Problem::new(at.key("methods").index(index), format!("`{method}` is not an HTTP method"))
                    .hint(format!("methods are written in capitals: `{}`", method.to_ascii_uppercase())),
            ),
        }
    }
    for (name, text) in &config.headers {
        let at = at.key("headers").key(name);
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Problem::new(at.clone(), format!("`{name}` is not a header name")));
        match (parsed, pattern(text, &at)) {
            (Ok(name), Ok(pattern)) => rule.headers.push((name, pattern)),
            (name, pattern) => problems.extend(name.err().into_iter().chain(pattern.err())),
        }
    }
    for (name, text) in &config.query {
        match pattern(text, &at.key("query").key(name)) {
            Ok(pattern) => rule.query.push((name.clone(), pattern)),
            Err(problem) => problems.push(problem),
        }
    }
    for (index, name) in config.listeners.iter().enumerate() {
        let at = at.key("listeners").index(index);
        match listeners.get(name) {
            Some(listener) if !listener.serves_http() => problems.push(
                Problem::new(
                    at,
                    format!("the listener `{name}` passes bytes through, so no route applies to it"),
                )
                .hint("leave it out: what comes in there goes to the listener's own `upstream`"),
            ),
            Some(_) => rule.listeners.push(id(name)),
            None => problems.extend(unknown("listener", name, listener_names, at)),
        }
    }
    rule
}

/// The TLS of an upstream, with a route's own keys over it.
///
/// # Errors
/// Every problem; among them, that a route sets TLS for an upstream that speaks none.
pub fn target_tls(
    upstream: &UpstreamConfig,
    at_upstream: &Path,
    route: Option<(&crate::config::TlsConfig, Path)>,
    files: &Files<'_>,
    policies: &Policies,
) -> Result<Option<TargetTls>, Vec<Problem>> {
    let at_base = at_upstream.key("tls");
    match (&upstream.tls, &route) {
        (None, None) => Ok(None),
        (None, Some((_, at))) => Err(vec![
            Problem::new(
                at.clone(),
                format!("the upstream `{}` speaks no TLS, so a route cannot set any", last(at_upstream)),
            )
            .hint("give the upstream a `tls` block; `tls: {}` is enough"),
        ]),
        (Some(base), over) => {
            let over = over.as_ref().map(|(config, at)| Block { config, at });
            let base = Block { config: base, at: &at_base };
            let protocol = upstreams::protocol(upstream);
            let compile = |alpn| tls::compile(base, over, alpn, files, policies);
            let mut tls = compile(protocol.alpn())?;
            if protocol == Protocol::Auto {
                let http1 = compile(Alpn::Http1)?;
                tls.http1 = Some(Http1 { policy: http1.policy, required: Arc::default() });
            }
            Ok(Some(tls))
        }
    }
}

/// Builds the plugins of one list.
pub fn plugins(
    configs: &[PluginConfig],
    at: &Path,
    owner: &Owner,
    plugins: &Plugins<'_>,
    place: Place<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Link> {
    let mut built = Vec::with_capacity(configs.len());
    for (index, plugin) in configs.iter().enumerate() {
        let at = at.index(index).key(&plugin.name);
        match plugins.build(owner, plugin, place) {
            Ok(plugin) => built.push(Link { at, plugin }),
            Err(found) => problems.extend(found.into_iter().map(|problem| problem.under(&at))),
        }
    }
    built
}

/// The plugins that lack the one before them by which they go.
fn not_behind(links: &[Link]) -> Vec<Problem> {
    let lacks = links.iter().enumerate().filter_map(|(index, link)| {
        let wanted = link.plugin.stands_behind()?;
        let stands = links[..index].iter().any(|before| last(&before.at) == wanted);
        (!stands).then(|| {
            Problem::new(
                link.at.clone(),
                format!(
                    "`{}` goes by what a `{wanted}` before it verifies, and none stands there",
                    last(&link.at)
                ),
            )
            .hint(format!("put a `{wanted}` before it"))
        })
    });
    lacks.collect()
}

/// The trusted headers of a route that only one of its plugins may write.
fn not_to_trust(links: &[Link], trusted: &[String], at: &Path) -> Vec<Problem> {
    let overlap = |trusted: &str, owned: &str| match (trusted.strip_suffix('*'), owned.strip_suffix('*')) {
        (None, None) => trusted == owned,
        (Some(prefix), None) => owned.starts_with(prefix),
        (None, Some(prefix)) => trusted.starts_with(prefix),
        (Some(one), Some(other)) => one.starts_with(other) || other.starts_with(one),
    };
    let mut problems = Vec::new();
    for (index, text) in trusted.iter().enumerate() {
        let text = text.to_ascii_lowercase();
        let owner =
            links.iter().find(|link| link.plugin.owned_headers().iter().any(|owned| overlap(&text, owned)));
        if let Some(link) = owner {
            let name = last(&link.at);
            problems.push(
                Problem::new(
                    at.index(index),
                    format!("`{text}` cannot be trusted beside the plugin `{name}`, which writes it itself"),
                )
                .hint("take it out of `trust_headers`"),
            );
        }
    }
    problems
}

/// That no such name is known; nothing where it stands in the file and only has problems of its own.
pub fn unknown(noun: &str, name: &str, known: &[String], at: Path) -> Option<Problem> {
    if known.iter().any(|known| known == name) {
        return None;
    }
    let problem = Problem::new(at, format!("no {noun} is named `{name}`"));
    let names = known.iter().map(String::as_str);
    Some(match (did_you_mean(name, names), known.is_empty()) {
        (Some(hint), _) => problem.hint(hint),
        (None, true) => problem.hint(format!("the file has no `{noun}s` yet")),
        (None, false) => problem.hint(format!("there are `{}`", known.join("`, `"))),
    })
}

fn last(path: &Path) -> String {
    Path(path.0.last().cloned().into_iter().collect()).to_string()
}

fn matches_by_prefix(config: &MatchConfig) -> bool {
    // A route without paths matches by the prefix `/`.
    config.paths.iter().all(|path| matches!(path, PathConfig::Prefix(_)))
}

/// Compiles what a value is compared with.
pub fn pattern(config: &TextMatchConfig, at: &Path) -> Result<TextPattern, Problem> {
    Ok(match config {
        TextMatchConfig::Exact(text) => TextPattern::Exact(text.clone()),
        TextMatchConfig::Present(present) => TextPattern::Present(*present),
        TextMatchConfig::Regex(regex) => TextPattern::Regex(regex::Regex::new(regex).map_err(|error| {
            Problem::new(
                at.key("regex"),
                format!("`{regex}` is not a regular expression: {}", last_line(&error)),
            )
        })?),
    })
}

/// The regex crate draws the expression over several lines and says what is wrong in the last one.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn timeouts(config: &TimeoutsConfig) -> Timeouts {
    let finite = |limit: Duration| (!limit.is_zero()).then_some(limit);
    Timeouts { request: finite(config.request), attempt: finite(config.attempt), idle: finite(config.idle) }
}

fn trusted(config: &[String], at: &Path, problems: &mut Vec<Problem>) -> TrustedHeaders {
    let mut trusted = TrustedHeaders::default();
    for (index, text) in config.iter().enumerate() {
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_suffix('*').unwrap_or(&lower);
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(_) if lower.ends_with('*') => trusted.prefixes.push(name.to_owned()),
            Ok(name) => trusted.names.push(name),
            Err(_) => problems
                .push(Problem::new(at.index(index), format!("`{text}` is not a header name")).hint(
                    "write a name such as `x-forwarded-for`, or `x-forwarded-*` for all that begin so",
                )),
        }
    }
    trusted
}
