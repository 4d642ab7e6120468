//! What a plugin is, and the built-in ones.
//!
//! A plugin sees header sections. Files and upstreams are the gateway's to read and to ask, see `outbound`: nothing here opens
//! a file or a socket, or knows YAML text.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod api_key;
pub mod basic_auth;
pub mod body_limit;
pub mod chain;
pub mod claims;
pub mod client;
pub mod client_certificate;
pub mod cors;
mod credential;
pub mod decode;
pub mod duration;
mod field;
pub mod forward_auth;
pub mod headers;
mod host;
pub mod identity;
pub mod ip_filter;
pub mod jwt;
pub mod kube_impersonate;
pub mod one_or_many;
mod origin;
pub mod outbound;
pub mod path_rewrite;
pub mod percent;
pub mod plugin;
pub mod prefix;
pub mod problem;
mod quota;
pub mod rate_limit;
pub mod registry;
pub mod request_id;
pub mod retry;
mod retry_budget;
mod retry_policy;
pub mod size;
mod target;
pub mod template;
#[cfg(test)]
mod testing;
pub mod text;

pub use chain::{Chain, Link, Ran};
pub use client::{ClientCertPart, ClientCertificate};
pub use duration::DurationText;
pub use identity::Identity;
pub use one_or_many::OneOrMany;
pub use outbound::{Files, Limits, Outbound, Unanswered, Upstream};
pub use percent::Percent;
pub use plugin::{Build, Hooks, Plugin, Refusal, Reply, RequestInfo, Setting, Verdict, Why};
pub use prefix::replace_prefix;
pub use problem::{Path, Problem, Segment};
pub use registry::Registry;
pub use retry::RetryPolicy;
pub use size::SizeText;
pub use template::{Scope, Template, Variable};
pub use text::Text;
