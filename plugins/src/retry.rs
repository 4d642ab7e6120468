//! `retry`: when a failed attempt is made again. What was typed and its compiling; `retry_policy` decides.
//!
//! ```yaml
//! - retry:
//!     attempts: 3                                   # all tries, the first included: 1 to 10; default 2
//!     retry_on: [connect_failure, reset, timeout, 503, "5xx"]   # default: connect_failure and reset
//!     methods: [GET, HEAD, OPTIONS, TRACE, PUT, DELETE]         # the default: what RFC 9110 9.2.2 calls idempotent
//!     backoff: { base: 25ms, max: 250ms }           # the default; `max` is ten times `base` where it is left out
//!     budget: 20%                                   # retries for each hundred requests; default: no bound
//! - retry: { retry_on: 5xx, methods: [GET, POST] }  # naming POST says that it is safe to send it twice
//! ```
//!
//! A request of a method that is not in `methods` is made again only while nothing of it can have reached an
//! upstream, and no request is made again once part of its body is lost. The wait before try *n*+1 is a
//! random part of `base` doubled *n*-1 times, at most `max` ("full jitter"). A connection that was kept open
//! and turns out to be closed says nothing of the upstream's health, so a reset there is always worth a try
//! on another, without a wait: up to `attempts` or 3 in all, whichever is more, under the same rules of
//! methods and bodies.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::duration::DurationText;
use crate::one_or_many::OneOrMany;
use crate::percent::Percent;
use crate::problem::{Path, Problem, did_you_mean};
use crate::retry_budget::RetryBudget;
use crate::retry_policy::{Asked, Backoff, IDEMPOTENT};
pub use crate::retry_policy::{Attempt, Body, Connection, Decision, Outcome, Reason, RetryPolicy, Sent};
use crate::text::Text;
use crate::{Build, Hooks, Plugin, Setting};

/// Sets the rules of retrying for the routes that run it.
pub struct Retry {
    policy: RetryPolicy,
}

impl Plugin for Retry {
    fn hooks(&self) -> Hooks {
        Hooks::default()
    }

    fn retry(&self) -> Option<&RetryPolicy> {
        Some(&self.policy)
    }
}

/// When a failed attempt is made again.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryConfig {
    /// All tries, the first included.
    #[serde(default = "default_attempts")]
    #[schemars(range(min = 1, max = 10))]
    attempts: u32,
    /// What is worth another attempt: failures, statuses, classes of statuses. Default: connect_failure and
    /// reset.
    #[serde(default)]
    retry_on: Option<OneOrMany<OutcomeText>>,
    /// The methods that are safe to send twice. Default: the idempotent ones.
    #[serde(default)]
    methods: Option<OneOrMany<String>>,
    /// How long to wait before an attempt.
    #[serde(default)]
    backoff: BackoffConfig,
    /// How many retries there may be for the requests that come in. Default: no bound.
    #[serde(default)]
    budget: Option<Percent>,
}

/// The wait before a further attempt: a random part of `base`, doubled each time, and at most `max`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackoffConfig {
    /// The longest wait before the second attempt. Default: 25ms.
    #[serde(default)]
    base: Option<DurationText>,
    /// The longest wait of all. Default: ten times `base`.
    #[serde(default)]
    max: Option<DurationText>,
}

/// One item of `retry_on`, as typed.
#[derive(Deserialize)]
#[serde(transparent)]
struct OutcomeText(Text);

impl JsonSchema for OutcomeText {
    fn schema_name() -> Cow<'static, str> {
        "RetryOutcome".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "enum": FAILURES },
                { "type": "string", "pattern": "^[45](xx|XX|\\d\\d)$" },
                { "type": "integer", "minimum": 400, "maximum": 599 },
            ],
        })
    }
}

const FAILURES: [&str; 3] = ["connect_failure", "reset", "timeout"];

const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);

fn default_attempts() -> u32 {
    2
}

impl Build for Retry {
    type Config = RetryConfig;

