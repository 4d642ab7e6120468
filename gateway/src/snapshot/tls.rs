//! The TLS of an upstream as one route reaches it: the route's keys over the upstream's, then one policy.

use openssl::x509::X509;
use vestibule_plugins::{Path, Problem, Scope, Template};

use super::files::Files;
use super::{Sni, TargetTls};
use crate::config::{
    CaConfig, ClientCertificateConfig, OneOrMany, SniConfig, TlsConfig, TrustConfig, UpstreamTlsVersion,
    VerifyConfig,
};
use crate::upstream::{
    Alpn, Ciphers, ClientIdentity, Pin, Policies, Roots, Settings, Trust, Verification, VerifiedName,
    Version, knows_curve,
};

/// A `tls` block and where it stands.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    /// What was typed.
    pub config: &'a TlsConfig,
    /// Where.
    pub at: &'a Path,
}

/// Compiles `over` over `base`, key by key; what neither names has its default.
///
/// # Errors
/// Every problem: a file that cannot be used, a template that cannot be parsed, keys that contradict each other.
pub fn compile(
    base: Block<'_>,
    over: Option<Block<'_>>,
    alpn: Alpn,
    files: &Files<'_>,
    policies: &Policies,
) -> Result<TargetTls, Vec<Problem>> {
    let mut merging = Merging { blocks: [Some(base), over], files, problems: Vec::new() };
    let (sni, sni_at) = merging.sni();
    let verification = merging.verification();
    if matches!((&sni, &verification), (Sni::None, Verification::On(Trust { names: None, .. }))) {
        merging.problems.push(
            Problem::new(sni_at, "without an SNI there is no name to verify the certificate against")
                .hint("name it: `verify: { name: NAME }`, or give up verification: `verify: off`"),
        );
    }
    let settings = Settings {
        verification,
        identity: merging.identity(),
        versions: merging.versions(),
        ciphers: merging.ciphers(),
        curves: merging.curves(),
        session_reuse: merging.pick(|tls| tls.session_reuse.as_ref()).is_none_or(|(reuse, _)| *reuse),
        key_log: merging.key_log(),
        alpn,
    };
    if !merging.problems.is_empty() {
        return Err(merging.problems);
    }
    match policies.intern(settings) {
        Ok(policy) => Ok(TargetTls { policy, sni, http1: None }),
        Err(error) => {
            let at = over.map_or(base.at, |over| over.at);
            Err(vec![Problem::new(at.clone(), format!("OpenSSL does not take these settings: {error}"))])
        }
    }
}

/// The blocks that are merged, the upstream's first. After a problem each part stands in with its default: the
/// problem refuses the whole.
struct Merging<'a> {
    blocks: [Option<Block<'a>>; 2],
    files: &'a Files<'a>,
    problems: Vec<Problem>,
}

