//! What the admin endpoint can be asked: one table, from which the answers, the index and the OpenAPI description are
//! made.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use schemars::{Schema, SchemaGenerator};
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::asked::{self, Asked, NoBody, ReloadBody};
use super::causes::{self, Causes};
use super::certificates::{self, Certificates};
use super::problem::Problem;
use super::reloads::{self, Reloads};
use super::routes::{self, Routes};
use super::running::{self, Running};
use super::upstreams::{self, Upstreams};
use super::{gate, openapi};
use crate::config::StageConfig;
use crate::reload::entry::{Entry, Trigger};
use crate::reload::stage::StageStatus;
use crate::reload::{Change, Control, Readiness};

/// One thing that can be asked.
pub struct Operation {
    pub path: &'static str,
    /// Its name, for programs.
    pub id: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// Whether anybody may ask: a probe holds no token.
    pub is_public: bool,
    pub gives: Gives,
    pub does: Does,
    /// The statuses of its own that are none of success, and when each is the answer.
    pub problems: &'static [(u16, &'static str)],
}

/// What an answer is made of.
pub enum Gives {
    Text,
    /// The text format of Prometheus, by its version.
    Metrics,
    Json(fn(&mut SchemaGenerator) -> Schema),
}

/// What is done.
pub enum Does {
    /// Something is told, by GET or HEAD.
    Tell(fn(&Control) -> Result<Told, Problem>),
    /// Something is changed, by POST: what the body asks for.
    Change { takes: fn(&mut SchemaGenerator) -> Schema, read: fn(&[u8]) -> Result<Change, Problem> },
}

/// A page, and the status that it is told with.
pub struct Told {
    status: StatusCode,
    body: String,
}

