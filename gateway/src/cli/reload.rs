//! `vestibule reload`, `promote`, `abort` and `rollback`: a running gateway is told, by its admin endpoint, to change what
//! is in force.

use std::io::{IsTerminal, stdout};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use serde_json::{Value, json};
use tokio::time::sleep;
use vestibule_plugins::{DurationText, Percent};

use super::admin_client::{AdminArguments, AdminClient, Answer};
use super::run::runtime;
use crate::config::{GuardConfig, StageConfig};
use crate::reload::entry::{Entry, Outcome, ProblemRow};
use crate::reload::guard::Guard;

/// How often a stage is looked at.
const GLANCE: Duration = Duration::from_secs(1);

/// Which gateway is told, and how what it says is printed.
#[derive(clap::Args)]
pub struct GatewayArguments {
    #[command(flatten)]
    admin: AdminArguments,
    /// How it is printed; JSON is one value a line, as the admin endpoint gives it.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// The arguments of `reload`.
#[derive(clap::Args)]
pub struct ReloadArguments {
    #[command(flatten)]
    gateway: GatewayArguments,
    /// Try what the files say on this share of the clients first, whatever they say of a stage themselves.
    #[arg(long, value_name = "SHARE", value_parser = Percent::parse, num_args = 0..=1)]
    stage: Option<Option<Percent>>,
    /// Promote it after this time, if every guard holds.
    #[arg(long = "for", value_name = "TIME", value_parser = super::duration, requires = "stage")]
    lasts: Option<Duration>,
    /// Roll it back unless this holds, such as `error_rate < 1%` or `p99 < 1.5x`; may be given several times.
    #[arg(long = "guard", value_name = "GUARD", value_parser = guard, requires = "stage")]
    guards: Vec<GuardConfig>,
    /// The header by which a tester's request chooses `candidate` or `running`.
    #[arg(long, value_name = "NAME", requires = "stage")]
    header: Option<String>,
    /// So many requests are needed to judge it.
    #[arg(long, value_name = "NUMBER", requires = "stage")]
    min_requests: Option<u64>,
    /// Put it in force at once, whatever the files say of a stage.
    #[arg(long, conflicts_with = "stage")]
    now: bool,
    /// Follow a stage to its end, as is done on a terminal, and exit with 1 where it was not promoted.
    #[arg(long)]
    wait: bool,
}

impl GatewayArguments {
    /// Says what came of a change, or of a stage.
    fn print(&self, entry: &Entry) -> anyhow::Result<()> {
        match self.format {
            Format::Text => super::print(&entry.message),
            Format::Json => super::print(&serde_json::to_string(entry)?),
        }
    }
}

/// Has the files loaded, and follows the stage that this may begin.
pub fn reload(arguments: &ReloadArguments) -> anyhow::Result<()> {
    let gateway = &arguments.gateway;
    let client = gateway.admin.client()?;
    runtime(1)?.block_on(async {
        let entry = asked(&client, gateway.format, "/reload", &body(arguments)?).await?;
        gateway.print(&entry)?;
        let is_followed = arguments.wait || (gateway.format == Format::Text && stdout().is_terminal());
        match entry.result == Outcome::Staged && is_followed {
            true => follow(&client, gateway, &entry).await,
            false => Ok(()),
        }
    })
}

/// Has another change made: `path` says which.
pub fn change(gateway: &GatewayArguments, path: &str) -> anyhow::Result<()> {
    let client = gateway.admin.client()?;
    let entry = runtime(1)?.block_on(asked(&client, gateway.format, path, &json!({})))?;
    gateway.print(&entry)
}

fn body(arguments: &ReloadArguments) -> anyhow::Result<Value> {
    let ReloadArguments { stage, lasts, guards, header, min_requests, now, .. } = arguments;
    let Some(share) = stage else {
        return Ok(if *now { json!({ "at_once": true }) } else { json!({}) });
    };
    let stage = StageConfig {
        share: *share,
        r#for: lasts.map(DurationText),
        guards: Some(guards.clone()).filter(|guards| !guards.is_empty()),
        header: header.clone(),
        min_requests: *min_requests,
    };
    Ok(json!({ "stage": serde_json::to_value(stage)? }))
}

fn guard(text: &str) -> Result<GuardConfig, String> {
    Guard::parse(text).map(GuardConfig)
}

/// What came of a change; an error where it was refused, with every problem as `check` tells it.
async fn asked(client: &AdminClient, format: Format, path: &str, body: &Value) -> anyhow::Result<Entry> {
    let answer = client.post(path, body).await?;
    let Answer { status, body } = &answer;
    if matches!(status, 400 | 409 | 422) {
        if format == Format::Json {
            super::print(&body.to_string())?;
        }
        bail!(refusal(body));
    }
    entry(answer.accepted()?)
}

fn entry(told: Value) -> anyhow::Result<Entry> {
    serde_json::from_value(told)
        .context("the admin endpoint answers in another form; does it run this version?")
}

fn refusal(problem: &Value) -> String {
    let rows: Vec<ProblemRow> = problem
        .get("problems")
        .and_then(|rows| serde_json::from_value(rows.clone()).ok())
        .unwrap_or_default();
    let detail = problem.get("detail").and_then(Value::as_str).unwrap_or("it is refused");
    let told: String = rows.iter().map(|row| format!("{row}\n\n")).collect();
    // Of what has no place in a file, the detail says the same once more.
    match rows.iter().any(|row| row.at.is_some()) || rows.is_empty() {
        true => told + detail,
        false => told.trim_end().to_owned(),
    }
}

/// Tells how a stage does until it is over; an error where its candidate is not in force then.
async fn follow(client: &AdminClient, gateway: &GatewayArguments, staged: &Entry) -> anyhow::Result<()> {
    let mut before = String::new();
    loop {
        sleep(GLANCE).await;
        if let Some(end) = end(client, staged).await? {
            return match end.result {
                Outcome::Promoted => gateway.print(&end),
                _ if gateway.format == Format::Json => {
                    gateway.print(&end)?;
                    Err(anyhow!("{}", end.message))
                }
                _ => Err(anyhow!("{}", end.message)),
            };
        }
        let status = client.get("/stage").await?;
        // It may have ended between the two questions.
        if status.status == 404 || gateway.format == Format::Json {
            continue;
        }
        let status = status.accepted()?;
        let now = figures(&status);
        if now != before {
            super::print(&format!("{}s left: {now}", status["seconds_left"]))?;
            before = now;
        }
    }
}

/// The change by which a stage ended: the first one behind it that changed anything.
async fn end(client: &AdminClient, staged: &Entry) -> anyhow::Result<Option<Entry>> {
    let told = client.get("/reloads").await?.accepted()?;
    let mut later = Vec::new();
    for row in told["reloads"].as_array().into_iter().flatten() {
        let entry = entry(row.clone())?;
        if entry.number > staged.number && !matches!(entry.result, Outcome::Refused | Outcome::Unchanged) {
            later.push(entry);
        }
    }
    // The newest stands first.
    Ok(later.pop())
}

/// Both sides in a line.
fn figures(status: &Value) -> String {
    let side = |name: &str| {
        let side = &status[name];
        let p99 = side["p99_ms"].as_f64().map(|p99| format!(", p99 {p99} ms")).unwrap_or_default();
        format!("{name}: {} requests, {} failed{p99}", side["requests"], side["errors"])
    };
    format!("{}; {}", side("candidate"), side("running"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_told_as_check_tells_it() {
        let problem = json!({
            "detail": "1 problem; nothing has changed, config 0123456789ab goes on",
            "problems": [{
                "at": "gateway.yaml:14:9", "path": "routes[2].upstream",
                "message": "no upstream is named `paymets`", "hint": "did you mean `payments`?",
            }],
        });
        assert_eq!(
            refusal(&problem),
            "gateway.yaml:14:9  routes[2].upstream\nno upstream is named `paymets`\nhint: did you mean `payments`?\n\n\
             1 problem; nothing has changed, config 0123456789ab goes on"
        );
        let twice = json!({ "detail": "no candidate is on trial", "problems": [{ "message": "no candidate is on trial" }] });
        assert_eq!(refusal(&twice), "no candidate is on trial");
        assert_eq!(refusal(&json!({ "detail": "the body is not JSON" })), "the body is not JSON");
    }
}
