//! The upstreams of one file as its plugins ask them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use vestibule_plugins::{Path, Problem};

use super::files::Files;
use super::kept::{Kept, UpstreamDefinition};
use super::routes::{target_tls, unknown};
use super::{Host, Sni, upstreams};
use crate::config::{Config, ProtocolConfig};
use crate::upstream::{Caller, CallerSni, Policies, Upstream};

/// Finds the upstreams that plugins name.
pub struct Upstreams<'a> {
    /// The whole file.
    pub config: &'a Config,
    /// The upstreams that compiled, by name.
    pub upstreams: &'a HashMap<&'a str, Arc<Upstream>>,
    /// Upstream names that stand in the file, those with problems of their own included.
    pub names: &'a [String],
    /// Their certificates.
    pub files: &'a Files<'a>,
    /// Known TLS policies.
    pub policies: &'a Policies,
    /// What earlier snapshots had.
    pub kept: &'a Kept,
    /// The names that were asked for.
    pub used: RefCell<HashSet<String>>,
}

/// All that a `Caller` is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallerDefinition {
    upstream: UpstreamDefinition,
    host: Option<String>,
    /// The key of the policy.
    tls: Option<(u64, CallerSni)>,
}

impl Upstreams<'_> {
    /// The upstream of this name, taken over with its connections where it is defined as before.
    ///
    /// # Errors
    /// There is none, or a plugin cannot ask it.
    pub fn caller(&self, name: &str, at: &Path) -> Result<(CallerDefinition, Arc<Caller>), Problem> {
        self.used.borrow_mut().insert(name.to_owned());
        let broken =
            || Problem::new(at.clone(), format!("the upstream `{name}` cannot be used as it stands"));
        let (Some(config), Some(upstream)) = (self.config.upstreams.get(name), self.upstreams.get(name))
        else {
            return Err(unknown("upstream", name, self.names, at.clone()).unwrap_or_else(broken));
        };
        if matches!(config.protocol, ProtocolConfig::H2 | ProtocolConfig::H2c) {
            return Err(Problem::new(
                at.clone(),
                format!("plugins ask by HTTP/1.1, and the upstream `{name}` speaks HTTP/2 alone"),
            )
            .hint("give it `protocol: auto` or `http/1.1`, or name another one"));
        }
        let varies = |key: &str| {
            Problem::new(
                at.clone(),
                format!("the `{key}` of the upstream `{name}` varies by the client's request, and a plugin asks without one"),
            )
            .hint(format!("write a name there, or give the plugin an upstream of its own without `{key}`"))
        };
        let at_upstream = Path::root().key("upstreams").key(name);
        let host = match upstreams::host(config, &at_upstream) {
            Ok(Host::Template(template)) => {
                Some(template.literal().ok_or_else(|| varies("host"))?.to_owned())
            }
            // There is no client's Host to preserve. What is wrong with it is told with the upstream.
            Ok(Host::Preserve | Host::Endpoint) | Err(_) => None,
        };
        let tls = match target_tls(config, &at_upstream, None, self.files, self.policies) {
            Ok(None) => None,
            Ok(Some(tls)) => {
                let policy = tls.http1.map_or(tls.policy, |http1| http1.policy);
                let sni = match tls.sni {
                    Sni::None => CallerSni::None,
                    Sni::Host => CallerSni::Host,
                    Sni::Template(template) => {
                        CallerSni::Name(template.literal().ok_or_else(|| varies("sni"))?.to_owned())
                    }
                };
                Some((policy, sni))
            }
            // Told with the upstream.
            Err(_) => return Err(broken()),
        };
        let definition = CallerDefinition {
            upstream: UpstreamDefinition::new(name, config),
            host: host.clone(),
            tls: tls.as_ref().map(|(policy, sni)| (policy.key, sni.clone())),
        };
        let caller = self
            .kept
            .callers
            .take_over(definition.clone(), || Arc::new(Caller::new(upstream.clone(), host, tls)));
        Ok((definition, caller))
    }
}
