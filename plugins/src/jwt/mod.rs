//! `jwt`: lets pass who has a signed token (RFC 7519).
//!
//! ```yaml
//! - jwt:
//!     issuer: https://idp.example
//!     audience: shop                    # or a list, of which the token names one
//!     jwks: { upstream: idp, path: /keys, refresh: 5m }   # or { file: keys.json }, which a reload follows
//!     leeway: 60s                       # how far clocks may differ
//!     required_claims: { groups: [dev, ops], email_verified: true }   # of a list, one is enough
//!     from: { cookie: session }         # or header, or query; default Authorization: Bearer
//!     forward: true                     # the token goes to the upstream too; default false
//!     headers: { x-user: sub, x-roles: realm_access.roles }   # claims for the upstream
//! ```
//!
//! Signatures by RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA are known; the key decides which of them
//! may be used, and `none` and shared secrets never. `exp` has to be there. Keys of an upstream are asked for when the
//! configuration is put in force, and then every `refresh`, never while a request waits: but a token whose key is unknown
//! makes the gateway ask at once, every 5 s at most. The last good keys are kept while the upstream fails.
//!
//! Without a token, or with a bad one, the answer is a 401 as RFC 6750 has it; without a required claim a 403; as long as
//! no keys are known a 503. The claims are `${jwt.NAME}` in templates behind this plugin, and `sub` is `$user`.

mod keys;
mod source;
#[cfg(test)]
mod tests;
mod token;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use http::header::WWW_AUTHENTICATE;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use self::keys::Keys;
use self::source::Remote;
use self::token::{Flaw, Rules, Token};
use crate::credential::{Place, Several};
use crate::field::{self, FieldName, Fields};
use crate::problem::{Path, Problem};
use crate::text::Text;
use crate::{
    Build, DurationText, Hooks, OneOrMany, Plugin, Refusal, RequestInfo, Setting, Verdict, Why, claims,
    duration,
};

/// Verifies a token.
pub struct Jwt {
    rules: Rules,
    source: Source,
    place: Place,
    forward: bool,
    headers: Vec<(FieldName, String)>,
}

enum Source {
    File(Keys),
    Upstream(Arc<Remote>),
}

/// Lets pass who has a signed token.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtConfig {
    /// Who has to have issued the token: its `iss`.
    issuer: String,
    /// Whom the token has to be for: one of these has to be in its `aud`.
    audience: OneOrMany<String>,
    /// The issuer's keys.
    jwks: JwksConfig,
    /// How far the issuer's clock may be from ours. Default 60s.
    #[serde(default = "one_minute", deserialize_with = "duration::deserialize")]
    #[schemars(with = "DurationText")]
    leeway: Duration,
    /// Claims that the token has to have, each with one of these values.
    #[serde(default)]
    required_claims: BTreeMap<String, OneOrMany<Text>>,
    /// Where the token is. Default: `Authorization: Bearer`.
    from: Option<FromConfig>,
    /// Whether the token goes to the upstream too. Default false.
    #[serde(default)]
    forward: bool,
    /// Headers for the upstream, each with the claim that it tells.
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// The issuer's keys, as a JSON Web Key Set.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct JwksConfig {
    /// A file with them.
    file: Option<PathBuf>,
    /// The upstream that has them.
    upstream: Option<String>,
    /// Where the upstream has them.
    path: Option<String>,
    /// How often the upstream is asked. Default 5m.
    refresh: Option<DurationText>,
}

/// Where the token is: one of these.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FromConfig {
    /// A header that holds nothing else.
    header: Option<String>,
    /// A cookie.
    cookie: Option<String>,
    /// A parameter of the query.
    query: Option<String>,
}

fn one_minute() -> Duration {
    Duration::from_secs(60)
}

const FIVE_MINUTES: Duration = Duration::from_secs(300);

impl Build for Jwt {
    type Config = JwtConfig;

