//! Which endpoints are looked at, and how each route reaches them: the Host, the SNI and the policy that `run` would use.
//!
//! Nothing is connected to here.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use http::header;
use pingora_http::RequestHeader;
use vestibule_plugins::Verdict;
use vestibule_plugins::problem::did_you_mean;

use crate::config::{Config, Loaded, PathConfig, RouteConfig};
use crate::proxy::admit::host_name;
use crate::proxy::attempt;
use crate::proxy::ctx::Ctx;
use crate::snapshot::live::InForce;
use crate::snapshot::{Action, PassThrough, Snapshot, Target};
use crate::upstream::{Address, Endpoint, Pick, Protocol, TlsPolicy, Upstream, VerifiedName};

/// An endpoint as one route, or several in the same way, reach it.
#[derive(Clone)]
pub struct Subject {
    /// The routes' places in the file; none where a `tcp` listener or nobody leads there.
    pub routes: Vec<usize>,
    /// What the routes are called.
    pub names: Vec<String>,
    /// The upstream's name.
    pub upstream: String,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// What `run` would connect with; none where the upstream is plain.
    pub policy: Option<Arc<TlsPolicy>>,
    /// The SNI, or the address that is verified in its stead; empty where there is neither.
    pub identity: String,
    /// The Host that is sent.
    pub host: String,
    /// The Host that the client is taken to have sent.
    pub client_host: String,
    /// Whether the file leaves it open which SNI is sent, so that one was assumed.
    pub assumed: bool,
    /// The path that is asked for, as the route's plugins leave it.
    pub path: String,
    /// What is spoken.
    pub speaks: Speaks,
    /// Which HTTP.
    pub protocol: Protocol,
    /// The upstream's own limit of each step.
    pub connect_timeout: Option<Duration>,
}

/// What is spoken with an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP.
    Http,
    /// Whatever a client of a `tcp` listener says.
    Bytes,
}

/// What the command line narrows.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Just this route or upstream.
    pub name: Option<String>,
    /// The Host that clients are taken to send.
    pub host: Option<String>,
}

/// More Hosts of a route than these are not tried one by one.
const MOST_HOSTS: usize = 8;

/// A route to each upstream that no route leads to, so that it is compiled and can be looked at.
pub fn with_unused_upstreams(loaded: &mut Loaded) {
    let config = &mut loaded.config;
    let unused: Vec<String> =
        config.upstreams.keys().filter(|name| !is_routed(config, name)).cloned().collect();
    for name in unused {
        config.routes.push(RouteConfig { upstream: Some(name), ..RouteConfig::default() });
    }
}

fn is_routed(config: &Config, name: &str) -> bool {
    config.routes.iter().any(|route| upstreams_of(route).any(|upstream| upstream == name))
}

/// The upstreams that a route names.
pub fn upstreams_of(route: &RouteConfig) -> impl Iterator<Item = &str> {
    let parts = route.split.iter().flatten().map(|part| part.upstream.as_str());
    route.upstream.as_deref().into_iter().chain(parts)
}

/// Every endpoint that is wanted, once for each way in which it is reached. `written` is how many routes stand in the
/// file itself.
///
/// # Errors
/// Nothing has the name that was given.
pub fn subjects(
    config: &Config,
    snapshot: &Arc<Snapshot>,
    written: usize,
    wanted: &Wanted,
) -> Result<Vec<Subject>, String> {
    if let Some(name) = &wanted.name {
        check_name(name, config, snapshot, written)?;
    }
    let mut subjects: Vec<Subject> = Vec::new();
    for (index, route) in snapshot.routes.iter().enumerate() {
        let Action::Forward { targets, .. } = &route.action else { continue };
        let is_written = index < written;
        for (place, target) in targets.iter().enumerate() {
            let upstream = &target.upstream.name;
            let is_wanted = match &wanted.name {
                None => true,
                Some(name) => name == upstream || (is_written && *name == route.name),
            };
            // What only a `tcp` listener leads to is looked at below, without HTTP.
            if !is_wanted || (!is_written && passes_bytes(snapshot, upstream)) {
                continue;
            }
            let rule = &config.routes[index];
            for endpoint in target.upstream.balance.endpoints() {
                for client_host in client_hosts(rule, target, endpoint, wanted) {
                    let seen = reached(snapshot, (index, place), target, endpoint, &client_host, rule);
                    add(&mut subjects, seen, is_written.then_some((index, route.name.as_str())));
                }
            }
        }
    }
    for listener in &snapshot.listeners {
        let upstreams = listener.pass_through().into_iter().flat_map(PassThrough::upstreams);
        let is_wanted = |it: &&Arc<Upstream>| wanted.name.as_ref().is_none_or(|name| *name == it.name);
        let endpoints =
            upstreams.filter(is_wanted).flat_map(|it| it.balance.endpoints().iter().map(move |e| (it, e)));
        for (upstream, endpoint) in endpoints {
            let seen = Subject {
                routes: Vec::new(),
                names: Vec::new(),
                upstream: upstream.name.clone(),
                endpoint: endpoint.clone(),
                policy: None,
                identity: String::new(),
                host: String::new(),
                client_host: String::new(),
                assumed: false,
                path: String::new(),
                speaks: Speaks::Bytes,
                protocol: Protocol::Http1,
                connect_timeout: upstream.connect_timeout,
            };
            add(&mut subjects, seen, None);
        }
    }
    Ok(subjects)
}

fn passes_bytes(snapshot: &Snapshot, name: &str) -> bool {
    let passing = snapshot.listeners.iter().filter_map(|listener| listener.pass_through());
    passing.flat_map(PassThrough::upstreams).any(|upstream| upstream.name == name)
}

