//! From a snapshot to a process that serves, and to its end: addresses bound, names resolved, connections drained.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pingora_core::apps::ServerApp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::admin;
use crate::engine::{Engine, engine};
use crate::listener::{self, Services};
use crate::observe::AccessLog;
use crate::proxy::Proxy;
use crate::snapshot::Snapshot;
use crate::snapshot::live::Live;
use crate::upstream::{Policies, Resolver};

/// How long a start waits for the first answers of the DNS: a name that does not resolve is asked for again later.
const FIRST_ANSWERS: Duration = Duration::from_secs(3);

/// A gateway that serves.
pub struct Running {
    live: Arc<Live>,
    engine: Arc<Engine>,
    log: Arc<AccessLog>,
    requests: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
    open: mpsc::Receiver<()>,
    /// Ends with this value, so that it answers until everything else has ended.
    _admin: JoinSet<()>,
    _resolver: Option<Resolver>,
}

/// Binds every listener of the snapshot and its admin endpoint, and serves on them. Within a tokio runtime.
///
/// # Errors
/// A listener or the admin endpoint cannot be bound, or the access log cannot be opened; with the address or path in the message.
pub async fn start(snapshot: Snapshot, policies: Arc<Policies>) -> Result<Running, String> {
    let snapshot = Arc::new(snapshot);
    // Bound first of all: a start that cannot succeed ends before anything else happens.
    let bound: Vec<_> = snapshot.listeners.iter().map(listener::bind).collect::<Result<_, _>>()?;
    let admin = snapshot.admin.as_ref().map(admin::bind).transpose()?;
    let log = AccessLog::open(&snapshot.access_log)
        .map_err(|error| format!("the access log cannot be opened: {error}"))?;
    let log = Arc::new(log);
    let resolver = resolve(&snapshot).await?;

    let live = Arc::new(Live::new(snapshot.clone()));
    let proxy = Proxy::new(live.clone(), log.clone());
    let requests = proxy.requests();
    let engine = Arc::new(engine(proxy, &snapshot.server, policies));
    let (stop, stopping) = watch::channel(false);
    let (holder, open) = mpsc::channel(1);
    for bound in bound {
        let services = Services {
            engine: engine.clone(),
            log: log.clone(),
            metrics: snapshot.metrics.clone(),
            config: snapshot.hash.as_str().into(),
            stop: stopping.clone(),
            open: holder.clone(),
        };
        tokio::spawn(listener::accept(bound, services));
    }
    let mut admin_task = JoinSet::new();
    if let Some(bound) = admin {
        log::info!("admin: http://{}", bound.address());
        admin_task.spawn(admin::accept(bound, live.clone()));
    }
    let addresses: Vec<String> =
        snapshot.listeners.iter().map(|it| format!("{} {}", it.name, it.address)).collect();
    log::info!("ready: listening on {} (config {})", addresses.join(", "), snapshot.hash);
    Ok(Running { live, engine, log, requests, stop, open, _admin: admin_task, _resolver: resolver })
}

impl Running {
    /// The snapshot in force.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Accepts nothing more, closes what is idle, and returns as soon as nothing is in flight, or at the drain
    /// timeout with the number of requests that were cut.
    pub async fn drain(mut self) -> usize {
        let limit = self.live.pin().server.drain_timeout;
        let end = Instant::now() + limit;
        self.stop.send_replace(true);
        // Wakes the connections that wait for a next request.
        self.engine.cleanup().await;
        // Each connection holds a sender; the channel ends with the last of them.
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
}

/// Starts to resolve the names of the snapshot's endpoints, if it has any.
async fn resolve(snapshot: &Snapshot) -> Result<Option<Resolver>, String> {
    let endpoints = || snapshot.upstreams.iter().flat_map(|upstream| upstream.balance.endpoints());
    if endpoints().all(|endpoint| endpoint.name.is_none()) {
        return Ok(None);
    }
    let resolver =
        Resolver::system().map_err(|error| format!("this system's resolver cannot be used: {error}"))?;
    resolver.watch(endpoints(), FIRST_ANSWERS).await;
    Ok(Some(resolver))
}
