//! `/upstreams`: each endpoint, and what came of the attempts at it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::observe::Record;
use crate::observe::access_log::told as time;
use crate::observe::record::LastFailure;
use crate::snapshot::Snapshot;
use crate::upstream::{Endpoint, Upstream};

/// The whole page.
#[derive(Serialize, JsonSchema)]
pub struct Upstreams<'a> {
    config: &'a str,
    upstreams: Vec<UpstreamRow<'a>>,
}

#[derive(Serialize, JsonSchema)]
struct UpstreamRow<'a> {
    name: &'a str,
    endpoints: Vec<EndpointRow<'a>>,
    /// Attempts that got to no endpoint, since none had an address, say.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_endpoint: Option<Attempts>,
}

#[derive(Serialize, JsonSchema)]
struct EndpointRow<'a> {
    endpoint: &'a str,
    addresses: Vec<String>,
    weight: u32,
    #[serde(flatten)]
    attempts: Attempts,
}

#[derive(Serialize, JsonSchema)]
struct Attempts {
    successes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_success: Option<String>,
    failures: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<FailureRow>,
}

#[derive(Serialize, JsonSchema)]
struct FailureRow {
    cause: &'static str,
    what: &'static str,
    remedy: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(default)]
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    time: String,
}

/// What is known at this moment.
pub fn told(snapshot: &Snapshot) -> Upstreams<'_> {
    let upstreams = snapshot.upstreams.iter().map(|upstream| of_upstream(upstream));
    Upstreams { config: &snapshot.hash, upstreams: upstreams.collect() }
}

fn of_upstream(upstream: &Upstream) -> UpstreamRow<'_> {
    UpstreamRow {
        name: &upstream.name,
        endpoints: upstream.balance.endpoints().iter().map(|endpoint| of_endpoint(endpoint)).collect(),
        no_endpoint: Some(of_record(&upstream.unplaced)).filter(|it| !it.failures.is_empty()),
    }
}

fn of_endpoint(endpoint: &Endpoint) -> EndpointRow<'_> {
    EndpointRow {
        endpoint: &endpoint.text,
        addresses: endpoint.addresses().iter().map(ToString::to_string).collect(),
        weight: endpoint.weight,
        attempts: of_record(&endpoint.record),
    }
}

fn of_record(record: &Record) -> Attempts {
    Attempts {
        successes: record.successes(),
        last_success: record.last_success().map(time),
        failures: record.failures().map(|(cause, count)| (cause.code(), count)).collect(),
        last_failure: record.last_failure().map(|failure| of_failure(&failure)),
    }
}

fn of_failure(failure: &LastFailure) -> FailureRow {
    FailureRow {
        cause: failure.cause.code(),
        what: failure.cause.what(),
        remedy: failure.cause.remedy(),
        detail: failure.detail.clone(),
        address: failure.address.as_deref().map(str::to_owned),
        time: time(failure.time),
    }
}