impl<'a> Merging<'a> {
    /// The value of a key and the path of the block that it comes from: the route's where it names it.
    fn pick<T>(&self, key: impl Fn(&'a TlsConfig) -> Option<&'a T>) -> Option<(&'a T, &'a Path)> {
        self.blocks.iter().rev().flatten().find_map(|block| Some((key(block.config)?, block.at)))
    }

    /// Like `pick`, for what stands under `verify`: a route that names another name keeps its upstream's CA. An `off`
    /// of the upstream's hides nothing that the route says.
    fn pick_trust<T>(&self, key: impl Fn(&'a TrustConfig) -> Option<&'a T>) -> Option<(&'a T, Path)> {
        self.blocks.iter().rev().flatten().find_map(|block| match block.config.verify.as_ref()? {
            VerifyConfig::Off => None,
            VerifyConfig::On(trust) => Some((key(trust)?, block.at.key("verify"))),
        })
    }

    fn sni(&mut self) -> (Sni, Path) {
        match self.pick(|tls| tls.sni.as_ref()) {
            None => (Sni::Host, self.blocks.iter().flatten().next().map_or(Path::root(), |it| it.at.clone())),
            Some((SniConfig::None, at)) => (Sni::None, at.key("sni")),
            Some((SniConfig::Template(text), at)) => {
                let at = at.key("sni");
                match Template::parse(text, Scope::Upstream) {
                    // `$host` alone is the default: the Host that is sent.
                    Ok(_) if text == "$host" || text == "${host}" => (Sni::Host, at),
                    Ok(template) => (Sni::Template(template), at),
                    Err(problem) => {
                        self.problems.push(problem.under(&at));
                        (Sni::Host, at)
                    }
                }
            }
        }
    }

    fn verification(&mut self) -> Verification {
        if let Some((VerifyConfig::Off, _)) = self.pick(|tls| tls.verify.as_ref()) {
            return Verification::Off;
        }
        let roots = match self.pick_trust(|trust| trust.ca.as_ref()) {
            None | Some((CaConfig::System, _)) => Roots::System,
            Some((CaConfig::File(file), at)) => {
                let certificates = self.files.authorities(file, &at.key("ca"));
                Roots::Given(distinct(self.keep(certificates)))
            }
        };
        let crls = self.pick_trust(|trust| trust.crl.as_ref());
        let crls = crls.map(|(file, at)| self.files.crls(file, &at.key("crl")));
        Verification::On(Trust {
            roots,
            names: self.names(),
            crls: crls.map(|crls| self.keep(crls)).unwrap_or_default(),
            depth: self.pick_trust(|trust| trust.depth.as_ref()).map(|(depth, _)| *depth),
            pins: self.pins(),
            allow_common_name: self
                .pick_trust(|trust| trust.allow_common_name.as_ref())
                .is_some_and(|(allow, _)| *allow),
        })
    }

    /// `name` and `names` are two spellings of one key: the route's of either wins over the upstream's.
    fn names(&mut self) -> Option<Vec<VerifiedName>> {
        let (trust, at) =
            self.pick_trust(|trust| (trust.name.is_some() || trust.names.is_some()).then_some(trust))?;
        let single = trust.name.iter().map(|name| (name, at.key("name")));
        let several = trust.names.iter().flatten().enumerate();
        let several = several.map(|(index, name)| (name, at.key("names").index(index)));
        let mut names = Vec::new();
        for (text, at) in single.chain(several) {
            match text.parse() {
                Ok(name) => names.push(name),
                Err(hint) => self.problems.push(
                    Problem::new(at, format!("`{text}` is not a DNS name, an IP address or a URI"))
                        .hint(hint),
                ),
            }
        }
        Some(names)
    }

    fn pins(&mut self) -> Vec<Pin> {
        let Some((texts, at)) = self.pick_trust(|trust| trust.pins.as_ref()) else { return Vec::new() };
        let mut pins = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match Pin::parse(text) {
                Some(pin) => pins.push(pin),
                None => self.problems.push(
                    Problem::new(
                        at.key("pins").index(index),
                        "a pin is `sha256/` and the base64 form of the 32 bytes of a SHA-256",
                    )
                    .hint("`vestibule doctor` shows the pin of each certificate that an upstream sends"),
                ),
            }
        }
        pins
    }

    fn identity(&mut self) -> Option<ClientIdentity> {
        match self.pick(|tls| tls.client_certificate.as_ref())? {
            (ClientCertificateConfig::None, _) => None,
            (ClientCertificateConfig::Files(pair), at) => {
                let at = at.key("client_certificate");
                match self.files.key_pair(pair, &at) {
                    Ok((chain, key)) => Some(ClientIdentity { chain, key }),
                    Err(found) => {
                        self.problems.extend(found);
                        None
                    }
                }
            }
        }
    }

    fn versions(&mut self) -> (Version, Version) {
        let lowest = self.pick(|tls| tls.min_version.as_ref());
        let highest = self.pick(|tls| tls.max_version.as_ref());
        let most = highest.map_or(Version::Tls13, |(version, _)| of_config(*version));
        let least = lowest.map_or(Version::Tls12, |(version, _)| of_config(*version));
        if least > most {
            let (at, hint) = match (lowest, highest) {
                (Some((_, at)), _) => (at.key("min_version"), format!("write at most \"{}\"", most.text())),
                (None, Some((_, at))) => {
                    (at.key("max_version"), format!("add `min_version: \"{}\"` to offer it", most.text()))
                }
                (None, None) => unreachable!("the defaults are in order"),
            };
            self.problems.push(
                Problem::new(
                    at,
                    format!(
                        "no version of TLS is left: the lowest is {}, the highest {}",
                        least.text(),
                        most.text()
                    ),
                )
                .hint(hint),
            );
        }
        (least, most)
    }

    fn ciphers(&mut self) -> Ciphers {
        let Some((OneOrMany(texts), at)) = self.pick(|tls| tls.ciphers.as_ref()) else {
            return Ciphers::default();
        };
        Ciphers::parse(texts.iter().flat_map(|text| listed(text))).unwrap_or_else(|unknown| {
            self.problems.push(
                Problem::new(at.key("ciphers"), format!("OpenSSL knows no cipher `{unknown}`")).hint(
                    "names are OpenSSL's, such as `ECDHE-RSA-AES128-GCM-SHA256`, `ECDHE+AESGCM` or \
                     `TLS_AES_128_GCM_SHA256`; `openssl ciphers -v` lists them",
                ),
            );
            Ciphers::default()
        })
    }

    fn curves(&mut self) -> Option<String> {
        let (OneOrMany(texts), at) = self.pick(|tls| tls.curves.as_ref())?;
        let names: Vec<&str> = texts.iter().flat_map(|text| listed(text)).collect();
        let Some(unknown) = names.iter().find(|name| !knows_curve(name)) else {
            return Some(names.join(":"));
        };
        self.problems.push(
            Problem::new(at.key("curves"), format!("OpenSSL knows no curve `{unknown}`"))
                .hint("there are `X25519`, `P-256`, `P-384`, `P-521`, `X448` and `ffdhe2048`, among others"),
        );
        None
    }

    fn key_log(&mut self) -> Option<std::path::PathBuf> {
        let (file, at) = self.pick(|tls| tls.key_log.as_ref())?;
        match self.files.to_be_written(file, &at.key("key_log")) {
            Ok(path) => Some(path),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    fn keep<T: Default>(&mut self, result: Result<T, Problem>) -> T {
        result.unwrap_or_else(|problem| {
            self.problems.push(problem);
            T::default()
        })
    }
}

fn of_config(version: UpstreamTlsVersion) -> Version {
    match version {
        UpstreamTlsVersion::Tls10 => Version::Tls10,
        UpstreamTlsVersion::Tls11 => Version::Tls11,
        UpstreamTlsVersion::Tls12 => Version::Tls12,
        UpstreamTlsVersion::Tls13 => Version::Tls13,
    }
}

/// OpenSSL's lists are parted by colons; commas are what people type too.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split([':', ',', ' ']).filter(|name| !name.is_empty())
}

/// A bundle may hold a certificate twice.
fn distinct(certificates: Vec<X509>) -> Vec<X509> {
    let mut kept: Vec<X509> = Vec::with_capacity(certificates.len());
    for certificate in certificates {
        if !kept.contains(&certificate) {
            kept.push(certificate);
        }
    }
    kept
}
