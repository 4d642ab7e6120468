//! Whose signature counts.

use std::path::Path;

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
        let (what, stem) = match is_ca(top) {
            true => ("the CA that the upstream sent", "ca"),
            false => ("this very certificate", "cert"),
        };
        let file = self.known.new_file(&format!("{}-{stem}", self.subject.upstream));
        let sha256 = fingerprint(top);
        let compare = format!(
            "compare its fingerprint with who runs the upstream before you trust it: SHA-256 {sha256}"
        );
        let name = name_text(top.subject_name());
        let words = format!("trust {what}, `{name}`: save it as `{}`, and {compare}", file.display());
        plans.push(self.saving(plan, &file, vec![top.clone()], sha256.clone(), words));
        // Where others need the CAs that are trusted by now, the new one joins them.
        if let Some(Trust { roots: Roots::Given(present), .. }) = plan.trust() {
            let file = self.known.new_file(&format!("{}-cas", self.subject.upstream));
            let at_hand = self.known.authorities.iter().flat_map(|known| &known.certificates);
            let (root, words) = match at_hand.into_iter().find(|it| leads(it)) {
                Some(root) => {
                    let name = name_text(root.subject_name());
                    (root, format!("trust `{name}` too: save all of them as `{}`", file.display()))
                }
                None => {
                    let words = format!(
                        "trust {what}, `{name}`, too: save all as `{}`, and {compare}",
                        file.display()
                    );
                    (top, words)
                }
            };
            let all = present.iter().chain([root]).cloned().collect();
            plans.push(self.saving(plan, &file, all, fingerprint(root), words));
        }
        plans
    }

    /// Trusts these, from a file that is to be made.
    fn saving(&self, plan: &Plan, file: &Path, roots: Vec<X509>, sha256: String, words: String) -> Plan {
        let edits = self.places.set_trust("ca", file.display().to_string(), |trust| trust.ca.is_some());
        let pem = roots.iter().filter_map(|it| it.to_pem().ok()).flatten().collect();
        let pem = String::from_utf8(pem).unwrap_or_default();
        plan.with(edits, words, |plan| {
            plan.trusting(|trust| trust.roots = Roots::Given(roots));
            plan.save.push(Save { file: file.to_owned(), pem, sha256 });
        })
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
