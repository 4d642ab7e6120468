//! Where the keys come from: a file, read with the configuration, or an upstream, asked beside the requests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::keys::Keys;
use crate::outbound::{Limits, Upstream};

/// Keys that are asked for, kept, and asked for again.
pub(super) struct Remote {
    upstream: Arc<dyn Upstream>,
    path: String,
    refresh: Duration,
    keys: ArcSwapOption<Keys>,
    begun: AtomicBool,
    /// Whether somebody is asking right now.
    asking: AtomicBool,
    /// When the last time began, in milliseconds after `made`; `NEVER` before the first.
    last: AtomicU64,
    made: Instant,
    wanted: Arc<Notify>,
    /// How often it was asked, for those that wait for the next time.
    rounds: watch::Sender<u64>,
}

const NEVER: u64 = u64::MAX;
/// How long the issuer may take to answer, and how long a request waits for that.
const PATIENCE: Duration = Duration::from_secs(5);
/// A token with an unknown key makes us ask at most so often: anybody can make one up.
const PAUSE: Duration = Duration::from_secs(5);
/// After a failure it is asked again so soon, at the latest.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const MOST_BYTES: usize = 256 * 1024;

impl Remote {
    pub(super) fn new(upstream: Arc<dyn Upstream>, path: String, refresh: Duration) -> Self {
        Self {
            upstream,
            path,
            refresh,
            keys: ArcSwapOption::empty(),
            begun: AtomicBool::new(false),
            asking: AtomicBool::new(false),
            last: AtomicU64::new(NEVER),
            made: Instant::now(),
            wanted: Arc::default(),
            rounds: watch::Sender::new(0),
        }
    }

    /// The keys that are known now.
    pub(super) fn keys(&self) -> Option<Arc<Keys>> {
        self.keys.load_full()
    }

    /// Begins to ask, unless it has begun already. It ends with the last that holds `self`.
    pub(super) fn begin(self: &Arc<Self>) {
        if !self.begun.swap(true, Ordering::AcqRel) {
            tokio::spawn(refresh(Arc::downgrade(self), self.wanted.clone()));
        }
    }

    /// The keys after they were asked for once more; as they are, where that was just now.
    pub(super) async fn renewed(&self) -> Option<Arc<Keys>> {
        let mut rounds = self.rounds.subscribe();
        let last = self.last.load(Ordering::Acquire);
        let age =
            self.made.elapsed().saturating_sub(Duration::from_millis(if last == NEVER { 0 } else { last }));
        let is_due = last == NEVER || age >= PAUSE;
        if is_due || self.asking.load(Ordering::Acquire) {
            if last != NEVER && is_due {
                self.wanted.notify_one();
            }
            let _ = timeout(PATIENCE, rounds.changed()).await;
        }
        self.keys()
    }

    async fn ask(&self) -> bool {
        self.asking.store(true, Ordering::Release);
        self.last.store(u64::try_from(self.made.elapsed().as_millis()).unwrap_or(0), Ordering::Release);
        let asked = self.fetch().await;
        let name = self.upstream.name();
        let succeeded = match asked {
            Ok(keys) => {
                log::debug!("jwt: {} keys from the upstream `{name}`", keys.len());
                self.keys.store(Some(Arc::new(keys)));
                true
            }
            Err(why) => {
                let kept = self.keys.load().as_ref().map_or(0, |keys| keys.len());
                log::warn!("jwt: no keys from the upstream `{name}`, {kept} are kept: {why}");
                false
            }
        };
        self.asking.store(false, Ordering::Release);
        self.rounds.send_modify(|rounds| *rounds = rounds.wrapping_add(1));
        succeeded
    }

    async fn fetch(&self) -> Result<Keys, String> {
        let request = http::Request::get(self.path.as_str()).header(http::header::ACCEPT, "application/json");
        let request = request.body(Bytes::new()).map_err(|error| error.to_string())?;
        let limits = Limits { timeout: PATIENCE, body: MOST_BYTES };
        let answer = self.upstream.ask(request, limits).await.map_err(|error| error.to_string())?;
        match answer.status().as_u16() {
            200 => Keys::parse(answer.body()).map_err(|why| format!("`{}` {why}", self.path)),
            status => Err(format!("`{}` answered {status}", self.path)),
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.wanted.notify_one();
    }
}

async fn refresh(remote: Weak<Remote>, wanted: Arc<Notify>) {
    let mut pause = Duration::from_secs(1);
    loop {
        let Some(held) = remote.upgrade() else { return };
        let next = match held.ask().await {
            true => {
                pause = Duration::from_secs(1);
                held.refresh
            }
            false => {
                pause = (pause * 2).min(LONGEST_PAUSE);
                (pause / 2).min(held.refresh)
            }
        };
        drop(held);
        tokio::select! {
            () = sleep(next) => {}
            () = wanted.notified() => {}
        }
    }
}
