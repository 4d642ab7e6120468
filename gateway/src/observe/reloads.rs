//! What is told of the configuration that runs: how reloads went, its hash, and its certificates.
//!
//! Nothing here is counted on a request's way.

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

use super::metrics::{counters, gauges_of, opts, registered};
use super::names::{self, Metric};
use crate::reload::entry::{Entry, Kind, Outcome, Trigger};
use crate::reload::side::{Answer, Side};
use crate::snapshot::certificates::Certificate;

/// Upper bounds in seconds: from a file of a few lines to one of many thousand routes that names slow disks.
const DURATIONS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The families that tell of the configuration.
pub(super) struct ReloadMetrics {
    reloads: IntCounterVec,
    duration: Histogram,
    is_successful: IntGauge,
    success_time: Gauge,
    /// By side, good and failed.
    staged: [[IntCounter; 2]; 2],
    is_staged: IntGauge,
    running: Replaced,
    certificates: Replaced,
}

impl ReloadMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let staged = counters(registry, names::STAGE_REQUESTS, &["side", "result"]);
        let of_side =
            |side: Side| ["good", "failed"].map(|result| staged.with_label_values(&[side.name(), result]));
        let duration = HistogramOpts::from(opts(names::RELOAD_DURATION)).buckets(DURATIONS.into());
        Self {
            reloads: counters(registry, names::RELOADS, &["trigger", "result"]),
            duration: registered(registry, Histogram::with_opts(duration)),
            is_successful: registered(registry, IntGauge::with_opts(opts(names::LAST_RELOAD_SUCCESSFUL))),
            success_time: registered(registry, Gauge::with_opts(opts(names::LAST_RELOAD_SUCCESS))),
            staged: [Side::Running, Side::Candidate].map(of_side),
            is_staged: registered(registry, IntGauge::with_opts(opts(names::STAGE_ACTIVE))),
            running: Replaced::new(registry, names::CONFIG_INFO, &["config"]),
            certificates: Replaced::new(
                registry,
                names::CERTIFICATE_NOT_AFTER,
                &["use", "owner", "serial", "subject"],
            ),
        }
    }

    pub(super) fn answered(&self, side: Side, answer: Answer) {
        self.staged[usize::from(side == Side::Candidate)][usize::from(answer == Answer::Failed)].inc();
    }

    pub(super) fn staged(&self, is_staged: bool) {
        self.is_staged.set(i64::from(is_staged));
    }

    pub(super) fn reloaded(&self, entry: &Entry) {
        self.reloads.with_label_values(&[entry.trigger.code(), entry.result.code()]).inc();
        self.duration.observe(entry.duration_ms / 1000.0);
        match is_success(entry) {
            Some(true) => {
                self.is_successful.set(1);
                let time = entry.time.parse::<Timestamp>().unwrap_or_else(|_| Timestamp::now());
                self.success_time.set(time.as_millisecond() as f64 / 1000.0 + entry.duration_ms / 1000.0);
            }
            Some(false) => self.is_successful.set(0),
            None => {}
        }
        self.running.replace([(vec![entry.config.as_str()], 1)]);
    }

    pub(super) fn certificates(&self, certificates: &[Certificate]) {
        let rows = certificates.iter().filter_map(|it| {
            let labels = vec![it.usage.code(), &it.owner, &it.serial, &it.subject];
            Some((labels, it.ends()?.as_second()))
        });
        self.certificates.replace(rows);
    }
}

/// Whether what the files say has come in force by this; nothing where that was not asked.
fn is_success(entry: &Entry) -> Option<bool> {
    match (entry.change, entry.result, entry.trigger) {
        (Kind::Reload, Outcome::Refused, _) => Some(false),
        (Kind::Reload, ..) | (_, Outcome::Promoted, _) => Some(true),
        // The candidate broke a guard.
        (_, Outcome::RolledBack, Trigger::Stage) => Some(false),
        _ => None,
    }
}

/// A gauge all of whose series are replaced at once, so that no scrape sees some of the old and some of the new.
#[derive(Clone)]
struct Replaced {
    metric: Metric,
    labels: &'static [&'static str],
    /// Has no series: what the registry asks for the description.
    empty: IntGaugeVec,
    now: Arc<ArcSwap<IntGaugeVec>>,
}

impl Replaced {
    fn new(registry: &Registry, metric: Metric, labels: &'static [&'static str]) -> Self {
        let empty = gauges_of(metric, labels);
        let now = Arc::new(ArcSwap::from_pointee(empty.clone()));
        registered(registry, Ok(Self { metric, labels, empty, now }))
    }

    fn replace<'a>(&self, rows: impl IntoIterator<Item = (Vec<&'a str>, i64)>) {
        let next = gauges_of(self.metric, self.labels);
        for (labels, value) in rows {
            next.with_label_values(&labels).set(value);
        }
        self.now.store(Arc::new(next));
    }
}

