//! The gateway's own binary end to end, against real and scripted upstreams. One binary, one module for each subject.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admin;
mod auth;
mod claims;
mod dns;
mod docs;
mod doctor;
mod downstream;
mod drain;
mod edge;
mod example;
mod examples;
mod explain;
mod h2;
mod identity;
mod injection;
mod keys;
mod kube;
mod layer4;
mod lifecycle;
mod limits;
mod load;
mod matrix;
mod page;
mod passing;
mod plan;
mod proxy;
mod random;
mod raw;
mod reload;
mod retry;
mod secrets;
mod sni;
mod streams;
mod testssl;
mod upgrades;
mod warnings;

use std::path::Path;

use serde_json::Value;
use vestibule_tests::client::{self, Response};
use vestibule_tests::gateway::Gateway;
use vestibule_tests::ports;

/// A gateway with one plain listener named `web`.
struct Edge {
    gateway: Gateway,
    port: u16,
}

impl Edge {
    /// Starts it with the rest of the file: `upstreams:` and `routes:`.
    fn start(rest: &str) -> Self {
        let port = ports::free();
        let yaml = format!("version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\n{rest}\n");
        Self { gateway: Gateway::start(&yaml), port }
    }

    /// One GET on a connection of its own.
    fn get(&self, host: &str, path: &str) -> Response {
        client::get(self.port, host, path)
    }

    /// The status of a GET, and the cause in its access-log line (null where there is none).
    fn outcome(&self, host: &str, path: &str) -> (u16, Value) {
        let status = self.get(host, path).status;
        let line = self.gateway.log_of(path);
        assert_eq!(line["status"], status, "{line}");
        (status, line["cause"].clone())
    }
}

/// A path as YAML takes it.
fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}
