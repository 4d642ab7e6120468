//! The TLS of an upstream as one route reaches it: the route's keys over the upstream's, then one policy.

use openssl::x509::X509;
use vestibule_plugins::{Path, Problem, Scope, Template};

use super::files::Files;
use super::{Sni, TargetTls};
use crate::config::{CaConfig, ClientCertificateConfig, SniConfig, TlsConfig, VerifyConfig};
use crate::upstream::{ClientIdentity, Policies, Roots, Verification};

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
    files: &Files<'_>,
    policies: &Policies,
) -> Result<TargetTls, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut keep = |problem: Problem| problems.push(problem);

    let (sni, sni_at) = match pick(over, base, |tls| tls.sni.as_ref()) {
        None => (Some(Sni::Host), base.at.clone()),
        Some((SniConfig::None, at)) => (Some(Sni::None), at.key("sni")),
        Some((SniConfig::Template(text), at)) => {
            let at = at.key("sni");
            let template = Template::parse(text, Scope::Upstream).map_err(|problem| keep(problem.under(&at)));
            // `$host` alone is the default: the Host that is sent.
            let sni = template
                .ok()
                .map(|it| if text == "$host" || text == "${host}" { Sni::Host } else { Sni::Template(it) });
            (sni, at)
        }
    };

    let verification = verification(base, over, files, &mut keep);
    if let (Some(Sni::None), Some(Verification::On { names: None, .. })) = (&sni, &verification) {
        keep(
            Problem::new(sni_at, "without an SNI there is no name to verify the certificate against")
                .hint("name it: `verify: { name: NAME }`, or give up verification: `verify: off`"),
        );
    }

    let identity = match pick(over, base, |tls| tls.client_certificate.as_ref()) {
        None | Some((ClientCertificateConfig::None, _)) => None,
        Some((ClientCertificateConfig::Files { cert, key }, at)) => {
            match files.key_pair(cert, key, &at.key("client_certificate")) {
                Ok((chain, key)) => Some(ClientIdentity { chain, key }),
                Err(found) => {
                    found.into_iter().for_each(&mut keep);
                    None
                }
            }
        }
    };
    if let (true, Some(sni), Some(verification)) = (problems.is_empty(), sni, verification) {
        match policies.intern(&verification, identity.as_ref()) {
            Ok(policy) => return Ok(TargetTls { policy, sni }),
            Err(error) => {
                let at = over.map_or(base.at, |over| over.at);
                problems
                    .push(Problem::new(at.clone(), format!("OpenSSL does not take these settings: {error}")));
            }
        }
    }
    Err(problems)
}

/// The value of a key and the path of the block that it comes from: the route's where it names it.
fn pick<'a, T>(
    over: Option<Block<'a>>,
    base: Block<'a>,
    key: impl Fn(&'a TlsConfig) -> Option<&'a T>,
) -> Option<(&'a T, &'a Path)> {
    let over = over.and_then(|block| Some((key(block.config)?, block.at)));
    over.or_else(|| Some((key(base.config)?, base.at)))
}

/// `verify` merges key by key too: a route that names another name keeps its upstream's CA. `None` after a problem.
fn verification(
    base: Block<'_>,
    over: Option<Block<'_>>,
    files: &Files<'_>,
    keep: &mut impl FnMut(Problem),
) -> Option<Verification> {
    let mut roots: Option<(&CaConfig, Path)> = None;
    let mut names: Option<&Vec<String>> = None;
    for block in [Some(base), over].into_iter().flatten() {
        match &block.config.verify {
            None => {}
            Some(VerifyConfig::Off) => {
                let overridden = over.is_some_and(|over| {
                    !std::ptr::eq(over.config, block.config) && over.config.verify.is_some()
                });
                if !overridden {
                    return Some(Verification::Off);
                }
            }
            Some(VerifyConfig::On { ca, names: listed }) => {
                roots = ca.as_ref().map(|ca| (ca, block.at.key("verify").key("ca"))).or(roots);
                names = listed.as_ref().or(names);
            }
        }
    }
    let roots = match roots {
        None | Some((CaConfig::System, _)) => Roots::System,
        Some((CaConfig::File(file), at)) => match files.certificates(file, &at) {
            Ok(certificates) => Roots::Given(distinct(certificates)),
            Err(problem) => {
                keep(problem);
                return None;
            }
        },
    };
    Some(Verification::On { roots, names: names.cloned() })
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
