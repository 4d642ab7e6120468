//! Tells when the files that a configuration was made of may have changed, as soon as they are quiet again. What
//! becomes of that is decided elsewhere: nothing is read or loaded here.
//!
//! The kernel tells that something happened in a folder (`folders`), and a look at every source each five seconds finds
//! what it did not tell; only what a look finds changed is passed on. All of it is done by a thread of its own, since a
//! look may wait for a slow disk.

mod folders;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch::{Receiver, Sender, channel};

use self::folders::{Folders, Interest, Open};
use crate::snapshot::Sources;

/// Follows the sources of the last load, until it is dropped.
pub struct Watch {
    shared: Arc<Shared>,
    told: Receiver<u64>,
    /// How often `follow` was called: what was told of sources before these is old.
    generation: u64,
}

/// How long to wait for what.
#[derive(Clone, Copy)]
struct Pace {
    /// A change is told of when nothing has changed for so long: a file may be written in several steps.
    quiet: Duration,
    /// And at the latest so long after it was noticed.
    most: Duration,
    /// Between two looks where the kernel tells nothing: it knows nothing of what other machines do to a shared folder.
    look: Duration,
}

const PACE: Pace =
    Pace { quiet: Duration::from_millis(150), most: Duration::from_secs(2), look: Duration::from_secs(5) };

impl Watch {
    /// Follows these sources from now on; what has changed since they were noted is told as well.
    ///
    /// # Errors
    /// The system gives no thread. That it gives no inotify is a warning in the log: then changes are found by looking.
    pub fn start(sources: &Sources) -> io::Result<Self> {
        Self::with(sources, PACE, folders::open)
    }

    /// Follows these instead: to be called after every attempt to load, with what that attempt looked at. So what was
    /// refused is told of again when it has changed, and not before.
    pub fn follow(&mut self, sources: &Sources) {
        self.generation += 1;
        let mut state = self.shared.state();
        state.next = Some((sources.clone(), self.generation));
        self.shared.wake.notify_one();
    }

    /// Returns when the sources have changed; once for each change, and for all changes at once that came close
    /// together. Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        while self.told.changed().await.is_ok() {
            if *self.told.borrow_and_update() == self.generation {
                return;
            }
        }
        // A panic ended the thread, and was told of.
        std::future::pending().await
    }

    fn with(sources: &Sources, pace: Pace, open: Open) -> io::Result<Self> {
        let (tell, told) = channel(0);
        let shared = Arc::new(Shared::default());
        let (of_thread, sources) = (shared.clone(), sources.clone());
        thread::Builder::new().name("watch".into()).spawn(move || {
            let folders = Folders::new(of_thread.clone(), open, pace.look);
            Follower { shared: of_thread, tell, sources, generation: 0, folders, pace }.run();
        })?;
        Ok(Self { shared, told, generation: 0 })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        self.shared.wake.notify_one();
    }
}

/// What the three threads tell each other: the one that loads, the follower and inotify's.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// What is to be followed next, and its generation.
    next: Option<(Sources, u64)>,
    is_over: bool,
    /// When the kernel last told of something that matters, since it was last asked for.
    touched: Option<Instant>,
    /// What matters.
    interest: Interest,
}

impl State {
    fn has_orders(&self) -> bool {
        self.is_over || self.next.is_some()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until then, or until `is_enough`.
    fn wait(&self, until: Instant, is_enough: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let left = until.saturating_duration_since(Instant::now());
        let waited = self.wake.wait_timeout_while(self.state(), left, |state| !is_enough(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The thread's own.
struct Follower {
    shared: Arc<Shared>,
    tell: Sender<u64>,
    sources: Sources,
    generation: u64,
    folders: Folders,
    pace: Pace,
}

/// Why the thread woke.
enum Wake {
    Over,
    Follow(Sources, u64),
    Touched,
    Look,
}

impl Follower {
    fn run(mut self) {
        let mut is_quiet = false;
        loop {
            // First what came is followed, a folder or the target of a link, then it is looked at: what comes later the
            // kernel tells.
            self.folders.follow(&self.sources);
            if !is_quiet && self.sources.have_changed() && self.settle() {
                self.folders.follow(&self.sources);
                is_quiet = true;
            }
            if is_quiet {
                self.tell_of_changes();
            }
            is_quiet = match self.wake() {
                Wake::Over => return,
                Wake::Follow(sources, generation) => {
                    (self.sources, self.generation) = (sources, generation);
                    false
                }
                // Before the look, which is then not taken for each event by itself.
                Wake::Touched => self.settle(),
                Wake::Look => false,
            };
        }
    }

    fn wake(&self) -> Wake {
        let next_look = Instant::now() + self.pace.look;
        let mut state = self.shared.wait(next_look, |state| state.has_orders() || state.touched.is_some());
        let touched = state.touched.take();
        match state.next.take() {
            _ if state.is_over => Wake::Over,
            Some((sources, generation)) => Wake::Follow(sources, generation),
            None if touched.is_some() => Wake::Touched,
            None => Wake::Look,
        }
    }

    /// Waits until neither the kernel nor a look tells of anything new; not so where something else is to be followed.
    fn settle(&self) -> bool {
        let mut last = Instant::now();
        let latest = last + self.pace.most;
        let mut known = self.sources.as_they_are();
        loop {
            let mut state = self.shared.wait(latest.min(last + self.pace.quiet), State::has_orders);
            if state.has_orders() {
                return false;
            }
            let touched = state.touched.take();
            drop(state);
            let now = self.sources.as_they_are();
            let has_changed = now != known;
            known = now;
            match touched {
                _ if Instant::now() >= latest => return true,
                Some(at) => last = at,
                None if has_changed => last = Instant::now(),
                None => return true,
            }
        }
    }

    fn tell_of_changes(&mut self) {
        let now = self.sources.as_they_are();
        if now != self.sources {
            // So the next change is told of even if nobody calls `follow`.
            self.sources = now;
            self.tell.send_replace(self.generation);
        }
    }
}
