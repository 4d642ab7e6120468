//! `forward_auth`: asks another server whether a request may pass.
//!
//! ```yaml
//! - forward_auth:
//!     upstream: auth                     # one of the file's `upstreams`
//!     path: /verify?route=$route         # a template
//!     method: GET                        # default
//!     request_headers: [authorization, cookie]   # of the client's, for the server; this is the default
//!     response_headers: [x-user, x-groups]       # of the server's, for the upstream; default none
//!     timeout: 5s                        # default
//! ```
//!
//! The server is told X-Forwarded-Method, -Proto, -Host, -Uri and -For. By an answer of 2xx the request passes, with the
//! `response_headers` of that answer in place of the client's own. Any other answer is the client's: its status, its
//! headers (Location, WWW-Authenticate, Set-Cookie) and its body, up to 64 KiB. Where there is none the client gets a 503,
//! and the request never passes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::field::{FieldName, is_framing};
use crate::outbound::{Limits, Upstream};
use crate::problem::{Path, Problem};
use crate::target::Target;
use crate::{
    Build, DurationText, Hooks, OneOrMany, Plugin, Refusal, Reply, RequestInfo, Scope, Setting, Template,
    Verdict, Why, duration,
};

/// Asks an authorisation server.
pub struct ForwardAuth {
    upstream: Arc<dyn Upstream>,
    path: Template,
    method: Method,
    request_headers: Vec<HeaderName>,
    response_headers: Vec<HeaderName>,
    limits: Limits,
}

/// Asks another server whether a request may pass.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardAuthConfig {
    /// The server, by its name among `upstreams`.
    upstream: String,
    /// The path and query that it is asked by: a template.
    path: String,
    /// The method that it is asked by. Default GET.
    #[serde(default = "get")]
    method: String,
    /// Headers of the client's request that it sees. Default authorization and cookie.
    request_headers: Option<OneOrMany<String>>,
    /// Headers of its answer that the upstream sees, in place of the client's. Default none.
    response_headers: Option<OneOrMany<String>>,
    /// How long it may take. Default 5s.
    #[serde(default = "five_seconds", deserialize_with = "duration::deserialize")]
    #[schemars(with = "DurationText")]
    timeout: Duration,
}

fn get() -> String {
    "GET".to_owned()
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

const MOST_BODY: usize = 64 * 1024;

impl Build for ForwardAuth {
    type Config = ForwardAuthConfig;

    fn build(config: ForwardAuthConfig, setting: &Setting<'_>) -> Result<Self, Vec<Problem>> {
        let root = Path::root();
        let mut problems = Vec::new();
        let upstream = setting.outbound.upstream(&config.upstream, &root.key("upstream"));
        let upstream = upstream.map_err(|problem| problems.push(problem));
        let at = root.key("path");
        let path = Template::parse(&config.path, Scope::Request)
            .map_err(|problem| problems.push(problem.under(&at)));
        let begins = config.path.starts_with('/');
        if !begins
            || path
                .as_ref()
                .is_ok_and(|path| path.literal().is_some_and(|path| path.parse::<PathAndQuery>().is_err()))
        {
            problems.push(
                Problem::new(at, format!("`{}` is not a path", config.path.escape_debug()))
                    .hint("it begins with `/`, as in `/verify`"),
            );
        }
        let method = config.method.parse::<Method>().ok();
        let method = method.filter(|method| {
            config.method == config.method.to_ascii_uppercase() && *method != Method::CONNECT
        });
        if method.is_none() {
            problems.push(
                Problem::new(
                    root.key("method"),
                    format!("`{}` is not a method to ask by", config.method.escape_debug()),
                )
                .hint("write `GET`, `HEAD` or `POST`"),
            );
        }
        if config.timeout.is_zero() {
            problems
                .push(Problem::new(root.key("timeout"), "a client would wait for ever").hint("write `5s`"));
        }
        let mut names = |key: &str, list: Option<OneOrMany<String>>, default: Vec<HeaderName>| {
            let Some(OneOrMany(list)) = list else { return default };
            let mut names = Vec::new();
            for (index, text) in list.iter().enumerate() {
                match FieldName::parse(text) {
                    Ok(field) if field.name != HOST => names.push(field.name),
                    Ok(_) => problems.push(Problem::new(
                        root.key(key).index(index),
                        "the Host says who is asked, so it is not copied; the server sees X-Forwarded-Host",
                    )),
                    Err(problem) => problems.push(problem.under(&root.key(key).index(index))),
                }
            }
            names
        };
        let request_headers = names("request_headers", config.request_headers, vec![AUTHORIZATION, COOKIE]);
        let response_headers = names("response_headers", config.response_headers, Vec::new());
        match (upstream, path, method) {
            (Ok(upstream), Ok(path), Some(method)) if problems.is_empty() => Ok(Self {
                upstream,
                path,
                method,
                request_headers,
                response_headers,
                limits: Limits { timeout: config.timeout, body: MOST_BODY },
            }),
            _ => Err(problems),
        }
    }
}

impl Plugin for ForwardAuth {
    fn hooks(&self) -> Hooks {
        Hooks { wait: true, ..Hooks::default() }
    }

    fn wait<'a>(
        &'a self,
        head: &'a mut RequestHeader,
        info: &'a RequestInfo<'a>,
    ) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>> {
        Box::pin(async move {
            let Some(question) = self.question(head, info) else {
                return unavailable("`path` came out as no path".to_owned());
            };
            let answer = match self.upstream.ask(question, self.limits).await {
                Ok(answer) => answer,
                Err(unanswered) => return unavailable(unanswered.to_string()),
            };
            let (parts, body) = answer.into_parts();
            if !parts.status.is_success() {
                return Verdict::Respond(reply(parts.status.as_u16(), &parts.headers, body));
            }
            for name in &self.response_headers {
                head.remove_header(name);
                for value in parts.headers.get_all(name) {
                    // Fails in a section of 2^15 fields, where the upstream gets one less.
                    let _ = head.append_header(name.clone(), value.clone());
                }
            }
            Verdict::Continue
        })
    }

    fn authenticates(&self) -> bool {
        true
    }
}

