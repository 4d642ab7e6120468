//! One address from the first connection to its verdict: the request that `run` would make, and where that fails, what
//! differs if one thing is changed.

use std::sync::Arc;
use std::time::Duration;

use openssl::x509::X509;
use tokio::time::timeout;

use super::ask::Http;
use super::chain::{self, days_left};
use super::fix;
use super::known::Known;
use super::place::{Places, Scope};
use super::probe::{Attempt, Request, Way, is_off};
use super::remedy::{Case, Plan};
use super::report::{Agreed, Finding, Fix, Note, Step, Verdict};
use super::survey;
use super::target::{Speaks, Subject};
use super::trial::Lab;
use crate::config::{Config, Document};
use crate::diagnose::{Cause, Failure, name_text};
use crate::proxy::admit::host_name;
use crate::snapshot::Workshop;
use crate::upstream::{Address, Alpn, Protocol, Seen, Settings, TlsPolicy, Verification, is_name};

/// What every examination shares.
pub struct Practice<'a> {
    /// What compiles a changed file.
    pub workshop: &'a Workshop,
    /// What was typed.
    pub config: Config,
    /// Where each thing stands.
    pub document: Document,
    /// How many routes stand in the file itself.
    pub written: usize,
    /// Every endpoint, whether it is looked at or not.
    pub all: Vec<Subject>,
    /// The Host that clients are taken to send, where that was given.
    pub host: Option<String>,
    /// Files at hand.
    pub known: Known,
    /// Where tries are made.
    pub lab: Lab,
}

/// A certificate with fewer days left is told of.
const SOON: i64 = 14;
/// Finding a remedy takes so many times the limit of a step, and no longer.
const PATIENCE: u32 = 12;

/// Looks at one address.
pub async fn examine(practice: &Practice<'_>, subject: &Subject, address: &Address) -> Finding {
    let lab = &practice.lab;
    let way = way_of(subject, lab);
    let mut first = lab.attempt(&address.target, &way).await;
    let mut finding = blank(subject, Some(address));
    if subject.speaks == Speaks::Bytes {
        note_steps(&mut finding, &first, subject);
        settle(&mut finding, first.result.err());
        return finding;
    }
    let mut shown = first.seen.presented.clone();
    if let Some(failure) = second_thoughts(lab, subject, address, &first, &mut shown).await {
        first.result = Err(failure);
    }
    note_steps(&mut finding, &first, subject);
    let settings = subject.policy.as_ref().map(|policy| &policy.settings);
    let failure = first.result.as_ref().err().map(|it| Failure::new(it.cause, it.detail.clone()));
    let case = |shown: &[X509]| Case {
        config: &practice.config,
        subject,
        places: Places::new(&practice.config, subject, practice.written, Scope::Shared),
        known: &practice.known,
        shown: shown.to_vec(),
        timeout: lab.timeout,
    };
    match &failure {
        None => {
            alternatives(lab, subject, address, &mut finding).await;
            if subject.policy.as_ref().is_some_and(|policy| is_off(policy)) {
                finding.fix = timeout(lab.timeout * PATIENCE, verify(practice, case(&shown), address))
                    .await
                    .unwrap_or(None);
            }
        }
        Some(failure) => {
            let (trials, seen) = survey::survey(lab, subject, address, failure.cause).await;
            finding.trials = trials;
            shown.extend(seen);
            shown.dedup();
            let start = Start { plan: Plan::of(subject), failure, seen: &first.seen };
            let mending = mend(practice, case(&shown), address, &start);
            let told = |plan: &Plan, failure: &Failure, seen: &Seen| {
                fix::words_alone(practice, &case(&shown), &fix::Told { plan, failure, seen, first: &first })
            };
            finding.fix = match timeout(lab.timeout * PATIENCE, mending).await {
                Ok(Ok(fix)) => Some(fix),
                Ok(Err(Stuck::At(last))) => told(&last.0, &last.1, &last.2),
                Ok(Err(Stuck::Unwritten)) | Err(_) => told(&start.plan, failure, &first.seen),
            };
        }
    }
    finding.accepted_issuers = first.seen.accepted_issuers.clone();
    let sent = match first.seen.presented.is_empty() {
        true => &shown,
        false => &first.seen.presented,
    };
    finding.chain = chain::read(sent, settings, &practice.known);
    note_certificates(&mut finding, subject, failure.is_none());
    if let Some(status @ 500..) = first.status() {
        let text =
            format!("it answered {status}: the request got through, and the upstream's own log says why");
        finding.notes.push(Note { verdict: Verdict::Warning, text });
    }
    settle(&mut finding, failure);
    finding
}

