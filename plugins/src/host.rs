//! The Host of a request: read for `$host`, and replaced by a rule that can never leave it broken.

use std::borrow::Cow;

use http::header::{HOST, HeaderValue};
use http::uri::Authority;
use pingora_http::RequestHeader;

use crate::RequestInfo;
use crate::problem::{Path, Problem};
use crate::template::{Scope, Template};

/// A Host to be sent upstream.
pub(crate) struct HostRule {
    template: Template,
    /// Compiled where the text never varies.
    literal: Option<HeaderValue>,
}

impl HostRule {
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let template = Template::parse(text, Scope::Request)?;
        let literal = match template.literal() {
            None => None,
            Some(literal) => Some(value(literal.as_bytes()).ok_or_else(|| refused(literal))?),
        };
        Ok(Self { template, literal })
    }

    /// `None` where what was rendered is no host: the request then keeps the one that it has.
    pub(crate) fn render(&self, head: &RequestHeader, info: &RequestInfo<'_>) -> Option<HeaderValue> {
        match &self.literal {
            Some(literal) => Some(literal.clone()),
            None => value(&self.template.render_bytes(head, info)),
        }
    }
}

/// Replaces every Host by this one.
pub(crate) fn replace(head: &mut RequestHeader, host: HeaderValue) {
    // The one failure is a header map that is full, and a request that came in with 2^15 headers was refused.
    let _ = head.insert_header(HOST, host);
}

/// The Host as the head stands, without port and in lower case; empty where there is none.
pub(crate) fn of(head: &RequestHeader) -> Cow<'_, [u8]> {
    let host = match head.headers.get(HOST) {
        Some(host) => host.as_bytes(),
        None => head.uri.authority().map(|authority| authority.as_str().as_bytes()).unwrap_or_default(),
    };
    let host = without_port(host);
    if host.iter().any(u8::is_ascii_uppercase) { host.to_ascii_lowercase().into() } else { host.into() }
}

fn without_port(host: &[u8]) -> &[u8] {
    // The colons of `[::1]` are inside its brackets; behind them stands a port or nothing.
    let name = host.iter().rposition(|byte| *byte == b']').map_or(0, |bracket| bracket + 1);
    match host[name..].iter().position(|byte| *byte == b':') {
        Some(colon) => &host[..name + colon],
        None => host,
    }
}

fn value(host: &[u8]) -> Option<HeaderValue> {
    let authority = Authority::try_from(host).ok()?;
    // Userinfo in a Host makes the request's sender and its next reader disagree on who is asked.
    if host.contains(&b'@') || authority.host().is_empty() {
        return None;
    }
    HeaderValue::from_bytes(host).ok()
}

fn refused(literal: &str) -> Problem {
    let problem = Problem::new(
        Path::root(),
        format!("`{literal}` is not a host; write a name or an address, with a port if need be"),
    );
    match literal.split_once("://") {
        Some((_, rest)) => {
            problem.hint(format!("leave the scheme out: `{}`", rest.split('/').next().unwrap_or(rest)))
        }
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{INFO, get, told};

    #[test]
    fn a_host_is_read_without_port_and_in_lower_case() {
        for (host, read) in [
            ("shop.example", "shop.example"),
            ("Shop.Example:8443", "shop.example"),
            ("192.0.2.1:80", "192.0.2.1"),
            ("[2001:DB8::1]:80", "[2001:db8::1]"),
            ("[::1]", "[::1]"),
            ("", ""),
        ] {
            let mut head = get("/");
            head.insert_header("Host", host).unwrap();
            assert_eq!(of(&head), read.as_bytes(), "{host}");
        }
    }

    #[test]
    fn without_a_host_the_authority_of_the_uri_counts() {
        let (parts, ()) = http::Request::get("https://Shop.example:8443/").body(()).unwrap().into_parts();
        assert_eq!(of(&RequestHeader::from(parts)), &b"shop.example"[..]);
        let head = RequestHeader::build("GET", b"/", None).unwrap();
        assert_eq!(of(&head), &b""[..]);
    }

    #[test]
    fn what_renders_to_no_host_leaves_the_host_alone() {
        for (text, target, rendered) in [
            ("fixed.example:8443", "/", Some("fixed.example:8443")),
            ("${query.h}", "/?h=other.example", Some("other.example")),
            ("${query.h}.example", "/?h=a", Some("a.example")),
            ("${query.h}", "/", None),
            ("${query.h}", "/?h=user@evil.example", None),
            ("${query.h}", "/?h=a%0d%0ab", None),
            ("${query.h}", "/?h=a/b", None),
        ] {
            let host = HostRule::parse(text).unwrap().render(&get(target), &INFO);
            assert_eq!(host.as_ref().map(|host| host.to_str().unwrap()), rendered, "{text} {target}");
        }
    }

    #[test]
    fn a_literal_that_is_no_host_is_refused_at_load() {
        let refusal = |text| told(&[HostRule::parse(text).map(|_| ()).unwrap_err()]);
        assert_eq!(
            refusal("https://shop.example/x"),
            ": `https://shop.example/x` is not a host; write a name or an address, with a port if need be \
             (leave the scheme out: `shop.example`)"
        );
        for text in ["", "a b", "a/b", "user@a", ":80"] {
            assert!(refusal(text).contains("is not a host"), "{text}");
        }
    }
}
