//! `vestibule plan`: what a reload would change.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::ValueEnum;

use super::ConfigArgument;
use super::admin_client::{AdminArguments, AdminClient};
use super::run::runtime;
use crate::config;
use crate::plan::{self, Described};
use crate::snapshot::{self, Workshop};

/// The command's arguments.
#[derive(clap::Args)]
pub struct PlanArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Compare with this file or folder, and not with the gateway that runs.
    #[arg(long, value_name = "FILE or FOLDER", conflicts_with_all = ["admin", "token_file"])]
    from: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArguments,
    /// How it is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Exit with 2 where anything changes.
    #[arg(long)]
    exit_code: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Something changes, and the exit code was to tell.
const CHANGES: u8 = 2;

/// Prints the plan. Fails where the reload would be refused.
pub fn plan(arguments: &PlanArguments, workshop: &Workshop) -> anyhow::Result<ExitCode> {
    let new = described(&arguments.config.config, workshop)?;
    let old = match &arguments.from {
        Some(from) => described(from, workshop).map_err(|error| {
            anyhow!("{error}\n\n`{}` is refused, so there is nothing to compare with", from.display())
        })?,
        None => running(&arguments.admin.client()?)?,
    };
    let plan = plan::plan(&old, &new, (workshop.now)())?;
    match arguments.format {
        Format::Json => super::print(&serde_json::to_string_pretty(&plan)?)?,
        // Colours go where there is no terminal, and where <https://no-color.org> is asked for.
        Format::Text => match write!(anstream::stdout(), "{}", plan::render(&plan)) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            done => done?,
        },
    }
    Ok(match (plan.refused.is_empty(), plan.changes && arguments.exit_code) {
        (false, _) => ExitCode::FAILURE,
        (true, true) => ExitCode::from(CHANGES),
        (true, false) => ExitCode::SUCCESS,
    })
}

/// A configuration in files, whole and good.
fn described(path: &Path, workshop: &Workshop) -> anyhow::Result<Described> {
    let loaded = config::load(path)?;
    let snapshot = snapshot::compile(&loaded, workshop)?;
    Ok(Described::of(&loaded, &snapshot))
}

/// The configuration that is in force.
fn running(gateway: &AdminClient) -> anyhow::Result<Described> {
    let told = runtime(1)?.block_on(gateway.get("/config"))?.accepted()?;
    let described = told.get("described").cloned().ok_or_else(|| {
        anyhow!("the admin endpoint does not describe its configuration\nhint: does it run this version?")
    })?;
    serde_json::from_value(described)
        .context("the admin endpoint describes its configuration in another form; does it run this version?")
}
