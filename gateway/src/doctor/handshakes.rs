//! A handshake with every endpoint and no request: what `check --probe` does.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};
use vestibule_plugins::{Path as Place, Problem};

use super::probe::{Request, Way};
use super::target::{Subject, Wanted};
use super::{Opened, Refused, open, resolve};
use crate::config::Config;
use crate::diagnose::{Cause, Failure};
use crate::snapshot::{Report, Workshop};
use crate::upstream::Address;

/// A step that ends at the deadline tells its own cause; only what has not begun by then is told as late.
const GRACE: Duration = Duration::from_millis(250);

/// What came of the handshakes.
pub struct Handshakes {
    /// How many were made.
    pub count: usize,
    /// Those that failed, each at the line of its endpoint.
    pub failed: Report,
}

/// Connects to every endpoint as each route reaches it, all within `limit`; `told` hears how many of how many are done.
///
/// # Errors
/// The configuration cannot be loaded, or nothing can be resolved here.
pub async fn handshakes(
    path: &Path,
    limit: Duration,
    workshop: &Workshop,
    told: &dyn Fn(u64, u64),
) -> Result<Handshakes, Refused> {
    let deadline = Instant::now() + limit;
    let Opened { practice, subjects } = open(path, &Wanted::default(), limit, workshop)?;
    resolve(&subjects, limit).await.map_err(Refused::Request)?;
    let mut trials: Vec<(&Subject, Option<Address>)> = Vec::new();
    for subject in &subjects {
        let addresses = subject.endpoint.addresses();
        match addresses.is_empty() {
            true => trials.push((subject, None)),
            false => trials.extend(addresses.iter().map(|address| (subject, Some(address.clone())))),
        }
    }
    let count = trials.len();
    let done = std::cell::Cell::new(0);
    told(0, count as u64);
    let lab = &practice.lab;
    let shaking = trials.into_iter().map(|(subject, address)| {
        let (done, practice) = (&done, &practice);
        async move {
            let failure = match &address {
                None => Some(Failure::new(Cause::DnsNotFound, subject.endpoint.text.clone())),
                Some(address) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let tls = subject.policy.clone().map(|policy| (policy, subject.identity.clone()));
                    let limit = subject.connect_timeout.map_or(left, |limit| limit.min(left));
                    let way =
                        Way { tls, protocol: subject.protocol, request: Request::None, limit: Some(limit) };
                    let late =
                        || Failure::new(Cause::ConnectTimeout, "`--deadline` was over before its turn came");
                    match timeout_at(deadline + GRACE, lab.attempt(&address.target, &way)).await {
                        Ok(attempt) => attempt.result.err(),
                        Err(_) => Some(late()),
                    }
                }
            };
            done.set(done.get() + 1);
            told(done.get(), count as u64);
            failure.map(|failure| problem(&practice.config, subject, address.as_ref(), &failure))
        }
    });
    let problems: Vec<Problem> = join_all(shaking).await.into_iter().flatten().collect();
    Ok(Handshakes { count, failed: Report::new(problems, &practice.document) })
}

fn problem(config: &Config, subject: &Subject, address: Option<&Address>, failure: &Failure) -> Problem {
    let at = Place::root().key("upstreams").key(&subject.upstream).key("endpoints");
    let endpoints = config.upstreams.get(&subject.upstream).map(|upstream| upstream.endpoints.as_slice());
    let same =
        |endpoint: &crate::config::EndpointConfig| endpoint.address.to_string() == subject.endpoint.text;
    let index = endpoints.and_then(|endpoints| endpoints.iter().position(same));
    let way = match subject.names.as_slice() {
        [] => String::new(),
        [route] => format!("route `{route}`, "),
        routes => format!("routes `{}`, ", routes.join("`, `")),
    };
    let to = address.map_or(&*subject.endpoint.text, |address| &*address.text);
    let message = format!("{way}{to}: {}: {failure}", failure.cause.code());
    let problem = Problem::new(index.map_or(at.clone(), |index| at.index(index)), message);
    match failure.cause.remedy() {
        "" => problem,
        remedy => problem.hint(format!("{remedy}; `vestibule doctor {}` says more", subject.upstream)),
    }
}