/// All of them.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        path: "/",
        id: "index",
        summary: "what there is",
        is_public: false,
        gives: Gives::Text,
        does: Does::Tell(|_| page(index())),
        problems: &[],
    },
    Operation {
        path: "/healthz",
        id: "health",
        summary: "`ok`, for as long as the process runs",
        is_public: true,
        gives: Gives::Text,
        does: Does::Tell(|_| page("ok\n".into())),
        problems: &[],
    },
    Operation {
        path: "/readyz",
        id: "readiness",
        summary: "`ready`, or with 503 `starting` or `draining` where clients are not to be sent here",
        is_public: true,
        gives: Gives::Text,
        does: Does::Tell(|control| Ok(readiness(control))),
        problems: &[],
    },
    Operation {
        path: "/metrics",
        id: "metrics",
        summary: "all counts, in the text format of Prometheus",
        is_public: false,
        gives: Gives::Metrics,
        does: Does::Tell(|control| page(control.live().pin().metrics.encode())),
        problems: &[],
    },
    Operation {
        path: "/config",
        id: "config",
        summary: "the configuration that runs, without its secrets, and since when",
        is_public: false,
        gives: Gives::Json(schema::<Running<'_>>),
        does: Does::Tell(|control| json(&running::told(&control.live().pin(), control))),
        problems: &[],
    },
    Operation {
        path: "/routes",
        id: "routes",
        summary: "each route: what it asks of a request, and what becomes of one",
        is_public: false,
        gives: Gives::Json(schema::<Routes<'_>>),
        does: Does::Tell(|control| json(&routes::told(&control.live().pin()))),
        problems: &[],
    },
    Operation {
        path: "/upstreams",
        id: "upstreams",
        summary: "each endpoint: its addresses, what came of the attempts at it, and what mends the last failure",
        is_public: false,
        gives: Gives::Json(schema::<Upstreams<'_>>),
        does: Does::Tell(|control| json(&upstreams::told(&control.live().pin()))),
        problems: &[],
    },
    Operation {
        path: "/certificates",
        id: "certificates",
        summary: "the certificates that are shown and trusted, and when each ends",
        is_public: false,
        gives: Gives::Json(schema::<Certificates<'_>>),
        does: Does::Tell(|control| json(&certificates::told(&control.live().pin()))),
        problems: &[],
    },
    Operation {
        path: "/causes",
        id: "causes",
        summary: "the codes by which failures are told, what each means and what mends it",
        is_public: false,
        gives: Gives::Json(schema::<Causes>),
        does: Does::Tell(|_| json(&causes::told())),
        problems: &[],
    },
    Operation {
        path: "/reloads",
        id: "reloads",
        summary: "the last 50 changes of the configuration that were asked for, and what came of each",
        is_public: false,
        gives: Gives::Json(schema::<Reloads<'_>>),
        does: Does::Tell(|control| json(&reloads::told(&control.entries()))),
        problems: &[],
    },
    Operation {
        path: "/reload",
        id: "reload",
        summary: "load the files, and put in force what they say",
        is_public: false,
        gives: Gives::Json(schema::<Entry>),
        does: Does::Change { takes: schema::<ReloadBody>, read: asked::reload },
        problems: &[REFUSED],
    },
    Operation {
        path: "/stage",
        id: "stage",
        summary: "how the candidate does that is on trial",
        is_public: false,
        gives: Gives::Json(schema::<StageStatus<'_>>),
        does: Does::Tell(stage),
        problems: &[(404, "No candidate is on trial.")],
    },
    Operation {
        path: "/stage",
        id: "beginStage",
        summary: "load the files, and try what they say on a share of the clients",
        is_public: false,
        gives: Gives::Json(schema::<Entry>),
        does: Does::Change { takes: schema::<StageConfig>, read: asked::stage },
        problems: &[REFUSED],
    },
    Operation {
        path: "/stage/promote",
        id: "promote",
        summary: "put the candidate in force for all",
        is_public: false,
        gives: Gives::Json(schema::<Entry>),
        does: Does::Change { takes: schema::<NoBody>, read: asked::promote },
        problems: &[(409, "No candidate is on trial.")],
    },
    Operation {
        path: "/stage/abort",
        id: "abort",
        summary: "drop the candidate",
        is_public: false,
        gives: Gives::Json(schema::<Entry>),
        does: Does::Change { takes: schema::<NoBody>, read: asked::abort },
        problems: &[(409, "No candidate is on trial.")],
    },
    Operation {
        path: "/rollback",
        id: "rollback",
        summary: "put the configuration before this one in force again",
        is_public: false,
        gives: Gives::Json(schema::<Entry>),
        does: Does::Change { takes: schema::<NoBody>, read: asked::rollback },
        problems: &[(409, "There is none before, or it cannot be had any more.")],
    },
    Operation {
        path: "/openapi.json",
        id: "openapi",
        summary: "this list for programs, by OpenAPI 3.1",
        is_public: false,
        gives: Gives::Json(schema::<serde_json::Map<String, serde_json::Value>>),
        does: Does::Tell(|_| json(&openapi::description())),
        problems: &[],
    },
];

const REFUSED: (u16, &str) =
    (422, "The files are wrong: each of the `problems` says where, and what mends it.");

impl Operation {
    /// Its method, as a description tells it.
    pub fn method(&self) -> Method {
        match self.does {
            Does::Tell(_) => Method::GET,
            Does::Change { .. } => Method::POST,
        }
    }

    fn takes(&self, method: &Method) -> bool {
        *method == self.method() || (*method == Method::HEAD && self.method() == Method::GET)
    }
}

impl Gives {
    /// Its media type.
    pub fn media(&self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Metrics => "text/plain; version=0.0.4; charset=utf-8",
            Self::Json(_) => "application/json",
        }
    }
}

/// What is answered to this request, which has come to this address.
pub async fn answer(asked: Asked, address: SocketAddr, control: Control) -> Response<Full<Bytes>> {
    match answered(asked, address, control).await {
        Ok(response) => response,
        Err(problem) => {
            let mut response = response(problem.status, "application/problem+json", pretty(&problem));
            if let Some((name, value)) = problem.field {
                response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            response
        }
    }
}

async fn answered(
    asked: Asked,
    address: SocketAddr,
    control: Control,
) -> Result<Response<Full<Bytes>>, Problem> {
    let Asked { head, body } = asked;
    let path = head.uri.path();
    let mut here = OPERATIONS.iter().filter(|operation| operation.path == path);
    let operation = here.clone().find(|operation| operation.takes(&head.method));
    if !here.clone().any(|operation| operation.is_public) {
        gate::check(&head, address, control.live().pin().admin.as_deref())?;
    }
    let Some(operation) = operation else {
        let methods = (here.next().map(Operation::method), here.next());
        return Err(match methods {
            (None, _) => nowhere(),
            (Some(Method::GET), None) => Problem::wrong_method("GET, HEAD"),
            (Some(_), None) => Problem::wrong_method("POST"),
            (Some(_), Some(_)) => Problem::wrong_method("GET, HEAD, POST"),
        });
    };
    let body = body?;
    let media = operation.gives.media();
    match operation.does {
        Does::Tell(tell) => {
            // Not on a thread that serves requests: the page of a large configuration takes milliseconds to write.
            let told = spawn_blocking(move || tell(&control)).await;
            let Told { status, body } = told.unwrap_or_else(|failure| {
                let detail = format!("the gateway failed to answer: {failure}");
                Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail))
            })?;
            Ok(response(status, media, body))
        }
        Does::Change { read, .. } => {
            let entry = control.change(read(&body)?, Trigger::Admin).await;
            Ok(response(StatusCode::OK, media, pretty(reloads::outcome(entry.as_deref())?)))
        }
    }
}

/// A line for each operation.
fn index() -> String {
    let width = OPERATIONS.iter().map(|operation| operation.path.len()).max().unwrap_or_default();
    let line = |operation: &Operation| {
        format!("{:4} {:width$}  {}\n", operation.method().as_str(), operation.path, operation.summary)
    };
    OPERATIONS.iter().map(line).collect()
}

fn nowhere() -> Problem {
    let mut paths: Vec<&str> = OPERATIONS.iter().map(|operation| operation.path).collect();
    paths.dedup();
    Problem::new(StatusCode::NOT_FOUND, format!("there are {}", paths.join(", ")))
}

fn readiness(control: &Control) -> Told {
    let (status, word) = match control.readiness() {
        Readiness::Serving => (StatusCode::OK, "ready"),
        Readiness::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    Told { status, body: format!("{word}\n") }
}

fn stage(control: &Control) -> Result<Told, Problem> {
    match &control.live().in_force().stage {
        Some(stage) => json(&stage.status(stage.began.elapsed())),
        None => Err(reloads::no_stage()),
    }
}

fn schema<T: schemars::JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

fn page(body: String) -> Result<Told, Problem> {
    Ok(Told { status: StatusCode::OK, body })
}

fn json(value: &impl Serialize) -> Result<Told, Problem> {
    page(pretty(value))
}

/// As a person reads it in a browser.
fn pretty(value: &impl Serialize) -> String {
    // Nothing that is told here has a key that is no text, which alone could fail.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn response(status: StatusCode, media: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let fields = [
        (header::CONTENT_TYPE, media),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fields {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_operations_have_a_name_or_a_path_and_method_in_common() {
        let ids: BTreeSet<_> = OPERATIONS.iter().map(|operation| operation.id).collect();
        let places: BTreeSet<_> =
            OPERATIONS.iter().map(|operation| format!("{} {}", operation.method(), operation.path)).collect();
        assert_eq!((ids.len(), places.len()), (OPERATIONS.len(), OPERATIONS.len()));
    }

    #[test]
    fn the_index_has_a_line_for_each_operation() {
        let index = index();
        assert_eq!(index.lines().count(), OPERATIONS.len());
        assert!(index.contains("POST /stage/promote  put the candidate in force for all\n"), "{index}");
        assert!(index.contains("GET  /stage          how the candidate does"), "{index}");
    }
}
