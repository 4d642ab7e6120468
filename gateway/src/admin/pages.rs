//! The pages of the admin endpoint: one table, and who may read them.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::json;

use super::upstreams;
use crate::diagnose::Cause;
use crate::reload::Control;
use crate::snapshot::Snapshot;

/// A page that is read by GET.
struct Page {
    path: &'static str,
    /// Whether it is told to those without the token.
    is_public: bool,
    content_type: &'static str,
    body: fn(&Snapshot) -> String,
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// The text format of Prometheus, by its version.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// RFC 9457.
const PROBLEM: &str = "application/problem+json";

const PAGES: [Page; 4] = [
    // A probe holds no secret, and learns none.
    Page { path: "/healthz", is_public: true, content_type: TEXT, body: |_| "ok\n".to_owned() },
    Page { path: "/metrics", is_public: false, content_type: METRICS, body: |it| it.metrics.encode() },
    Page {
        path: "/upstreams",
        is_public: false,
        content_type: JSON,
        body: |it| pretty(&upstreams::told(it)),
    },
    Page { path: "/causes", is_public: false, content_type: JSON, body: |_| causes() },
];

/// What is answered to this request.
pub fn answer(request: &Parts, control: &Control) -> Response<Full<Bytes>> {
    let Parts { method, uri, headers, .. } = request;
    let snapshot = control.live().pin();
    let token = snapshot.admin.as_ref().and_then(|admin| admin.token.as_ref());
    let page = PAGES.iter().find(|page| page.path == uri.path());
    let is_public = page.is_some_and(|page| page.is_public);
    if !is_public && token.is_some_and(|token| !shown(headers).is_some_and(|it| token.is(it))) {
        let detail = "a token has to be shown: `Authorization: Bearer TOKEN`";
        let challenge = (header::WWW_AUTHENTICATE, "Bearer realm=\"vestibule\"");
        return problem(StatusCode::UNAUTHORIZED, detail, Some(challenge));
    }
    let Some(page) = page else {
        let paths = PAGES.each_ref().map(|page| page.path).join(", ");
        return problem(StatusCode::NOT_FOUND, &format!("there are {paths}"), None);
    };
    if ![Method::GET, Method::HEAD].contains(method) {
        let detail = "this page is only read";
        return problem(StatusCode::METHOD_NOT_ALLOWED, detail, Some((header::ALLOW, "GET, HEAD")));
    }
    response(StatusCode::OK, page.content_type, (page.body)(&snapshot), None)
}

/// The bearer token of a request, if it shows one; the scheme in any case, by RFC 9110 section 11.1.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
}

fn causes() -> String {
    #[derive(Serialize)]
    struct Row {
        code: &'static str,
        what: &'static str,
        remedy: &'static str,
    }
    let rows = Cause::ALL.iter();
    let rows = rows.map(|cause| Row { code: cause.code(), what: cause.what(), remedy: cause.remedy() });
    pretty(&json!({ "causes": rows.collect::<Vec<_>>() }))
}

/// As a person reads it in a browser.
fn pretty(value: &impl Serialize) -> String {
    // Nothing that is told here has a key that is no text, which alone could fail.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

type Field = (HeaderName, &'static str);

fn problem(status: StatusCode, detail: &str, field: Option<Field>) -> Response<Full<Bytes>> {
    let title = status.canonical_reason().unwrap_or_default();
    let body = json!({ "title": title, "status": status.as_u16(), "detail": detail });
    response(status, PROBLEM, pretty(&body), field)
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    body: String,
    field: Option<Field>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let fields = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fields.into_iter().chain(field) {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
