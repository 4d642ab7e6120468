//! What a configuration may say and hardly means: warnings, which refuse nothing. One file for each noun.
//!
//! A lint is a pure function over a configuration that compiled, the time and the files that it names; to add one
//! is to write it and to list it in `LINTS`. It speaks only where it is certain: what a lint cannot see through
//! is no warning. What is wrong is for `compile`, not for a lint.

mod certificates;
mod circles;
mod identity;
mod key_log;
mod permissions;
mod sni;
mod timeouts;
mod unreachable;
mod unused;
mod verify;
mod versions;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use vestibule_plugins::{Path, Problem};

use super::files::Files;
use super::{Listener, Protocol, Route};
use crate::config::{
    CaConfig, ClientCertificateConfig, Config, Document, KeyPairConfig, TlsConfig, VerifyConfig,
};
use crate::route::{ListenerId, Rule, Shadows};
use crate::upstream::Upstream;

/// Looks at a configuration and adds its warnings, whose form is that of problems.
type Lint = fn(&Subject<'_>, &mut Vec<Problem>);

const LINTS: [Lint; 11] = [
    certificates::certificates,
    circles::circles,
    identity::identity,
    key_log::key_log,
    permissions::permissions,
    sni::sni,
    timeouts::timeouts,
    unreachable::unreachable,
    unused::unused,
    verify::verify,
    versions::versions,
];

/// What lints look at: what was typed, and what it became.
pub struct Subject<'a> {
    /// What was typed.
    pub config: &'a Config,
    /// Where it stands.
    pub document: &'a Document,
    /// The files that it names, as they were read to compile it.
    pub files: &'a Files<'a>,
    /// In the order of the file, one for each of `config.routes`.
    pub rules: &'a [Rule],
    /// Which of them take whose requests.
    pub shadows: Shadows<'a>,
    /// Likewise.
    pub routes: &'a [Route],
    /// In the order of their names.
    pub listeners: &'a [Arc<Listener>],
    /// By name; what runs holds each that it uses.
    pub upstreams: &'a HashMap<&'a str, Arc<Upstream>>,
    /// The names of those that plugins ask.
    pub of_plugins: &'a HashSet<String>,
    /// When it is loaded.
    pub now: Timestamp,
}

/// Every warning of every lint.
pub fn warnings(subject: &Subject<'_>) -> Vec<Problem> {
    let mut warnings = Vec::new();
    LINTS.iter().for_each(|lint| lint(subject, &mut warnings));
    warnings
}

/// What a file is to the configuration that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// It is shown to the other side.
    Certificate,
    /// It belongs to a certificate that is shown.
    PrivateKey,
    /// It opens such a key.
    Password,
    /// The other side's certificate is signed by one of these.
    Authorities,
}

impl Subject<'_> {
    /// Every `tls` block of an upstream or a route, and where it stands.
    fn tls_blocks(&self) -> impl Iterator<Item = (Path, &TlsConfig)> {
        let upstreams = self.config.upstreams.iter().filter_map(|(name, upstream)| {
            Some((Path::root().key("upstreams").key(name), upstream.tls.as_ref()?))
        });
        let routes = self.config.routes.iter().enumerate();
        let routes = routes.filter_map(|(index, route)| Some((route_at(index), route.tls.as_ref()?)));
        upstreams.chain(routes).map(|(at, tls)| (at.key("tls"), tls))
    }

    /// Every file of certificates or keys, once for each use, and the first place that names it.
    fn tls_files(&self) -> Vec<(Path, &FilePath, Use)> {
        let mut named: Vec<(Path, &PathBuf, Use)> = Vec::new();
        for (name, listener) in &self.config.listeners {
            let Some(tls) = &listener.tls else { continue };
            let at = Path::root().key("listeners").key(name).key("tls");
            for (index, pair) in tls.certificates.iter().enumerate() {
                named.extend(files_of(pair, &at.key("certificates").index(index)));
            }
            for (name, clients) in tls.client_certificates() {
                let at = name.map_or(at.clone(), |name| at.key("by_sni").key(name));
                named.push((at.key("client_certificate").key("ca"), &clients.ca, Use::Authorities));
            }
        }
        for (at, tls) in self.tls_blocks() {
            if let Some(ClientCertificateConfig::Files(pair)) = &tls.client_certificate {
                named.extend(files_of(pair, &at.key("client_certificate")));
            }
            if let Some(VerifyConfig::On(trust)) = &tls.verify
                && let Some(CaConfig::File(file)) = &trust.ca
            {
                named.push((at.key("verify").key("ca"), file, Use::Authorities));
            }
        }
        let mut first: BTreeMap<(&PathBuf, usize), (Path, &FilePath, Use)> = BTreeMap::new();
        for (at, file, usage) in named {
            first.entry((file, usage as usize)).or_insert((at, file, usage));
        }
        first.into_values().collect()
    }

    /// The listeners that routes apply to.
    fn http_listeners(&self) -> Vec<ListenerId> {
        let http =
            self.listeners.iter().filter(|it| matches!(it.protocol, Protocol::Http | Protocol::Https(_)));
        http.map(|listener| listener.id).collect()
    }

    /// Those by which this route may get a request.
    fn listeners_of(&self, route: usize) -> Vec<ListenerId> {
        let mut listeners = self.http_listeners();
        let own = self.rules.get(route).map(|rule| rule.listeners.as_slice()).unwrap_or_default();
        listeners.retain(|listener| own.is_empty() || own.contains(listener));
        listeners
    }
}

fn files_of<'a>(pair: &'a KeyPairConfig, at: &Path) -> Vec<(Path, &'a PathBuf, Use)> {
    let mut files =
        vec![(at.key("cert"), &pair.cert, Use::Certificate), (at.key("key"), &pair.key, Use::PrivateKey)];
    files.extend(pair.password_file.iter().map(|file| (at.key("password_file"), file, Use::Password)));
    files
}

fn route_at(index: usize) -> Path {
    Path::root().key("routes").index(index)
}
