//! What serves: addresses held, names resolved, the log open; how another snapshot takes the place of the one in force, and
//! how it all ends. Whether one should is `reload`'s affair.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pingora_core::apps::ServerApp;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use vestibule_plugins::{Path, Problem};

use crate::admin;
use crate::config::AccessLogPath;
use crate::engine::{Engine, engine};
use crate::listener::sockets::{Bound, Listening, Sockets};
use crate::listener::{AllTerms, Services};
use crate::observe::AccessLog;
use crate::proxy::Proxy;
use crate::reload::Control;
use crate::reload::stage::Stage;
use crate::snapshot::live::{InForce, Live};
use crate::snapshot::{Server, Snapshot, Workshop};
use crate::upstream::{Policies, Resolver};

/// How long a snapshot waits for the first answers of the DNS: a name that does not resolve is asked for again later.
const FIRST_ANSWERS: Duration = Duration::from_secs(3);

/// A gateway that serves.
pub struct Serving {
    live: Arc<Live>,
    engine: Arc<Engine>,
    sockets: Sockets,
    services: Services,
    log: Arc<AccessLog>,
    terms: Arc<AllTerms>,
    policies: Arc<Policies>,
    resolver: Option<Resolver>,
    admin: Option<AdminTask>,
    requests: Arc<AtomicUsize>,
    open: mpsc::Receiver<()>,
}

struct AdminTask {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// What a snapshot needs that is not there yet: had in advance, so that putting it in force cannot fail.
#[derive(Default)]
pub struct Prepared {
    bound: Bound,
    admin: Option<admin::Bound>,
    log: Option<AccessLog>,
}

/// The same, with clients waiting at the new addresses.
pub struct Ready {
    listening: Listening,
    admin: Option<admin::Listening>,
    log: Option<AccessLog>,
}

impl Serving {
    /// With this snapshot as the first one; nobody is served before it is put in force. Within a tokio runtime.
    pub fn new(first: &Snapshot, live: Arc<Live>, workshop: &Workshop) -> Self {
        // Where the lines go is told when the first snapshot is put in force.
        let log = Arc::new(AccessLog::nowhere());
        let proxy = Proxy::new(live.clone(), log.clone());
        let requests = proxy.requests();
        let engine = Arc::new(engine(proxy, &first.server, workshop.policies.clone()));
        let (holder, open) = mpsc::channel(1);
        let services = Services {
            engine: engine.clone(),
            log: log.clone(),
            live: live.clone(),
            crowd: Arc::default(),
            room: Arc::new(Semaphore::new(first.server.max_connections as usize)),
            open: holder,
        };
        Self {
            live,
            engine,
            sockets: Sockets::default(),
            services,
            log,
            terms: workshop.terms.clone(),
            policies: workshop.policies.clone(),
            resolver: None,
            admin: None,
            requests,
            open,
        }
    }

    /// Has what the snapshot needs, its names resolved included; changes nothing of what is in force.
    ///
    /// # Errors
    /// Whatever cannot be had: an address, the access log's file, the system's resolver.
    pub async fn prepare(&mut self, next: &Snapshot) -> Result<Prepared, Vec<Problem>> {
        let prepared = self.bind(next)?;
        self.resolve(next).await.map_err(|problem| vec![problem])?;
        Ok(prepared)
    }

    /// The same but for the names, which may take a while.
    ///
    /// # Errors
    /// As `prepare`.
    pub fn bind(&self, next: &Snapshot) -> Result<Prepared, Vec<Problem>> {
        let mut problems = Vec::new();
        let bound = self.sockets.bind(next).map_err(|failed| problems.extend(failed));
        let admin = match &next.admin {
            Some(admin) if self.admin.as_ref().is_none_or(|held| held.address != admin.address) => {
                admin::bind(admin).map(Some)
            }
            _ => Ok(None),
        };
        let admin = admin.map_err(|problem| problems.push(problem));
        let log = self.log_of(next).map_err(|problem| problems.push(problem));
        match (bound, admin, log) {
            (Ok(bound), Ok(admin), Ok(log)) => Ok(Prepared { bound, admin, log }),
            _ => Err(problems),
        }
    }

    /// Puts a snapshot in force, for whatever begins from now on. The candidate of a stage, if there was one, is dropped.
    pub async fn put_in_force(&mut self, next: Arc<Snapshot>, ready: Ready, control: &Control) {
        // First of all: a client that was not asked for the certificate that is asked for now must not be served by what
        // comes in force.
        self.terms.put_in_force(next.listeners.iter().flat_map(|listener| &listener.terms));
        self.swap(InForce { running: next.clone(), stage: None });
        if let Some(listening) = ready.admin {
            self.serve_admin(listening, control);
        }
        if next.admin.is_none() {
            self.drop_admin();
        }
        self.write_log_to(ready.log);
        next.warnings.log();
        // Last, since it waits, and may be given up there.
        self.sockets.commit(&next, ready.listening, &self.services).await;
    }

    /// Puts a candidate in force beside what runs, or takes it away.
    pub fn put_on_trial(&mut self, stage: Option<Arc<Stage>>) {
        self.swap(InForce { running: self.live.pin(), stage });
    }

    /// Opens the log's file anew, which may have been moved away to be kept.
    pub fn reopen_log(&mut self) {
        let snapshot = self.live.pin();
        if matches!(snapshot.access_log.path, AccessLogPath::File(_)) {
            match AccessLog::open(&snapshot.access_log) {
                Ok(log) => self.write_log_to(Some(log)),
                Err(error) => {
                    log::warn!("the access log cannot be opened anew: {error}; it goes on as it was")
                }
            }
        }
    }

