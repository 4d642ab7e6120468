//! Every metric family, and the handles through which a request counts without a lock.
//!
//! A handle is looked up by its labels at load, or when it is first used, and is an atomic from then on. Families
//! outlive snapshots and give the same counter for the same labels, so that counts go on over a reload.

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use ahash::AHashMap;
use http::StatusCode;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use super::listeners::{ListenerMeter, ListenerMetrics};
use super::names::{self, Metric};
use super::record::Record;
use super::reloads::ReloadMetrics;
use crate::diagnose::Cause;
use crate::reload::entry::Entry;
use crate::reload::side::{Answer, Side};
use crate::route::ListenerId;
use crate::snapshot::certificates::Certificate;

/// Upper bounds in seconds: from what an answer of the gateway's own takes to the default limit of a request.
const DURATIONS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// The `cause` of an attempt that did not fail.
const NO_CAUSE: &str = "none";

/// All families.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    attempts: IntCounterVec,
    handshakes: IntCounterVec,
    listeners: ListenerMetrics,
    reloads: ReloadMetrics,
    records: Mutex<AHashMap<(String, String), Weak<Record>>>,
}

impl Metrics {
    /// Nothing is counted as yet.
    pub fn new() -> Self {
        let registry = Registry::new();
        let build = gauges(&registry, names::BUILD_INFO, &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let opts = HistogramOpts::from(opts(names::REQUEST_DURATION)).buckets(DURATIONS.into());
        let metrics = Self {
            requests: counters(&registry, names::REQUESTS, &["listener", "route", "code"]),
            durations: registered(&registry, HistogramVec::new(opts, &["route"])),
            attempts: counters(&registry, names::UPSTREAM_ATTEMPTS, &["upstream", "cause"]),
            handshakes: counters(&registry, names::TLS_HANDSHAKES, &["upstream", "resumed"]),
            listeners: ListenerMetrics::new(&registry),
            reloads: ReloadMetrics::new(&registry),
            records: Mutex::default(),
            registry,
        };
        register(&metrics.registry, ProcessCollector::for_self());
        metrics
    }

    /// All that has been counted, in the text format of Prometheus.
    pub fn encode(&self) -> String {
        // It fails only for a family without a name or without a metric, which the registry never gathers.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    /// For a route of this name, where so many listeners are known by number; an empty name for requests that no route takes.
    pub fn route(&self, name: &str, listeners: usize) -> RequestMeter {
        RequestMeter {
            route: name.to_owned(),
            requests: self.requests.clone(),
            duration: self.durations.with_label_values(&[name]),
            by_listener: (0..listeners).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Counts a request that no hook has seen.
    pub fn refused(&self, listener: &str, status: u16) {
        self.requests.with_label_values(&[listener, "", Codes::label(Some(status))]).inc();
    }

    /// For an upstream of this name.
    pub fn upstream(&self, name: &str) -> UpstreamMeter {
        UpstreamMeter {
            name: name.to_owned(),
            attempts: self.attempts.clone(),
            answered: self.attempts.with_label_values(&[name, NO_CAUSE]),
            failed: [const { OnceLock::new() }; Cause::COUNT],
            handshakes: ["false", "true"].map(|resumed| self.handshakes.with_label_values(&[name, resumed])),
        }
    }

    /// For a listener of this name.
    pub fn listener(&self, name: &str) -> ListenerMeter {
        self.listeners.meter(name)
    }

    /// One side of a stage has answered a request.
    pub fn answered_on_trial(&self, side: Side, answer: Answer) {
        self.reloads.answered(side, answer);
    }

    /// A stage has begun, or there is none any more.
    pub fn staged(&self, is_staged: bool) {
        self.reloads.staged(is_staged);
    }

    /// What is in force has been changed, or has not been although it was asked for.
    pub fn reloaded(&self, entry: &Entry) {
        self.reloads.reloaded(entry);
    }

    /// The certificates that the running configuration uses, in place of all that were told before.
    pub fn certificates(&self, certificates: &[Certificate]) {
        self.reloads.certificates(certificates);
    }

    /// What is remembered of an endpoint, while any snapshot has it; `endpoint` is empty for the attempts that got to
    /// none.
    pub fn record(&self, upstream: &str, endpoint: &str) -> Arc<Record> {
        let key = (upstream.to_owned(), endpoint.to_owned());
        // A panic cannot leave the map half changed in a way that matters: at worst a record is made anew.
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = records.get(&key).and_then(Weak::upgrade) {
            return record;
        }
        records.retain(|_, record| record.strong_count() > 0);
        let record = Arc::new(Record::default());
        records.insert(key, Arc::downgrade(&record));
        record
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts the requests of one route, or those that no route took.
pub struct RequestMeter {
    route: String,
    requests: IntCounterVec,
    duration: Histogram,
    /// By the listener's number.
    by_listener: Box<[OnceLock<Codes>]>,
}

impl RequestMeter {
    /// How many are over.
    pub fn requests(&self) -> u64 {
        self.duration.get_sample_count()
    }

    /// A request is over; `status` is absent where no answer was begun.
    pub fn ended(&self, listener: (ListenerId, &str), status: Option<u16>, took: Duration) {
        self.duration.observe(took.as_secs_f64());
        let (id, name) = listener;
        let counter = |label: &str| self.requests.with_label_values(&[name, &self.route, label]);
        match self.by_listener.get(id as usize) {
            Some(codes) => codes.get_or_init(Codes::default).counter(status, counter).inc(),
            None => counter(Codes::label(status)).inc(),
        }
    }
}

/// One counter for each `code`, made when it is first needed.
struct Codes(Box<[OnceLock<IntCounter>]>);

/// The values of `code`: how many there can be is fixed, whatever upstreams answer.
struct CodeLabels {
    labels: Vec<String>,
    /// The place in `labels` of each status.
    places: [u8; 1000],
}

static CODES: LazyLock<CodeLabels> = LazyLock::new(|| {
    // No answer at all, the classes of statuses that have no meaning of their own, and numbers beyond all classes.
    let mut labels: Vec<String> =
        ["none", "1xx", "2xx", "3xx", "4xx", "5xx", "other"].map(str::to_owned).into();
    let other = labels.len() - 1;
    let mut places = [0; 1000];
    for (status, place) in (0_u16..).zip(&mut places) {
        let known = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        *place = match known {
            Some(_) => {
                labels.push(status.to_string());
                labels.len() - 1
            }
            None => Some(usize::from(status / 100)).filter(|class| (1..=5).contains(class)).unwrap_or(other),
        } as u8;
    }
    CodeLabels { labels, places }
});

impl Codes {
    fn place(status: Option<u16>) -> usize {
        let Some(status) = status else { return 0 };
        CODES
            .places
            .get(usize::from(status))
            .map_or_else(|| Self::place(Some(999)), |place| usize::from(*place))
    }

    fn label(status: Option<u16>) -> &'static str {
        &CODES.labels[Self::place(status)]
    }

    fn counter(&self, status: Option<u16>, make: impl FnOnce(&str) -> IntCounter) -> &IntCounter {
        self.0[Self::place(status)].get_or_init(|| make(Self::label(status)))
    }
}

impl Default for Codes {
    fn default() -> Self {
        Self(CODES.labels.iter().map(|_| OnceLock::new()).collect())
    }
}

/// Counts the attempts at one upstream.
pub struct UpstreamMeter {
    name: String,
    attempts: IntCounterVec,
    answered: IntCounter,
    failed: [OnceLock<IntCounter>; Cause::COUNT],
    handshakes: [IntCounter; 2],
}

impl UpstreamMeter {
    /// An attempt did not fail.
    pub fn answered(&self) {
        self.answered.inc();
    }

    /// An attempt failed.
    pub fn failed(&self, cause: Cause) {
        let make = || self.attempts.with_label_values(&[self.name.as_str(), cause.code()]);
        self.failed[cause as usize].get_or_init(make).inc();
    }

    /// A TLS handshake succeeded.
    pub fn shook_hands(&self, resumed: bool) {
        self.handshakes[usize::from(resumed)].inc();
    }
}

impl fmt::Debug for UpstreamMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpstreamMeter({})", self.name)
    }
}

pub(super) fn opts((name, help): Metric) -> Opts {
    Opts::new(name, help)
}

pub(super) fn counters(registry: &Registry, metric: Metric, labels: &[&str]) -> IntCounterVec {
    registered(registry, IntCounterVec::new(opts(metric), labels))
}

pub(super) fn gauges(registry: &Registry, metric: Metric, labels: &[&str]) -> IntGaugeVec {
    registered(registry, Ok(gauges_of(metric, labels)))
}

/// A family that no registry knows.
pub(super) fn gauges_of(metric: Metric, labels: &[&str]) -> IntGaugeVec {
    legal(IntGaugeVec::new(opts(metric), labels))
}

pub(super) fn registered<T: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<T>,
) -> T {
    let family = legal(made);
    register(registry, family.clone());
    family
}

fn register(registry: &Registry, family: impl Collector + 'static) {
    legal(registry.register(Box::new(family)));
}

// Names and labels are constants, legal and each used once, so that nothing can fail.
fn legal<T>(made: prometheus::Result<T>) -> T {
    made.unwrap_or_else(|error| unreachable!("{error}"))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::observe::HandshakeFailure;
    use crate::reload::entry::{Kind, Outcome, Trigger};
    use crate::snapshot::certificates::Usage;

    /// What `promtool check metrics` and the naming rules of Prometheus ask for.
    #[test]
    fn every_family_has_help_a_type_and_a_name_by_the_rules() {
        let metrics = Metrics::new();
        count_each(&metrics);
        let text = metrics.encode();
        let mut types = BTreeMap::new();
        let mut helped = BTreeSet::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(help.ends_with('.') && helped.insert(name.to_owned()), "{line}");
            } else if let Some(told) = line.strip_prefix("# TYPE ") {
                let (name, kind) = told.split_once(' ').unwrap();
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                assert!(kind != "histogram" || name.ends_with("_seconds"), "{line}");
                assert!(!["_milliseconds", "_ms", "_count", "_sum"].iter().any(|unit| name.ends_with(unit)));
                types.insert(name.to_owned(), kind.to_owned());
            } else {
                let name = line.split(['{', ' ']).next().unwrap();
                let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                let is_told = |name: &str| helped.contains(name) && types.contains_key(name);
                assert!(is_told(name) || family.is_some_and(is_told), "{line}");
                assert!(name.starts_with("vestibule_") || name.starts_with("process_"), "{line}");
            }
        }
        let own = [
            names::REQUESTS,
            names::REQUEST_DURATION,
            names::UPSTREAM_ATTEMPTS,
            names::TLS_HANDSHAKES,
            names::OPEN_CONNECTIONS,
            names::CONNECTIONS,
            names::REFUSED_CONNECTIONS,
            names::TCP_RECEIVED,
            names::TCP_SENT,
            names::LISTENER_HANDSHAKES,
            names::LISTENER_HANDSHAKE_FAILURES,
            names::RELOADS,
            names::RELOAD_DURATION,
            names::LAST_RELOAD_SUCCESSFUL,
            names::LAST_RELOAD_SUCCESS,
            names::STAGE_REQUESTS,
            names::STAGE_ACTIVE,
            names::CONFIG_INFO,
            names::CERTIFICATE_NOT_AFTER,
            names::BUILD_INFO,
        ];
        for (name, _) in own {
            assert!(types.contains_key(name), "{name} is not told:\n{text}");
        }
    }

