//! From a plan that worked to the edit of the user's own file, which is compiled and tried once more; and words where no
//! edit mends it.

use std::sync::Arc;
use std::time::Duration;

use openssl::x509::X509ExtendedKeyUsage;
use serde_yaml::Value;
use vestibule_plugins::problem::did_you_mean;

use super::chain::{days_left, ordered};
use super::examine::{Practice, way_of};
use super::place::{Edit, joined};
use super::probe::{Attempt, Way};
use super::remedy::{Case, Plan};
use super::report::{FileChange, Fix};
use super::target::{Subject, Wanted, subjects, with_unused_upstreams};
use crate::config::{self, Config, Document, EndpointAddress, edit};
use crate::diagnose::{Cause, Failure, name_text, names_of};
use crate::snapshot;
use crate::upstream::{Address, Seen, Settings, TlsPolicy, Verification};

/// The edits of a plan that a request got through with; nothing where the changed file would not do the same.
pub async fn of_plan(
    practice: &Practice<'_>,
    case: &Case<'_>,
    address: &Address,
    plan: &Plan,
) -> Option<Fix> {
    let changes = changes(&practice.document, &joined(&plan.edits))?;
    let fix = Fix { words: plan.words.clone(), tried: true, changes, save: plan.save.clone() };
    if !fix.save.is_empty() {
        // The edits name a file that is not there yet, so the changed file cannot be compiled: what was tried is the plan.
        return (!harms(practice, case.subject, plan).await).then_some(fix);
    }
    works(practice, case.subject, address, &fix).await.then_some(fix)
}

/// Whether another endpoint or route of the upstream that was well would not be with what this plan trusts and shows.
async fn harms(practice: &Practice<'_>, subject: &Subject, plan: &Plan) -> bool {
    let Some((wanted, _)) = &plan.tls else { return false };
    let others = practice.all.iter().filter(|it| it.upstream == subject.upstream && !is_same(subject, it));
    for other in others {
        let (Some(policy), Some(address)) = (&other.policy, other.endpoint.addresses().first().cloned())
        else {
            continue;
        };
        let mut settings = Settings { session_reuse: false, key_log: None, ..policy.settings.clone() };
        if let (Verification::On(trust), Verification::On(wanted)) =
            (&mut settings.verification, &wanted.verification)
        {
            trust.roots = wanted.roots.clone();
        }
        settings.identity = wanted.identity.clone();
        let before = way_of(other, &practice.lab);
        let Ok(policy) = TlsPolicy::new(settings) else { return true };
        let after = Way { tls: Some((Arc::new(policy), other.identity.clone())), ..before.clone() };
        if let [before, after] = practice.lab.all(&address.target, vec![before, after]).await.as_slice()
            && before.result.is_ok()
            && after.result.is_err()
        {
            return true;
        }
    }
    false
}

/// Whether both are the same endpoint, reached by the same route.
fn is_same(a: &Subject, b: &Subject) -> bool {
    a.upstream == b.upstream
        && a.endpoint.text == b.endpoint.text
        && a.speaks == b.speaks
        && (a.routes.is_empty() || a.routes.iter().any(|route| b.routes.contains(route)))
}

/// Compiles the changed files and makes the request with them, as `run` would.
async fn works(practice: &Practice<'_>, subject: &Subject, address: &Address, fix: &Fix) -> bool {
    let texts = practice.document.files().iter().map(|file| {
        let changed = fix.changes.iter().find(|change| change.file == *file);
        let text = changed.map(|change| Ok(change.after.clone().into_bytes()));
        Some((file.clone(), text.unwrap_or_else(|| std::fs::read(file)).ok()?))
    });
    let Some(texts) = texts.collect::<Option<Vec<_>>>() else { return false };
    let Ok(mut loaded) = config::load::join(texts, practice.document.base()) else { return false };
    let written = loaded.config.routes.len();
    with_unused_upstreams(&mut loaded);
    let Ok(snapshot) = snapshot::compile(&loaded, practice.workshop) else { return false };
    let snapshot = Arc::new(snapshot);
    let reached = |host: Option<String>| {
        subjects(&loaded.config, &snapshot, written, &Wanted { name: None, host }).unwrap_or_default()
    };
    let changed = reached(Some(subject.client_host.clone()));
    let Some(mended) = changed.iter().find(|other| is_same(subject, other)) else { return false };
    let lab = &practice.lab;
    if lab.attempt(&address.target, &way_of(mended, lab)).await.result.is_err() {
        return false;
    }
    // Whoever shares the upstream and was well has to be well still.
    let changed = reached(practice.host.clone());
    for before in practice.all.iter().filter(|it| it.upstream == subject.upstream && !is_same(subject, it)) {
        let after = changed.iter().find(|after| is_same(before, after));
        let (Some(after), Some(address)) = (after, before.endpoint.addresses().first().cloned()) else {
            continue;
        };
        let ways = vec![way_of(before, lab), way_of(after, lab)];
        if let [before, after] = lab.all(&address.target, ways).await.as_slice()
            && before.result.is_ok()
            && after.result.is_err()
        {
            return false;
        }
    }
    true
}

