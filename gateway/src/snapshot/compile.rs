//! From what was typed to what runs: the only constructor of a `Snapshot`. Every problem is told, not just the first.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path as FilePath;
use std::sync::Arc;

use jiff::Timestamp;
use vestibule_plugins::{Path, Problem, Registry};

use super::files::Files;
use super::kept::{Kept, Owner};
use super::lint::{self, Subject};
use super::listeners::Hall;
use super::outbound::Upstreams;
use super::plugins::{Place, Plugins};
use super::problem::{Places, Report, Warnings, merge};
use super::routes::{self, Bench};
use super::sources::Sources;
use super::{Server, Snapshot, admin, reload, upstreams};
use crate::config::{self, AccessLogConfig, AccessLogPath, Config, Document, Loaded, Threads};
use crate::listener::{AllTerms, ListenerIds};
use crate::observe::Metrics;
use crate::plan::Described;
use crate::route::{Shadows, Table};
use crate::upstream::{Policies, Upstream};

/// What outlives each snapshot and is needed to make the next one.
pub struct Workshop {
    /// Known plugins.
    pub registry: Registry,
    /// TLS policies in use.
    pub policies: Arc<Policies>,
    /// The numbers of the listeners' names.
    pub listener_ids: ListenerIds,
    /// The terms of the connections that clients have.
    pub terms: Arc<AllTerms>,
    /// What has been counted.
    pub metrics: Arc<Metrics>,
    /// What the next snapshot may take over from those that are held.
    pub(super) kept: Kept,
    /// The clock by which certificates expire.
    pub now: fn() -> Timestamp,
}

impl Workshop {
    /// With these plugins, neither a policy nor a count as yet, and this system's clock.
    pub fn new(registry: Registry) -> Self {
        Self {
            registry,
            policies: Arc::default(),
            metrics: Arc::default(),
            kept: Kept::default(),
            listener_ids: ListenerIds::default(),
            terms: Arc::default(),
            now: Timestamp::now,
        }
    }
}

/// Reads a file or folder and compiles it.
///
/// # Errors
/// Every problem, with the place of each.
pub fn load(path: &FilePath, workshop: &Workshop) -> Result<Snapshot, Report> {
    load_noting(path, workshop).0
}

/// The same, and what it was made of: told for what is refused as well, since it is to be tried again as soon as any of
/// that has changed. It reads files, and waits a moment for one that was written just now.
pub fn load_noting(path: &FilePath, workshop: &Workshop) -> (Result<Snapshot, Report>, Sources) {
    let (loaded, mut sources) = config::load::load_noting(path);
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(report) => return (Err(report), sources),
    };
    let files = Files::new(loaded.document.base());
    let compiled = compile_with(&loaded, workshop, &files);
    sources.extend(files.into_sources());
    (compiled, sources)
}

/// Compiles what was read; its document still tells where each thing stands.
///
/// # Errors
/// Every problem of reading and of compiling, with the place of each.
pub fn compile(loaded: &Loaded, workshop: &Workshop) -> Result<Snapshot, Report> {
    compile_with(loaded, workshop, &Files::new(loaded.document.base()))
}

fn compile_with(loaded: &Loaded, workshop: &Workshop, files: &Files<'_>) -> Result<Snapshot, Report> {
    let Loaded { config, document, problems: decoding } = loaded;
    let mut compiling = Vec::new();
    let snapshot = snapshot(config, document, workshop, files, &mut compiling);
    let problems = merge(decoding.clone(), compiling);
    match snapshot {
        Some(mut snapshot) if problems.is_empty() => {
            snapshot.described = Some(Box::new(Described::of(loaded, &snapshot)));
            Ok(snapshot)
        }
        _ => Err(Report::new(problems, document)),
    }
}

