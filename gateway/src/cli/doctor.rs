//! `vestibule doctor`: whether requests get through to each endpoint, and what mends it where they do not.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;

use super::ConfigArgument;
use super::run::runtime;
use crate::doctor::{self, Wanted};
use crate::snapshot::Workshop;

/// The command's arguments.
#[derive(clap::Args)]
pub struct DoctorArguments {
    /// Look at just this route or upstream.
    #[arg(value_name = "ROUTE or UPSTREAM")]
    name: Option<String>,
    #[command(flatten)]
    config: ConfigArgument,
    /// How it is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// The Host that clients are taken to send, where the SNI depends on it.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Each step may take so long.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = super::duration)]
    timeout: Duration,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// The configuration could not be loaded, or nothing has the name that was given.
const REFUSED: u8 = 3;

/// Prints what was found; the exit code is that of the worst verdict.
pub fn doctor(arguments: &DoctorArguments, workshop: &Workshop) -> anyhow::Result<ExitCode> {
    let wanted = Wanted { name: arguments.name.clone(), host: arguments.host.clone() };
    let looking = doctor::doctor(&arguments.config.config, &wanted, arguments.timeout, workshop);
    let report = match runtime(2)?.block_on(looking) {
        Ok(report) => report,
        Err(refused) => {
            eprintln!("{refused}");
            return Ok(ExitCode::from(REFUSED));
        }
    };
    match arguments.format {
        Format::Json => super::print(&serde_json::to_string_pretty(&report)?)?,
        // Colours go where there is no terminal, and where <https://no-color.org> is asked for.
        Format::Text => match write!(anstream::stdout(), "{}", doctor::render(&report)) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            done => done?,
        },
    }
    Ok(ExitCode::from(report.exit_code()))
}
