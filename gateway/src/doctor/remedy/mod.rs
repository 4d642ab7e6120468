//! From a cause to what might mend it: variants of the policy, each with the edit that brings it about. Nothing is tried
//! here, and what is not tried is not told.

mod certificate;
mod name;
mod offer;
mod trust;

use std::time::Duration;

use openssl::x509::X509;

use super::known::Known;
use super::place::{Edit, Places};
use super::report::Save;
use super::target::Subject;
use crate::config::Config;
use crate::diagnose::{Cause, names_of};
use crate::proxy::admit::host_name;
use crate::upstream::{Protocol, Seen, Settings, Trust, Verification, VerifiedName, is_ca, is_name};

/// What would be connected with, and the edits that make it so.
#[derive(Clone)]
pub struct Plan {
    /// The policy and the SNI; none is plain.
    pub tls: Option<(Settings, String)>,
    /// What is spoken.
    pub protocol: Protocol,
    /// The Host that is sent.
    pub host: String,
    /// Each step may take so long.
    pub limit: Option<Duration>,
    /// The edits.
    pub edits: Vec<Edit>,
    /// What they do.
    pub words: Vec<String>,
    /// Files that they need.
    pub save: Vec<Save>,
}

impl Plan {
    /// As the file has it.
    pub fn of(subject: &Subject) -> Self {
        let tls = subject.policy.as_ref().map(|policy| {
            // What a trial sees is its own, and no session of another's makes it shorter.
            let settings = Settings { session_reuse: false, key_log: None, ..policy.settings.clone() };
            (settings, subject.identity.clone())
        });
        Self {
            tls,
            protocol: subject.protocol,
            host: subject.host.clone(),
            limit: subject.connect_timeout,
            edits: Vec::new(),
            words: Vec::new(),
            save: Vec::new(),
        }
    }

    fn with(&self, edits: Vec<Edit>, words: impl Into<String>, change: impl FnOnce(&mut Self)) -> Self {
        let mut plan = self.clone();
        plan.edits.extend(edits);
        plan.words.push(words.into());
        change(&mut plan);
        plan
    }

    fn tls(&self) -> Option<&(Settings, String)> {
        self.tls.as_ref()
    }

    fn trust(&self) -> Option<&Trust> {
        match &self.tls()?.0.verification {
            Verification::On(trust) => Some(trust),
            Verification::Off => None,
        }
    }

    fn settings(&mut self, change: impl FnOnce(&mut Settings)) {
        if let Some((settings, _)) = &mut self.tls {
            change(settings);
        }
    }

    fn trusting(&mut self, change: impl FnOnce(&mut Trust)) {
        self.settings(|settings| {
            if let Verification::On(trust) = &mut settings.verification {
                change(trust);
            }
        });
    }

    fn asking(&mut self, name: &str) {
        if let Some((_, identity)) = &mut self.tls {
            name.clone_into(identity);
        }
    }
}

/// What is known of an endpoint besides its own configuration.
pub struct Case<'a> {
    /// The file.
    pub config: &'a Config,
    /// The endpoint.
    pub subject: &'a Subject,
    /// Where to edit.
    pub places: Places<'a>,
    /// Files at hand.
    pub known: &'a Known,
    /// Certificates that any try has shown.
    pub shown: Vec<X509>,
    /// The longest that a step may take.
    pub timeout: Duration,
}

/// No more names are tried.
const MOST_NAMES: usize = 12;
/// No more files or pairs are.
const MOST_FILES: usize = 8;

impl Case<'_> {
    /// What might mend this cause, the safest and smallest first.
    pub fn remedies(&self, cause: Cause, plan: &Plan, seen: &Seen) -> Vec<Plan> {
        match cause {
            Cause::TlsSniMissing | Cause::TlsSniUnrecognized => self.other_sni(plan),
            Cause::TlsPeerReset => [self.other_sni(plan), self.versions(plan)].concat(),
            Cause::TlsNameMismatch => self.other_name(plan, seen),
            Cause::TlsUnknownIssuer | Cause::TlsSelfSigned => self.other_roots(plan, seen),
            Cause::TlsPinMismatch => self.another_pin(plan, seen),
            Cause::TlsChainTooLong => self.more_depth(plan, seen),
            Cause::TlsCertificateInvalid => self.less_security(plan),
            Cause::TlsClientCertificateRequired => self.pairs(plan, seen),
            Cause::TlsClientCertificateRejected => [self.completed(plan), self.pairs(plan, seen)].concat(),
            Cause::TlsProtocolVersion => self.versions(plan),
            Cause::TlsNoSharedCipher => {
                [self.other_ciphers(plan), self.less_security(plan), self.versions(plan)].concat()
            }
            Cause::TlsPlaintextPeer => self.without_tls(plan),
            Cause::PlainToTlsPort => self.with_tls(plan),
            Cause::ConnectTimeout | Cause::TlsHandshakeTimeout => self.more_time(plan),
            Cause::AlpnMismatch | Cause::Upstream426 => self.protocols(plan),
            Cause::HostSniMismatch | Cause::Upstream421 => self.one_name(plan),
            _ => Vec::new(),
        }
    }

    /// The same with verification on, by the roots of this system.
    pub fn verified(&self, plan: &Plan) -> Plan {
        plan.with(self.places.verify(), "turn verification on", |plan| {
            plan.settings(|settings| settings.verification = Verification::On(Trust::default()));
        })
    }

    /// Names that the upstream might serve, the likeliest first.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let mut add = |name: &str| {
            let name = host_name(name).trim_end_matches('.').to_ascii_lowercase();
            if is_name(&name) && !name.contains(['*', '$', ':', '/', ' ']) && !names.contains(&name) {
                names.push(name);
            }
        };
        add(&self.subject.host);
        add(&self.subject.client_host);
        let routes = self.subject.routes.iter().filter_map(|index| self.config.routes.get(*index));
        routes.clone().flat_map(|route| &route.r#match.hosts).for_each(|host| add(host));
        if let Some(policy) = &self.subject.policy {
            for name in policy.names_for("") {
                if let VerifiedName::Dns(name) = name {
                    add(&name);
                }
            }
        }
        if let Some((name, _)) = &self.subject.endpoint.name {
            add(name);
        }
        self.shown.iter().filter(|it| !is_ca(it)).flat_map(|it| names_of(it)).for_each(|name| add(&name));
        for route in &self.config.routes {
            route.r#match.hosts.iter().for_each(|host| add(host));
        }
        names.truncate(MOST_NAMES);
        names
    }
}
