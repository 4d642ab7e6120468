//! What is compared: a configuration as it may be told to anybody, with what its files came to.
//!
//! No secret is in it, so it is what the admin endpoint tells of the running configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use openssl::sha::sha256;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use vestibule_plugins::decode::decode;

use crate::config::{Config, Loaded, redact};
use crate::listener::Policies;
use crate::snapshot::certificates::Certificate;
use crate::snapshot::{Action, Protocol, Snapshot};

/// A configuration, described.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Described {
    /// The hash of its files and of those that they name.
    pub hash: String,
    /// The files that it was read from.
    pub files: Vec<PathBuf>,
    /// What stands in them, with `<redacted>` for each secret.
    pub tree: Value,
    /// The certificates that are shown and trusted.
    #[serde(default)]
    pub certificates: Vec<Certificate>,
    /// For each upstream that is reached over TLS, the keys of the policies by which: equal only where CAs, revocation
    /// lists, names, certificates and versions are.
    #[serde(default)]
    pub policies: BTreeMap<String, BTreeSet<String>>,
    /// For each listener that asks for client certificates, what it asks by which names: equal only where CAs, revocation
    /// lists and depth are.
    #[serde(default)]
    pub clients: BTreeMap<String, BTreeSet<String>>,
    /// For each route that answers with a file, the SHA-256 of what is in it.
    #[serde(default)]
    pub bodies: BTreeMap<String, String>,
    /// The tree with secrets told apart; only within the process that read them.
    #[serde(skip)]
    marked: Option<Value>,
}

/// Why a description cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The hash of what was described.
    pub hash: String,
    /// What is wrong with it, in words.
    pub problem: String,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { hash, problem } = self;
        write!(
            f,
            "the configuration {hash} is not one of this version's: {problem}\nhint: compare with the version that runs it"
        )
    }
}

impl std::error::Error for Unreadable {}

impl Described {
    /// What was read, and what it was compiled to.
    pub fn of(loaded: &Loaded, snapshot: &Snapshot) -> Self {
        let document = &loaded.document;
        let mut policies: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (upstream, tls) in snapshot.upstream_tls() {
            let keys = policies.entry(upstream.to_owned()).or_default();
            keys.insert(format!("{:016x}", tls.policy.key));
            keys.extend(tls.http1.iter().map(|http1| format!("{:016x}", http1.policy.key)));
        }
        let clients = snapshot.listeners.iter().filter_map(|listener| match &listener.protocol {
            Protocol::Https(https) => Some((listener.name.clone(), asked(&https.policies))),
            Protocol::Http | Protocol::Tcp { .. } | Protocol::Udp { .. } => None,
        });
        let answered = loaded.config.routes.iter().zip(&snapshot.routes);
        let bodies = answered.filter_map(|(config, route)| match &route.action {
            Action::Respond { body, .. } if config.respond.as_ref()?.file.is_some() => {
                Some((route.name.clone(), hex(&sha256(body))))
            }
            _ => None,
        });
        Self {
            hash: snapshot.hash.clone(),
            files: document.files().to_vec(),
            tree: redact::redacted(document),
            certificates: snapshot.certificates(),
            policies,
            clients: clients.filter(|(_, asked)| !asked.is_empty()).collect(),
            bodies: bodies.collect(),
            marked: Some(redact::marked(document)),
        }
    }

    /// The two trees as they are compared: where both were read here, secrets count.
    pub(super) fn trees<'a>(old: &'a Self, new: &'a Self) -> (&'a Value, &'a Value, Secrets) {
        match (&old.marked, &new.marked) {
            (Some(old), Some(new)) => (old, new, Secrets::Compared),
            _ => (&old.tree, &new.tree, Secrets::Hidden),
        }
    }

    /// The typed form of such a tree.
    pub(super) fn config(&self, tree: &Value) -> Result<Config, Unreadable> {
        let unreadable = |problem| Unreadable { hash: self.hash.clone(), problem };
        let mut tree = tree.clone();
        if let Some(sections) = tree.as_object_mut() {
            sections.entry("version").or_insert(1.into());
        }
        match decode::<Config>(&yaml(&tree)) {
            (Some(config), problems) if problems.is_empty() => Ok(config),
            (_, problems) => {
                let told = problems.first().map(|problem| format!("{}: {}", problem.path, problem.message));
                Err(unreadable(redact::unmarked(&told.unwrap_or_default())))
            }
        }
    }
}

/// Whether values that are not told could be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrets {
    /// They were.
    Compared,
    /// One side did not tell them.
    Hidden,
}

/// The same value as the decoder takes it.
pub(super) fn yaml(value: &Value) -> serde_yaml::Value {
    // Each JSON value is a YAML value.
    serde_yaml::to_value(value).unwrap_or_default()
}

fn asked(policies: &Policies) -> BTreeSet<String> {
    let asked = policies.all().iter().filter_map(|policy| {
        let clients = policy.clients.as_ref()?;
        let names = policy.names.as_ref().map_or_else(|| "*".to_owned(), ToString::to_string);
        let demand = if clients.required { "required" } else { "optional" };
        Some(format!("{names} {demand} {}", hex(&clients.trust[..8])))
    });
    asked.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