    fn build(config: JwtConfig, setting: &Setting<'_>) -> Result<Self, Vec<Problem>> {
        let root = Path::root();
        let mut problems = Vec::new();
        if config.issuer.is_empty() {
            problems.push(Problem::new(root.key("issuer"), "an empty text is no issuer"));
        }
        if config.audience.0.is_empty() || config.audience.0.iter().any(String::is_empty) {
            problems.push(
                Problem::new(root.key("audience"), "there is no audience, or an empty one")
                    .hint("write what the issuer puts into `aud` for this service"),
            );
        }
        let source =
            source(config.jwks, setting).map_err(|problem| problems.push(problem.under(&root.key("jwks"))));
        let place = match &config.from {
            None => Ok(Place::Scheme("Bearer")),
            Some(FromConfig { header, cookie, query }) => {
                Place::parse(header.as_deref(), cookie.as_deref(), query.as_deref())
            }
        };
        let place = place.map_err(|problem| problems.push(problem.under(&root.key("from"))));
        let mut required = Vec::new();
        for (name, OneOrMany(values)) in config.required_claims {
            if values.is_empty() {
                problems.push(Problem::new(
                    root.key("required_claims").key(&name),
                    "no token has one of no values",
                ));
            }
            required.push((name, values.into_iter().map(|Text(value)| value).collect()));
        }
        let mut headers = Vec::new();
        for (name, claim) in config.headers {
            match FieldName::parse(&name) {
                Ok(field) => headers.push((field, claim)),
                Err(problem) => problems.push(problem.under(&root.key("headers").key(name))),
            }
        }
        let rules = Rules {
            issuer: config.issuer,
            audiences: config.audience.0,
            leeway: config.leeway.as_secs_f64(),
            required,
        };
        match (source, place) {
            (Ok(source), Ok(place)) if problems.is_empty() => {
                Ok(Self { rules, source, place, forward: config.forward, headers })
            }
            _ => Err(problems),
        }
    }
}

fn source(config: JwksConfig, setting: &Setting<'_>) -> Result<Source, Problem> {
    let root = Path::root();
    match config {
        JwksConfig { file: Some(file), upstream: None, path: None, refresh: None } => {
            let at = root.key("file");
            let bytes = setting.files.bytes(&file, &at)?;
            let told = |why| Problem::new(at.clone(), format!("`{}` {why}", file.display()));
            Keys::parse(&bytes).map(Source::File).map_err(told)
        }
        JwksConfig { file: None, upstream: Some(name), path: Some(path), refresh } => {
            let upstream = setting.outbound.upstream(&name, &root.key("upstream"))?;
            if !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err() {
                return Err(Problem::new(
                    root.key("path"),
                    format!("`{}` is not a path", path.escape_debug()),
                )
                .hint("it begins with `/`, as in `/.well-known/jwks.json`"));
            }
            let refresh = refresh.map_or(FIVE_MINUTES, |DurationText(refresh)| refresh);
            if refresh < Duration::from_secs(1) {
                return Err(Problem::new(root.key("refresh"), "keys are asked for once a second at most")
                    .hint("write `5m`"));
            }
            Ok(Source::Upstream(Arc::new(Remote::new(upstream, path, refresh))))
        }
        _ => Err(Problem::new(root, "the keys come from a file, or from an upstream and a path of it")
            .hint("write `{ file: FILE }`, or `{ upstream: NAME, path: /keys }`")),
    }
}

impl Plugin for Jwt {
    fn hooks(&self) -> Hooks {
        let wait = matches!(self.source, Source::Upstream(_));
        Hooks { request: !wait, wait, response: false }
    }

    fn request(&self, head: &mut RequestHeader, info: &RequestInfo<'_>) -> Verdict {
        let Source::File(keys) = &self.source else { return Verdict::Continue };
        self.judged(head, info, |token| Ok(verify(token, keys)))
    }

