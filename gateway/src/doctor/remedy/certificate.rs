//! Which certificate of ours is shown.

use serde_yaml::Mapping;

use super::{Case, MOST_FILES, Plan};
use crate::config::{ClientCertificateConfig, KeyPairConfig};
use crate::diagnose::name_text;
use crate::doctor::chain::fingerprint;
use crate::doctor::known::{Pair, signed};
use crate::doctor::place::Edit;
use crate::doctor::report::Save;
use crate::upstream::{ClientIdentity, Seen};

impl Case<'_> {
    pub(super) fn pairs(&self, plan: &Plan, seen: &Seen) -> Vec<Plan> {
        let own = plan.tls().and_then(|(settings, _)| settings.identity.as_ref()?.chain.first().cloned());
        let is_accepted = |pair: &&Pair| {
            let issuers = pair.identity.chain.iter().map(|it| name_text(it.issuer_name()));
            seen.accepted_issuers.is_empty()
                || issuers.into_iter().any(|issuer| seen.accepted_issuers.contains(&issuer))
        };
        let others = self.known.pairs.iter().filter(|pair| pair.identity.chain.first() != own.as_ref());
        let plans = others.filter(is_accepted).take(MOST_FILES).map(|pair| {
            let words = format!("show `{}`, which the upstream accepts", pair.files.cert.display());
            plan.with(self.showing(&pair.files), words, |plan| {
                plan.settings(|settings| settings.identity = Some(pair.identity.clone()));
            })
        });
        plans.collect()
    }

    pub(super) fn showing(&self, files: &KeyPairConfig) -> Vec<Edit> {
        let mut map = Mapping::new();
        let mut put =
            |key: &str, file: &std::path::Path| map.insert(key.into(), file.display().to_string().into());
        put("cert", &files.cert);
        put("key", &files.key);
        if let Some(password) = &files.password_file {
            put("password_file", password);
        }
        self.places.set("client_certificate", map, |tls| tls.client_certificate.is_some())
    }

    /// The edit with names to be filled in.
    pub fn placeholder_pair(&self) -> Vec<Edit> {
        self.showing(&KeyPairConfig { cert: "CERT.crt".into(), key: "KEY.key".into(), password_file: None })
    }

    /// The same certificate with the rest of its chain, where that is at hand.
    pub(super) fn completed(&self, plan: &Plan) -> Vec<Plan> {
        let Some(own) = plan.tls().and_then(|(settings, _)| settings.identity.clone()) else {
            return Vec::new();
        };
        let mut chain = own.chain.clone();
        while let Some(top) = chain.last()
            && let Some(issuer) = self.known.issuer_of(top)
            && !chain.contains(issuer)
            && !signed(issuer, issuer)
        {
            chain.push(issuer.clone());
        }
        let files = self.own_files();
        let (true, Some(files)) = (chain.len() > own.chain.len(), files) else { return Vec::new() };
        let stem = files.cert.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let file = self.known.new_file(&format!("{stem}-chain"));
        let pem = chain.iter().filter_map(|it| it.to_pem().ok()).flatten().collect();
        let pem = String::from_utf8(pem).unwrap_or_default();
        let words = format!(
            "show the same certificate with the rest of its chain: save that as `{}`",
            file.display()
        );
        let edits = self.showing(&KeyPairConfig { cert: file.clone(), ..files.clone() });
        vec![plan.with(edits, words, |plan| {
            let sha256 = chain.first().map(|leaf| fingerprint(leaf)).unwrap_or_default();
            plan.settings(|settings| settings.identity = Some(ClientIdentity { chain, key: own.key }));
            plan.save.push(Save { file, pem, sha256 });
        })]
    }

    /// The files of the certificate that is shown.
    pub(super) fn own_files(&self) -> Option<&KeyPairConfig> {
        let routes =
            self.subject.routes.iter().filter_map(|index| self.config.routes.get(*index)?.tls.as_ref());
        let upstream = self.config.upstreams.get(&self.subject.upstream).and_then(|it| it.tls.as_ref());
        routes.chain(upstream).find_map(|tls| match &tls.client_certificate {
            Some(ClientCertificateConfig::Files(pair)) => Some(pair),
            _ => None,
        })
    }
}