/// What a name without an address comes to.
pub fn unresolved(practice: &Practice<'_>, subject: &Subject, took: Duration) -> Finding {
    let mut finding = blank(subject, None);
    let failure = Failure::new(Cause::DnsNotFound, subject.endpoint.text.clone());
    finding.steps.push(Step {
        step: "resolve",
        good: false,
        outcome: format!("`{}` has no address", subject.endpoint.text),
        ms: Some(took.as_millis() as u64),
    });
    finding.fix = fix::for_name(&practice.config, subject);
    settle(&mut finding, Some(failure));
    finding
}

/// The request that `run` would make.
pub fn way_of(subject: &Subject, lab: &Lab) -> Way {
    let request = match subject.speaks {
        Speaks::Http => get(Http::OneOne, &subject.host, &subject.path),
        Speaks::Bytes => Request::None,
    };
    let tls = subject.policy.clone().map(|policy| (policy, subject.identity.clone()));
    Way { tls, protocol: subject.protocol, request, limit: subject.connect_timeout.or(Some(lab.timeout)) }
}

fn get(version: Http, host: &str, path: &str) -> Request {
    Request::Get { version, host: host.to_owned(), path: path.to_owned() }
}

/// A try of a plan.
pub fn way_of_plan(plan: &Plan, path: &str, lab: &Lab) -> Result<Way, String> {
    let tls = match &plan.tls {
        Some((settings, identity)) => Some((Arc::new(TlsPolicy::new(settings.clone())?), identity.clone())),
        None => None,
    };
    let request = get(Http::OneOne, &plan.host, path);
    Ok(Way { tls, protocol: plan.protocol, request, limit: plan.limit.or(Some(lab.timeout)) })
}

/// What one request alone does not tell: that a plain request met TLS, or that another Host would have been served.
async fn second_thoughts(
    lab: &Lab,
    subject: &Subject,
    address: &Address,
    first: &Attempt,
    shown: &mut Vec<X509>,
) -> Option<Failure> {
    let Some(policy) = &subject.policy else {
        let doubtful = [Cause::UpstreamReset, Cause::UpstreamInvalidResponse, Cause::UpstreamTimeout];
        if !first.cause().is_some_and(|cause| doubtful.contains(&cause) || cause == Cause::PlainToTlsPort) {
            return None;
        }
        let settings =
            Settings { verification: Verification::Off, session_reuse: false, ..Settings::default() };
        let name = host_name(&subject.host).trim_matches(['[', ']']).to_ascii_lowercase();
        let tls = Some((Arc::new(TlsPolicy::new(settings).ok()?), name));
        let over = lab
            .attempt(
                &address.target,
                &Way { tls, protocol: Protocol::Http1, request: Request::None, limit: Some(lab.timeout) },
            )
            .await;
        shown.extend(over.seen.presented.clone());
        let says_alert = matches!(
            over.cause(),
            Some(Cause::TlsSniUnrecognized | Cause::TlsNoSharedCipher | Cause::TlsProtocolVersion)
        );
        let is_tls = over.shaken.is_some() || !over.seen.presented.is_empty() || says_alert;
        let told = first.result.as_ref().err().map(|failure| failure.detail.clone()).unwrap_or_default();
        return is_tls.then(|| Failure::new(Cause::PlainToTlsPort, told));
    };
    let status = first.status().filter(|status| matches!(status, 403 | 404))?;
    let sni = &subject.identity;
    if !is_name(sni) || host_name(&subject.host).eq_ignore_ascii_case(sni) {
        return None;
    }
    let tls = Some((policy.clone(), sni.clone()));
    let request = get(Http::OneOne, sni, &subject.path);
    let way = Way { tls, protocol: subject.protocol, request, limit: Some(lab.timeout) };
    let other = lab.attempt(&address.target, &way).await.status()?;
    (!matches!(other, 403 | 404)).then(|| {
        let words = format!(
            "it answered {status} to the Host `{}` and {other} to `{sni}`, which is the SNI",
            subject.host
        );
        Failure::new(Cause::HostSniMismatch, words)
    })
}

/// What it takes to verify an upstream that is not verified as yet.
async fn verify(practice: &Practice<'_>, case: Case<'_>, address: &Address) -> Option<Fix> {
    let plan = case.verified(&Plan::of(case.subject));
    let way = way_of_plan(&plan, &case.subject.path, &practice.lab).ok()?;
    let attempt = practice.lab.attempt(&address.target, &way).await;
    match &attempt.result {
        Ok(_) => fix::of_plan(practice, &case, address, &plan).await,
        Err(failure) => {
            mend(practice, case, address, &Start { plan, failure, seen: &attempt.seen }).await.ok()
        }
    }
}

