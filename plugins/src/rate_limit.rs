//! `rate_limit`: lets each client, or whatever else a template tells apart, ask only so often.
//!
//! ```yaml
//! - rate_limit:
//!     key: $client_ip        # a template: requests for which it is the same share a quota; the default
//!     requests: 100          # so many
//!     per: 1m                # in this time
//!     burst: 20              # and so many at once, after a quiet time; default: `requests`
//!     name: per-client       # what the answer's fields call it; default: `route`, in the common chain `common`
//!     max_keys: 100000       # so many keys are told apart at a time; the default
//! - rate_limit: { key: "${header.x-api-key}", requests: 5, per: 1s }
//! ```
//!
//! A token bucket for each key: it holds `burst` tokens, a request takes one, and `requests` of them come back evenly in
//! each `per`. So in any time *t* no more than `burst` + `requests` · *t* / `per` pass. A request that finds none gets 429 with
//! `Retry-After`, and takes nothing. Where the template is empty, as for a header that was not sent, all such requests
//! share one bucket.
//!
//! Every answer tells what is left in `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers, versions 08
//! to 11): `r` requests, and in `t` seconds all of them are back; where none is left, the next one. What an upstream says of
//! its own limits stays beside it.
//!
//! Counts are this process's own, and stay over a reload that leaves this plugin's definition as it is. Their memory is
//! bounded by `max_keys`, about 34 bytes for each key that is in use. When more keys than that come at once, the bucket that
//! is fullest makes room: newcomers pass, and who has asked most is forgotten last. So a flood of many addresses neither
//! shuts others out nor clears its own most eager ones.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use pingora_http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::duration::DurationText;
use crate::problem::{Path, Problem};
use crate::quota::{Quotas, Taken};
use crate::template::{Scope, Template};
use crate::text::Text;
use crate::{Build, Hooks, Plugin, Refusal, RequestInfo, Setting, Verdict, Why};

static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

const MOST_KEYS: u32 = 10_000_000;
const MOST_REQUESTS: u32 = 1_000_000;
const DEFAULT_KEYS: u32 = 100_000;

/// Refuses requests of a key that asks too often.
pub struct RateLimit {
    /// Which of all plugins of this kind it is, to find its own note in a request.
    id: u64,
    name: String,
    policy: HeaderValue,
    key: Template,
    quotas: Quotas,
    begin: Instant,
}

/// How often requests may come for which a template is the same.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimitConfig {
    /// A template. Requests for which it is the same share a quota. Default: `$client_ip`.
    #[serde(default = "default_key")]
    key: Text,
    /// How many requests pass in each `per`.
    #[schemars(range(min = 1, max = 1_000_000))]
    requests: u32,
    /// In which time.
    per: DurationText,
    /// How many may come at once. Default: `requests`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_000_000))]
    burst: Option<u32>,
    /// What the quota is called in the fields of the answer.
    #[serde(default)]
    name: Option<String>,
    /// How many keys are told apart at a time. Default: 100000.
    #[serde(default = "default_keys")]
    #[schemars(range(min = 1, max = 10_000_000))]
    max_keys: u32,
}

fn default_key() -> Text {
    Text("$client_ip".to_owned())
}

fn default_keys() -> u32 {
    DEFAULT_KEYS
}

/// What plugins of this kind note in a request, for its answer.
#[derive(Clone, Default)]
struct Notes(Vec<Note>);

#[derive(Clone)]
struct Note {
    id: u64,
    taken: Taken,
}

impl Build for RateLimit {
    type Config = RateLimitConfig;

