//! `client_certificate`: which of the clients that show a certificate may pass.
//!
//! ```yaml
//! - client_certificate: {}                                       # any verified certificate
//! - client_certificate: { organizations: [devs, ops] }
//! - client_certificate:
//!     subjects: ["CN=alice,O=devs"]                              # as ${client_cert.subject} has it
//!     common_names: [alice, bob]
//!     organizations: devs
//!     dns: [batch.corp.example, "*.jobs.corp.example"]           # of its alternative names
//!     uris: ["spiffe://corp.example/ns/prod/*"]                  # the same
//!     fingerprints: ["9F:86:D0:81:88:4C:7D:65:9A:2F:EA:A0:C5:5A:D0:15:A3:BF:4F:1B:2B:0B:82:2C:D1:5D:6C:15:B0:F0:0A:08"]
//! ```
//!
//! Each list that is given must have something that the certificate has; within a list, any one will do. Texts are
//! compared whole, with upper and lower case told apart but in names of DNS and fingerprints. `*.corp.example` is every
//! DNS name below, as in a route's `hosts`, and `/*` at the end of a URI is every path below. A fingerprint is the
//! SHA-256 of the certificate in hex, with colons or without.
//!
//! All others, and whoever has shown none, are refused with 403. Whether a certificate is asked for, and which CAs may
//! have signed it, is the listener's to say.

use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::problem::{Path, Problem};
use crate::text::Text;
use crate::{
    Build, ClientCertificate as Certificate, Hooks, OneOrMany, Plugin, Refusal, RequestInfo, Setting,
    Verdict, Why,
};

/// Lets those clients pass whose certificate is as it says.
pub struct ClientCertificate {
    rules: Vec<Rule>,
}

/// What a client's certificate has to have: of each list that is given, something.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientCertificateConfig {
    /// Its subject, as RFC 4514 writes it.
    subjects: Option<OneOrMany<Text>>,
    /// Its subject's common name.
    common_names: Option<OneOrMany<Text>>,
    /// One of its subject's organisations.
    organizations: Option<OneOrMany<Text>>,
    /// One of its alternative names: a DNS name, or `*.suffix` for every one below.
    dns: Option<OneOrMany<Text>>,
    /// One of its alternative names: a URI, or `scheme://authority/path/*` for every one below.
    uris: Option<OneOrMany<Text>>,
    /// Its SHA-256 in hex, with colons or without.
    fingerprints: Option<OneOrMany<Text>>,
}

/// One list.
struct Rule {
    part: Part,
    any: Vec<Pattern>,
}

#[derive(Clone, Copy)]
enum Part {
    Subject,
    CommonName,
    Organization,
    Dns,
    Uri,
    Fingerprint,
}

#[derive(Debug, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    /// More than this, at the end of it.
    Below(String),
    /// More than this, in front of it.
    Suffix(String),
}

impl Build for ClientCertificate {
    type Config = ClientCertificateConfig;

    fn build(config: ClientCertificateConfig, _: &Setting<'_>) -> Result<Self, Vec<Problem>> {
        let ClientCertificateConfig { subjects, common_names, organizations, dns, uris, fingerprints } =
            config;
        let (mut rules, mut problems) = (Vec::new(), Vec::new());
        for (key, part, list) in [
            ("subjects", Part::Subject, subjects),
            ("common_names", Part::CommonName, common_names),
            ("organizations", Part::Organization, organizations),
            ("dns", Part::Dns, dns),
            ("uris", Part::Uri, uris),
            ("fingerprints", Part::Fingerprint, fingerprints),
        ] {
            let Some(OneOrMany(texts)) = list else { continue };
            let at = Path::root().key(key);
            if texts.is_empty() {
                problems.push(
                    Problem::new(at.clone(), "an empty list lets nobody pass")
                        .hint("leave the key out, where it is not to matter"),
                );
            }
            let mut any = Vec::new();
            for (index, Text(text)) in texts.into_iter().enumerate() {
                match part.pattern(&text) {
                    Ok(pattern) => any.push(pattern),
                    Err(problem) => problems.push(problem.under(&at.index(index))),
                }
            }
            rules.push(Rule { part, any });
        }
        if problems.is_empty() { Ok(Self { rules }) } else { Err(problems) }
    }
}

impl Plugin for ClientCertificate {
    fn hooks(&self) -> Hooks {
        Hooks { request: true, ..Hooks::default() }
    }

    fn authenticates(&self) -> bool {
        true
    }

    fn request(&self, _: &mut RequestHeader, info: &RequestInfo<'_>) -> Verdict {
        let detail = match info.client_certificate {
            Some(certificate) if self.rules.iter().all(|rule| rule.takes(certificate)) => {
                return Verdict::Continue;
            }
            Some(certificate) => {
                format!("the client's certificate {} is none of those that may pass", certificate.fingerprint)
            }
            None => "the client has shown no certificate".to_owned(),
        };
        Verdict::Refuse(Refusal { status: 403, headers: Vec::new(), why: Why::Forbidden, detail })
    }
}