/// Tries what might mend it: a change of the block at fault, and where that would break others, of these routes alone.
async fn mend(
    practice: &Practice<'_>,
    mut case: Case<'_>,
    address: &Address,
    start: &Start<'_>,
) -> Result<Fix, Stuck> {
    let found = search(practice, &case, address, start).await;
    if case.subject.routes.is_empty() || !matches!(found, Err(Stuck::Unwritten)) {
        return found;
    }
    case.places = Places::new(&practice.config, case.subject, practice.written, Scope::Routes);
    search(practice, &case, address, start).await
}

/// Where a search begins.
struct Start<'a> {
    plan: Plan,
    failure: &'a Failure,
    seen: &'a Seen,
}

/// Why a search found nothing.
enum Stuck {
    /// Something would work, but cannot be written into the file, or would break others.
    Unwritten,
    /// Nothing goes further than this.
    At(Box<(Plan, Failure, Seen)>),
}

/// Goes on from what brings it further, until a request gets through.
async fn search(
    practice: &Practice<'_>,
    case: &Case<'_>,
    address: &Address,
    start: &Start<'_>,
) -> Result<Fix, Stuck> {
    let (mut plan, mut seen) = (start.plan.clone(), start.seen.clone());
    let mut failure = Failure::new(start.failure.cause, start.failure.detail.clone());
    let mut met = vec![failure.cause];
    loop {
        let mut plans = case.remedies(failure.cause, &plan, &seen);
        plans.retain(|plan| way_of_plan(plan, &case.subject.path, &practice.lab).is_ok());
        let ways = plans.iter().filter_map(|plan| way_of_plan(plan, &case.subject.path, &practice.lab).ok());
        let tried = practice.lab.all(&address.target, ways.collect()).await;
        let serves = |attempt: &Attempt| !matches!(attempt.status(), Some(403 | 404));
        let mut accepted: Vec<(&Plan, &Attempt)> =
            plans.iter().zip(&tried).filter(|(_, attempt)| attempt.result.is_ok()).collect();
        // One that is answered with what was asked for is better than one that is answered at all.
        accepted.sort_by_key(|(_, attempt)| !serves(attempt));
        for (plan, _) in &accepted {
            if let Some(fix) = fix::of_plan(practice, case, address, plan).await {
                return Ok(fix);
            }
        }
        if !accepted.is_empty() {
            return Err(Stuck::Unwritten);
        }
        let is_new = |failure: &Failure| !met.contains(&failure.cause) && is_further(failure.cause);
        let further = plans.into_iter().zip(tried).find_map(|(plan, attempt)| {
            let failure = attempt.result.err().filter(is_new)?;
            Some((plan, failure, attempt.seen))
        });
        let Some(further) = further else { return Err(Stuck::At(Box::new((plan, failure, seen)))) };
        (plan, failure, seen) = further;
        met.push(failure.cause);
    }
}

/// Whether there is something behind this cause that could be mended in its turn.
fn is_further(cause: Cause) -> bool {
    !matches!(
        cause,
        Cause::ConnectRefused
            | Cause::ConnectFailed
            | Cause::ConnectTimeout
            | Cause::TlsHandshakeTimeout
            | Cause::Internal
    )
}

/// What a healthy endpoint speaks besides.
async fn alternatives(lab: &Lab, subject: &Subject, address: &Address, finding: &mut Finding) {
    if subject.protocol != Protocol::Http1 {
        return;
    }
    let old = get(Http::OneZero, &subject.host, &subject.path);
    let mut ways = vec![Way { request: old, ..way_of(subject, lab) }];
    if let Some(policy) = &subject.policy {
        let settings =
            Settings { alpn: Alpn::Both, session_reuse: false, key_log: None, ..policy.settings.clone() };
        if let Ok(policy) = TlsPolicy::new(settings) {
            let tls = Some((Arc::new(policy), subject.identity.clone()));
            let (protocol, request) = (Protocol::Auto, Request::None);
            ways.push(Way { tls, protocol, request, limit: Some(lab.timeout) });
        }
    }
    let tried = lab.all(&address.target, ways).await;
    let mut tell = |text: &str| finding.notes.push(Note { verdict: Verdict::Good, text: text.to_owned() });
    if tried.first().is_some_and(|it| it.cause() == Some(Cause::Upstream426)) {
        tell("it answers 426 to HTTP/1.0, which this gateway never sends");
    }
    let chosen = tried.get(1).and_then(|it| it.tls.as_ref()?.alpn.as_deref());
    if chosen == Some("h2") {
        tell("it speaks HTTP/2 too: `protocol: auto` would use it");
    }
}

