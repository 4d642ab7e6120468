//! `vestibule explain`: what would become of a request, and why.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use clap::ValueEnum;
use vestibule_plugins::Problem;

use super::ConfigArgument;
use crate::config::{self, Document};
use crate::explain::{self, Case, Colors, Explanation, Purpose, Typed};
use crate::snapshot::{self, Snapshot, Workshop};

/// The command's arguments.
#[derive(clap::Args)]
pub struct ExplainArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Such as GET.
    #[arg(required_unless_present = "all")]
    method: Option<String>,
    /// https://host:port/path?query, or a path where a Host is given by -H.
    #[arg(required_unless_present = "all")]
    url: Option<String>,
    /// A header field of the request, `NAME: VALUE`.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The listener that it comes in by, where the URL does not tell it.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Instead of one request, list what becomes of each of a file of cases.
    #[arg(long, value_name = "CASES", conflicts_with_all = ["method", "url", "headers", "listener"])]
    all: Option<PathBuf>,
    /// How it is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Prints what becomes of the request, or of each of the cases.
pub fn explain(arguments: &ExplainArguments, workshop: &Workshop) -> anyhow::Result<()> {
    let (snapshot, document) = load(&arguments.config.config, workshop)?;
    let text = match (&arguments.all, &arguments.method, &arguments.url) {
        (Some(cases), ..) => {
            let explained = explained(cases, &snapshot, &document, Purpose::List)?;
            match arguments.format {
                Format::Text => explain::listed(&explained),
                Format::Json => {
                    let all: Vec<_> = explained.iter().map(|(_, explanation)| explanation).collect();
                    serde_json::to_string_pretty(&all)?
                }
            }
        }
        (None, Some(method), Some(url)) => {
            let headers = arguments.headers.iter().map(|text| explain::header(text));
            let headers: Vec<_> = headers.collect::<Result<_, _>>().map_err(|message| anyhow!(message))?;
            let typed = Typed { method, url, headers: &headers, listener: arguments.listener.as_deref() };
            let sample = typed.sample(&snapshot).map_err(|problems| anyhow!(told(&problems)))?;
            let explanation = explain::explain(&snapshot, &document, &sample);
            match arguments.format {
                Format::Text => explain::render(&explanation, colors()),
                Format::Json => serde_json::to_string_pretty(&explanation)?,
            }
        }
        // The argument parser has seen to it.
        (None, ..) => return Err(anyhow!("a method and a URL are missing")),
    };
    super::print(text.trim_end())
}

/// The configuration as requests would run on it, and where each thing of it stands.
pub fn load(path: &Path, workshop: &Workshop) -> anyhow::Result<(Arc<Snapshot>, Document)> {
    let loaded = config::load(path)?;
    let snapshot = snapshot::compile(&loaded, workshop)?;
    Ok((Arc::new(snapshot), loaded.document))
}

/// Each case of the file, explained.
pub fn explained(
    cases: &Path,
    snapshot: &Arc<Snapshot>,
    document: &Document,
    purpose: Purpose,
) -> anyhow::Result<Vec<(Case, Explanation)>> {
    let cases = explain::read(cases, snapshot, purpose)?;
    let explained = cases.into_iter().map(|case| {
        let explanation = explain::explain(snapshot, document, &case.sample);
        (case, explanation)
    });
    Ok(explained.collect())
}

/// On a terminal, unless <https://no-color.org> is asked for.
pub fn colors() -> Colors {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match std::io::stdout().is_terminal() && !refused {
        true => Colors::On,
        false => Colors::Off,
    }
}

fn told(problems: &[Problem]) -> String {
    let told = problems.iter().map(|Problem { path, message, hint }| {
        let hint = hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        format!("{path}\n{message}{hint}")
    });
    told.collect::<Vec<_>>().join("\n\n")
}
