//! `kube_impersonate`: asks the Kubernetes API as the client, with the gateway's own certificate.
//!
//! ```yaml
//! - kube_impersonate: { from: client_certificate }   # CN is the user, each O a group, as the API server has it
//! - kube_impersonate:
//!     from: jwt               # a `jwt` plugin stands before it
//!     user_claim: email       # default sub
//!     groups_claim: groups    # default none
//!     user_prefix: "oidc:"    # default none; likewise groups_prefix
//!     groups_prefix: "oidc:"
//!     uid_claim: sub          # default none
//!     extra: { scopes: scope }   # names of Impersonate-Extra-, each with the claim that it is
//! - kube_impersonate: { from: client_certificate, allow_system: true }
//! ```
//!
//! The request goes to the upstream with `Impersonate-User`, `Impersonate-Group`, `Impersonate-Uid` and
//! `Impersonate-Extra-*`, so the gateway's certificate needs the right to impersonate, and nothing else. Whatever the client
//! says of itself by `Impersonate-*`, `X-Remote-*`, `Authorization` or a bearer token among its WebSocket protocols is
//! removed first. Without an identity it is a 401.
//!
//! Users and groups that begin with `system:` are the API server's own; `system:masters` may do everything. A client that
//! claims one gets a 403, unless `allow_system` is true. `system:authenticated` is added by the API server itself.

use std::collections::BTreeMap;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::field::FieldPattern;
use crate::problem::{Path, Problem};
use crate::{Build, Hooks, Plugin, Refusal, RequestInfo, Setting, Verdict, Why, claims};

/// Writes the client's verified identity as the one to impersonate.
pub struct KubeImpersonate {
    source: Source,
    allow_system: bool,
    removed: [FieldPattern; 2],
}

enum Source {
    ClientCertificate,
    Jwt(Claims),
}

struct Claims {
    user: String,
    groups: Option<String>,
    uid: Option<String>,
    user_prefix: String,
    groups_prefix: String,
    extra: Vec<(HeaderName, String)>,
}

/// Whom a request is made as.
#[derive(Default)]
struct Subject {
    user: String,
    uid: Option<String>,
    groups: Vec<String>,
    extra: Vec<(HeaderName, String)>,
}

/// Asks the Kubernetes API as the client, by what is verified of it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubeImpersonateConfig {
    /// Where the identity comes from.
    from: SourceConfig,
    /// The claim that is the user. Default `sub`.
    user_claim: Option<String>,
    /// The claim that is the list of groups. Default: no groups.
    groups_claim: Option<String>,
    /// The claim that is the user's uid. Default: none.
    uid_claim: Option<String>,
    /// What stands before each user of a token, so that it is nobody else's name.
    user_prefix: Option<String>,
    /// What stands before each group of a token.
    groups_prefix: Option<String>,
    /// Further attributes, each with the claim that it is.
    extra: Option<BTreeMap<String, String>>,
    /// Whether users and groups may begin with `system:`. Default false.
    #[serde(default)]
    allow_system: bool,
}

/// Where an identity comes from.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum SourceConfig {
    /// The client's certificate, which its listener asks for.
    ClientCertificate,
    /// The token that a `jwt` plugin before this one has verified.
    Jwt,
}

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
const SYSTEM: &str = "system:";
/// The API server takes a token from among the protocols of a WebSocket, since browsers can send it in no other way.
const WEBSOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

impl Build for KubeImpersonate {
    type Config = KubeImpersonateConfig;

