//! `vestibule schema`: the JSON Schema of the file, with the plugins that this binary knows.

use vestibule_plugins::Registry;

use crate::config;

/// Prints it.
pub fn schema(registry: &Registry) -> anyhow::Result<()> {
    super::print(&serde_json::to_string_pretty(&config::schema(registry))?)
}
