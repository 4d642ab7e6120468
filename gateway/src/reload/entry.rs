//! What came of each change of what is in force: what `/reloads` tells, and the metric counts.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vestibule_plugins::Problem;

use crate::snapshot::problem::{Located, Report};

/// How many outcomes are remembered.
const REMEMBERED: usize = 50;

/// One change, or one that was refused.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// Counts from 1, the start of the process.
    pub number: u64,
    /// When it was asked for, RFC 3339 in UTC.
    pub time: String,
    /// What asked for it.
    pub trigger: Trigger,
    /// What was asked for.
    pub change: Kind,
    /// What came of it.
    pub result: Outcome,
    /// The same in a sentence.
    pub message: String,
    /// How long it took, from being asked for to being in force.
    pub duration_ms: f64,
    /// The hash of the configuration that was running afterwards.
    pub config: String,
    /// The hash of the other one: of what was refused after it had compiled, of a stage's candidate, of what was left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<String>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ProblemRow>,
    /// How many warnings the configuration that was loaded has.
    #[serde(default)]
    pub warnings: usize,
}

/// What asks for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The process began.
    Start,
    /// SIGHUP.
    Signal,
    /// A file of the configuration changed.
    Files,
    /// The admin endpoint.
    Admin,
    /// The end of a stage.
    Stage,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The files are to be loaded and put in force, at once or by a stage.
    Reload,
    /// The candidate is to take all requests.
    Promote,
    /// The candidate is to be dropped.
    Abort,
    /// The snapshot before is to be in force again.
    Rollback,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A new snapshot runs.
    Applied,
    /// The files say what is in force already.
    Unchanged,
    /// Nothing has changed, since something is wrong.
    Refused,
    /// A candidate takes its share of the requests.
    Staged,
    /// The candidate runs.
    Promoted,
    /// What ran before runs again, or goes on to: a stage's guard was broken, or somebody said so.
    RolledBack,
    /// The candidate was dropped.
    Aborted,
}

/// A problem, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProblemRow {
    /// `FILE:LINE:COLUMN`; absent where no line of a file is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The key path, such as `routes[2].upstream`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What mends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Trigger {
    /// As it stands in JSON, in the log and in the metric.
    pub fn code(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Signal => "signal",
            Self::Files => "files",
            Self::Admin => "admin",
            Self::Stage => "stage",
        }
    }
}

impl Outcome {
    /// As it stands in JSON and in the metric.
    pub fn code(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
            Self::Staged => "staged",
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled_back",
            Self::Aborted => "aborted",
        }
    }
}

impl ProblemRow {
    /// Every row of a report.
    pub fn of(report: &Report) -> Vec<Self> {
        let row = |Located { position, problem }: &Located| Self {
            at: Some(position.to_string()),
            ..Self::from(problem.clone())
        };
        report.problems().iter().map(row).collect()
    }
}

impl From<Problem> for ProblemRow {
    /// One that no line of a file is to blame for.
    fn from(Problem { path, message, hint }: Problem) -> Self {
        Self { at: None, path: Some(path.to_string()).filter(|path| !path.is_empty()), message, hint }
    }
}

impl fmt::Display for ProblemRow {
    /// As `check` tells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.at, &self.path) {
            (Some(at), Some(path)) => writeln!(f, "{at}  {path}")?,
            (Some(place), None) | (None, Some(place)) => writeln!(f, "{place}")?,
            (None, None) => {}
        }
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\nhint: {hint}"))
    }
}

/// The last outcomes.
#[derive(Debug, Default)]
pub struct History(Mutex<VecDeque<Arc<Entry>>>);

impl History {
    /// The last ones, the newest first.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }

    /// Adds one; the oldest is forgotten past fifty.
    pub fn add(&self, entry: Arc<Entry>) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() == REMEMBERED {
            entries.pop_front();
        }
        entries.push_back(entry);
    }
}