    fn build(config: KubeImpersonateConfig, _: &Setting<'_>) -> Result<Self, Vec<Problem>> {
        let root = Path::root();
        let mut problems = Vec::new();
        let KubeImpersonateConfig {
            from,
            user_claim,
            groups_claim,
            uid_claim,
            user_prefix,
            groups_prefix,
            extra,
            allow_system,
        } = config;
        if from == SourceConfig::ClientCertificate {
            let of_tokens = [
                ("user_claim", user_claim.is_some()),
                ("groups_claim", groups_claim.is_some()),
                ("uid_claim", uid_claim.is_some()),
                ("user_prefix", user_prefix.is_some()),
                ("groups_prefix", groups_prefix.is_some()),
                ("extra", extra.is_some()),
            ];
            for (key, _) in of_tokens.iter().filter(|(_, is_given)| *is_given) {
                problems.push(
                    Problem::new(root.key(*key), format!("`{key}` is about tokens, and the identity here comes from the client's certificate"))
                        .hint("leave it out, or write `from: jwt`"),
                );
            }
        }
        let named = [("user_claim", &user_claim), ("groups_claim", &groups_claim), ("uid_claim", &uid_claim)];
        for (key, claim) in named {
            if claim.as_deref() == Some("") {
                problems.push(Problem::new(root.key(key), "an empty text is no claim's name"));
            }
        }
        if groups_prefix.is_some() && groups_claim.is_none() && from == SourceConfig::Jwt {
            problems.push(
                Problem::new(root.key("groups_prefix"), "there are no groups without a `groups_claim`")
                    .hint("write `groups_claim: groups`, or leave this out"),
            );
        }
        for (key, prefix) in [("user_prefix", &user_prefix), ("groups_prefix", &groups_prefix)] {
            if let Some(prefix) = prefix
                && HeaderValue::from_str(prefix).is_err()
            {
                problems.push(Problem::new(
                    root.key(key),
                    "a prefix goes into a header, where such characters cannot stand",
                ));
            }
        }
        let mut attributes = Vec::new();
        for (name, claim) in extra.unwrap_or_default() {
            match extra_header(&name) {
                Some(header) if !claim.is_empty() => attributes.push((header, claim)),
                Some(_) => {
                    problems
                        .push(Problem::new(root.key("extra").key(name), "an empty text is no claim's name"));
                }
                None => problems.push(
                    Problem::new(
                        root.key("extra").key(&name),
                        "an attribute's name is in lower case, and not empty",
                    )
                    .hint("the API server reads it so in any case"),
                ),
            }
        }
        let prefixes = ["impersonate-*", "x-remote-*"].map(FieldPattern::parse);
        let removed = match prefixes {
            [Ok(one), Ok(other)] if problems.is_empty() => [one, other],
            prefixes => {
                problems.extend(prefixes.into_iter().filter_map(Result::err));
                return Err(problems);
            }
        };
        let source = match from {
            SourceConfig::ClientCertificate => Source::ClientCertificate,
            SourceConfig::Jwt => Source::Jwt(Claims {
                user: user_claim.unwrap_or_else(|| "sub".to_owned()),
                groups: groups_claim,
                uid: uid_claim,
                user_prefix: user_prefix.unwrap_or_default(),
                groups_prefix: groups_prefix.unwrap_or_default(),
                extra: attributes,
            }),
        };
        Ok(Self { source, allow_system, removed })
    }
}

/// `Impersonate-Extra-NAME`, where what no header name may have is percent-encoded: the API server decodes it.
fn extra_header(name: &str) -> Option<HeaderName> {
    if name.is_empty() || name.chars().any(char::is_uppercase) {
        return None;
    }
    let mut header = String::from("impersonate-extra-");
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z'
            | b'0'..=b'9'
            | b'-'
            | b'_'
            | b'.'
            | b'~'
            | b'!'
            | b'#'
            | b'$'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'^'
            | b'`'
            | b'|' => header.push(char::from(byte)),
            other => header.push_str(&format!("%{other:02x}")),
        }
    }
    HeaderName::from_bytes(header.as_bytes()).ok()
}

impl Plugin for KubeImpersonate {
    fn hooks(&self) -> Hooks {
        Hooks { request: true, ..Hooks::default() }
    }

    fn request(&self, head: &mut RequestHeader, info: &RequestInfo<'_>) -> Verdict {
        self.removed.iter().for_each(|pattern| pattern.remove_from(head));
        head.remove_header(&AUTHORIZATION);
        remove_websocket_token(head);
        match self.subject(info).and_then(|subject| self.write(head, subject)) {
            Ok(()) => Verdict::Continue,
            Err(refusal) => Verdict::Refuse(*refusal),
        }
    }

    fn authenticates(&self) -> bool {
        true
    }

    fn owned_headers(&self) -> &'static [&'static str] {
        &["impersonate-*", "x-remote-*", "authorization"]
    }

    fn stands_behind(&self) -> Option<&'static str> {
        matches!(self.source, Source::Jwt(_)).then_some("jwt")
    }
}

