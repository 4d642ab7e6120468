//! `vestibule test`: whether a configuration does what its own cases expect of it.

use std::path::Path;

use anyhow::bail;

use super::explain::{colors, explained, load};
use crate::explain::{Purpose, judged};
use crate::snapshot::Workshop;

/// Prints a line for each case; an error where one differs.
pub fn test(config: &Path, cases: &Path, workshop: &Workshop) -> anyhow::Result<()> {
    let (snapshot, document) = load(config, workshop)?;
    let explained = explained(cases, &snapshot, &document, Purpose::Judge)?;
    let (table, different) = judged(&explained, colors());
    super::print(table.trim_end())?;
    match different {
        0 => Ok(()),
        _ => bail!("{different} of {} cases differ", explained.len()),
    }
}
