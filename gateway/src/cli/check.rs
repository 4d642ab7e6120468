//! `vestibule check`: every problem of a configuration, and nothing else.

use std::path::Path;

use crate::snapshot::{self, Workshop};

/// Loads and compiles; says in a line what came of it.
pub fn check(path: &Path, workshop: &Workshop) -> anyhow::Result<()> {
    let snapshot = snapshot::load(path, workshop)?;
    super::print(&format!(
        "{}: good: {}, {}, {} (config {})",
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