impl Rule {
    fn takes(&self, certificate: &Certificate) -> bool {
        let fits = |text: &str| self.any.iter().any(|pattern| pattern.fits(text, self.part));
        match self.part {
            Part::Subject => fits(&certificate.subject),
            Part::CommonName => certificate.common_name.as_deref().is_some_and(fits),
            Part::Organization => certificate.organizations.iter().any(|it| fits(it)),
            Part::Dns => certificate.dns_names.iter().any(|it| fits(it)),
            Part::Uri => certificate.uris.iter().any(|it| fits(it)),
            Part::Fingerprint => fits(&certificate.fingerprint),
        }
    }
}

impl Pattern {
    fn fits(&self, text: &str, part: Part) -> bool {
        let (text_end, same): (usize, fn(&str, &str) -> bool) = match part {
            Part::Dns => (text.trim_end_matches('.').len(), str::eq_ignore_ascii_case),
            _ => (text.len(), |one, other| one == other),
        };
        let text = &text[..text_end];
        match self {
            Self::Exact(exact) => same(text, exact),
            Self::Below(prefix) => text.len() > prefix.len() && text.starts_with(prefix) && !climbs(text),
            Self::Suffix(suffix) => {
                let at = text.len().checked_sub(suffix.len()).filter(|at| *at > 0);
                at.and_then(|at| text.get(at..)).is_some_and(|end| same(end, suffix))
            }
        }
    }
}

/// Whether a path has a `.` or `..` for an element: whoever resolves it may find it above what it seems to be below. SPIFFE
/// forbids both (SPIFFE-ID section 2.2).
fn climbs(uri: &str) -> bool {
    uri.split(['/', '?', '#']).any(|element| {
        let plain = element.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    })
}

impl Part {
    fn pattern(self, text: &str) -> Result<Pattern, Problem> {
        let problem = |message: String| Problem::new(Path::root(), message);
        let exact = |text: &str| Ok(Pattern::Exact(text.to_owned()));
        match self {
            _ if text.is_empty() => Err(problem("an empty text fits no certificate".into())),
            Self::Subject | Self::CommonName | Self::Organization => match text.contains('*') {
                false => exact(text),
                true => Err(problem(format!("`{text}` has a `*`, and stands for itself alone here")).hint(
                    "`*` is for `dns` and `uris`; `organizations` is what many certificates have in common",
                )),
            },
            Self::Dns => {
                let name = text.strip_suffix('.').unwrap_or(text);
                match name.strip_prefix("*.") {
                    Some(suffix) if is_name(suffix) => Ok(Pattern::Suffix(format!(".{suffix}"))),
                    None if is_name(name) => exact(name),
                    _ => Err(problem(format!("`{text}` is no DNS name"))
                        .hint("write `batch.corp.example`, or `*.corp.example` for every name below")),
                }
            }
            Self::Uri => {
                let (body, pattern): (&str, fn(String) -> Pattern) = match text.strip_suffix('*') {
                    Some(prefix) if prefix.ends_with('/') => (prefix, Pattern::Below),
                    _ => (text, Pattern::Exact),
                };
                let has_authority = body.split_once("://").is_some_and(|(scheme, rest)| {
                    !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/')
                });
                match has_authority && !body.contains('*') {
                    true => Ok(pattern(body.to_owned())),
                    false => Err(problem(format!("`{text}` is no URI")).hint(
                        "write `spiffe://corp.example/ns/prod/app`, or `spiffe://corp.example/ns/prod/*` for every one below",
                    )),
                }
            }
            Self::Fingerprint => {
                let hex: String = text.chars().filter(|it| *it != ':').collect();
                match hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    true => Ok(Pattern::Exact(hex.to_ascii_lowercase())),
                    false => Err(problem(format!("`{text}` is not the hex form of a SHA-256"))
                        .hint("`openssl x509 -noout -fingerprint -sha256 -in FILE` prints it")),
                }
            }
        }
    }
}

fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{INFO, get, plugin, plugins_of_doc, refusal};

    fn certificate() -> Certificate {
        Certificate {
            subject: "CN=alice,O=devs".into(),
            common_name: Some("alice".into()),
            organizations: vec!["devs".into(), "ops".into()],
            dns_names: vec!["a.jobs.corp.example".into()],
            uris: vec!["spiffe://corp.example/ns/prod/app".into()],
            fingerprint: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into(),
            ..Certificate::default()
        }
    }

    fn passes(config: &str, certificate: Option<&Certificate>) -> bool {
        let plugin = plugin("client_certificate", config).unwrap();
        let info = RequestInfo { client_certificate: certificate, ..INFO };
        match plugin.request(&mut get("/"), &info) {
            Verdict::Continue => true,
            Verdict::Refuse(refusal) => {
                assert_eq!((refusal.status, refusal.why), (403, Why::Forbidden));
                false
            }
            Verdict::Respond(_) => panic!("{config}"),
        }
    }

    #[test]
    fn the_yaml_of_the_module_doc_loads() {
        assert_eq!(plugins_of_doc(include_str!("client_certificate.rs")).len(), 3);
    }

    #[test]
    fn any_of_a_list_will_do_and_of_every_list_there_must_be_one() {
        for (config, expected) in [
            ("{}", true),
            ("{ subjects: [CN=bob, \"CN=alice,O=devs\"] }", true),
            ("{ subjects: CN=alice }", false),
            ("{ common_names: [bob, alice] }", true),
            ("{ common_names: Alice }", false),
            ("{ organizations: ops }", true),
            ("{ organizations: [op] }", false),
            ("{ organizations: devs, common_names: alice }", true),
            ("{ organizations: devs, common_names: bob }", false),
            ("{ dns: A.Jobs.corp.example. }", true),
            ("{ dns: \"*.JOBS.corp.example\" }", true),
            ("{ dns: \"*.corp.example\" }", true),
            ("{ dns: \"*.a.jobs.corp.example\" }", false),
            ("{ dns: jobs.corp.example }", false),
            ("{ dns: \"*.obs.corp.example\" }", false),
            ("{ uris: \"spiffe://corp.example/ns/prod/app\" }", true),
            ("{ uris: \"spiffe://corp.example/*\" }", true),
            ("{ uris: \"spiffe://corp.example/ns/prod/app/*\" }", false),
            ("{ uris: \"spiffe://corp.example/ns/pro\" }", false),
            ("{ uris: \"spiffe://corp.example/NS/*\" }", false),
            (
                "{ fingerprints: \"9F:86:D0:81:88:4C:7D:65:9A:2F:EA:A0:C5:5A:D0:15:A3:BF:4F:1B:2B:0B:82:2C:D1:5D:6C:15:B0:F0:0A:08\" }",
                true,
            ),
            ("{ fingerprints: \"0000000000000000000000000000000000000000000000000000000000000000\" }", false),
        ] {
            assert_eq!(passes(config, Some(&certificate())), expected, "{config}");
            assert!(!passes(config, None), "{config}");
        }
    }

    #[test]
    fn what_a_certificate_lacks_fits_nothing() {
        let bare = Certificate { subject: "CN=a,CN=b".into(), ..Certificate::default() };
        for key in ["common_names: a", "organizations: a", "dns: a", "uris: \"a://b/*\""] {
            assert!(!passes(&format!("{{ {key} }}"), Some(&bare)), "{key}");
        }
        assert!(passes("{ subjects: \"CN=a,CN=b\" }", Some(&bare)));
    }

    #[test]
    fn no_uri_climbs_to_where_it_is_not() {
        for (uri, expected) in [
            ("spiffe://corp.example/ns/prod/../dev/app", false),
            ("spiffe://corp.example/ns/prod/%2E%2e/dev/app", false),
            ("spiffe://corp.example/ns/prod/./app", false),
            ("spiffe://corp.example/ns/prod/", false),
            ("spiffe://corp.example/ns/prod", false),
            ("spiffe://corp.example/ns/production/app", false),
            ("spiffe://corp.example/ns/prod/..app", true),
        ] {
            let certificate = Certificate { uris: vec![uri.into()], ..Certificate::default() };
            assert_eq!(
                passes("{ uris: \"spiffe://corp.example/ns/prod/*\" }", Some(&certificate)),
                expected,
                "{uri}"
            );
        }
    }

    #[test]
    fn a_wrong_rule_is_refused_with_what_to_write_instead() {
        for (config, told) in [
            ("{ subjects: [] }", "subjects: an empty list lets nobody pass"),
            ("{ subjects: [\"CN=*\"] }", "subjects[0]: `CN=*` has a `*`, and stands for itself alone here"),
            ("{ common_names: [a, \"\"] }", "common_names[1]: an empty text fits no certificate"),
            ("{ dns: [a.*.b] }", "dns[0]: `a.*.b` is no DNS name"),
            ("{ dns: \"*\" }", "dns[0]: `*` is no DNS name"),
            ("{ uris: [corp.example/app] }", "uris[0]: `corp.example/app` is no URI"),
            ("{ uris: [\"spiffe://*\"] }", "uris[0]: `spiffe://*` is no URI"),
            ("{ uris: [\"spiffe://a/b*\"] }", "uris[0]: `spiffe://a/b*` is no URI"),
            ("{ fingerprints: abcd }", "fingerprints[0]: `abcd` is not the hex form of a SHA-256"),
            ("{ subject: CN=a }", "unknown key `subject`"),
        ] {
            let refused = refusal("client_certificate", config);
            assert!(refused.contains(told), "{config}: {refused}");
        }
    }
}
