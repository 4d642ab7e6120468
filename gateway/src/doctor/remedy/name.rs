//! Which name is asked for, and which is verified.

use openssl::x509::X509;
use serde_yaml::Value;

use super::{Case, Plan};
use crate::config::{TlsConfig, TrustConfig};
use crate::diagnose::names_of;
use crate::doctor::place::Edit;
use crate::proxy::attempt::bare;
use crate::upstream::{Seen, Trust, VerifiedName, is_name};

impl Case<'_> {
    pub(super) fn other_sni(&self, plan: &Plan) -> Vec<Plan> {
        let Some((_, identity)) = plan.tls() else { return Vec::new() };
        let has = |tls: &TlsConfig| tls.sni.is_some();
        let mut plans = Vec::new();
        let own = bare(&plan.host);
        let removed = self.places.remove("sni", has);
        if !removed.is_empty() && is_name(&own) && own != *identity {
            let words = format!("drop `sni`, so that the Host, `{own}`, is asked for");
            plans.push(plan.with(removed, words, |plan| plan.asking(&own)));
        }
        for name in self.names().iter().filter(|name| *name != identity) {
            let edits = self.places.set("sni", name.as_str(), has);
            plans.push(plan.with(edits, format!("ask for `{name}`"), |plan| plan.asking(name)));
        }
        plans
    }

    pub(super) fn other_name(&self, plan: &Plan, seen: &Seen) -> Vec<Plan> {
        let (Some((_, identity)), Some(trust)) = (plan.tls(), plan.trust()) else { return Vec::new() };
        let mut plans = Vec::new();
        if trust.names.is_some() && !identity.is_empty() {
            let edits = [
                self.places.remove_trust("name", |trust| trust.name.is_some()),
                self.places.remove_trust("names", |trust| trust.names.is_some()),
            ];
            let words = format!("drop the verified name, so that the SNI, `{identity}`, is verified");
            plans.push(plan.with(edits.concat(), words, |plan| plan.trusting(|trust| trust.names = None)));
        }
        let has_sni = |tls: &TlsConfig| tls.sni.is_some();
        let own = bare(&plan.host);
        let removed = self.places.remove("sni", has_sni);
        if trust.names.is_none() && !removed.is_empty() && is_name(&own) && own != *identity {
            let words = format!("drop `sni`, so that the Host, `{own}`, is asked for and verified");
            plans.push(plan.with(removed, words, |plan| plan.asking(&own)));
        }
        let mut names = self.names();
        // Addresses and URIs are no names to ask for, but may be verified.
        let leaf = seen.presented.first();
        names.extend(leaf.into_iter().flat_map(|leaf| names_of(leaf)).filter(|name| !name.contains('*')));
        for name in &names {
            let Ok(verified) = name.parse::<VerifiedName>() else { continue };
            let words = format!(
                "verify `{name}`, which the certificate is for: make sure that it is the upstream's name"
            );
            let (edits, verified) = self.verifying(plan, name, verified);
            plans.push(plan.with(edits, words, |plan| {
                plan.trusting(|trust| trust.names = Some(verified));
            }));
        }
        for name in names.iter().filter(|name| *name != identity && is_name(name) && !name.contains("://")) {
            let edits = self.places.set("sni", name.as_str(), has_sni);
            plans.push(plan.with(edits, format!("ask for `{name}`"), |plan| plan.asking(name)));
        }
        let common = leaf.filter(|leaf| names_of(leaf).is_empty()).and_then(common_name);
        if let Some(name) = common
            && let Ok(verified) = name.parse::<VerifiedName>()
        {
            let mut edits =
                self.places.set_trust("allow_common_name", true, |trust| trust.allow_common_name.is_some());
            let (naming, verified) = self.verifying(plan, &name, verified);
            edits.extend(naming);
            let words = format!(
                "verify `{name}` by the certificate's common name, as it has no alternative names: better is a new certificate"
            );
            plans.push(plan.with(edits, words, |plan| {
                plan.trusting(|trust| (trust.allow_common_name, trust.names) = (true, Some(verified)));
            }));
        }
        plans
    }

    /// `name`; where there are several endpoints to satisfy, one more of `names`.
    fn verifying(&self, plan: &Plan, name: &str, verified: VerifiedName) -> (Vec<Edit>, Vec<VerifiedName>) {
        let (has_name, has_names) =
            (|trust: &TrustConfig| trust.name.is_some(), |trust: &TrustConfig| trust.names.is_some());
        let endpoints = self.config.upstreams.get(&self.subject.upstream).map_or(0, |it| it.endpoints.len());
        let is_one_of_many = endpoints > 1 || !self.places.trusting(has_names).is_empty();
        let present = match (plan.trust(), plan.tls()) {
            (Some(Trust { names: Some(names), .. }), _) => names.clone(),
            (_, Some((_, identity))) => VerifiedName::of_identity(identity).into_iter().collect(),
            _ => Vec::new(),
        };
        if !is_one_of_many || present.is_empty() {
            return (self.places.set_trust("name", name, has_name), vec![verified]);
        }
        let names: Vec<VerifiedName> = present.into_iter().chain([verified]).collect();
        let texts: Vec<Value> = names.iter().map(|name| name.to_string().into()).collect();
        let mut edits = self.places.remove_trust("name", has_name);
        edits.extend(
            self.places.set_trust("names", texts, |trust| trust.names.is_some() || trust.name.is_some()),
        );
        (edits, names)
    }

    pub(super) fn one_name(&self, plan: &Plan) -> Vec<Plan> {
        let Some((_, identity)) = plan.tls() else { return Vec::new() };
        let own = bare(&plan.host);
        let mut plans = Vec::new();
        let removed = self.places.remove("sni", |tls| tls.sni.is_some());
        if !removed.is_empty() && is_name(&own) && own != *identity {
            let words = format!("drop `sni`, so that the Host, `{own}`, is asked for too");
            plans.push(plan.with(removed, words, |plan| plan.asking(&own)));
        }
        let hosts = std::iter::once(identity.clone()).chain(self.names());
        for name in hosts.filter(|name| is_name(name) && *name != own) {
            let edits = vec![Edit::Set(self.places.upstream().key("host"), name.as_str().into())];
            let follows = *identity == own;
            let words = format!("send `{name}` as the Host");
            plans.push(plan.with(edits, words, |plan| {
                plan.host.clone_from(&name);
                if follows {
                    plan.asking(&name);
                }
            }));
        }
        plans
    }
}

fn common_name(certificate: &X509) -> Option<String> {
    let entry = certificate.subject_name().entries_by_nid(openssl::nid::Nid::COMMONNAME).next()?;
    entry.data().to_string().ok()
}
