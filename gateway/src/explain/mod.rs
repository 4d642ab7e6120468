//! What the gateway would do with a request, and why: from a snapshot and a request to an `Explanation`.
//!
//! No socket and no name is touched. Nothing is decided here either: the steps are those of `proxy`, `route`,
//! `upstream` and the chain itself, run on a request that is never sent.

mod cases;
mod diff;
mod forward;
mod precedence;
mod sample;
mod table;
mod text;
mod tls;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::HeaderValue;
use pingora_http::RequestHeader;
use serde::Serialize;
use vestibule_plugins::{Path, Ran, Verdict};

pub use cases::{Case, Cases, Difference, Purpose, read};
pub use diff::{Change, Diff, Line};
pub use forward::{Destination, Forward, Retry, Timeouts};
pub use precedence::{Considered, Standing};
pub use sample::{Sample, Typed, header};
pub use table::{judged, listed};
pub use text::{Colors, render};
pub use tls::{Certificate, Tls, Verify};

use crate::config::Document;
use crate::diagnose::{Cause, Failure};
use crate::proxy::admit;
use crate::proxy::ctx::{Client, Ctx, RequestId};
use crate::proxy::respond;
use crate::snapshot::live::InForce;
use crate::snapshot::{Action, Route, Snapshot};

/// The address that the client is taken to have.
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What becomes of a request. Its JSON is stable: keys are added, and keep their meaning.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The request.
    pub request: Asked,
    /// Where it came in.
    pub listener: Place,
    /// The name of the route that takes it.
    pub route: Option<String>,
    /// Every route in order of precedence, the one that takes it first.
    pub routes: Vec<Considered>,
    /// What its plugins did, in order, behind the gateway's own rewriting.
    pub plugins: Vec<Plugin>,
    /// What becomes of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A request as it came.
#[derive(Debug, Serialize)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The Host.
    pub host: String,
}

/// Something that has a name in the file, and where it stands.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// `FILE:LINE`.
    pub at: String,
}

impl Place {
    fn of(name: &str, document: &Document, path: &Path) -> Self {
        let position = document.position(path);
        Self { name: name.to_owned(), at: format!("{}:{}", position.file.display(), position.line) }
    }
}

/// A plugin of the route's chain that sees requests.
#[derive(Debug, Serialize)]
pub struct Plugin {
    /// Its name and where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// `false` where it would have to wait for somebody outside, and so was left out.
    pub ran: bool,
}

/// What becomes of a request.
#[derive(Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Outcome {
    /// It is refused.
    Refused(Refusal),
    /// The gateway answers.
    Answered(Answer),
    /// It goes to one of these upstreams.
    Forwarded {
        /// One, or the parts of a split.
        upstreams: Vec<Forward>,
    },
}

/// Why a request is refused.
#[derive(Debug, Serialize)]
pub struct Refusal {
    /// The status that the client gets.
    pub status: u16,
    /// The code that the access log gives.
    pub cause: &'static str,
    /// In words.
    pub why: String,
}

/// An answer that the gateway gives itself.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// Who answers: `respond`, `redirect`, or the name of a plugin.
    pub by: String,
    /// The status.
    pub status: u16,
    /// Its header fields.
    pub headers: Vec<(String, String)>,
    /// Where a redirect leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// The length of its body.
    pub body_bytes: usize,
}

/// Explains one request.
pub fn explain(snapshot: &Arc<Snapshot>, document: &Document, sample: &Sample) -> Explanation {
    let head = sample.head();
    let in_force = InForce { running: snapshot.clone(), stage: None };
    let mut ctx = Ctx::new(&in_force, &Arc::default());
    ctx.request_id = RequestId::zeros();
    ctx.client = Some(Arc::new(Client {
        listener: sample.listener.clone(),
        ip: Some(CLIENT),
        ip_text: HeaderValue::from_static("127.0.0.1"),
        certificate: None,
        // Nobody looks at them: it is taken to have come by a connection that may be used for it.
        terms: sample.listener.terms[0].clone(),
        heads: Arc::default(),
    }));

    let mut entered = head.clone();
    let admitted = admit::enter(&mut entered, &mut ctx);
    let question = admit::question(&head, &ctx.asked, &sample.listener);
    let routes = precedence::considered(snapshot, document, &question);
    let mut told = Told { document, plugins: Vec::new() };
    let outcome = match admitted.and_then(|()| become_of(&head, &entered, &mut ctx, &mut told)) {
        Ok(outcome) => outcome,
        Err(failure) => Outcome::Refused(refusal(&failure, &routes)),
    };
    let listener = &sample.listener.name;
    let field = |name: &str| head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    Explanation {
        request: Asked {
            method: head.method.to_string(),
            target: String::from_utf8_lossy(head.raw_path()).into_owned(),
            host: field("host").unwrap_or_default().into_owned(),
        },
        listener: Place::of(listener, document, &Path::root().key("listeners").key(listener)),
        route: ctx.route().map(|route| route.name.clone()),
        routes,
        plugins: told.plugins,
        outcome,
    }
}

/// What is noted while a chain is rehearsed.
struct Told<'a> {
    document: &'a Document,
    plugins: Vec<Plugin>,
}

