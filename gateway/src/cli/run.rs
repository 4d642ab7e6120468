//! `vestibule run`: serve until SIGTERM or SIGINT; SIGHUP reloads.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::reload::entry::Trigger;
use crate::reload::{Change, Control, How, Keeper, Watching};
use crate::snapshot::{self, Workshop};

/// How long what is read or written at the end may take.
const LAST_FILES: Duration = Duration::from_secs(1);

/// Serves; returns when it has drained.
pub fn run(path: &Path, watching: Watching, workshop: Arc<Workshop>) -> anyhow::Result<()> {
    let (snapshot, sources) = snapshot::load_noting(path, &workshop);
    let snapshot = snapshot?;
    let runtime = runtime(snapshot.server.threads)?;
    let served = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let keeper = Keeper::start(path.to_owned(), (snapshot, sources), workshop, watching).await?;
        let control = keeper.control();
        let (stop, stopped) = oneshot::channel();
        let keeping = tokio::spawn(keeper.run(stopped));
        signals.stop(&control).await;
        log::info!("stopping: waiting for what is in flight");
        let _ = stop.send(());
        let serving = keeping.await?;
        tokio::select! {
            cut = serving.drain() => match cut {
                0 => log::info!("stopped: nothing was in flight"),
                cut => log::info!("stopped: {cut} requests were cut"),
            },
            () = signals.stop(&control) => log::warn!("stopped at once: a second signal came"),
        }
        Ok(())
    });
    // A file that is being read may never come to its end, and the runtime would wait for it.
    runtime.shutdown_timeout(LAST_FILES);
    served
}

/// The runtime that everything runs on.
pub fn runtime(threads: usize) -> anyhow::Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(threads).thread_name("vestibule").enable_all().build()?)
}

/// The signals that end the process, and the one that reloads.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// From now on they are caught.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Returns when the process is to stop; asks for a reload at each SIGHUP until then.
    pub async fn stop(&mut self, control: &Control) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    let control = control.clone();
                    // Waited for elsewhere: a signal to stop must not wait behind a reload.
                    tokio::spawn(async move {
                        control.change(Change::Reload(How::AsFileSays), Trigger::Signal).await;
                    });
                }
            }
        }
    }
}