    fn build(config: RetryConfig, _: &Setting<'_>) -> Result<Self, Vec<Problem>> {
        let root = Path::root();
        let mut problems = Vec::new();
        let mut policy = RetryPolicy {
            attempts: config.attempts,
            connect_failure: Asked::No,
            reset: Asked::No,
            timeout: Asked::No,
            statuses: Vec::new(),
            methods: Cow::Borrowed(&IDEMPOTENT),
            backoff: backoff(&config.backoff).unwrap_or_else(|problem| {
                problems.push(problem.under(&root.key("backoff")));
                Backoff { base: Duration::ZERO, max: Duration::ZERO }
            }),
            budget: config.budget.map(RetryBudget::new),
        };
        if !(1..=10).contains(&config.attempts) {
            problems.push(
                Problem::new(
                    root.key("attempts"),
                    format!("`{}` attempts; 1 to 10 are allowed", config.attempts),
                )
                .hint("the first try counts: 1 never retries, 3 retries twice"),
            );
        }
        match config.retry_on {
            None => (policy.connect_failure, policy.reset) = (Asked::Yes, Asked::Yes),
            Some(OneOrMany(outcomes)) => {
                let at = root.key("retry_on");
                for (index, OutcomeText(Text(text))) in outcomes.iter().enumerate() {
                    if let Err(problem) = ask_for(&mut policy, text) {
                        problems.push(problem.under(&at.index(index)));
                    }
                }
            }
        }
        if let Some(OneOrMany(methods)) = config.methods {
            let at = root.key("methods");
            let parsed = methods.iter().enumerate().filter_map(|(index, text)| {
                method(text).map_err(|problem| problems.push(problem.under(&at.index(index)))).ok()
            });
            policy.methods = Cow::Owned(parsed.collect());
        }
        if config.budget.is_some_and(|share| share.basis_points() == 0) {
            problems.push(
                Problem::new(root.key("budget"), "a budget of `0%` allows no retry")
                    .hint("write `attempts: 1` to never retry, or leave `budget` out for no bound"),
            );
        }
        if problems.is_empty() { Ok(Self { policy }) } else { Err(problems) }
    }
}

fn ask_for(policy: &mut RetryPolicy, text: &str) -> Result<(), Problem> {
    match text {
        "connect_failure" => policy.connect_failure = Asked::Yes,
        "reset" => policy.reset = Asked::Yes,
        "timeout" => policy.timeout = Asked::Yes,
        _ => policy.statuses.push(statuses(text)?),
    }
    Ok(())
}

fn statuses(text: &str) -> Result<RangeInclusive<u16>, Problem> {
    match text.to_ascii_lowercase().as_str() {
        "4xx" => return Ok(400..=499),
        "5xx" => return Ok(500..=599),
        _ => {}
    }
    if let Some(status) = text.parse::<u16>().ok().filter(|status| (400..=599).contains(status)) {
        return Ok(status..=status);
    }
    let problem = Problem::new(
        Path::root(),
        format!(
            "`{text}` is nothing to retry on; there are `connect_failure`, `reset`, `timeout`, a status from 400 to \
             599, `4xx` and `5xx`"
        ),
    );
    Err(match did_you_mean(text, FAILURES.into_iter().chain(["4xx", "5xx"])) {
        Some(hint) => problem.hint(hint),
        None => problem,
    })
}

fn method(text: &str) -> Result<Method, Problem> {
    let upper = text.to_ascii_uppercase();
    match Method::from_bytes(text.as_bytes()) {
        Ok(method) if text == upper => Ok(method),
        Ok(_) => Err(Problem::new(
            Path::root(),
            format!("`{text}` is no method that is in use; case counts in a method"),
        )
        .hint(format!("write `{upper}`"))),
        Err(_) => Err(Problem::new(
            Path::root(),
            format!("`{}` is not a method, such as `GET`", text.escape_debug()),
        )),
    }
}

fn backoff(config: &BackoffConfig) -> Result<Backoff, Problem> {
    let base = config.base.map_or(DEFAULT_BACKOFF, |base| base.0);
    let max = config.max.map_or(base.saturating_mul(10), |max| max.0);
    if base > max {
        return Err(Problem::new(
            Path::root(),
            format!("`base` is {base:?}, more than `max`, which is {max:?}"),
        )
        .hint("make `max` the longest wait, or leave it out for ten times `base`"));
    }
    Ok(Backoff { base, max })
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