impl KubeImpersonate {
    fn subject(&self, info: &RequestInfo<'_>) -> Result<Subject, Box<Refusal>> {
        let subject = match &self.source {
            Source::ClientCertificate => {
                let certificate = info
                    .client_certificate
                    .ok_or_else(|| unknown("the client has shown no certificate to impersonate by"))?;
                let user = certificate.common_name.clone();
                let user =
                    user.ok_or_else(|| unknown("the client's certificate has no common name, or several"))?;
                Subject { user, groups: certificate.organizations.clone(), ..Subject::default() }
            }
            Source::Jwt(wanted) => {
                let given = info.identity.claims();
                let given = given.ok_or_else(|| unknown("no token was verified to impersonate by"))?;
                wanted.of(given)?
            }
        };
        let is_system = |name: &String| name.starts_with(SYSTEM);
        if !self.allow_system && (is_system(&subject.user) || subject.groups.iter().any(is_system)) {
            return Err(forbidden("the client's identity has a user or a group of `system:`"));
        }
        Ok(subject)
    }

    fn write(&self, head: &mut RequestHeader, subject: Subject) -> Result<(), Box<Refusal>> {
        let Subject { user, uid, groups, extra } = subject;
        let fields = [(USER, user)].into_iter();
        let fields = fields.chain(uid.map(|uid| (UID, uid)));
        let fields = fields.chain(groups.into_iter().map(|group| (GROUP, group))).chain(extra);
        for (name, text) in fields {
            // Bytes above ASCII go as they are, as the API server reads them; a line break would begin another header.
            let written = HeaderValue::from_bytes(text.as_bytes()).ok();
            let written = written.filter(|_| text.trim() == text && !text.is_empty());
            let written = written.and_then(|value| head.append_header(name.clone(), value).ok());
            if written.is_none() {
                return Err(forbidden(&format!("the client's identity has no legal value for `{name}`")));
            }
        }
        Ok(())
    }
}

impl Claims {
    fn of(&self, given: &serde_json::Map<String, serde_json::Value>) -> Result<Subject, Box<Refusal>> {
        let text =
            |name: &str| claims::find(given, name).and_then(claims::text).filter(|text| !text.is_empty());
        let user = claims::find(given, &self.user).and_then(|value| value.as_str());
        let user = user.filter(|user| !user.is_empty());
        let user = user.ok_or_else(|| forbidden(&format!("the token has no text as its `{}`", self.user)))?;
        let groups = self.groups.as_deref().and_then(|name| claims::find(given, name));
        let groups = match groups.map(claims::texts) {
            None => Vec::new(),
            Some(Some(groups)) => groups,
            Some(None) => return Err(forbidden("the token's groups are not a list of texts")),
        };
        let mut extra = Vec::new();
        for (header, claim) in &self.extra {
            let values = claims::find(given, claim).and_then(claims::texts).unwrap_or_default();
            let values = values.into_iter().filter(|value| !value.is_empty());
            extra.extend(values.map(|value| (header.clone(), value.into_owned())));
        }
        Ok(Subject {
            user: format!("{}{user}", self.user_prefix),
            uid: self.uid.as_deref().and_then(text).map(|uid| uid.into_owned()),
            groups: groups.iter().map(|group| format!("{}{group}", self.groups_prefix)).collect(),
            extra,
        })
    }
}

fn remove_websocket_token(head: &mut RequestHeader) {
    let offered = head.headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    let is_token = |protocol: &str| protocol.trim().to_ascii_lowercase().starts_with(WEBSOCKET_TOKEN);
    let texts: Vec<String> =
        offered.iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
    if !texts.iter().flat_map(|text| text.split(',')).any(is_token) {
        return;
    }
    let kept: Vec<&str> = texts.iter().flat_map(|text| text.split(',')).map(str::trim).collect();
    let kept: Vec<&str> = kept.into_iter().filter(|protocol| !is_token(protocol)).collect();
    head.remove_header(&SEC_WEBSOCKET_PROTOCOL);
    if !kept.is_empty() {
        // What could stand in a header before can do so now, but for what was no UTF-8: then there is no protocol at all.
        let _ = head.insert_header(SEC_WEBSOCKET_PROTOCOL, kept.join(", "));
    }
}

