//! From a cause to what might mend it: variants of the policy, each with the edit that brings it about. Nothing is tried
//! here, and what is not tried is not told.

use std::time::Duration;

use openssl::x509::X509;
use serde_yaml::{Mapping, Value};

use super::chain::{fingerprint, ordered};
use super::known::{Known, Pair, signed};
use super::place::{Edit, Places};
use super::report::Save;
use super::target::Subject;
use crate::config::{ClientCertificateConfig, Config, KeyPairConfig};
use crate::diagnose::{Cause, name_text, names_of};
use crate::proxy::admit::host_name;
use crate::upstream::{
    Alpn, Ciphers, ClientIdentity, Pin, Roots, Seen, Settings, Trust, Verification, VerifiedName, Version,
    is_ca, is_name,
};

/// What would be connected with, and the edits that make it so.
#[derive(Clone)]
pub struct Plan {
    /// The policy and the SNI; none is plain.
    pub tls: Option<(Settings, String)>,
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

    fn other_sni(&self, plan: &Plan) -> Vec<Plan> {
        let Some((_, identity)) = plan.tls() else { return Vec::new() };
        let has = |tls: &crate::config::TlsConfig| tls.sni.is_some();
        let mut plans = Vec::new();
        let own = host_name(&plan.host).to_ascii_lowercase();
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

    fn other_name(&self, plan: &Plan, seen: &Seen) -> Vec<Plan> {
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
        let has_sni = |tls: &crate::config::TlsConfig| tls.sni.is_some();
        let own = host_name(&plan.host).to_ascii_lowercase();
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
            plans.push(plan.with(self.verifying(name), words, |plan| {
                plan.trusting(|trust| trust.names = Some(vec![verified]));
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
            edits.extend(self.verifying(&name));
            let words = format!(
                "verify `{name}` by the certificate's common name, as it has no alternative names: better is a new certificate"
            );
            plans.push(plan.with(edits, words, |plan| {
                plan.trusting(|trust| (trust.allow_common_name, trust.names) = (true, Some(vec![verified])));
            }));
        }
        plans
    }

    /// `name`, or one more of `names` where there are several endpoints to satisfy.
    fn verifying(&self, name: &str) -> Vec<Edit> {
        let listed = self.places.trusting(|trust| trust.names.is_some());
        let known = self.subject.policy.as_ref().map(|policy| policy.names_for("")).unwrap_or_default();
        if listed.is_empty() {
            return self.places.set_trust("name", name, |trust| trust.name.is_some());
        }
        let names: Vec<Value> =
            known.iter().map(ToString::to_string).chain([name.to_owned()]).map(Value::from).collect();
        listed.into_iter().map(|at| Edit::Set(at.key("verify").key("names"), names.clone().into())).collect()
    }

    fn other_roots(&self, plan: &Plan, seen: &Seen) -> Vec<Plan> {
        let chain = ordered(&seen.presented);
        let Some(top) = chain.last() else { return Vec::new() };
        let mut plans = Vec::new();
        let has = |trust: &crate::config::TrustConfig| trust.ca.is_some();
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

    fn another_pin(&self, plan: &Plan, seen: &Seen) -> Vec<Plan> {
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

    fn more_depth(&self, plan: &Plan, seen: &Seen) -> Vec<Plan> {
        let Some(Trust { depth: Some(depth), .. }) = plan.trust() else { return Vec::new() };
        let most = depth + seen.presented.len() as u32 + 1;
        let deeper = (depth + 1..=most).map(|depth| {
            let edits = self.places.set_trust("depth", u64::from(depth), |trust| trust.depth.is_some());
            let words = format!("allow {depth} CAs between the certificate and the trusted one");
            plan.with(edits, words, |plan| plan.trusting(|trust| trust.depth = Some(depth)))
        });
        deeper.collect()
    }

    fn pairs(&self, plan: &Plan, seen: &Seen) -> Vec<Plan> {
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

    fn showing(&self, files: &KeyPairConfig) -> Vec<Edit> {
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
    fn completed(&self, plan: &Plan) -> Vec<Plan> {
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
    fn own_files(&self) -> Option<&KeyPairConfig> {
        let routes =
            self.subject.routes.iter().filter_map(|index| self.config.routes.get(*index)?.tls.as_ref());
        let upstream = self.config.upstreams.get(&self.subject.upstream).and_then(|it| it.tls.as_ref());
        routes.chain(upstream).find_map(|tls| match &tls.client_certificate {
            Some(ClientCertificateConfig::Files(pair)) => Some(pair),
            _ => None,
        })
    }

    fn versions(&self, plan: &Plan) -> Vec<Plan> {
        let Some(((lowest, highest), _)) = plan.tls().map(|(settings, name)| (settings.versions, name))
        else {
            return Vec::new();
        };
        let other = |versions: (Version, Version), edits: Vec<Edit>, words: String| {
            plan.with(edits, words, |plan| plan.settings(|settings| settings.versions = versions))
        };
        let above = Version::ALL.into_iter().rev().filter(|version| *version > highest).map(|version| {
            let edits = match version {
                Version::Tls13 => self.places.remove("max_version", |tls| tls.max_version.is_some()),
                _ => self.places.set("max_version", version.text(), |tls| tls.max_version.is_some()),
            };
            other((lowest, version), edits, format!("offer up to TLS {}", version.text()))
        });
        let below = Version::ALL.into_iter().rev().filter(|version| *version < lowest).map(|version| {
            let edits = match version {
                Version::Tls12 => self.places.remove("min_version", |tls| tls.min_version.is_some()),
                _ => self.places.set("min_version", version.text(), |tls| tls.min_version.is_some()),
            };
            let weak = if version < Version::Tls12 {
                ": broken by today's measure, so better enable 1.2 at the upstream"
            } else {
                ""
            };
            other((version, highest), edits, format!("offer TLS {} too{weak}", version.text()))
        });
        let less = Version::ALL.into_iter().rev().filter(|version| (lowest..highest).contains(version)).map(
            |version| {
                let edits = self.places.set("max_version", version.text(), |tls| tls.max_version.is_some());
                other(
                    (lowest, version),
                    edits,
                    format!("offer TLS {} at most, which is what this upstream can bear", version.text()),
                )
            },
        );
        above.chain(below).chain(less).collect()
    }

    fn other_ciphers(&self, plan: &Plan) -> Vec<Plan> {
        let ciphers = self.places.remove("ciphers", |tls| tls.ciphers.is_some());
        let curves = self.places.remove("curves", |tls| tls.curves.is_some());
        let mut plans = Vec::new();
        if !ciphers.is_empty() {
            plans.push(plan.with(
                ciphers.clone(),
                "drop `ciphers`, so that all usual ones are offered",
                |plan| {
                    plan.settings(|settings| settings.ciphers = Ciphers::default());
                },
            ));
        }
        if !curves.is_empty() {
            plans.push(plan.with(
                curves.clone(),
                "drop `curves`, so that all usual ones are offered",
                |plan| {
                    plan.settings(|settings| settings.curves = None);
                },
            ));
        }
        if !ciphers.is_empty() && !curves.is_empty() {
            let words = "drop `ciphers` and `curves`, so that all usual ones are offered";
            plans.push(plan.with([ciphers, curves].concat(), words, |plan| {
                plan.settings(|settings| (settings.ciphers, settings.curves) = (Ciphers::default(), None));
            }));
        }
        plans
    }

    fn less_security(&self, plan: &Plan) -> Vec<Plan> {
        let levels = [1, 0].map(|level| {
            let list = format!("DEFAULT:@SECLEVEL={level}");
            let edits = self.places.set("ciphers", list.as_str(), |tls| tls.ciphers.is_some());
            let words =
                "accept weak keys and ciphers from this upstream: better renew its certificate and settings";
            plan.with(edits, words, |plan| {
                plan.settings(|settings| settings.ciphers = Ciphers { tls12: Some(list), tls13: None });
            })
        });
        levels.into()
    }

    fn without_tls(&self, plan: &Plan) -> Vec<Plan> {
        let words = "drop `tls`, as this port speaks plain HTTP: whoever is between can read and change all of it, so better find the upstream's TLS port";
        vec![plan.with(self.places.remove_tls(), words, |plan| plan.tls = None)]
    }

    fn with_tls(&self, plan: &Plan) -> Vec<Plan> {
        let identity = host_name(&plan.host).trim_matches(['[', ']']).to_ascii_lowercase();
        let settings = Settings { session_reuse: false, ..Settings::default() };
        let edits = vec![Edit::Set(self.places.upstream().key("tls"), Mapping::new().into())];
        vec![plan.with(edits, "speak TLS", |plan| plan.tls = Some((settings, identity)))]
    }

    fn more_time(&self, plan: &Plan) -> Vec<Plan> {
        let longer = self.timeout;
        if plan.limit.is_none_or(|limit| limit >= longer) {
            return Vec::new();
        }
        let text = format!("{}ms", longer.as_millis());
        let edits = vec![Edit::Set(self.places.upstream().key("connect_timeout"), text.as_str().into())];
        let words = format!("wait for {text}, which is enough now");
        vec![plan.with(edits, words, |plan| plan.limit = Some(longer))]
    }

    fn protocols(&self, plan: &Plan) -> Vec<Plan> {
        let Some((settings, _)) = plan.tls() else { return Vec::new() };
        let others = [(Alpn::H2, "h2"), (Alpn::Http1, "http/1.1")].into_iter();
        let plans = others.filter(|(alpn, _)| *alpn != settings.alpn).map(|(alpn, text)| {
            let edits = vec![Edit::Set(self.places.upstream().key("protocol"), text.into())];
            plan.with(edits, format!("speak `{text}`"), |plan| plan.settings(|settings| settings.alpn = alpn))
        });
        plans.collect()
    }

    fn one_name(&self, plan: &Plan) -> Vec<Plan> {
        let Some((_, identity)) = plan.tls() else { return Vec::new() };
        let own = host_name(&plan.host).to_ascii_lowercase();
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
