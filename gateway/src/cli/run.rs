//! `vestibule run`: serve until SIGTERM or SIGINT.

use std::path::Path;

use anyhow::anyhow;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::server;
use crate::snapshot::{self, Workshop};

/// Serves; returns when it has drained.
pub fn run(path: &Path, workshop: &Workshop) -> anyhow::Result<()> {
    let snapshot = snapshot::load(path, workshop)?;
    snapshot.warnings.log();
    runtime(snapshot.server.threads)?.block_on(async {
        let mut signals = Signals::new()?;
        let running =
            server::start(snapshot, workshop.policies.clone()).await.map_err(|error| anyhow!(error))?;
        signals.stop().await;
        log::info!("stopping: waiting for what is in flight");
        tokio::select! {
            cut = running.drain() => match cut {
                0 => log::info!("stopped: nothing was in flight"),
                cut => log::info!("stopped: {cut} requests were cut"),
            },
            () = signals.stop() => log::warn!("stopped at once: a second signal came"),
        }
        Ok(())
    })
}

/// The runtime that everything runs on.
pub fn runtime(threads: usize) -> anyhow::Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(threads).thread_name("vestibule").enable_all().build()?)
}

/// The signals that end the process.
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

    /// Returns when the process is to stop.
    pub async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => log::warn!("SIGHUP: this version cannot reload; stop it and start it again"),
            }
        }
    }
}