fn blank(subject: &Subject, address: Option<&Address>) -> Finding {
    let verified =
        subject.policy.as_ref().map(|policy| policy.names_for(&subject.identity)).unwrap_or_default();
    Finding {
        route: subject.names.first().cloned(),
        routes: subject.names.clone(),
        upstream: subject.upstream.clone(),
        endpoint: subject.endpoint.text.clone(),
        address: address.map(|address| address.text.to_string()),
        host: subject.host.clone(),
        sni: is_name(&subject.identity).then(|| subject.identity.clone()),
        verified: verified.iter().map(ToString::to_string).collect(),
        verdict: Verdict::Good,
        code: None,
        what: String::new(),
        detail: String::new(),
        notes: assumption(subject).into_iter().collect(),
        tls: None,
        steps: Vec::new(),
        trials: Vec::new(),
        chain: Vec::new(),
        accepted_issuers: Vec::new(),
        fix: None,
    }
}

/// Where the file leaves it to the client which SNI is sent.
fn assumption(subject: &Subject) -> Option<Note> {
    let text = format!(
        "no route says which Hosts clients send, and the SNI depends on it: `{}` was taken; `--host NAME` takes another",
        subject.client_host
    );
    subject.assumed.then_some(Note { verdict: Verdict::Good, text })
}

fn note_steps(finding: &mut Finding, attempt: &Attempt, subject: &Subject) {
    let mut add = |step, good, outcome: String, took: Option<Duration>| {
        let ms = took.map(|took| took.as_millis() as u64);
        finding.steps.push(Step { step, good, outcome, ms });
    };
    // What the code means is said with the verdict.
    let failed = attempt.cause().map(Cause::code).unwrap_or_default().to_owned();
    let Some(connected) = attempt.connected else {
        return add("connect", false, failed, Some(attempt.took));
    };
    add("connect", true, "connected".to_owned(), Some(connected));
    if subject.policy.is_some() {
        let Some(shaken) = attempt.shaken else {
            return add("handshake", false, failed, Some(attempt.took.saturating_sub(connected)));
        };
        let agreed = attempt.tls.as_ref();
        let outcome = agreed.map_or(String::new(), |tls| format!("{}, {}", tls.version, tls.cipher));
        add("handshake", true, outcome, Some(shaken));
    }
    if subject.speaks == Speaks::Http {
        let outcome = match (&attempt.result, attempt.status()) {
            (Ok(_), Some(status)) => {
                format!("GET {} with the Host `{}`: {status}", subject.path, subject.host)
            }
            (Ok(_), None) => String::new(),
            (Err(_), _) => format!("GET {} with the Host `{}`: {failed}", subject.path, subject.host),
        };
        add("request", attempt.result.is_ok(), outcome, attempt.answered);
    }
    finding.tls = attempt.tls.as_ref().map(|tls| Agreed {
        version: tls.version.clone(),
        cipher: tls.cipher.clone(),
        alpn: tls.alpn.clone(),
    });
}

fn note_certificates(finding: &mut Finding, subject: &Subject, works: bool) {
    let Some(policy) = &subject.policy else { return };
    let mut warn = |text: String| finding.notes.push(Note { verdict: Verdict::Warning, text });
    if is_off(policy) {
        warn("`verify: off`: anybody in between can pose as this upstream".to_owned());
    }
    let soon = finding.chain.iter().filter(|it| works && it.days_left < SOON);
    for text in
        soon.map(|it| format!("`{}` expires in {} days", it.subject, it.days_left)).collect::<Vec<_>>()
    {
        warn(text);
    }
    let own = policy.settings.identity.as_ref().and_then(|identity| identity.chain.first());
    if let Some(own) = own.filter(|own| days_left(own) < SOON) {
        let (subject, days) = (name_text(own.subject_name()), days_left(own));
        warn(match days {
            ..0 => format!("the client certificate `{subject}` has been out of date for {} days", -days),
            _ => format!("the client certificate `{subject}` expires in {days} days"),
        });
    }
}

fn settle(finding: &mut Finding, failure: Option<Failure>) {
    match failure {
        Some(failure) => {
            finding.verdict = Verdict::Bad;
            finding.code = Some(failure.cause.code());
            finding.what = failure.cause.what().to_owned();
            finding.detail = failure.detail;
        }
        None => {
            finding.verdict = finding.notes.iter().map(|note| note.verdict).max().unwrap_or(Verdict::Good);
            finding.what = "requests get through".to_owned();
        }
    }
}
