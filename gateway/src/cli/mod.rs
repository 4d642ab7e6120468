//! The command line: one file for each command, none with logic of its own.

mod admin_client;
mod check;
mod demo;
mod doctor;
mod explain;
mod plan;
mod reload;
mod run;
mod schema;
mod test;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use env_logger::Env;
use vestibule_plugins::Registry;

use self::check::OnWarnings;
use crate::reload::Watching;
use crate::snapshot::Workshop;

/// A programmable edge gateway.
#[derive(Parser)]
#[command(name = "vestibule", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM; SIGHUP, or a change of any file that the configuration names, reloads it.
    Run {
        #[command(flatten)]
        config: ConfigArgument,
        /// Do not watch the files: reload at SIGHUP and by the admin endpoint alone.
        #[arg(long)]
        no_watch: bool,
    },
    /// Load and compile the configuration, and tell every problem and every warning that it has.
    Check {
        #[command(flatten)]
        config: ConfigArgument,
        /// Exit with 1 where there is a warning.
        #[arg(long)]
        deny_warnings: bool,
        /// Also make a handshake with every endpoint, as each route reaches it; exit with 1 where one fails.
        #[arg(long)]
        probe: bool,
        /// All handshakes together may take so long.
        #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration, requires = "probe")]
        deadline: Duration,
    },
    /// Say whether requests get through to each endpoint, and what mends it where they do not. Exits with 0 where all is
    /// good, 1 with a warning, 2 where requests fail, 3 where the configuration cannot be loaded.
    Doctor(doctor::DoctorArguments),
    /// Say what would become of a request and why, without sending anything.
    Explain(explain::ExplainArguments),
    /// Say what a reload would change, without doing it. Exits with 1 where the reload would be refused.
    Plan(plan::PlanArguments),
    /// Check that sample requests take the routes, and get the answers, that a file of cases expects.
    Test {
        #[command(flatten)]
        config: ConfigArgument,
        /// A YAML list of requests, each with what is expected of it.
        cases: PathBuf,
    },
    /// Serve in front of an embedded TLS origin that insists on SNI and a client certificate, and say what to try.
    Demo {
        /// The port of the gateway; the origin takes a free one.
        #[arg(long, default_value_t = 8080)]
        port: u16,
    },
    /// Have a running gateway load its files and put in force what they say, at once or by a stage. Exits with 1 where
    /// that is refused, or where a stage that was followed ended without being promoted.
    Reload(reload::ReloadArguments),
    /// Have a running gateway put the candidate of a stage in force for all.
    Promote(reload::GatewayArguments),
    /// Have a running gateway drop the candidate of a stage.
    Abort(reload::GatewayArguments),
    /// Have a running gateway go back to the configuration before.
    Rollback(reload::GatewayArguments),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
}

#[derive(clap::Args)]
struct ConfigArgument {
    /// A YAML file, or a folder whose *.yaml files are joined.
    #[arg(short, long, value_name = "FILE or FOLDER")]
    config: PathBuf,
}

/// Runs the command line with these plugins: what a binary's `main` returns.
pub fn main(registry: Registry) -> ExitCode {
    let arguments = Arguments::parse();
    let workshop = Workshop::new(registry);
    // The engine tells each broken connection as an error; what matters of that is in the access log.
    let filter = match arguments.command {
        // And `notify` warns of each watched folder that is deleted, which is what a ConfigMap's change is.
        Command::Run { .. } | Command::Demo { .. } => {
            "warn,vestibule=info,notify=off,pingora_core=off,pingora_proxy=off"
        }
        // These print what they find themselves, and ask no name again.
        _ => "warn,vestibule::upstream::dns=off,pingora_core=off,pingora_proxy=off",
    };
    env_logger::Builder::from_env(Env::default().default_filter_or(filter))
        .target(env_logger::Target::Stderr)
        .init();
    let done = match arguments.command {
        Command::Run { config: ConfigArgument { config }, no_watch } => {
            let watching = if no_watch { Watching::Never } else { Watching::AsFileSays };
            run::run(&config, watching, Arc::new(workshop))
        }
        Command::Check { config, deny_warnings, probe, deadline } => {
            let on_warnings = if deny_warnings { OnWarnings::Deny } else { OnWarnings::Tell };
            let probe = probe.then_some(deadline);
            check::check(&config.config, on_warnings, &workshop).and_then(|()| {
                probe.map_or(Ok(()), |deadline| check::probe(&config.config, deadline, &workshop))
            })
        }
        Command::Doctor(arguments) => match doctor::doctor(&arguments, &workshop) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Explain(arguments) => explain::explain(&arguments, &workshop),
        Command::Plan(arguments) => match plan::plan(&arguments, &workshop) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Test { config: ConfigArgument { config }, cases } => test::test(&config, &cases, &workshop),
        Command::Demo { port } => demo::demo(port, Arc::new(workshop)),
        Command::Reload(arguments) => reload::reload(&arguments),
        Command::Promote(gateway) => reload::change(&gateway, "/stage/promote"),
        Command::Abort(gateway) => reload::change(&gateway, "/stage/abort"),
        Command::Rollback(gateway) => reload::change(&gateway, "/rollback"),
        Command::Schema => schema::schema(&workshop.registry),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A time as the file spells it.
fn duration(text: &str) -> Result<Duration, String> {
    vestibule_plugins::duration::parse(text)
}

/// Prints a line; a reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}