    fn build(config: RateLimitConfig, setting: &Setting<'_>) -> Result<Self, Vec<Problem>> {
        let root = Path::root();
        let mut problems = Vec::new();
        let mut count = |key: &str, given: u32, most: u32| {
            let counted = NonZeroU32::new(given).filter(|count| count.get() <= most);
            if counted.is_none() {
                problems.push(Problem::new(root.key(key), format!("`{given}` is not from 1 to {most}")));
            }
            counted
        };
        let requests = count("requests", config.requests, MOST_REQUESTS);
        let burst = match config.burst {
            Some(burst) => count("burst", burst, MOST_REQUESTS),
            None => requests,
        };
        let keys = count("max_keys", config.max_keys, MOST_KEYS);
        let per = config.per.0;
        if per.is_zero() {
            let problem = Problem::new(root.key("per"), "`0s` is no time in which requests could come");
            problems.push(problem.hint("write one, as in `1s` or `1m`"));
        }
        let template = Template::parse(&config.key.0, Scope::Request);
        let template = template.map_err(|problem| problems.push(problem.under(&root.key("key")))).ok();
        let name = config.name.unwrap_or_else(|| match setting.route {
            Some(_) => "route".to_owned(),
            None => "common".to_owned(),
        });
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
            let shown = crate::decode::shown(&name);
            problems.push(Problem::new(
                root.key("name"),
                format!("`{shown}` is not a name of at most 64 letters, digits and `-_.:/`"),
            ));
        }
        let (Some(requests), Some(burst), Some(keys), Some(key), true) =
            (requests, burst, keys, template, problems.is_empty())
        else {
            return Err(problems);
        };
        let quotas = Quotas::new(requests, per, burst, keys.get() as usize).ok_or_else(|| {
            let told = format!("{burst} requests at once take more than 30 days to come back");
            let at = root.key(if config.burst.is_some() { "burst" } else { "per" });
            vec![Problem::new(at, told).hint("make `burst` or `per` smaller, or `requests` larger")]
        })?;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { id, policy: policy(&name, requests, per), name, key, quotas, begin: Instant::now() })
    }
}

impl Plugin for RateLimit {
    fn hooks(&self) -> Hooks {
        Hooks { request: true, response: true, wait: false }
    }

    fn request(&self, head: &mut RequestHeader, info: &RequestInfo<'_>) -> Verdict {
        let taken = self.quotas.take(&self.key.render_bytes(head, info), self.begin.elapsed());
        let notes = head.extensions_mut().get_or_insert_default::<Notes>();
        notes.0.push(Note { id: self.id, taken });
        let Taken::Refused { wait } = taken else { return Verdict::Continue };
        let seconds = whole_seconds(wait);
        Verdict::Refuse(Refusal {
            status: 429,
            headers: vec![(RETRY_AFTER, HeaderValue::from(seconds))],
            why: Why::TooMany,
            // Not the key, which may be a token.
            detail: format!("the quota `{}` is used up for {seconds} s", self.name),
        })
    }

    fn response(&self, head: &mut ResponseHeader, request: &RequestHeader, _: &RequestInfo<'_>) {
        let notes = request.extensions.get::<Notes>();
        let Some(note) = notes.and_then(|notes| notes.0.iter().find(|note| note.id == self.id)) else {
            return;
        };
        let (left, seconds) = match note.taken {
            // With none left, what a client wants to know is when the next one comes.
            Taken::Passed { left: 0, full_in } => (0, whole_seconds(self.quotas.next_in(full_in))),
            Taken::Passed { left, full_in } => (left, whole_seconds(full_in)),
            Taken::Refused { wait } => (0, whole_seconds(wait)),
        };
        // Writing fails for a head of 2^15 fields, where the new one is left out.
        if let Ok(value) = HeaderValue::from_str(&format!("\"{}\";r={left};t={seconds}", self.name)) {
            let _ = head.append_header(RATE_LIMIT.clone(), value);
            let _ = head.append_header(RATE_LIMIT_POLICY.clone(), self.policy.clone());
        }
    }
}

