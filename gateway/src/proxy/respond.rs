//! Answers that the gateway gives itself, and what the chain does to every answer.

use bytes::Bytes;
use http::{HeaderValue, header};
use pingora_core::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use vestibule_plugins::{Reply, Verdict, replace_prefix};

use super::admit::host_name;
use super::ctx::Ctx;
use super::fail;
use crate::snapshot::{Action, Redirect, RedirectPath};

/// Runs the response side of the route's chain.
pub fn decorate(request: &RequestHeader, response: &mut ResponseHeader, ctx: &Ctx) {
    let Some(route) = ctx.route() else { return };
    if route.chain.has_response() {
        route.chain.response(response, request, &ctx.info());
    }
}

/// An answer that needs no upstream, as the client gets it.
pub struct Answer {
    /// With what the response side of the chain did to it.
    pub head: ResponseHeader,
    /// Whole.
    pub body: Bytes,
}

/// The answer of a plugin, or of a `respond` or `redirect` route; `None` where an upstream is to be asked. `request`
/// has been through the chain, which came to this verdict.
pub fn answer(request: &RequestHeader, verdict: Verdict, ctx: &Ctx) -> Result<Option<Answer>> {
    let (mut head, body) = match (verdict, ctx.route().map(|route| &route.action)) {
        (Verdict::Respond(reply), _) => with_reply(reply)?,
        (Verdict::Refuse(refusal), _) => fail::refused(refusal, &ctx.request_id)?,
        (Verdict::Continue, Some(Action::Respond { head, body })) => (head.clone(), body.clone()),
        (Verdict::Continue, Some(Action::Redirect(redirect))) => {
            (with_redirect(request, redirect, ctx)?, Bytes::new())
        }
        (Verdict::Continue, Some(Action::Forward { .. }) | None) => return Ok(None),
    };
    decorate(request, &mut head, ctx);
    Ok(Some(Answer { head, body }))
}

fn with_reply(reply: Reply) -> Result<(ResponseHeader, Bytes)> {
    let mut head = ResponseHeader::build(reply.status, Some(reply.headers.len() + 2))?;
    for (name, value) in reply.headers {
        head.append_header(name, value)?;
    }
    head.insert_header(header::CONTENT_LENGTH, reply.body.len())?;
    Ok((head, reply.body))
}

fn with_redirect(request: &RequestHeader, redirect: &Redirect, ctx: &Ctx) -> Result<ResponseHeader> {
    let info = ctx.info();
    let location = location(redirect, request, info.scheme, info.matched_prefix);
    let mut head = ResponseHeader::build(redirect.status, Some(2))?;
    head.insert_header(header::CONTENT_LENGTH, 0)?;
    if let Ok(value) = HeaderValue::from_str(&location) {
        head.insert_header(header::LOCATION, value)?;
    }
    Ok(head)
}

/// Sends it.
pub async fn write(session: &mut Session, Answer { head, body }: Answer) -> Result<()> {
    let bodiless = session.req_header().method == http::Method::HEAD || body.is_empty();
    session.write_response_header(Box::new(head), bodiless).await?;
    if !bodiless {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// The Gateway API's rules: what the file does not name stays as the request has it, the query always; a port is
/// written unless it is the scheme's own, and a scheme that changes without one drops the request's.
fn location(redirect: &Redirect, request: &RequestHeader, scheme: &str, prefix: Option<&str>) -> String {
    let asked = request.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let asked_port =
        asked.get(host_name(asked).len()..).and_then(|port| port.strip_prefix(':')?.parse().ok());
    let new_scheme = redirect.scheme.as_deref().unwrap_or(scheme);
    let host = redirect.host.as_deref().unwrap_or_else(|| host_name(asked));
    let port: Option<u16> =
        redirect.port.or_else(|| redirect.scheme.is_none().then_some(asked_port).flatten());
    let own = if new_scheme == "https" { 443 } else { 80 };
    let port = port.filter(|port| *port != own).map(|port| format!(":{port}")).unwrap_or_default();
    let path = request.uri.path();
    let path = match &redirect.path {
        RedirectPath::Keep => path.to_owned(),
        RedirectPath::Full(full) => full.clone(),
        RedirectPath::ReplacePrefix(to) => replace_prefix(path, prefix.unwrap_or("/"), to)
            .map_or_else(|| path.to_owned(), |path| path.to_string()),
    };
    let query = request.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{new_scheme}://{host}{port}{path}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_redirect_does_not_name_stays_as_it_was() {
        let keep = Redirect { scheme: None, host: None, port: None, path: RedirectPath::Keep, status: 302 };
        let to_https = Redirect { scheme: Some("https".into()), ..keep.clone() };
        let to_host = Redirect { host: Some("b.test".into()), ..keep.clone() };
        let to_port = Redirect { port: Some(8443), ..to_https.clone() };
        let full = Redirect { path: RedirectPath::Full("/new".into()), ..keep.clone() };
        let prefix = Redirect { path: RedirectPath::ReplacePrefix("/v2".into()), ..keep.clone() };
        for (redirect, host, expected) in [
            (&keep, "a.test:8080", "http://a.test:8080/v1/x?y=%26"),
            (&to_https, "a.test:8080", "https://a.test/v1/x?y=%26"),
            (&to_host, "a.test", "http://b.test/v1/x?y=%26"),
            (&to_port, "a.test", "https://a.test:8443/v1/x?y=%26"),
            (&full, "a.test", "http://a.test/new?y=%26"),
            (&prefix, "[::1]:80", "http://[::1]/v2/x?y=%26"),
        ] {
            let mut request = RequestHeader::build("GET", b"/v1/x?y=%26", None).unwrap();
            request.insert_header("host", host).unwrap();
            assert_eq!(location(redirect, &request, "http", Some("/v1")), expected, "{redirect:?}");
        }
    }
}
