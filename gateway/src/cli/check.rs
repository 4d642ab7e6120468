//! `vestibule check`: every problem and every warning of a configuration, and nothing else.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use indicatif::ProgressBar;

use super::run::runtime;
use crate::doctor::{self, Handshakes};
use crate::snapshot::{self, Workshop};

/// What becomes of a configuration that has warnings and no problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnWarnings {
    /// It is good.
    Tell,
    /// It is refused.
    Deny,
}

/// Loads and compiles; says in a line what came of it, below the warnings.
pub fn check(path: &Path, on_warnings: OnWarnings, workshop: &Workshop) -> anyhow::Result<()> {
    let snapshot = snapshot::load(path, workshop)?;
    let warnings = match snapshot.warnings.count() {
        0 => String::new(),
        number => {
            eprintln!("{}", snapshot.warnings);
            format!(", {}", count(number, "warning"))
        }
    };
    if on_warnings == OnWarnings::Deny && !warnings.is_empty() {
        bail!("{}: refused, as `--deny-warnings` says{warnings}", path.display());
    }
    super::print(&format!(
        "{}: good: {}, {}, {}{warnings} (config {})",
        path.display(),
        count(snapshot.listeners.len(), "listener"),
        count(snapshot.routes.len(), "route"),
        count(snapshot.upstreams.len(), "upstream"),
        snapshot.hash,
    ))
}

/// Makes a handshake with every endpoint, all within the deadline; an error that tells each that failed.
pub fn probe(path: &Path, deadline: Duration, workshop: &Workshop) -> anyhow::Result<()> {
    // On a terminal alone: indicatif draws nothing elsewhere.
    let bar = ProgressBar::new(0);
    let told = |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    };
    let done = runtime(2)?.block_on(doctor::handshakes(path, deadline, workshop, &told));
    bar.finish_and_clear();
    let Handshakes { count: made, failed } = done?;
    match failed.count() {
        0 => super::print(&format!("{}: reached: {}", path.display(), count(made, "endpoint"))),
        number => bail!("{failed}\n\n{}: {number} of {} failed", path.display(), count(made, "endpoint")),
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