    /// Lets the admin endpoint answer, as the first thing of all.
    pub fn serve_admin(&mut self, listening: admin::Listening, control: &Control) {
        self.drop_admin();
        let address = listening.address();
        log::info!("admin: http://{}", listening.found_at());
        let task = tokio::spawn(admin::accept(listening, control.clone()));
        self.admin = Some(AdminTask { address, task });
    }

    /// Accepts nothing more, closes what is idle, and returns as soon as nothing is in flight, or at the drain
    /// timeout with the number of requests that were cut.
    pub async fn drain(mut self) -> usize {
        let limit = self.live.pin().server.drain_timeout;
        let end = Instant::now() + limit;
        self.sockets.close();
        self.terms.end();
        // Wakes the connections that wait for a next request.
        self.engine.cleanup().await;
        // Each connection holds a sender; the channel ends with the last of them.
        drop(self.services);
        let closed = timeout_at(end, async { while self.open.recv().await.is_some() {} }).await.is_ok();
        // The streams of an HTTP/2 connection may outlive it by their last hook.
        while closed && self.requests.load(Ordering::Acquire) > 0 && Instant::now() < end {
            sleep(Duration::from_millis(1)).await;
        }
        let cut = self.requests.load(Ordering::Acquire);
        if !closed {
            log::warn!("stopping with {cut} requests in flight: the drain timeout of {limit:?} is over");
        }
        self.log.close();
        cut
    }

    /// Connections to upstreams under a policy that nothing in force has are to close.
    fn swap(&self, next: InForce) {
        let mut both = policy_keys(&self.live.in_force());
        let rest = policy_keys(&next);
        both.extend(&rest);
        next.running.metrics.staged(next.stage.is_some());
        // Those of the next snapshot before the first request that makes one, those of the last one until none does.
        self.policies.put_in_force(&both);
        let candidate = next.stage.as_ref().map(|stage| &stage.candidate);
        for snapshot in [Some(&next.running), candidate].into_iter().flatten() {
            snapshot.routes.iter().for_each(|route| route.chain.put_in_force());
        }
        self.live.swap(next);
        self.policies.put_in_force(&rest);
    }

    fn drop_admin(&mut self) {
        // It accepts nothing more; what it is answering, it answers.
        if let Some(admin) = self.admin.take() {
            admin.task.abort();
        }
    }

    fn log_of(&self, next: &Snapshot) -> Result<Option<AccessLog>, Problem> {
        let is_file = matches!(next.access_log.path, AccessLogPath::File(_));
        // A file is opened anew in any case: it may have been moved away to be kept.
        if !is_file && self.log.is_on() && self.live.pin().access_log == next.access_log {
            return Ok(None);
        }
        AccessLog::open(&next.access_log).map(Some).map_err(|error| {
            let at = Path::root().key("access_log").key("path");
            Problem::new(at, format!("the access log cannot be opened: {error}"))
        })
    }

    fn write_log_to(&self, log: Option<AccessLog>) {
        if let Some(new) = log {
            // It waits for a disk.
            tokio::task::spawn_blocking(self.log.replace(new));
        }
    }

    /// Has the names of the snapshot's endpoints resolved, if it has any that are not as yet.
    ///
    /// # Errors
    /// This system's resolver cannot be used.
    pub async fn resolve(&mut self, snapshot: &Snapshot) -> Result<(), Problem> {
        let endpoints = || snapshot.upstreams.iter().flat_map(|upstream| upstream.balance.endpoints());
        if endpoints().all(|endpoint| endpoint.name.is_none()) {
            return Ok(());
        }
        let resolver = match self.resolver.take() {
            Some(resolver) => resolver,
            None => Resolver::system().map_err(|error| {
                let message = format!("this system's resolver cannot be used: {error}");
                Problem::new(Path::root().key("upstreams"), message)
            })?,
        };
        self.resolver.insert(resolver).watch(endpoints(), FIRST_ANSWERS).await;
        Ok(())
    }
}

impl Prepared {
    /// Lets clients connect to the new addresses, where they wait.
    ///
    /// # Errors
    /// Another program has taken an address meanwhile.
    pub fn listen(self) -> Result<Ready, Vec<Problem>> {
        let Self { bound, admin, log } = self;
        let listening = bound.listen()?;
        let admin = admin.map(admin::Bound::listen).transpose().map_err(|problem| vec![problem])?;
        Ok(Ready { listening, admin, log })
    }

    /// The admin endpoint, to be served before all else.
    pub fn take_admin(&mut self) -> Option<admin::Bound> {
        self.admin.take()
    }
}

fn policy_keys(in_force: &InForce) -> HashSet<u64> {
    let candidate = in_force.stage.as_ref().map(|stage| &stage.candidate);
    let snapshots = [Some(&in_force.running), candidate].into_iter().flatten();
    snapshots.flat_map(|snapshot| snapshot.policy_keys()).collect()
}

/// What cannot change while the process runs, and yet differs.
pub fn fixed(running: &Server, next: &Server) -> Vec<Problem> {
    let Server { threads, drain_timeout, max_connections, upstream_pool_size } = running;
    let keys = [
        ("threads", threads.to_string(), next.threads.to_string()),
        ("drain_timeout", format!("{drain_timeout:?}"), format!("{:?}", next.drain_timeout)),
        ("max_connections", max_connections.to_string(), next.max_connections.to_string()),
        ("upstream_pool_size", upstream_pool_size.to_string(), next.upstream_pool_size.to_string()),
    ];
    let differ = keys.into_iter().filter(|(_, running, next)| running != next);
    differ
        .map(|(key, running, next)| {
            let message = format!(
                "`{key}` is read at start only: the gateway runs with `{running}`, and this is `{next}`"
            );
            Problem::new(Path::root().key("server").key(key), message)
                .hint("restart the gateway, or take this change back")
        })
        .collect()
}
