//! `vestibule check`: every problem and every warning of a configuration, and nothing else.

use std::path::Path;

use anyhow::bail;

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

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
