//! What differs if just one thing is changed: handshakes alone, told beside the cause so that a person can judge it.
//! Those that ask how the upstream behaves verify nothing, so that its certificate does not end them.

use std::sync::Arc;

use openssl::x509::X509;

use super::ask::Http;
use super::probe::{Attempt, Request, Way};
use super::report::Trial;
use super::target::Subject;
use super::trial::Lab;
use crate::diagnose::{Cause, names_of};
use crate::proxy::attempt::bare;
use crate::upstream::{
    Address, Alpn, Ciphers, Protocol, Roots, Settings, TlsPolicy, Trust, Verification, Version, is_ca,
    is_name,
};

/// No more names of a certificate are tried.
const MOST_NAMES: usize = 4;

/// Makes the tries that make sense for this cause; also the certificates that they showed.
pub async fn survey(
    lab: &Lab,
    subject: &Subject,
    address: &Address,
    cause: Cause,
) -> (Vec<Trial>, Vec<X509>) {
    let is_about_tls = subject.policy.is_some()
        && !matches!(
            cause,
            Cause::ConnectRefused | Cause::ConnectTimeout | Cause::ConnectFailed | Cause::TlsHandshakeTimeout
        );
    let Some(policy) = subject.policy.as_ref().filter(|_| is_about_tls) else {
        return (Vec::new(), Vec::new());
    };
    let mut variants = variants(&policy.settings, &subject.identity, &subject.host);
    let mut attempts = lab.all(&address.target, ways(&variants, lab)).await;

    // The names of the certificates that came by now are asked for in a second round.
    let own = bare(&subject.host);
    let shown: Vec<X509> = attempts.iter().filter_map(|it| it.seen.presented.first().cloned()).collect();
    let mut names: Vec<String> = Vec::new();
    for name in shown.iter().filter(|it| !is_ca(it)).flat_map(|it| names_of(it)) {
        let is_new = name != subject.identity && name != own && !names.contains(&name);
        if is_new && is_name(&name) && !name.contains(['*', '/']) && names.len() < MOST_NAMES {
            names.push(name);
        }
    }
    let looking = Settings { verification: Verification::Off, ..unkept(&policy.settings) };
    let named = |name: String| Variant::new(format!("SNI `{name}`"), looking.clone(), name);
    let more: Vec<Variant> = names.into_iter().filter_map(named).collect();
    attempts.extend(lab.all(&address.target, ways(&more, lab)).await);
    variants.extend(more);

    let seen = attempts.iter().max_by_key(|it| it.seen.presented.len()).map(|it| it.seen.presented.clone());
    let trials = variants.iter().zip(&attempts).map(|(variant, attempt)| told(variant, attempt)).collect();
    (trials, seen.unwrap_or_default())
}

struct Variant {
    tried: String,
    tls: Option<(Arc<TlsPolicy>, String)>,
}

impl Variant {
    /// Nothing where OpenSSL does not take the settings: such a handshake cannot be made at all.
    fn new(tried: String, settings: Settings, identity: String) -> Option<Self> {
        let policy = Arc::new(TlsPolicy::new(settings).ok()?);
        Some(Self { tried, tls: Some((policy, identity)) })
    }
}

fn variants(settings: &Settings, identity: &str, host: &str) -> Vec<Variant> {
    let mut variants = Vec::new();
    let mut add = |tried: &str, identity: &str, change: &dyn Fn(&mut Settings)| {
        let mut settings = unkept(settings);
        change(&mut settings);
        variants.extend(Variant::new(tried.to_owned(), settings, identity.to_owned()));
    };
    let off = |settings: &mut Settings| settings.verification = Verification::Off;
    let on = matches!(settings.verification, Verification::On(_));
    if on {
        add("verification off", identity, &off);
    }
    if is_name(identity) {
        add("no SNI", "", &off);
    }
    let own = bare(host);
    if is_name(&own) && own != identity {
        add(&format!("SNI `{own}`"), &own, &off);
    }
    if let Verification::On(Trust { roots: Roots::Given(_), .. }) = &settings.verification {
        add("the roots of this system", identity, &|settings| {
            if let Verification::On(trust) = &mut settings.verification {
                trust.roots = Roots::System;
            }
        });
    }
    if settings.identity.is_some() {
        add("no client certificate", identity, &|settings| settings.identity = None);
    }
    for version in Version::ALL {
        add(&format!("TLS {} alone", version.text()), identity, &|settings| {
            off(settings);
            settings.versions = (version, version);
        });
    }
    if settings.ciphers != Ciphers::default() || settings.curves.is_some() {
        add("the usual ciphers and curves", identity, &|settings| {
            off(settings);
            (settings.ciphers, settings.curves) = (Ciphers::default(), None);
        });
    }
    for (alpn, name) in [(Alpn::Http1, "`http/1.1`"), (Alpn::H2, "`h2`"), (Alpn::Both, "`h2` and `http/1.1`")]
    {
        if alpn != settings.alpn {
            add(&format!("ALPN {name}"), identity, &|settings| {
                off(settings);
                settings.alpn = alpn;
            });
        }
    }
    variants.push(Variant { tried: "plain HTTP".to_owned(), tls: None });
    variants
}

fn unkept(settings: &Settings) -> Settings {
    Settings { session_reuse: false, key_log: None, ..settings.clone() }
}

fn ways(variants: &[Variant], lab: &Lab) -> Vec<Way> {
    let limit = Some(lab.timeout);
    let way = |variant: &Variant| {
        let request = match variant.tls {
            Some(_) => Request::None,
            None => {
                Request::Get { version: Http::OneOne, host: "localhost".to_owned(), path: "/".to_owned() }
            }
        };
        let alpn = variant.tls.as_ref().map(|(policy, _)| policy.settings.alpn);
        let protocol = match alpn {
            Some(Alpn::H2) => Protocol::H2,
            Some(Alpn::Both) => Protocol::Auto,
            Some(Alpn::Http1) | None => Protocol::Http1,
        };
        Way { tls: variant.tls.clone(), protocol, request, limit }
    };
    variants.iter().map(way).collect()
}

fn told(variant: &Variant, attempt: &Attempt) -> Trial {
    let outcome = match (&attempt.result, &attempt.tls) {
        (Err(failure), _) => failure.cause.code().to_owned(),
        (Ok(Some(answer)), _) => format!("answered {}", answer.status),
        (Ok(None), Some(tls)) => match &tls.alpn {
            Some(alpn) => format!("{}, {alpn}", tls.version),
            None => tls.version.clone(),
        },
        (Ok(None), None) => "connected".to_owned(),
    };
    Trial { tried: variant.tried.clone(), good: attempt.result.is_ok(), outcome }
}
