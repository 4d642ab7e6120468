//! From `redirect:` and `respond:` to what the gateway answers itself.

use bytes::Bytes;
use http::{HeaderValue, header};
use pingora_http::ResponseHeader;
use vestibule_plugins::{Path, Problem};

use super::files::Files;
use super::{Action, Redirect, RedirectPath};
use crate::config::{RedirectConfig, RespondConfig};

/// Compiles a `redirect`; `by_prefix` tells whether every path of its route is a prefix.
pub fn redirect(
    config: &RedirectConfig,
    at: &Path,
    by_prefix: bool,
    problems: &mut Vec<Problem>,
) -> Redirect {
    let status = config.status.code();
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        problems.push(
            Problem::new(at.key("status"), format!("{status} is not a status that redirects"))
                .hint("use 301, 302, 303, 307 or 308"),
        );
    }
    if let Some(scheme) = config.scheme.as_deref().filter(|scheme| !matches!(*scheme, "http" | "https")) {
        problems.push(
            Problem::new(at.key("scheme"), format!("`{scheme}` is not a scheme to redirect to"))
                .hint("use `http` or `https`"),
        );
    }
    if let Some(host) = &config.host
        && (host.is_empty() || HeaderValue::from_str(host).is_err() || host.contains(['/', ':', ' ']))
    {
        problems.push(
            Problem::new(at.key("host"), format!("`{host}` is not a host name"))
                .hint("the port goes under `port`, the scheme under `scheme`"),
        );
    }
    let absolute = |key: &str, path: &Option<String>, problems: &mut Vec<Problem>| {
        if let Some(path) =
            path.as_ref().filter(|path| !path.starts_with('/') || path.contains(['?', '#', ' ']))
        {
            problems.push(
                Problem::new(at.key(key), format!("`{path}` is not a path"))
                    .hint("a path begins with `/` and has no `?`, `#` or blank"),
            );
        }
    };
    absolute("path", &config.path, problems);
    // An empty one takes the prefix away, as it does in `path_rewrite`.
    absolute("replace_prefix", &config.replace_prefix.clone().filter(|to| !to.is_empty()), problems);
    let path = match (&config.path, &config.replace_prefix) {
        (Some(_), Some(_)) => {
            problems.push(
                Problem::new(at.key("replace_prefix"), "`path` and `replace_prefix` exclude each other")
                    .hint("keep the one that is meant"),
            );
            RedirectPath::Keep
        }
        (Some(path), None) => RedirectPath::Full(path.clone()),
        (None, Some(to)) => {
            if !by_prefix {
                problems.push(
                    Problem::new(
                        at.key("replace_prefix"),
                        "this route does not match by a prefix that could be replaced",
                    )
                    .hint("make every one of its `paths` a prefix, or use `path`"),
                );
            }
            RedirectPath::ReplacePrefix(to.clone())
        }
        (None, None) => RedirectPath::Keep,
    };
    let nothing = config.scheme.is_none() && config.host.is_none() && config.port.is_none();
    if nothing && config.path.is_none() && config.replace_prefix.is_none() {
        problems.push(
            Problem::new(at.clone(), "this redirect leads back to the request's own address")
                .hint("name one of `scheme`, `host`, `port`, `path` or `replace_prefix`"),
        );
    }
    Redirect { scheme: config.scheme.clone(), host: config.host.clone(), port: config.port, path, status }
}

/// Compiles a `respond`, or tells every problem that it has.
pub fn respond(
    config: &RespondConfig,
    at: &Path,
    files: &Files<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Action> {
    let before = problems.len();
    let (body, guessed) = match (&config.body, &config.file) {
        (Some(_), Some(_)) => {
            problems.push(
                Problem::new(at.key("file"), "`body` and `file` exclude each other")
                    .hint("keep the one that is meant"),
            );
            return None;
        }
        (Some(body), None) => (Bytes::from(body.clone()), "text/plain; charset=utf-8"),
        (None, None) => (Bytes::new(), ""),
        (None, Some(file)) => match files.bytes(file, &at.key("file")) {
            Ok(bytes) => (Bytes::from(bytes), content_type(file)),
            Err(problem) => {
                problems.push(problem);
                return None;
            }
        },
    };
    let status = config.status.code();
    if matches!(status, 204 | 304) && !body.is_empty() {
        problems.push(
            Problem::new(at.key("status"), format!("a response of status {status} has no body"))
                .hint("use 200, or drop the body"),
        );
    }
    let mut head = ResponseHeader::build(status, Some(2)).ok()?;
    let content_type = config.content_type.as_deref().unwrap_or(guessed);
    if !content_type.is_empty() {
        match HeaderValue::from_str(content_type) {
            Ok(value) => head.insert_header(header::CONTENT_TYPE, value).ok()?,
            Err(_) => problems.push(Problem::new(
                at.key("content_type"),
                "the content type has letters that no header can carry",
            )),
        }
    }
    if !matches!(status, 204 | 304) {
        head.insert_header(header::CONTENT_LENGTH, body.len()).ok()?;
    }
    (problems.len() == before).then_some(Action::Respond { head, body })
}

/// By the file's extension; the few that a landing or an error page is made of.
fn content_type(file: &std::path::Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("txt") => "text/plain; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("json") => "application/json",
        Some("xml") => "application/xml",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        _ => "application/octet-stream",
    }
}
