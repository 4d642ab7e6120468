//! `/reloads` and `/stage`: what came of changes, and how the one that is tried goes.

use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::problem::Problem;
use crate::reload::entry::{Entry, Kind, Outcome};

/// The whole page.
#[derive(Serialize, JsonSchema)]
pub struct Reloads<'a> {
    /// The last 50, the newest first.
    reloads: Vec<&'a Entry>,
}

/// What came of the last changes.
pub fn told(entries: &[Arc<Entry>]) -> Reloads<'_> {
    Reloads { reloads: entries.iter().map(AsRef::as_ref).collect() }
}

/// Why there is no stage to tell of.
pub fn no_stage() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no candidate is on trial: `POST /stage` begins a stage, and `/reloads` tells how the last one ended",
    )
}

/// What a change is answered with: what came of it, where it was not refused.
pub fn outcome(entry: Option<&Entry>) -> Result<&Entry, Problem> {
    let Some(entry) = entry else {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the gateway is about to end: nothing is changed",
        ));
    };
    match (entry.result, entry.change) {
        (Outcome::Refused, Kind::Reload) => Err(Problem::refused(StatusCode::UNPROCESSABLE_ENTITY, entry)),
        (Outcome::Refused, Kind::Promote | Kind::Abort | Kind::Rollback) => {
            Err(Problem::refused(StatusCode::CONFLICT, entry))
        }
        _ => Ok(entry),
    }
}
