//! The handle to the one task that changes what is in force: whoever holds it can ask for a change and see what came of
//! those before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, oneshot};

use super::entry::{Entry, History, Outcome, Trigger};
use crate::config::StageConfig;
use crate::snapshot::live::Live;

/// How many changes may wait for the one that is being made.
const WAITING: usize = 16;

/// What can be asked for.
#[derive(Clone, Debug)]
pub enum Change {
    /// Load the files and put them in force.
    Reload(How),
    /// Let the candidate take all requests.
    Promote,
    /// Drop the candidate.
    Abort,
    /// Put the snapshot before in force again.
    Rollback,
}

/// How files that were loaded come in force.
#[derive(Clone, Debug)]
pub enum How {
    /// As their section `reload` says.
    AsFileSays,
    /// Whatever that says, at once.
    AtOnce,
    /// By a stage: these settings, over those of the section.
    Staged(StageConfig),
}

/// Whether clients may be sent here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Nobody is served as yet.
    Starting,
    /// Requests are served.
    Serving,
    /// The process is to end as soon as nothing is in flight.
    Draining,
}

/// The handle.
#[derive(Clone)]
pub struct Control(Arc<Shared>);

struct Shared {
    live: Arc<Live>,
    history: History,
    since: ArcSwapOption<Entry>,
    readiness: AtomicU8,
    asking: mpsc::Sender<Asked>,
}

/// A change that somebody waits for.
pub(super) struct Asked {
    pub(super) change: Change,
    pub(super) trigger: Trigger,
    pub(super) answer: oneshot::Sender<Arc<Entry>>,
}

impl Control {
    /// A handle, and where what is asked by it arrives.
    pub(super) fn new(live: Arc<Live>) -> (Self, mpsc::Receiver<Asked>) {
        let (asking, asked) = mpsc::channel(WAITING);
        let readiness = AtomicU8::new(Readiness::Starting as u8);
        let (history, since) = (History::default(), ArcSwapOption::empty());
        (Self(Arc::new(Shared { live, history, since, readiness, asking })), asked)
    }

    /// Asks for a change and waits until it is made or refused, one after the other. `None` where the process ends first.
    pub async fn change(&self, change: Change, trigger: Trigger) -> Option<Arc<Entry>> {
        let (answer, answered) = oneshot::channel();
        self.0.asking.send(Asked { change, trigger, answer }).await.ok()?;
        answered.await.ok()
    }

    /// What is in force.
    pub fn live(&self) -> &Arc<Live> {
        &self.0.live
    }

    /// What came of the last changes, the newest first.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        self.0.history.entries()
    }

    /// The change by which that came in force which runs.
    pub fn since(&self) -> Option<Arc<Entry>> {
        self.0.since.load_full()
    }

    /// Whether clients may be sent here.
    pub fn readiness(&self) -> Readiness {
        match self.0.readiness.load(Ordering::Acquire) {
            0 => Readiness::Starting,
            1 => Readiness::Serving,
            _ => Readiness::Draining,
        }
    }

    pub(super) fn set_readiness(&self, readiness: Readiness) {
        self.0.readiness.store(readiness as u8, Ordering::Release);
    }

    pub(super) fn remember(&self, entry: Arc<Entry>) {
        let before = self.since();
        let is_another = before.is_none_or(|before| before.config != entry.config);
        // The hash does not tell of a password that is another one.
        if is_another || matches!(entry.result, Outcome::Applied | Outcome::Promoted) {
            self.0.since.store(Some(entry.clone()));
        }
        self.0.history.add(entry);
    }
}