fn snapshot(
    config: &Config,
    document: &Document,
    workshop: &Workshop,
    files: &Files<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Snapshot> {
    let root = Path::root();
    let upstream_names = document.keys_of("upstreams");
    let listener_names = document.keys_of("listeners");

    let mut upstreams: HashMap<&str, Arc<Upstream>> = HashMap::new();
    for (name, upstream) in &config.upstreams {
        let at = root.key("upstreams").key(name);
        upstreams.insert(name, upstreams::compile(name, upstream, &at, workshop, problems));
        problems.extend(upstreams::host(upstream, &at).err());
        let is_used = config.routes.iter().any(|route| {
            route.upstream.as_ref() == Some(name)
                || route.split.iter().flatten().any(|part| part.upstream == *name)
        });
        // A route compiles its upstream's TLS with its own keys over it; what no route uses is checked by itself.
        if !is_used && let Err(found) = routes::target_tls(upstream, &at, None, files, &workshop.policies) {
            problems.extend(found);
        }
    }

    let hall = Hall {
        config,
        upstreams: &upstreams,
        upstream_names: &upstream_names,
        files,
        kept: &workshop.kept,
        ids: &workshop.listener_ids,
        terms: &workshop.terms,
        metrics: &workshop.metrics,
    };
    let listeners = hall.listeners(problems);
    if listener_names.is_empty() {
        problems.push(
            Problem::new(root.clone(), "no `listeners`: the gateway would listen nowhere")
                .hint("add `listeners: { web: { address: \"0.0.0.0:8080\" } }`"),
        );
    }
    let reload = reload::compile(&config.reload, problems);
    let access_log = access_log(config, document);
    if let AccessLogPath::File(path) = &access_log.path {
        files.will_write(path);
    }
    let admin = config.admin.as_ref().map(|admin| admin::compile(admin, config, files, problems));
    let outbound = Upstreams {
        config,
        upstreams: &upstreams,
        names: &upstream_names,
        files,
        policies: &workshop.policies,
        kept: &workshop.kept,
        used: RefCell::default(),
    };
    let plugins = Plugins {
        registry: &workshop.registry,
        kept: &workshop.kept,
        files,
        upstreams: &outbound,
        equal: RefCell::default(),
    };
    let place = Place { route: None, matches_by_prefix: false };
    let at_common = root.key("plugins");
    let common = routes::plugins(&config.plugins, &at_common, &Owner::Everyone, &plugins, place, problems);
    let bench = Bench {
        config,
        upstreams: &upstreams,
        upstream_names: &upstream_names,
        listener_names: &listener_names,
        plugins: &plugins,
        listener_ids: &workshop.listener_ids,
        policies: &workshop.policies,
        metrics: &workshop.metrics,
        kept: &workshop.kept,
        files,
        common: &common,
    };
    let mut names: HashMap<&str, usize> = HashMap::new();
    let (mut rules, mut compiled) = (Vec::new(), Vec::new());
    for (position, route) in config.routes.iter().enumerate() {
        if let Some(name) = &route.name
            && let Some(first) = names.insert(name, position)
        {
            let at = root.key("routes").index(position).key("name");
            let line = document.position(&root.key("routes").index(first).key("name")).line;
            problems.push(
                Problem::new(at, format!("the route of line {line} is named `{name}` already"))
                    .hint("give each route a name of its own"),
            );
        }
        if let Some((rule, route)) = bench.route(position, route, problems) {
            rules.push(rule);
            compiled.push(route);
        }
    }
    let reload = reload.filter(|_| problems.is_empty())?;
    let warnings = lint::warnings(&Subject {
        config,
        document,
        files,
        rules: &rules,
        shadows: Shadows::new(&rules),
        routes: &compiled,
        listeners: &listeners,
        upstreams: &upstreams,
        of_plugins: &outbound.used.borrow(),
        now: (workshop.now)(),
    });
    Some(Snapshot {
        hash: files.hash(document.hash()),
        server: server(config),
        reload,
        access_log,
        admin: admin.flatten().map(Arc::new),
        listeners,
        table: Table::new(rules),
        routes: compiled,
        upstreams: config.upstreams.keys().filter_map(|name| upstreams.get(name.as_str()).cloned()).collect(),
        warnings: Warnings::new(warnings, document),
        described: None,
        places: Places::new(document, late(config)),
        unrouted: workshop.metrics.route("", workshop.listener_ids.count()),
        metrics: workshop.metrics.clone(),
    })
}

/// The keys that are put to use only when the snapshot is.
fn late(config: &Config) -> Vec<Path> {
    let root = Path::root();
    let server = root.key("server");
    let mut paths =
        vec![root.key("admin").key("address"), root.key("access_log").key("path"), root.key("upstreams")];
    paths.extend(
        ["threads", "drain_timeout", "max_connections", "upstream_pool_size"].map(|key| server.key(key)),
    );
    paths.extend(config.listeners.keys().map(|name| root.key("listeners").key(name).key("address")));
    paths
}

/// With its file's path, like every other one, from the folder of the configuration.
fn access_log(config: &Config, document: &Document) -> AccessLogConfig {
    let mut access_log = config.access_log.clone();
    if let AccessLogPath::File(path) = &mut access_log.path {
        *path = document.base().join(&*path);
    }
    access_log
}

fn server(config: &Config) -> Server {
    let cores = || std::thread::available_parallelism().map_or(1, Into::into);
    Server {
        threads: match config.server.threads {
            Threads::Auto => cores(),
            Threads::Count(count) => count.get(),
        },
        drain_timeout: config.server.drain_timeout,
        max_connections: config.server.max_connections,
        upstream_pool_size: config.server.upstream_pool_size,
    }
}