fn check_name(name: &str, config: &Config, snapshot: &Snapshot, written: usize) -> Result<(), String> {
    let written = snapshot.routes.iter().take(written);
    let routes: Vec<&str> = written.map(|route| route.name.as_str()).collect();
    let upstreams = config.upstreams.keys().map(String::as_str);
    let known: Vec<&str> = routes.into_iter().chain(upstreams).collect();
    if let Some(route) = snapshot.routes.iter().find(|route| route.name == name)
        && !matches!(route.action, Action::Forward { .. })
        && !config.upstreams.contains_key(name)
    {
        return Err(format!("the route `{name}` asks no upstream, so there is nothing to look at"));
    }
    if known.contains(&name) {
        return Ok(());
    }
    let hint = did_you_mean(name, known.iter().copied())
        .unwrap_or_else(|| format!("there are `{}`", known.join("`, `")));
    Err(format!("no route and no upstream is named `{name}`\nhint: {hint}"))
}

/// Ways that differ in nothing that a handshake knows are one.
fn add(subjects: &mut Vec<Subject>, seen: Subject, route: Option<(usize, &str)>) {
    let key = |subject: &Subject| {
        let policy = subject.policy.as_ref().map(|policy| policy.key);
        (subject.upstream.clone(), subject.endpoint.text.clone(), policy, subject.identity.clone())
    };
    let known = subjects.iter_mut().find(|known| key(known) == key(&seen) && known.speaks == seen.speaks);
    let subject = match known {
        Some(known) => known,
        None => {
            subjects.push(seen);
            let Some(last) = subjects.last_mut() else { return };
            last
        }
    };
    if let Some((index, name)) = route
        && !subject.routes.contains(&index)
    {
        subject.routes.push(index);
        subject.names.push(name.to_owned());
    }
}

/// The Hosts that a client may send to get here; one at least.
fn client_hosts(route: &RouteConfig, target: &Target, endpoint: &Endpoint, wanted: &Wanted) -> Vec<String> {
    if let Some(host) = &wanted.host {
        return vec![host.clone()];
    }
    let hosts = &route.r#match.hosts;
    let exact = hosts.iter().filter(|host| !host.starts_with('*')).take(MOST_HOSTS);
    let exact: Vec<String> = exact.cloned().collect();
    if !exact.is_empty() {
        return exact;
    }
    if let Some(suffix) = hosts.iter().find_map(|host| host.strip_prefix('*')) {
        return vec![format!("www{suffix}")];
    }
    let verified = target.tls.as_ref().and_then(|tls| {
        tls.policy.names_for("").into_iter().find_map(|name| match name {
            VerifiedName::Dns(name) => Some(name),
            _ => None,
        })
    });
    vec![verified.unwrap_or_else(|| endpoint.host.clone())]
}

/// The same steps as an attempt's, on a request that is never sent by the proxy.
fn reached(
    snapshot: &Arc<Snapshot>,
    (route, place): (usize, usize),
    target: &Target,
    endpoint: &Arc<Endpoint>,
    client_host: &str,
    rule: &RouteConfig,
) -> Subject {
    let sent = |client_host: &str| {
        let in_force = InForce { running: snapshot.clone(), stage: None };
        let mut ctx = Ctx::new(&in_force, &Arc::new(AtomicUsize::new(0)));
        (ctx.route, ctx.target) = (Some(route), Some(place));
        ctx.asked.host = host_name(client_host).to_ascii_lowercase();
        ctx.asked.path = path_of(rule);
        ctx.prefix = Some(ctx.asked.path.trim_end_matches('/').len());
        let mut head = RequestHeader::build("GET", ctx.asked.path.as_bytes(), None).ok()?;
        head.insert_header(header::HOST, client_host).ok()?;
        let chain = &snapshot.routes[route].chain;
        let mut rewritten = head.clone();
        // What a plugin answers by itself asks no upstream: then the request as it came has to do.
        if !chain.waits() && matches!(chain.request(&mut rewritten, &ctx.info()), Verdict::Continue) {
            head = rewritten;
        }
        ctx.attempt.pick = Some(Pick { endpoint: endpoint.clone(), address: address_of(endpoint) });
        ctx.attempt.identity = attempt::identity(target, &head, &ctx);
        attempt::address(&mut head, &ctx).ok()?;
        let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        Some((ctx.attempt.identity.clone(), host.to_owned(), path.to_owned()))
    };
    let (identity, host, path) = sent(client_host).unwrap_or_default();
    let is_open = rule.r#match.hosts.iter().all(|host| host.starts_with('*'));
    let other = sent("another.invalid").map(|(identity, ..)| identity);
    Subject {
        routes: Vec::new(),
        names: Vec::new(),
        upstream: target.upstream.name.clone(),
        endpoint: endpoint.clone(),
        policy: target.tls.as_ref().map(|tls| tls.policy.clone()),
        assumed: is_open && target.tls.is_some() && other.as_ref() != Some(&identity),
        identity,
        host,
        client_host: client_host.to_owned(),
        path,
        speaks: Speaks::Http,
        protocol: target.upstream.protocol,
        connect_timeout: target.upstream.connect_timeout,
    }
}

fn address_of(endpoint: &Endpoint) -> Address {
    let known = endpoint.addresses().first().cloned();
    known.unwrap_or_else(|| Address {
        target: Address::tcp(([0, 0, 0, 0], 0).into()).target,
        text: endpoint.text.as_str().into(),
    })
}

/// A path that the route takes.
fn path_of(route: &RouteConfig) -> String {
    let plain = route.r#match.paths.iter().find_map(|path| match path {
        PathConfig::Prefix(path) | PathConfig::Exact(path) => Some(path.clone()),
        PathConfig::Regex(_) => None,
    });
    plain.filter(|path| path.starts_with('/')).unwrap_or_else(|| "/".to_owned())
}
