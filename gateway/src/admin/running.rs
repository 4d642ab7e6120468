//! `/config`: which configuration runs, and since when.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::plan::Described;
use crate::reload::Control;
use crate::reload::entry::Trigger;
use crate::snapshot::Snapshot;

/// The whole page.
#[derive(Serialize, JsonSchema)]
pub struct Running<'a> {
    /// The version of the gateway.
    version: &'static str,
    /// The hash of the configuration's files.
    config: &'a str,
    /// When it came in force, RFC 3339 in UTC; absent before the first has.
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
    let since = control.since();
    let described = snapshot.described.as_deref();
    Running {
        version: env!("CARGO_PKG_VERSION"),
        config: &snapshot.hash,
        loaded: since.as_ref().map(|since| since.time.clone()),
        trigger: since.map(|since| since.trigger),
        files: described.iter().flat_map(|described| &described.files).map(PathBuf::as_path).collect(),
        described,
    }
}
