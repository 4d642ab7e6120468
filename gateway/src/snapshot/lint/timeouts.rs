//! Timeouts that leave each other no room, or none to what is to last.

use std::time::Duration;

use vestibule_plugins::Problem;

use super::{Subject, route_at};
use crate::snapshot::{Action, Route};

/// Tries and waits that do not fit into `timeouts.request`, and a `timeouts.attempt` that it always forestalls.
pub fn timeouts(subject: &Subject<'_>, warnings: &mut Vec<Problem>) {
    for (index, route) in subject.routes.iter().enumerate() {
        warnings.extend(cuts_streams(index, route));
        let (Some(request), Some(attempt)) = (route.timeouts.request, route.timeouts.attempt) else {
            continue;
        };
        if !matches!(route.action, Action::Forward { .. }) {
            continue;
        }
        let at = route_at(index).key("timeouts");
        if attempt > request {
            let (attempt, request) = (told(attempt), told(request));
            warnings.push(
                Problem::new(
                    at.key("attempt"),
                    format!("`attempt: {attempt}` never ends a try: `request: {request}` is over before"),
                )
                .hint(format!("write an `attempt` below {request}, or leave it out")),
            );
            continue;
        }
        let Some(policy) = route.chain.retry() else { continue };
        let Some(waits) = policy.waits_after_timeouts() else { continue };
        let tries = policy.attempts();
        let whole = attempt.saturating_mul(tries).saturating_add(waits);
        if whole <= request {
            continue;
        }
        let fits = request.checked_sub(waits).map(|left| left / tries).filter(|each| each.as_millis() > 0);
        let fits = fits.map_or_else(
            || "fewer `attempts`".to_owned(),
            |each| format!("`attempt: {}`", told(Duration::from_millis(each.as_millis() as u64))),
        );
        let room = Duration::from_secs(whole.as_millis().div_ceil(1000) as u64);
        warnings.push(
            Problem::new(
                at.key("request"),
                format!(
                    "{tries} tries of {} and the waits between them take up to {}, which `request: {}` cuts short",
                    told(attempt),
                    told(whole),
                    told(request)
                ),
            )
            .hint(format!("write `request: {}`, or {fits}", told(room))),
        );
    }
}

/// A deadline where watches and logs pass, which are requests that last for hours. Nothing but the Kubernetes API speaks
/// SPDY/3.1, so a route that allows it is a way there.
fn cuts_streams(index: usize, route: &Route) -> Option<Problem> {
    let timeouts = [("request", route.timeouts.request), ("attempt", route.timeouts.attempt)];
    let (key, limit) = timeouts.into_iter().find_map(|(key, limit)| Some((key, limit?)))?;
    let leads_to_kubernetes =
        matches!(route.action, Action::Forward { .. }) && route.upgrades.contains("spdy/3.1");
    leads_to_kubernetes.then(|| {
        let limit = told(limit);
        let what = format!("`{key}: {limit}` cuts a watch or `logs -f` of the Kubernetes API after {limit}");
        Problem::new(route_at(index).key("timeouts").key(key), what)
            .hint(format!("leave `{key}` out: `idle` ends what has fallen silent"))
    })
}

/// As the file would spell it.
fn told(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_millis()) {
        (0, millis) => format!("{millis}ms"),
        (seconds, 0) => format!("{seconds}s"),
        (seconds, millis) => format!("{seconds}s{millis}ms"),
    }
}