impl Collector for Replaced {
    fn desc(&self) -> Vec<&Desc> {
        self.empty.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.now.load().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Metrics;
    use crate::snapshot::certificates::Usage;

    fn entry(trigger: Trigger, change: Kind, result: Outcome, config: &str) -> Entry {
        Entry {
            number: 1,
            time: "2026-11-21T09:10:19.5Z".into(),
            trigger,
            change,
            result,
            message: String::new(),
            duration_ms: 250.0,
            config: config.into(),
            other: None,
            problems: Vec::new(),
            warnings: 0,
        }
    }

    #[test]
    fn the_last_reload_counts_as_good_until_what_the_files_say_is_not_in_force() {
        let metrics = Metrics::new();
        let mut time = None;
        for (trigger, change, result, good) in [
            (Trigger::Start, Kind::Reload, Outcome::Applied, "1"),
            (Trigger::Files, Kind::Reload, Outcome::Refused, "0"),
            // Nobody has mended the files.
            (Trigger::Admin, Kind::Rollback, Outcome::RolledBack, "0"),
            (Trigger::Signal, Kind::Reload, Outcome::Unchanged, "1"),
            (Trigger::Admin, Kind::Promote, Outcome::Refused, "1"),
            (Trigger::Admin, Kind::Reload, Outcome::Staged, "1"),
            (Trigger::Stage, Kind::Rollback, Outcome::RolledBack, "0"),
            (Trigger::Stage, Kind::Promote, Outcome::Promoted, "1"),
        ] {
            let mut entry = entry(trigger, change, result, "0123456789ab");
            entry.time = format!("2026-11-21T09:10:{}.5Z", 10 + metrics.encode().lines().count() % 50);
            metrics.reloaded(&entry);
            let text = metrics.encode();
            let told = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
            assert_eq!(told("vestibule_config_last_reload_successful "), good, "{entry:?}");
            let now = told("vestibule_config_last_reload_success_timestamp_seconds ").to_owned();
            assert!(good == "1" || Some(&now) == time.as_ref(), "{entry:?}");
            time = Some(now);
        }
        let text = metrics.encode();
        assert!(text.contains(r#"vestibule_config_reloads_total{result="refused",trigger="files"} 1"#));
        assert!(text.contains("vestibule_config_reload_duration_seconds_sum 2"), "{text}");
    }

    #[test]
    fn the_time_of_the_last_success_is_when_it_was_in_force() {
        let metrics = Metrics::new();
        metrics.reloaded(&entry(Trigger::Start, Kind::Reload, Outcome::Applied, "a"));
        let expected = "vestibule_config_last_reload_success_timestamp_seconds 1795252219.75";
        assert!(metrics.encode().contains(expected), "{}", metrics.encode());
    }

    #[test]
    fn only_the_configuration_that_runs_is_told_of() {
        let metrics = Metrics::new();
        for config in ["one", "two"] {
            metrics.reloaded(&entry(Trigger::Files, Kind::Reload, Outcome::Applied, config));
        }
        let text = metrics.encode();
        let told: Vec<_> = text.lines().filter(|line| line.starts_with("vestibule_config_info")).collect();
        assert_eq!(told, [r#"vestibule_config_info{config="two"} 1"#]);
    }

    #[test]
    fn certificates_that_are_gone_are_told_of_no_more() {
        let certificate = |owner: &str, not_after: &str| Certificate {
            usage: Usage::Listener,
            owner: owner.into(),
            subject: "CN=a.test".into(),
            issuer: "CN=ca".into(),
            names: Vec::new(),
            serial: "0a".into(),
            not_before: "2026-01-01T00:00:00Z".into(),
            not_after: not_after.into(),
            sha256: String::new(),
        };
        let metrics = Metrics::new();
        metrics.certificates(&[certificate("listeners.old", "2027-01-01T00:00:00Z")]);
        metrics.certificates(&[certificate("listeners.web", "1970-01-02T00:00:00Z")]);
        let text = metrics.encode();
        let name = "vestibule_certificate_not_after_timestamp_seconds";
        let told: Vec<_> = text.lines().filter(|line| line.starts_with(name)).collect();
        let expected = format!(
            r#"{name}{{owner="listeners.web",serial="0a",subject="CN=a.test",use="listener"}} 86400"#
        );
        assert_eq!(told, [expected]);
    }
}