fn become_of(
    head: &RequestHeader,
    entered: &RequestHeader,
    ctx: &mut Ctx,
    told: &mut Told<'_>,
) -> Result<Outcome, Failure> {
    let snapshot = ctx.snapshot.clone();
    let internal = || Failure::new(Cause::Internal, "a request without a route");
    let route = ctx.route.and_then(|route| snapshot.routes.get(route)).ok_or_else(internal)?;
    let targets = match &route.action {
        Action::Forward { targets, .. } => targets.as_slice(),
        Action::Respond { .. } | Action::Redirect(_) => &[],
    };
    let mut upstreams = Vec::new();
    for position in 0..targets.len().max(1) {
        // Nothing is left to chance: each target of a split is followed.
        ctx.target = (!targets.is_empty()).then_some(position);
        let mut diff = Diff::new(head);
        let mut request = entered.clone();
        diff.step(&request, "the gateway");
        let verdict = rehearse(route, &mut request, ctx, &mut diff, told);
        let by = answering(&verdict, &route.action, &told.plugins);
        let answer = respond::answer(&request, verdict, ctx)
            .map_err(|error| Failure::new(Cause::Internal, error.to_string()))?;
        match answer {
            Some(answer) => return Ok(Outcome::Answered(answered(by, &answer))),
            None => upstreams.push(forward::forward(request, diff, ctx, told.document)?),
        }
    }
    Ok(Outcome::Forwarded { upstreams })
}

/// Runs the chain plugin by plugin.
fn rehearse(
    route: &Route,
    request: &mut RequestHeader,
    ctx: &Ctx,
    diff: &mut Diff,
    told: &mut Told<'_>,
) -> Verdict {
    told.plugins.clear();
    route.chain.rehearse(request, &ctx.info(), |at, ran, head| {
        let place = Place::of(&sample::last(at), told.document, at);
        diff.step(head, &place.name);
        told.plugins.push(Plugin { place, ran: ran == Ran::Request });
    })
}

fn answering(verdict: &Verdict, action: &Action, plugins: &[Plugin]) -> String {
    match (verdict, action, plugins.last()) {
        (Verdict::Respond(_) | Verdict::Refuse(_), _, Some(plugin)) => plugin.place.name.clone(),
        (_, Action::Redirect(_), _) => "redirect".into(),
        _ => "respond".into(),
    }
}

fn answered(by: String, answer: &respond::Answer) -> Answer {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = &answer.head.headers;
    Answer {
        by,
        status: answer.head.status.as_u16(),
        headers: headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        location: headers.get(http::header::LOCATION).map(text),
        body_bytes: answer.body.len(),
    }
}

fn refusal(failure: &Failure, routes: &[Considered]) -> Refusal {
    let why = match (failure.cause, routes.first()) {
        (Cause::NoRoute, Some(nearest)) => {
            format!("no route takes it; the nearest is `{}`: {}", nearest.place.name, nearest.why)
        }
        (Cause::NoRoute, None) => "no route takes it: there are none".into(),
        (_, _) => failure.to_string(),
    };
    Refusal { status: failure.cause.status(), cause: failure.cause.code(), why }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path as FilePath;

    use vestibule_plugins::{Build, Hooks, Registry, RequestInfo, Setting};

    use super::*;
    use crate::snapshot::{Workshop, compile};

    /// Asks somebody outside, of whom there is none here.
    struct Outside;

    impl vestibule_plugins::Plugin for Outside {
        fn hooks(&self) -> Hooks {
            Hooks { request: true, wait: true, response: false }
        }

        fn request(&self, head: &mut RequestHeader, _: &RequestInfo<'_>) -> Verdict {
            let _ = head.insert_header("x-before", "1");
            Verdict::Continue
        }

        fn wait<'a>(
            &'a self,
            _: &'a mut RequestHeader,
            _: &'a RequestInfo<'a>,
        ) -> std::pin::Pin<Box<dyn Future<Output = Verdict> + Send + 'a>> {
            panic!("nothing outside is asked for an explanation")
        }
    }

    impl Build for Outside {
        type Config = std::collections::BTreeMap<String, String>;

        fn build(_: Self::Config, _: &Setting<'_>) -> Result<Self, Vec<vestibule_plugins::Problem>> {
            Ok(Self)
        }
    }

    /// What becomes of a request under a configuration with a plugin that waits.
    pub fn explained(method: &str, url: &str) -> Explanation {
        let text = "version: 1\nlisteners: { web: { address: '127.0.0.1:80' } }\n\
                    upstreams: { app: { endpoints: ['app.test:80'] } }\nroutes:\n\
                    - { name: api, match: { paths: /api }, upstream: app, plugins: [{ outside: {} }, { path_rewrite: { strip_prefix: /api } }] }\n";
        let workshop = Workshop::new(Registry::builtin().with::<Outside>("outside"));
        let loaded = crate::config::parse("gateway.yaml", text, FilePath::new("")).unwrap();
        let snapshot = Arc::new(compile(&loaded, &workshop).unwrap());
        let sample = Typed { method, url, headers: &[], listener: None }.sample(&snapshot).unwrap();
        explain(&snapshot, &loaded.document, &sample)
    }

    #[test]
    fn a_plugin_that_waits_is_left_out_and_named_and_those_around_it_run() {
        let explanation = explained("GET", "http://a.test/api/x");
        let ran: Vec<_> =
            explanation.plugins.iter().map(|plugin| (plugin.place.name.as_str(), plugin.ran)).collect();
        assert_eq!(ran, [("outside", true), ("outside", false), ("path_rewrite", true)]);
        let text = render(&explanation, Colors::Off);
        for line in [
            "plugin outside  gateway.yaml:5: left out, since it waits for an answer from outside; what it would do is not shown",
            "+ GET /x HTTP/1.1             # path_rewrite",
            "+ x-before: 1                 # outside",
            "  endpoint            app.test:80: Host a.test",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
        }
    }
}