/// The edits as changes of the files; nothing where the file is written in a way that one of them would break.
fn changes(document: &Document, edits: &[Edit]) -> Option<Vec<FileChange>> {
    let edits = edits.iter().map(|edit| match edit {
        Edit::Set(path, value) => edit::Edit::Set { path: path.clone(), value: in_one_line(value) },
        Edit::Remove(path) => edit::Edit::Remove { path: path.clone() },
    });
    let changes = edit::apply(document, &edits.collect::<Vec<_>>());
    let changes = changes.inspect_err(|error| log::debug!("an edit is not possible: {error}")).ok()?;
    let changes = changes.into_iter().map(|change| FileChange {
        diff: change.diff(),
        file: change.file,
        after: change.after,
    });
    Some(changes.collect())
}

fn in_one_line(value: &Value) -> String {
    match value {
        Value::String(text) => edit::quoted(text),
        Value::Sequence(items) => {
            format!("[{}]", items.iter().map(in_one_line).collect::<Vec<_>>().join(", "))
        }
        Value::Mapping(map) if map.is_empty() => "{}".to_owned(),
        Value::Mapping(map) => {
            let entries =
                map.iter().map(|(key, value)| format!("{}: {}", in_one_line(key), in_one_line(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::Null | Value::Tagged(_) => String::new(),
    }
}

/// What there is to say of a failure that nothing was found against.
pub struct Told<'a> {
    /// What was tried on the way and went further, if not to the end.
    pub plan: &'a Plan,
    /// What it led to.
    pub failure: &'a Failure,
    /// What the last handshake showed.
    pub seen: &'a Seen,
    /// The request as the file has it.
    pub first: &'a Attempt,
}

/// What is to be done where no edit was found that mends it.
pub fn words_alone(practice: &Practice<'_>, case: &Case<'_>, told: &Told<'_>) -> Option<Fix> {
    let Told { plan, failure, seen, first } = told;
    let shown = &seen.presented;
    let mut edits = Vec::new();
    let mut words = match failure.cause {
        Cause::ConnectRefused => other_ports(case.config, case.subject),
        Cause::ConnectTimeout => vec![
            format!(
                "nothing came back within {}: look for a firewall in between that drops packets",
                ms(first.took)
            ),
            "check the address and the port under `endpoints`".to_owned(),
        ],
        Cause::TlsHandshakeTimeout => vec![format!(
            "the connection took {}, and then nothing ended the handshake within {}: see whether the upstream is \
             overloaded, or waits for something before TLS, such as the PROXY protocol",
            ms(first.connected.unwrap_or_default()),
            ms(first.took.saturating_sub(first.connected.unwrap_or_default())),
        )],
        Cause::TlsExpired | Cause::TlsRevoked => {
            vec!["no key of the file mends it: the upstream needs a new certificate".to_owned()]
        }
        Cause::TlsNotYetValid => vec![format!(
            "no key of the file mends it: the clock here says {}; set the one of the two that is wrong, or have the \
             certificate made anew",
            jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
        )],
        Cause::TlsCrlUnusable => {
            let issuers: Vec<String> = ordered(shown).iter().map(|it| name_text(it.issuer_name())).collect();
            vec![format!(
                "put the present lists of `{}` into the file of `verify: {{ crl: FILE }}`: each CA publishes its own",
                issuers.join("` and `")
            )]
        }
        Cause::TlsNameMismatch => {
            let names = shown.first().map(|leaf| names_of(leaf)).unwrap_or_default();
            vec![format!(
                "the certificate is for `{}`: choose the name that the upstream goes by, and write \
                 `verify: {{ name: NAME }}`",
                names.join("`, `")
            )]
        }
        Cause::TlsClientCertificateRequired | Cause::TlsClientCertificateRejected => {
            edits = plan.edits.iter().cloned().chain(case.placeholder_pair()).collect();
            client_certificate(failure.cause, case.subject, seen)
        }
        Cause::TlsSniMissing | Cause::TlsSniUnrecognized | Cause::TlsPeerReset => {
            let names = case.names();
            let tried = match names.is_empty() {
                true => "the file knows no name to try".to_owned(),
                false => format!("it accepts none of `{}`", names.join("`, `")),
            };
            vec![format!(
                "{tried}: ask who runs the upstream for the name that it serves, and write `tls: {{ sni: NAME }}`"
            )]
        }
        cause => vec![cause.remedy().to_owned()],
    };
    if !plan.words.is_empty() {
        let then = format!("and then {}: {}, {}", failure.cause.code(), failure.cause.what(), failure.detail);
        words = plan.words.iter().cloned().chain([then]).chain(words).collect();
    }
    let changes = changes(&practice.document, &joined(&edits)).unwrap_or_default();
    Some(Fix { words, tried: false, changes, save: Vec::new() }).filter(|fix| !fix.words.concat().is_empty())
}

/// What is to be done about a name without an address.
pub fn for_name(config: &Config, subject: &Subject) -> Option<Fix> {
    let (name, _) = subject.endpoint.name.as_ref()?;
    let endpoints = config.upstreams.values().flat_map(|upstream| &upstream.endpoints);
    let others = endpoints.filter_map(|endpoint| match &endpoint.address {
        EndpointAddress::Name { host, .. } if host != name => Some(host.as_str()),
        _ => None,
    });
    let others: Vec<&str> = others.chain(["localhost"]).collect();
    let near = did_you_mean(name, others);
    let words = near.into_iter().chain([
        format!("ask this machine for it, `getent hosts {name}`: where that knows it, the name servers of /etc/resolv.conf do not"),
        "correct the name under `endpoints`".to_owned(),
    ]);
    Some(Fix { words: words.collect(), tried: false, changes: Vec::new(), save: Vec::new() })
}

/// Ports of the same host that the file names elsewhere.
fn other_ports(config: &Config, subject: &Subject) -> Vec<String> {
    let host = |endpoint: &str| endpoint.rsplit_once(':').map(|(host, _)| host.to_owned());
    let own = host(&subject.endpoint.text);
    let endpoints = config.upstreams.values().flat_map(|upstream| &upstream.endpoints);
    let texts = endpoints.map(|endpoint| endpoint.address.to_string());
    let mut others: Vec<String> =
        texts.filter(|text| own.is_some() && host(text) == own && *text != subject.endpoint.text).collect();
    others.dedup();
    let mut words = vec!["start the upstream, or correct the port under `endpoints`".to_owned()];
    if !others.is_empty() {
        words.push(format!("of the same host, the file also names `{}`", others.join("`, `")));
    }
    words
}

fn client_certificate(cause: Cause, subject: &Subject, seen: &Seen) -> Vec<String> {
    let mut words = Vec::new();
    let identity = subject.policy.as_ref().and_then(|policy| policy.settings.identity.as_ref());
    if let Some(leaf) = identity.and_then(|identity| identity.chain.first())
        && cause == Cause::TlsClientCertificateRejected
    {
        let (name, issuer) = (name_text(leaf.subject_name()), name_text(leaf.issuer_name()));
        words.push(format!(
            "what was shown is `{name}`, signed by `{issuer}`, with {} days left",
            days_left(leaf)
        ));
        let client = X509ExtendedKeyUsage::SSL_CLIENT | X509ExtendedKeyUsage::ANYEKU;
        if leaf.extended_key_usage().is_some_and(|usage| !usage.intersects(client)) {
            words.push(
                "its extended key usage does not include client authentication: have one made that does"
                    .into(),
            );
        }
    }
    words.push(match seen.accepted_issuers.as_slice() {
        [] => "no certificate at hand is accepted: ask who runs the upstream for one".to_owned(),
        issuers => format!(
            "no certificate at hand is accepted: the upstream accepts those signed by `{}`",
            issuers.join("`, `")
        ),
    });
    words
}

fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
