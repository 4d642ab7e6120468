//! `/causes`: the table of the diagnosis.

use schemars::JsonSchema;
use serde::Serialize;

use crate::diagnose::Cause;

/// The whole page.
#[derive(Serialize, JsonSchema)]
pub struct Causes {
    causes: Vec<CauseRow>,
}

#[derive(Serialize, JsonSchema)]
struct CauseRow {
    /// As it stands in the access log and in metrics.
    code: &'static str,
    /// What it means.
    what: &'static str,
    /// What mends it.
    remedy: &'static str,
}

/// Every cause.
pub fn told() -> Causes {
    let rows = Cause::ALL.iter();
    let rows = rows.map(|cause| CauseRow { code: cause.code(), what: cause.what(), remedy: cause.remedy() });
    Causes { causes: rows.collect() }
}