fn unknown(detail: &str) -> Box<Refusal> {
    let detail = detail.to_owned();
    Box::new(Refusal { status: 401, headers: Vec::new(), why: Why::Unauthenticated, detail })
}

fn forbidden(detail: &str) -> Box<Refusal> {
    Box::new(Refusal { status: 403, headers: Vec::new(), why: Why::Forbidden, detail: detail.to_owned() })
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::testing::{INFO, get, plugin, plugins_of_doc, refusal};
    use crate::{ClientCertificate, Identity};

    fn certificate(common_name: Option<&str>, organizations: &[&str]) -> ClientCertificate {
        ClientCertificate {
            common_name: common_name.map(str::to_owned),
            organizations: organizations.iter().map(|name| (*name).to_owned()).collect(),
            ..ClientCertificate::default()
        }
    }

    fn of_token(claims: Value) -> Identity {
        let Value::Object(claims) = claims else { panic!() };
        let identity = Identity::new();
        identity.set_claims(claims);
        identity
    }

    /// Every header that says who the client is, or the status of the refusal.
    fn sent(config: &str, info: &RequestInfo<'_>, from_client: &[(&str, &str)]) -> Result<String, u16> {
        let plugin = plugin("kube_impersonate", config).unwrap();
        let mut head = get("/api");
        for (name, value) in from_client {
            head.append_header((*name).to_owned(), *value).unwrap();
        }
        match plugin.request(&mut head, info) {
            Verdict::Continue => {
                let fields = head.headers.iter().filter(|(name, _)| *name != "host");
                let told: Vec<String> = fields
                    .map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value.as_bytes())))
                    .collect();
                Ok(told.join(" "))
            }
            Verdict::Refuse(refusal) => Err(refusal.status),
            Verdict::Respond(_) => panic!(),
        }
    }

    #[test]
    fn the_yaml_of_the_module_doc_loads() {
        assert_eq!(plugins_of_doc(include_str!("kube_impersonate.rs")).len(), 3);
    }

    #[test]
    fn a_certificate_is_a_user_and_its_groups() {
        let check = |name: Option<&str>, groups: &[&str], config: &str, expected: Result<&str, u16>| {
            let certificate = certificate(name, groups);
            let info = RequestInfo { client_certificate: Some(&certificate), ..INFO };
            assert_eq!(
                sent(config, &info, &[]).as_deref().map_err(|status| *status),
                expected,
                "{name:?} {groups:?}"
            );
        };
        let plain = "{ from: client_certificate }";
        check(
            Some("alice"),
            &["devs", "ops"],
            plain,
            Ok("impersonate-user=alice impersonate-group=devs impersonate-group=ops"),
        );
        check(Some("alice"), &[], plain, Ok("impersonate-user=alice"));
        check(Some("josé"), &[], plain, Ok("impersonate-user=josé"));
        check(None, &["devs"], plain, Err(401));
        check(Some("alice"), &["system:masters"], plain, Err(403));
        check(Some("system:admin"), &[], plain, Err(403));
        check(Some("alice\r\nimpersonate-group: system:masters"), &[], plain, Err(403));
        check(Some("alice"), &["a\nb"], plain, Err(403));
        check(Some(" "), &[], plain, Err(403));
        check(
            Some("system:admin"),
            &["system:masters"],
            "{ from: client_certificate, allow_system: true }",
            Ok("impersonate-user=system:admin impersonate-group=system:masters"),
        );
    }

    #[test]
    fn a_token_is_a_user_by_its_claims() {
        let config = "{ from: jwt, user_claim: email, groups_claim: realm.groups, uid_claim: sub, user_prefix: 'oidc:', \
                      groups_prefix: 'g:', extra: { scopes: scope, 'a.test/b c': n } }";
        let check = |claims: Value, expected: Result<&str, u16>| {
            let identity = of_token(claims.clone());
            let info = RequestInfo { identity: &identity, ..INFO };
            assert_eq!(sent(config, &info, &[]).as_deref().map_err(|status| *status), expected, "{claims}");
        };
        check(
            json!({ "email": "a@a.test", "sub": "7", "realm": { "groups": ["x", "y"] }, "scope": ["r", "w"], "n": 1 }),
            Ok(
                "impersonate-user=oidc:a@a.test impersonate-uid=7 impersonate-group=g:x impersonate-group=g:y \
                impersonate-extra-a.test%2fb%20c=1 impersonate-extra-scopes=r impersonate-extra-scopes=w",
            ),
        );
        check(json!({ "email": "a" }), Ok("impersonate-user=oidc:a"));
        check(json!({ "email": "system:admin" }), Ok("impersonate-user=oidc:system:admin"));
        check(json!({ "email": "" }), Err(403));
        check(json!({ "email": ["a"] }), Err(403));
        check(json!({ "email": 7 }), Err(403));
        check(json!({ "sub": "a" }), Err(403));
        check(json!({ "email": "a", "realm": { "groups": { "x": 1 } } }), Err(403));
        check(json!({ "email": "a\r\nx: y" }), Err(403));
        check(
            json!({ "email": "a", "realm": { "groups": [""] } }),
            Ok("impersonate-user=oidc:a impersonate-group=g:"),
        );

        for (claims, expected) in [
            (json!({ "sub": "system:admin" }), Err(403)),
            (json!({ "sub": "a", "groups": "system:masters" }), Err(403)),
            (
                json!({ "sub": "a", "groups": "devs" }),
                Ok("impersonate-user=a impersonate-group=devs".to_owned()),
            ),
        ] {
            let identity = of_token(claims);
            let info = RequestInfo { identity: &identity, ..INFO };
            assert_eq!(sent("{ from: jwt, groups_claim: groups }", &info, &[]), expected);
        }
        let identity = of_token(Value::Object(Map::new()));
        assert_eq!(sent("{ from: jwt }", &RequestInfo { identity: &identity, ..INFO }, &[]), Err(403));
        assert_eq!(sent("{ from: jwt }", &INFO, &[]), Err(401));
        assert_eq!(sent("{ from: client_certificate }", &INFO, &[]), Err(401));
    }

    #[test]
    fn what_the_client_says_of_itself_is_removed() {
        let certificate = certificate(Some("alice"), &[]);
        let info = RequestInfo { client_certificate: Some(&certificate), ..INFO };
        let claimed = [
            ("Impersonate-User", "admin"),
            ("impersonate-group", "system:masters"),
            ("Impersonate-Extra-Scopes", "all"),
            ("Impersonate-Uid", "0"),
            ("X-Remote-User", "admin"),
            ("x-remote-group", "system:masters"),
            ("Authorization", "Bearer x"),
            ("authorization", "Basic y"),
            ("Sec-WebSocket-Protocol", "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.eA"),
            ("Sec-WebSocket-Protocol", "Base64URL.bearer.authorization.k8s.io.eB,v5.channel.k8s.io"),
        ];
        assert_eq!(
            sent("{ from: client_certificate }", &info, &claimed).unwrap(),
            "sec-websocket-protocol=v4.channel.k8s.io, v5.channel.k8s.io impersonate-user=alice"
        );
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        for (config, told) in [
            ("{}", "from"),
            ("{ from: header }", "from"),
            ("{ from: client_certificate, user_claim: sub }", "user_claim: `user_claim` is about tokens"),
            ("{ from: client_certificate, extra: { a: b } }", "extra: `extra` is about tokens"),
            ("{ from: jwt, user_claim: '' }", "user_claim: an empty text is no claim's name"),
            ("{ from: jwt, groups_prefix: 'x:' }", "groups_prefix: there are no groups"),
            ("{ from: jwt, user_prefix: \"a\\nb\" }", "user_prefix: a prefix goes into a header"),
            ("{ from: jwt, extra: { Scopes: scope } }", "extra.Scopes: an attribute's name is in lower case"),
            ("{ from: jwt, extra: { a: '' } }", "extra.a: an empty text"),
            ("{ from: jwt, groups: x }", "groups: unknown key `groups`"),
        ] {
            let refused = refusal("kube_impersonate", config);
            assert!(refused.contains(told), "{config}: {refused}");
        }
    }
}
