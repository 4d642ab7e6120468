//! Says of each endpoint whether requests get through, why not, and what edit of the file mends it.
//!
//! Connections are made by the code that `run` makes them with. A fix is told only after it was tried.

mod ask;
mod chain;
mod examine;
mod fix;
mod handshakes;
mod known;
mod place;
mod probe;
mod remedy;
mod report;
mod survey;
mod target;
mod text;
mod trial;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use self::examine::{Practice, examine, unresolved};
use self::known::Known;
use self::target::{Subject, subjects, with_unused_upstreams};
use self::trial::Lab;
use crate::config;
use crate::snapshot::{self, Report as Problems, Workshop};
use crate::upstream::Resolver;

pub use handshakes::{Handshakes, handshakes};
pub use report::{FileChange, Finding, Fix, Note, Report, Save, Step, Trial, Verdict};
pub use target::Wanted;
pub use text::render;

/// Why nothing was looked at.
#[derive(Debug)]
pub enum Refused {
    /// The configuration cannot be loaded.
    Config(Problems),
    /// Nothing has the name that was given, or no name can be resolved here.
    Request(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) => problems.fmt(f),
            Self::Request(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Refused {}

/// No more addresses of one name are looked at.
const MOST_ADDRESSES: usize = 8;

/// Looks at all that is wanted; each step may take `limit`.
///
/// # Errors
/// The configuration cannot be loaded, or nothing has the name that was given.
pub async fn doctor(
    path: &Path,
    wanted: &Wanted,
    limit: Duration,
    workshop: &Workshop,
) -> Result<Report, Refused> {
    let Opened { practice, subjects } = open(path, wanted, limit, workshop)?;
    let began = Instant::now();
    resolve(&subjects, limit).await.map_err(Refused::Request)?;
    let took = began.elapsed();
    let looks = subjects.iter().map(|subject| look(&practice, subject, took));
    let targets: Vec<Finding> = join_all(looks).await.into_iter().flatten().collect();
    let verdict = targets.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Good);
    Ok(Report { verdict, targets })
}

struct Opened<'a> {
    practice: Practice<'a>,
    subjects: Vec<Subject>,
}

fn open<'a>(
    path: &Path,
    wanted: &Wanted,
    limit: Duration,
    workshop: &'a Workshop,
) -> Result<Opened<'a>, Refused> {
    let mut loaded = config::load(path).map_err(Refused::Config)?;
    let written = loaded.config.routes.len();
    with_unused_upstreams(&mut loaded);
    let snapshot = Arc::new(snapshot::compile(&loaded, workshop).map_err(Refused::Config)?);
    let looked_at = |wanted| subjects(&loaded.config, &snapshot, written, wanted).map_err(Refused::Request);
    let subjects = looked_at(wanted)?;
    let all = looked_at(&Wanted { name: None, ..wanted.clone() })?;
    let known = Known::of(&loaded.config, &loaded.document);
    let lab = Lab::new(limit);
    let practice = Practice {
        workshop,
        config: loaded.config,
        document: loaded.document,
        written,
        all,
        host: wanted.host.clone(),
        known,
        lab,
    };
    Ok(Opened { practice, subjects })
}

/// Asks for the addresses of every name, as `run` does.
async fn resolve(subjects: &[Subject], limit: Duration) -> Result<(), String> {
    if subjects.iter().any(|subject| subject.endpoint.name.is_some()) {
        Resolver::system()?.watch(subjects.iter().map(|subject| &subject.endpoint), limit).await;
    }
    Ok(())
}

async fn look(practice: &Practice<'_>, subject: &Subject, took: Duration) -> Vec<Finding> {
    let addresses = subject.endpoint.addresses().as_ref().clone();
    if addresses.is_empty() {
        return vec![unresolved(practice, subject, took)];
    }
    let mut found =
        join_all(addresses.iter().take(MOST_ADDRESSES).map(|address| examine(practice, subject, address)))
            .await;
    if subject.endpoint.name.is_some() {
        for (finding, address) in found.iter_mut().zip(&addresses) {
            let outcome = address.text.to_string();
            finding
                .steps
                .insert(0, Step { step: "resolve", good: true, outcome, ms: Some(took.as_millis() as u64) });
        }
    }
    found
}