    fn wait<'a>(
        &'a self,
        head: &'a mut RequestHeader,
        info: &'a RequestInfo<'a>,
    ) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>> {
        Box::pin(async move {
            let Source::Upstream(remote) = &self.source else { return Verdict::Continue };
            let known = remote.keys();
            // What cannot be a token makes nobody wait.
            let unknown = match self.place.find(head) {
                Ok(Some(text)) => Token::parse(&text).ok().is_some_and(|token| {
                    !known.as_ref().is_some_and(|keys| keys.has(token.key.as_deref(), token.algorithm))
                }),
                _ => false,
            };
            let keys = if unknown { remote.renewed().await } else { known };
            self.judged(head, info, |token| match &keys {
                Some(keys) => Ok(verify(token, keys)),
                None => Err(refusal(503, Why::Unavailable, "no keys of the issuer are known as yet", None)),
            })
        })
    }

    fn put_in_force(&self) {
        if let Source::Upstream(remote) = &self.source {
            remote.begin();
        }
    }

    fn authenticates(&self) -> bool {
        true
    }
}

impl Jwt {
    fn judged(
        &self,
        head: &mut RequestHeader,
        info: &RequestInfo<'_>,
        verify: impl Fn(&Token<'_>) -> Result<Result<Map<String, Value>, Flaw>, Refusal>,
    ) -> Verdict {
        let given = match self.place.find(head) {
            Ok(Some(text)) => match Token::parse(&text) {
                Ok(token) => match verify(&token) {
                    Ok(claims) => claims,
                    Err(refusal) => return Verdict::Refuse(refusal),
                },
                Err(flaw) => Err(flaw),
            },
            Ok(None) => {
                return Verdict::Refuse(refusal(401, Why::Unauthenticated, "there is no token", None));
            }
            Err(Several) => {
                let detail = "there are several tokens";
                return Verdict::Refuse(refusal(401, Why::Unauthenticated, detail, Some("invalid_request")));
            }
        };
        let given = given.and_then(|given| self.rules.check(&given, now()).map(|()| given));
        let given = match given {
            Ok(given) => given,
            Err(Flaw::Insufficient) => {
                let detail = Flaw::Insufficient.told();
                return Verdict::Refuse(refusal(403, Why::Forbidden, detail, Some("insufficient_scope")));
            }
            Err(flaw) => {
                return Verdict::Refuse(refusal(
                    401,
                    Why::Unauthenticated,
                    flaw.told(),
                    Some("invalid_token"),
                ));
            }
        };
        if !self.forward {
            self.place.remove_from(head);
        }
        for (name, claim) in &self.headers {
            // The client's own word first, or it would stand where the token says nothing.
            head.remove(&name.name);
            let text = claims::find(&given, claim).and_then(claims::text);
            if let Some(value) = text.and_then(|text| field::value(text.as_bytes().into())) {
                head.set(name, value);
            }
        }
        if let Some(user) = given.get("sub").and_then(Value::as_str).filter(|user| !user.is_empty()) {
            info.identity.set_user(user.to_owned());
        }
        info.identity.set_claims(given);
        Verdict::Continue
    }
}

fn verify(token: &Token<'_>, keys: &Keys) -> Result<Map<String, Value>, Flaw> {
    let Token { algorithm, key, signed, signature, .. } = token;
    if !keys.has(key.as_deref(), *algorithm) {
        return Err(Flaw::UnknownKey);
    }
    match keys.verify(key.as_deref(), *algorithm, signed.as_bytes(), signature) {
        true => token.claims(),
        false => Err(Flaw::Signature),
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// RFC 6750 section 3: who sent no token is told nothing but that one is wanted.
fn refusal(status: u16, why: Why, detail: &'static str, error: Option<&str>) -> Refusal {
    let challenge = match error {
        None => "Bearer realm=\"vestibule\"".to_owned(),
        Some(error) => {
            format!("Bearer realm=\"vestibule\", error=\"{error}\", error_description=\"{detail}\"")
        }
    };
    let challenge = HeaderValue::from_str(&challenge).ok().filter(|_| status != 503);
    let headers = challenge.map(|challenge| (WWW_AUTHENTICATE, challenge)).into_iter().collect();
    Refusal { status, headers, why, detail: format!("jwt: {detail}") }
}
