//! Whose signature counts.

use openssl::x509::X509;
use serde_yaml::Value;

use super::{Case, MOST_FILES, Plan};
use crate::config::TrustConfig;
use crate::diagnose::name_text;
use crate::doctor::chain::{fingerprint, ordered};
use crate::doctor::known::signed;
use crate::doctor::report::Save;
use crate::upstream::{Pin, Roots, Seen, Trust, is_ca};

impl Case<'_> {
    pub(super) fn other_roots(&self, plan: &Plan, seen: &Seen) -> Vec<Plan> {
        let chain = ordered(&seen.presented);
        let Some(top) = chain.last() else { return Vec::new() };
        let mut plans = Vec::new();
        let has = |trust: &TrustConfig| trust.ca.is_some();
        let leads = |root: &X509| chain.iter().any(|it| it == root || signed(root, it));
        let files = self.known.authorities.iter().filter(|known| known.certificates.iter().any(leads));
        for known in files.take(MOST_FILES) {
            let file = known.file.display().to_string();
            let edits = self.places.set_trust("ca", file.as_str(), has);
            let words = format!("trust `{file}`, which verifies this chain");
            let roots = Roots::Given(known.certificates.clone());
            plans.push(plan.with(edits, words, |plan| plan.trusting(|trust| trust.roots = roots)));
        }
        if !matches!(plan.trust(), Some(Trust { roots: Roots::System, .. })) {
            let edits = self.places.set_trust("ca", "system", has);
            let words = "trust the roots of this system, which verify this chain";
            plans.push(plan.with(edits, words, |plan| plan.trusting(|trust| trust.roots = Roots::System)));
        }
        let what = if is_ca(top) { "the CA that the upstream sent" } else { "this very certificate" };
        let file = self.known.new_file(&format!(
            "{}-{}",
            self.subject.upstream,
            if is_ca(top) { "ca" } else { "cert" }
        ));
        let edits = self.places.set_trust("ca", file.display().to_string(), has);
        let sha256 = fingerprint(top);
        let words = format!(
            "trust {what}, `{}`: save it as `{}`, and compare its fingerprint with who runs the upstream before you trust it: SHA-256 {sha256}",
            name_text(top.subject_name()),
            file.display(),
        );
        let pem = top.to_pem().map(|pem| String::from_utf8_lossy(&pem).into_owned()).unwrap_or_default();
        let roots = Roots::Given(vec![top.clone()]);
        plans.push(plan.with(edits, words, |plan| {
            plan.trusting(|trust| trust.roots = roots);
            plan.save.push(Save { file, pem, sha256 });
        }));
        plans
    }

    pub(super) fn another_pin(&self, plan: &Plan, seen: &Seen) -> Vec<Plan> {
        let Some(pin) = seen.presented.first().and_then(|leaf| Pin::of(leaf).ok()) else { return Vec::new() };
        let Some(trust) = plan.trust() else { return Vec::new() };
        let pins: Vec<Pin> = trust.pins.iter().copied().chain([pin]).collect();
        let texts: Vec<Value> = pins.iter().map(|pin| pin.to_string().into()).collect();
        let edits = self.places.set_trust("pins", texts, |trust| trust.pins.is_some());
        let words = format!(
            "add the pin of the key that the upstream has now, {pin}, if who runs it says that it changed; drop the old one later"
        );
        vec![plan.with(edits, words, |plan| plan.trusting(|trust| trust.pins = pins))]
    }

    pub(super) fn more_depth(&self, plan: &Plan, seen: &Seen) -> Vec<Plan> {
        let Some(Trust { depth: Some(depth), .. }) = plan.trust() else { return Vec::new() };
        let most = depth + seen.presented.len() as u32 + 1;
        let deeper = (depth + 1..=most).map(|depth| {
            let edits = self.places.set_trust("depth", u64::from(depth), |trust| trust.depth.is_some());
            let words = format!("allow {depth} CAs between the certificate and the trusted one");
            plan.with(edits, words, |plan| plan.trusting(|trust| trust.depth = Some(depth)))
        });
        deeper.collect()
    }
}
