//! What the unit tests of several plugins share: a request, what is known of it, a plugin from its own doc.

use std::future::Future;
use std::path::Path as FilePath;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use pingora_http::RequestHeader;

use crate::outbound::Asking;
use crate::{
    Files, Identity, Limits, Outbound, Path, Plugin, Problem, Registry, RequestInfo, Setting, Upstream,
};

pub const ROUTE: Setting<'static> =
    Setting { route: Some("kube-api"), matches_by_prefix: true, files: &Nothing, outbound: &Nothing };

/// No file, and no upstream.
pub struct Nothing;

impl Files for Nothing {
    fn bytes(&self, file: &FilePath, at: &Path) -> Result<Vec<u8>, Problem> {
        Err(Problem::new(at.clone(), format!("`{}` cannot be read: there are no files here", file.display())))
    }

    fn secret(&self, file: &FilePath, at: &Path) -> Result<Vec<u8>, Problem> {
        self.bytes(file, at)
    }
}

/// Every upstream, and no answer.
pub struct Silent;

impl Outbound for Silent {
    fn upstream(&self, _: &str, _: &Path) -> Result<Arc<dyn Upstream>, Problem> {
        Ok(Arc::new(Self))
    }
}

impl Upstream for Silent {
    fn name(&self) -> &str {
        "silent"
    }

    fn ask(&self, _: http::Request<bytes::Bytes>, _: Limits) -> Asking<'_> {
        Box::pin(std::future::pending())
    }
}

impl Outbound for Nothing {
    fn upstream(&self, name: &str, at: &Path) -> Result<Arc<dyn Upstream>, Problem> {
        Err(Problem::new(at.clone(), format!("no upstream is named `{name}`")))
    }
}

static NOBODY: Identity = Identity::new();

pub static INFO: RequestInfo<'static> = RequestInfo {
    scheme: "https",
    client_ip: Some(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7))),
    request_id: "0123abcd",
    listener: "web-tls",
    route: "kube-api",
    upstream: "kube-apiserver",
    matched_prefix: Some("/api"),
    endpoint: None,
    sni: None,
    config: "c0ffee",
    identity: &NOBODY,
    client_certificate: None,
};

pub fn get(target: impl AsRef<[u8]>) -> RequestHeader {
    let mut head = RequestHeader::build("GET", target.as_ref(), None).unwrap();
    head.insert_header("Host", "Shop.Example:8443").unwrap();
    head
}

pub fn yaml(text: &str) -> serde_yaml::Value {
    serde_yaml::from_str(text).unwrap()
}

pub fn plugin(name: &str, config: &str) -> Result<Arc<dyn Plugin>, Vec<Problem>> {
    Registry::builtin().build(name, &yaml(config), &ROUTE)
}

/// One line a problem: `path: message (hint)`.
pub fn told(problems: &[Problem]) -> String {
    let line = |p: &Problem| {
        let hint = p.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{}: {}{hint}", p.path, p.message)
    };
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

pub fn refusal(name: &str, config: &str) -> String {
    match plugin(name, config) {
        Ok(_) => format!("`{config}` was accepted"),
        Err(problems) => told(&problems),
    }
}

/// Builds every item of every ```yaml block in the head of a source file, as they would stand in `plugins:`.
pub fn plugins_of_doc(source: &str) -> Vec<Arc<dyn Plugin>> {
    plugins_of_doc_in(source, &ROUTE)
}

/// The same for plugins that ask for files or upstreams.
pub fn plugins_of_doc_in(source: &str, setting: &Setting<'_>) -> Vec<Arc<dyn Plugin>> {
    let doc: String = source
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .map(|line| format!("{}\n", line.trim_start_matches("//!").strip_prefix(' ').unwrap_or("")))
        .collect();
    let blocks = doc.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut plugins = Vec::new();
    for item in blocks.flat_map(|block| yaml(block).as_sequence().unwrap().clone()) {
        let (name, config) = item.as_mapping().unwrap().iter().next().unwrap();
        let built = Registry::builtin().build(name.as_str().unwrap(), config, setting);
        plugins.push(built.unwrap_or_else(|problems| panic!("{}", told(&problems))));
    }
    assert!(!plugins.is_empty(), "the doc holds no YAML");
    plugins
}

/// Drives a future that never waits for anything outside itself.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}
