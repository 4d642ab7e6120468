//! `/config`: which configuration runs, and since when.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::plan::Described;
use crate::reload::Control;
use crate::reload::entry::{Entry, Outcome, Trigger};
use crate::snapshot::Snapshot;

/// The whole page.
#[derive(Serialize, JsonSchema)]
pub struct Running<'a> {
    /// The version of the gateway.
    version: &'static str,
    /// The hash of the configuration's files.
    config: &'a str,
    /// When it came in force, RFC 3339 in UTC; absent where more changes have been asked for since than are remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    loaded: Option<String>,
    /// What asked for it; absent likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    trigger: Option<Trigger>,
    /// The files that it was read from.
    files: Vec<&'a Path>,
    /// What `vestibule plan` compares: the tree of the files, with `<redacted>` for each secret, and what the files that
    /// they name came to.
    #[schemars(with = "Map<String, Value>")]
    described: Option<&'a Described>,
}

/// Which runs.
pub fn told<'a>(snapshot: &'a Snapshot, control: &Control) -> Running<'a> {
    let entries = control.entries();
    let entry = put_in_force(&entries);
    let described = snapshot.described.as_deref();
    Running {
        version: env!("CARGO_PKG_VERSION"),
        config: &snapshot.hash,
        loaded: entry.map(|entry| entry.time.clone()),
        trigger: entry.map(|entry| entry.trigger),
        files: described.iter().flat_map(|described| &described.files).map(PathBuf::as_path).collect(),
        described,
    }
}

/// The change by which that came in force which runs, if it is remembered; the newest stands first.
fn put_in_force(entries: &[Arc<Entry>]) -> Option<&Entry> {
    let has_changed = |(position, entry): &(usize, &Entry)| match entry.result {
        Outcome::Applied | Outcome::Promoted => true,
        // By hand; or else a candidate was dropped, and what ran goes on.
        Outcome::RolledBack => entries.get(position + 1).is_some_and(|before| before.config != entry.config),
        Outcome::Unchanged | Outcome::Refused | Outcome::Staged | Outcome::Aborted => false,
    };
    entries.iter().map(AsRef::as_ref).enumerate().find(has_changed).map(|(_, entry)| entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reload::entry::Kind;

    #[test]
    fn what_runs_came_in_force_by_the_last_change_that_put_it_there() {
        let check = |changes: &[(Trigger, Kind, Outcome, &str)], expected: Option<u64>| {
            let entries = changes.iter().zip(1..).map(|((trigger, change, result, config), number)| {
                Arc::new(Entry {
                    number,
                    time: String::new(),
                    trigger: *trigger,
                    change: *change,
                    result: *result,
                    message: String::new(),
                    duration_ms: 0.0,
                    config: (*config).into(),
                    other: None,
                    problems: Vec::new(),
                    warnings: 0,
                })
            });
            let entries: Vec<_> = entries.collect::<Vec<_>>().into_iter().rev().collect();
            assert_eq!(put_in_force(&entries).map(|entry| entry.number), expected, "{changes:?}");
        };
        let start = (Trigger::Start, Kind::Reload, Outcome::Applied, "a");
        let refused = (Trigger::Files, Kind::Reload, Outcome::Refused, "a");
        let staged = (Trigger::Admin, Kind::Reload, Outcome::Staged, "a");
        let dropped = (Trigger::Stage, Kind::Rollback, Outcome::RolledBack, "a");
        let promoted = (Trigger::Stage, Kind::Promote, Outcome::Promoted, "b");
        let back = (Trigger::Admin, Kind::Rollback, Outcome::RolledBack, "a");
        check(&[start, refused], Some(1));
        check(&[start, staged, dropped], Some(1));
        check(&[start, staged, promoted], Some(3));
        check(&[start, staged, promoted, back, refused], Some(4));
        check(&[refused, staged, dropped], None);
    }
}