impl ForwardAuth {
    fn question(&self, head: &RequestHeader, info: &RequestInfo<'_>) -> Option<Request<Bytes>> {
        let path = PathAndQuery::try_from(&*self.path.render_bytes(head, info)).ok()?;
        let mut question = Request::new(Bytes::new());
        *question.uri_mut() = path.into();
        *question.method_mut() = self.method.clone();
        let headers = question.headers_mut();
        for name in &self.request_headers {
            for value in head.headers.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        let target = Target::of(head);
        let path = target.as_ref().map_or(&b"/"[..], |target| target.path());
        let query = target.as_ref().and_then(|target| target.query());
        let uri = query.map_or_else(|| path.to_vec(), |query| [path, b"?", query].concat());
        let text = |text: &str| HeaderValue::from_str(text).ok();
        let told = [
            ("x-forwarded-method", text(head.method.as_str())),
            ("x-forwarded-proto", text(info.scheme)),
            ("x-forwarded-host", head.headers.get(HOST).cloned()),
            ("x-forwarded-uri", HeaderValue::from_bytes(&uri).ok()),
            (
                "x-forwarded-for",
                // The gateway's own word, with those that a route trusts before it.
                head.headers.get("x-forwarded-for").cloned().or_else(|| text(&info.client_ip?.to_string())),
            ),
        ];
        for (name, value) in told {
            if let Some(value) = value {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        Some(question)
    }
}

/// The server's answer as the client gets it: without what belongs to the server's own connection.
fn reply(status: u16, headers: &HeaderMap, body: Bytes) -> Reply {
    let nominated: Vec<String> = headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let passes = |name: &HeaderName| {
        !is_framing(name)
            && *name != CONTENT_LENGTH
            && !nominated.iter().any(|nominated| nominated == name.as_str())
    };
    let headers = headers.iter().filter(|(name, _)| passes(name));
    Reply { status, headers: headers.map(|(name, value)| (name.clone(), value.clone())).collect(), body }
}

fn unavailable(detail: String) -> Verdict {
    Verdict::Refuse(Refusal {
        status: 503,
        headers: Vec::new(),
        why: Why::Unavailable,
        detail: format!("forward_auth: {detail}"),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::outbound::{Asking, Outbound, Unanswered};
    use crate::testing::{INFO, ROUTE, Silent, block_on, get, plugins_of_doc_in, told, yaml};
    use crate::{Registry, Setting};

    /// Answers so, and keeps what it was asked.
    struct Server {
        answer: Result<http::Response<Bytes>, Unanswered>,
        asked: Mutex<Option<Request<Bytes>>>,
    }

    struct Servers(Arc<Server>);

    impl Upstream for Server {
        fn name(&self) -> &str {
            "auth"
        }

        fn ask(&self, request: Request<Bytes>, _: Limits) -> Asking<'_> {
            *self.asked.lock().unwrap() = Some(request);
            Box::pin(std::future::ready(self.answer.clone()))
        }
    }

    impl Outbound for Servers {
        fn upstream(&self, name: &str, at: &Path) -> Result<Arc<dyn Upstream>, Problem> {
            match name {
                "auth" => Ok(self.0.clone()),
                _ => Err(Problem::new(at.clone(), "no such upstream")),
            }
        }
    }

    fn server(answer: Result<http::response::Builder, Unanswered>) -> Arc<Server> {
        let answer = answer.map(|answer| answer.body(Bytes::from_static(b"no")).unwrap());
        Arc::new(Server { answer, asked: Mutex::default() })
    }

    fn plugin(server: &Arc<Server>, config: &str) -> Result<Arc<dyn Plugin>, String> {
        let setting = Setting { outbound: &Servers(server.clone()), ..ROUTE };
        Registry::builtin().build("forward_auth", &yaml(config), &setting).map_err(|problems| told(&problems))
    }

    #[test]
    fn the_yaml_of_the_module_doc_loads() {
        let setting = Setting { outbound: &Silent, ..ROUTE };
        assert_eq!(plugins_of_doc_in(include_str!("forward_auth.rs"), &setting).len(), 1);
    }

    #[test]
    fn a_request_passes_with_the_servers_headers_alone() {
        let server = server(Ok(http::Response::builder().header("x-user", "alice").header("x-other", "1")));
        let plugin = plugin(
            &server,
            "{ upstream: auth, path: '/verify?for=$route', response_headers: [x-user, x-groups] }",
        )
        .unwrap();
        let mut head = get("/a%20b?c=d");
        for (name, value) in
            [("cookie", "a=1"), ("x-user", "admin"), ("x-groups", "root"), ("x-private", "1")]
        {
            head.append_header(name, value).unwrap();
        }
        assert!(matches!(block_on(plugin.wait(&mut head, &INFO)), Verdict::Continue));
        assert!(head.headers.get_all("x-user").iter().eq(["alice"]));
        assert!(!head.headers.contains_key("x-groups") && !head.headers.contains_key("x-other"));
        let asked = server.asked.lock().unwrap().take().unwrap();
        assert_eq!(
            (asked.method().as_str(), asked.uri().to_string()),
            ("GET", "/verify?for=kube-api".to_owned())
        );
        for (name, value) in [
            ("cookie", "a=1"),
            ("x-forwarded-method", "GET"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "Shop.Example:8443"),
            ("x-forwarded-uri", "/a%20b?c=d"),
            ("x-forwarded-for", "192.0.2.7"),
        ] {
            assert_eq!(asked.headers()[name], value);
        }
        assert!(!asked.headers().contains_key("x-private"));
    }

    #[test]
    fn any_other_answer_is_the_clients() {
        let answer = http::Response::builder()
            .status(302)
            .header("location", "/login")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("content-length", "2");
        let plugin = plugin(&server(Ok(answer)), "{ upstream: auth, path: /verify }").unwrap();
        let Verdict::Respond(reply) = block_on(plugin.wait(&mut get("/"), &INFO)) else { panic!() };
        let names: Vec<&str> = reply.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            (reply.status, &reply.body[..], names),
            (302, &b"no"[..], vec!["location", "set-cookie", "set-cookie"])
        );
    }

    #[test]
    fn without_an_answer_nothing_passes() {
        let plugin =
            plugin(&server(Err(Unanswered("down".into()))), "{ upstream: auth, path: /verify }").unwrap();
        let Verdict::Refuse(refusal) = block_on(plugin.wait(&mut get("/"), &INFO)) else { panic!() };
        assert_eq!(
            (refusal.status, refusal.why, &*refusal.detail),
            (503, Why::Unavailable, "forward_auth: down")
        );
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let server = server(Ok(http::Response::builder()));
        for (config, told) in [
            ("{ path: /x }", "upstream"),
            ("{ upstream: other, path: /x }", "upstream: no such upstream"),
            ("{ upstream: auth, path: x }", "path: `x` is not a path"),
            ("{ upstream: auth, path: /$hots }", "path: no variable is named"),
            ("{ upstream: auth, path: /x, method: get }", "method: `get` is not a method"),
            ("{ upstream: auth, path: /x, method: CONNECT }", "method: `CONNECT` is not a method"),
            ("{ upstream: auth, path: /x, timeout: 0s }", "timeout: a client would wait for ever"),
            ("{ upstream: auth, path: /x, request_headers: [host] }", "request_headers[0]: the Host says"),
            (
                "{ upstream: auth, path: /x, response_headers: te }",
                "response_headers[0]: `te` cannot be changed",
            ),
        ] {
            let refused = plugin(&server, config).err().unwrap_or_default();
            assert!(refused.contains(told), "{config}: {refused}");
        }
    }
}
