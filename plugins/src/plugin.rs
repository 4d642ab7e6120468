//! The plugin trait, and what a plugin is told and may answer.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use pingora_http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::client::ClientCertificate;
use crate::identity::Identity;
use crate::outbound::{Files, Outbound};
use crate::problem::Problem;
use crate::retry::RetryPolicy;

/// One link of a route's chain. Every hook has a default that does nothing; `hooks` says which are worth a call.
///
/// Hooks are synchronous over headers and allocate nothing to say no. A plugin that must wait (for an
/// authorisation server, say) implements `wait`, the one hook that returns a future.
pub trait Plugin: Send + Sync {
    /// The hooks that this plugin implements; the others are never called.
    fn hooks(&self) -> Hooks;

    /// Sees and may change the request before an endpoint is picked. Runs once a request, not once an attempt.
    fn request(&self, _head: &mut RequestHeader, _info: &RequestInfo<'_>) -> Verdict {
        Verdict::Continue
    }

    /// The same, for a plugin that has to wait. Runs in the plugin's own place in the chain, after its `request`.
    fn wait<'a>(
        &'a self,
        _head: &'a mut RequestHeader,
        _info: &'a RequestInfo<'a>,
    ) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>> {
        Box::pin(std::future::ready(Verdict::Continue))
    }

    /// Sees and may change the head of the upstream's response, in the reverse order of the chain.
    /// `request` is the request as it was sent to the upstream.
    fn response(&self, _head: &mut ResponseHeader, _request: &RequestHeader, _info: &RequestInfo<'_>) {}

    /// Told, within the gateway's runtime, whenever a configuration that has the plugin is put in force: the place to
    /// begin work that goes on beside requests. Such work ends with the plugin, so it holds no more than a `Weak` of it.
    fn put_in_force(&self) {}

    /// Whether who passes is known to somebody: a request without proof of an identity is refused.
    fn authenticates(&self) -> bool {
        false
    }

    /// Headers that no client may write where this plugin stands, as names or as prefixes with a `*`: a route's
    /// `trust_headers` that lets one of them through is refused.
    fn owned_headers(&self) -> &'static [&'static str] {
        &[]
    }

    /// The name of a plugin without which this one has nothing to go by: one of that name has to stand before it.
    fn stands_behind(&self) -> Option<&'static str> {
        None
    }

    /// The rules of retrying, if this plugin is the one that sets them.
    fn retry(&self) -> Option<&RetryPolicy> {
        None
    }

    /// How many bytes the body of a request may have, if this plugin is the one that says so.
    fn body_limit(&self) -> Option<u64> {
        None
    }
}

/// Which hooks a plugin implements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// `Plugin::request`.
    pub request: bool,
    /// `Plugin::wait`.
    pub wait: bool,
    /// `Plugin::response`.
    pub response: bool,
}

/// What becomes of the request after a plugin has seen it.
#[derive(Debug)]
pub enum Verdict {
    /// On to the next plugin, and to the upstream after the last.
    Continue,
    /// The plugin answers; no upstream is asked.
    Respond(Reply),
    /// The plugin says no; no upstream is asked.
    Refuse(Refusal),
}

/// That a request may not pass. The client gets the gateway's own error reply of this status, so that it learns no more than
/// that; why goes to the access log, as the code of the cause, and the words to the log.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The status code, 400 to 599.
    pub status: u16,
    /// Header fields besides those of every error reply: `WWW-Authenticate`, `Retry-After`.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// What kind of no it is.
    pub why: Why,
    /// What exactly was wrong, for the log: no secret, and nothing as long as a client pleases.
    pub detail: String,
}

/// What kind of no a plugin says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Who the client is has not been shown: 401.
    Unauthenticated,
    /// The client may not do this: 403.
    Forbidden,
    /// The client asks more often than it may: 429.
    TooMany,
    /// The request is larger than it may be: 413.
    TooLarge,
    /// Whoever had to be asked did not answer: 503.
    Unavailable,
}

/// An answer that a plugin gives in the upstream's stead.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code, 200 to 599.
    pub status: u16,
    /// Header fields besides Content-Length, which the gateway writes.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// The body, whole.
    pub body: bytes::Bytes,
}

/// What is known of a request besides its head. Everything is borrowed: building one costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct RequestInfo<'a> {
    /// `http` or `https`: how the client reached the listener.
    pub scheme: &'a str,
    /// The address of the client; `None` where the connection has none.
    pub client_ip: Option<IpAddr>,
    /// The id under which the request is logged.
    pub request_id: &'a str,
    /// The listener's name.
    pub listener: &'a str,
    /// The route's name.
    pub route: &'a str,
    /// The upstream's name; empty where the route has none.
    pub upstream: &'a str,
    /// The path prefix that the route matched by, if it matched by a prefix.
    pub matched_prefix: Option<&'a str>,
    /// The endpoint as the file spells it: on the response only.
    pub endpoint: Option<&'a str>,
    /// The SNI that was sent to the upstream: on the response only, absent where none was sent.
    pub sni: Option<&'a str>,
    /// The hash of the configuration that the request runs under.
    pub config: &'a str,
    /// What plugins have found out about the client so far.
    pub identity: &'a Identity,
    /// The client's certificate, where it sent one and it was verified.
    pub client_certificate: Option<&'a ClientCertificate>,
}

/// How a plugin comes to be: its YAML decoded by `Config`, then compiled once at load.
///
/// A reload that leaves the configuration of a plugin and its route's name as they are (for a route without a name, its
/// `match`), and the files and upstreams that it asked its `Setting` for, keeps the plugin too, and with it what it has
/// counted and learnt.
pub trait Build: Plugin + Sized + 'static {
    /// The plugin's own keys. Deny unknown ones: `#[serde(deny_unknown_fields)]`.
    type Config: DeserializeOwned + JsonSchema;

    /// Makes the plugin of what was typed, or tells every problem, with paths that start at the plugin's own map.
    fn build(config: Self::Config, setting: &Setting<'_>) -> Result<Self, Vec<Problem>>;
}

/// Where in the file a plugin stands, for those whose keys make sense in some places only, and what it may ask for.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The route's name; `None` in the chain that every route runs. For a route without a name its place in the file,
    /// which may change while the plugin is kept.
    pub route: Option<&'a str>,
    /// Whether every path of the route is a prefix, so that a request always has one that it matched by.
    pub matches_by_prefix: bool,
    /// The files that its keys name.
    pub files: &'a dyn Files,
    /// The upstreams that its keys name.
    pub outbound: &'a dyn Outbound,
}