/// Rounded up: who waits so long does not come too early.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// The window is left out where it is not in whole seconds, which are all that can be said.
fn policy(name: &str, requests: NonZeroU32, per: Duration) -> HeaderValue {
    let window = if per.subsec_nanos() == 0 { format!(";w={}", per.as_secs()) } else { String::new() };
    // The name was checked, so this is a value.
    HeaderValue::from_str(&format!("\"{name}\";q={requests}{window}"))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{INFO, ROUTE, get, plugin, plugins_of_doc, refusal, yaml};

    fn limit(config: &str) -> RateLimit {
        RateLimit::build(serde_yaml::from_value(yaml(config)).unwrap(), &ROUTE).unwrap()
    }

    /// The status, and the fields of the answer that are about limits.
    fn asked(plugin: &dyn Plugin, head: &mut RequestHeader) -> (u16, Vec<String>) {
        let (status, headers) = match plugin.request(head, &INFO) {
            Verdict::Continue => (200, Vec::new()),
            Verdict::Refuse(refusal) => {
                assert_eq!(refusal.why, Why::TooMany);
                (refusal.status, refusal.headers)
            }
            Verdict::Respond(_) => panic!("it answered"),
        };
        let mut response = ResponseHeader::build(status, None).unwrap();
        for (name, value) in headers {
            response.append_header(name, value).unwrap();
        }
        plugin.response(&mut response, head, &INFO);
        let line =
            |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
        (status, response.headers.iter().map(line).collect())
    }

    #[test]
    fn the_yaml_of_the_module_doc_loads() {
        assert_eq!(plugins_of_doc(include_str!("rate_limit.rs")).len(), 2);
    }

    #[test]
    fn what_is_left_is_told_until_a_request_is_refused() {
        let plugin = limit("{ requests: 1, per: 1h, burst: 2, name: per-client }");
        let policy = "ratelimit-policy: \"per-client\";q=1;w=3600";
        for (status, fields) in [
            (200, vec!["ratelimit: \"per-client\";r=1;t=3600", policy]),
            (200, vec!["ratelimit: \"per-client\";r=0;t=3600", policy]),
            (429, vec!["retry-after: 3600", "ratelimit: \"per-client\";r=0;t=3600", policy]),
        ] {
            assert_eq!(
                asked(&plugin, &mut get("/")),
                (status, fields.iter().map(|it| (*it).into()).collect())
            );
        }
    }

    #[test]
    fn requests_of_the_same_key_share_a_quota() {
        let plugin = limit("{ key: '${header.x-key}', requests: 1, per: 1h }");
        let ask = |key: Option<&'static str>| {
            let mut head = get("/");
            if let Some(key) = key {
                head.append_header("x-key", key).unwrap();
            }
            asked(&plugin, &mut head).0
        };
        for (key, status) in
            [(Some("a"), 200), (Some("b"), 200), (Some("a"), 429), (None, 200), (None, 429), (Some("c"), 200)]
        {
            assert_eq!(ask(key), status, "{key:?}");
        }
    }

    #[test]
    fn two_limits_are_told_side_by_side() {
        let (one, other) = (
            limit("{ requests: 9, per: 1m, name: one }"),
            limit("{ requests: 7, per: 1500ms, name: other }"),
        );
        let mut head = get("/");
        for plugin in [&one, &other] {
            assert!(matches!(plugin.request(&mut head, &INFO), Verdict::Continue));
        }
        let mut response = ResponseHeader::build(200, None).unwrap();
        response.append_header("RateLimit", "\"theirs\";r=1").unwrap();
        for plugin in [&other, &one] {
            plugin.response(&mut response, &head, &INFO);
        }
        let told = |name: &str| -> Vec<_> {
            response.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(told("ratelimit"), ["\"theirs\";r=1", "\"other\";r=6;t=1", "\"one\";r=8;t=7"]);
        assert_eq!(told("ratelimit-policy"), ["\"other\";q=7", "\"one\";q=9;w=60"]);
    }

    #[test]
    fn a_request_that_did_not_come_by_it_is_told_nothing() {
        let mut response = ResponseHeader::build(403, None).unwrap();
        limit("{ requests: 9, per: 1m }").response(&mut response, &get("/"), &INFO);
        assert!(response.headers.is_empty());
    }

    #[test]
    fn every_bad_value_is_told() {
        assert_eq!(
            refusal(
                "rate_limit",
                "{ key: $sni, requests: 0, per: 0s, burst: 2000000, name: 'a b', max_keys: 0 }"
            ),
            "requests: `0` is not from 1 to 1000000\n\
             burst: `2000000` is not from 1 to 1000000\n\
             max_keys: `0` is not from 1 to 10000000\n\
             per: `0s` is no time in which requests could come (write one, as in `1s` or `1m`)\n\
             key: `$sni` is known only once an endpoint has been picked; use it on the response\n\
             name: `a b` is not a name of at most 64 letters, digits and `-_.:/`"
        );
        for (config, told) in [
            (
                "{ requests: 1, per: 240h, burst: 9 }",
                "burst: 9 requests at once take more than 30 days to come back",
            ),
            ("{ requests: 1 }", "`per` is missing"),
        ] {
            assert!(refusal("rate_limit", config).contains(told), "{}", refusal("rate_limit", config));
        }
        assert!(plugin("rate_limit", "{ requests: 1, per: 1s }").is_ok());
    }
}