    #[test]
    fn counts_go_on_where_a_route_an_upstream_or_an_endpoint_is_compiled_again() {
        let metrics = Metrics::new();
        count_each(&metrics);
        count_each(&metrics);
        let text = metrics.encode();
        for line in [
            r#"vestibule_requests_total{code="200",listener="web",route="app"} 2"#,
            r#"vestibule_upstream_attempts_total{cause="connect_refused",upstream="app"} 2"#,
            r#"vestibule_upstream_attempts_total{cause="none",upstream="app"} 2"#,
            r#"vestibule_request_duration_seconds_count{route="app"} 2"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let record = metrics.record("app", "a.test:1");
        assert!(Arc::ptr_eq(&record, &metrics.record("app", "a.test:1")));
        assert!(!Arc::ptr_eq(&record, &metrics.record("other", "a.test:1")));
    }

    #[test]
    fn what_no_snapshot_holds_is_not_remembered() {
        let metrics = Metrics::new();
        for endpoint in 0..100 {
            metrics.record("app", &endpoint.to_string());
        }
        assert_eq!(metrics.records.lock().unwrap().len(), 1);
    }

    #[test]
    fn however_many_statuses_there_are_the_codes_are_few() {
        let labels: BTreeSet<&str> =
            (0..=u16::MAX).map(|status| Codes::label(Some(status))).chain([Codes::label(None)]).collect();
        assert!(labels.len() < 80, "{labels:?}");
        for (status, label) in [
            (200, "200"),
            (101, "101"),
            (504, "504"),
            (299, "2xx"),
            (599, "5xx"),
            (600, "other"),
            (9999, "other"),
        ] {
            assert_eq!(Codes::label(Some(status)), label);
        }
        assert_eq!(Codes::label(None), "none");
    }

    #[test]
    fn a_listener_of_another_snapshot_is_counted_by_its_name() {
        let metrics = Metrics::new();
        metrics.route("app", 1).ended((7, "older"), Some(200), Duration::ZERO);
        assert!(metrics.encode().contains(r#"{code="200",listener="older",route="app"} 1"#));
    }

    #[test]
    fn the_reasons_of_failed_handshakes_are_told_apart() {
        let metrics = Metrics::new();
        let meter = metrics.listener("web");
        for reason in HandshakeFailure::ALL {
            meter.handshake_failed(reason);
            let line = format!("{{listener=\"web\",reason=\"{}\"}} 1", reason.code());
            assert!(metrics.encode().contains(&line), "{line}");
        }
    }

    #[test]
    fn a_connection_is_open_until_it_is_dropped() {
        let metrics = Metrics::new();
        let open = metrics.listener("web").enter();
        assert!(metrics.encode().contains(r#"vestibule_open_connections{listener="web"} 1"#));
        drop(open);
        assert!(metrics.encode().contains(r#"vestibule_open_connections{listener="web"} 0"#));
        assert!(metrics.encode().contains(r#"vestibule_connections_total{listener="web"} 1"#));
    }

    fn count_each(metrics: &Metrics) {
        metrics.route("app", 1).ended((0, "web"), Some(200), Duration::from_millis(3));
        let upstream = metrics.upstream("app");
        upstream.answered();
        upstream.failed(Cause::ConnectRefused);
        upstream.shook_hands(true);
        let listener = metrics.listener("web");
        drop(listener.enter());
        listener.refused(Cause::SniUnmatched);
        listener.passed(1, 2);
        listener.shook_hands(false);
        listener.handshake_failed(HandshakeFailure::Closed);
        metrics.reloaded(&Entry {
            number: 1,
            time: "2026-11-21T09:10:19Z".into(),
            trigger: Trigger::Start,
            change: Kind::Reload,
            result: Outcome::Applied,
            message: String::new(),
            duration_ms: 1.0,
            config: "0123456789ab".into(),
            other: None,
            problems: Vec::new(),
            warnings: 0,
        });
        metrics.certificates(&[Certificate {
            usage: Usage::Listener,
            owner: "listeners.web".into(),
            subject: "CN=a.test".into(),
            issuer: "CN=ca".into(),
            names: Vec::new(),
            serial: "0a".into(),
            not_before: "2026-01-01T00:00:00Z".into(),
            not_after: "2027-01-01T00:00:00Z".into(),
            sha256: String::new(),
        }]);
    }
}
