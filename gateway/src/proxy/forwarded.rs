//! Headers that say who the client is: the gateway's own word in place of the client's.

use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use pingora_http::RequestHeader;

use super::ctx::Client;
use crate::diagnose::{Cause, Failure};
use crate::snapshot::TrustedHeaders;

// Names that are parsed already, to look them up by; they are written by their spelling, which costs nothing.
const FOR: HeaderName = HeaderName::from_static(FOR_SPELT);
const PROTO: HeaderName = HeaderName::from_static(PROTO_SPELT);
const HOST: HeaderName = HeaderName::from_static(HOST_SPELT);
const FOR_SPELT: &str = "x-forwarded-for";
const PROTO_SPELT: &str = "x-forwarded-proto";
const HOST_SPELT: &str = "x-forwarded-host";

/// Names that an upstream may take for proof of an identity or of an origin. An underscore counts as a dash: behind CGI
/// and its heirs (RFC 3875 section 4.1.18) the two are the same.
fn claims_identity(name: &str) -> bool {
    if name.contains('_') {
        return claims_identity(&name.replace('_', "-"));
    }
    matches!(name, "forwarded" | "x-real-ip")
        || ["x-forwarded-", "x-remote-", "impersonate-"].iter().any(|prefix| name.starts_with(prefix))
}

/// Takes the client's claims away, but for those that the route trusts, and writes the gateway's own
/// X-Forwarded-For, -Proto and -Host. `host` is the Host that the client sent.
///
/// # Errors
/// A header block that the engine cannot hold.
pub fn rewrite(
    head: &mut RequestHeader,
    host: HeaderValue,
    client: &Client,
    trusted: &TrustedHeaders,
) -> Result<(), Failure> {
    strip_nominated(head)?;
    let claimed = |name: &&HeaderName| claims_identity(name.as_str()) && !trusted.contains(name);
    if head.headers.keys().any(|name| claimed(&name)) {
        let names: Vec<HeaderName> = head.headers.keys().filter(claimed).cloned().collect();
        for name in &names {
            head.remove_header(name);
        }
    }
    let told = |error: Box<pingora_core::Error>| Failure::new(Cause::RequestInvalid, error.to_string());
    let chain = match head.headers.get_all(FOR).iter().next() {
        Some(_) => appended(head, &client.ip_text),
        None => client.ip_text.clone(),
    };
    head.insert_header(FOR_SPELT, chain).map_err(told)?;
    if !head.headers.contains_key(PROTO) {
        head.insert_header(PROTO_SPELT, HeaderValue::from_static(client.listener.scheme())).map_err(told)?;
    }
    if !head.headers.contains_key(HOST) {
        head.insert_header(HOST_SPELT, host).map_err(told)?;
    }
    Ok(())
}

fn appended(head: &RequestHeader, ip: &HeaderValue) -> HeaderValue {
    let mut chain = Vec::new();
    for value in head.headers.get_all(FOR).iter().chain([ip]) {
        if !chain.is_empty() {
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(value.as_bytes());
    }
    // Legal values joined by a comma and a blank are a legal value.
    HeaderValue::from_bytes(&chain).unwrap_or_else(|_| ip.clone())
}

/// Removes the headers that `Connection` nominates (RFC 9110 section 7.6.1) before any plugin runs: the engine would
/// do so after them, and a client could have what a plugin set taken away.
fn strip_nominated(head: &mut RequestHeader) -> Result<(), Failure> {
    let kept =
        |token: &str| ["close", "keep-alive", "upgrade"].iter().any(|kept| token.eq_ignore_ascii_case(kept));
    let tokens = |head: &RequestHeader| -> Vec<String> {
        let values = head.headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        // RFC 9110 section 5.6.1.2: a list may have empty elements.
        let tokens =
            values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty());
        tokens.map(str::to_owned).collect()
    };
    let simple = |value: &HeaderValue| value.to_str().is_ok_and(kept);
    if head.headers.get_all(CONNECTION).iter().all(simple) {
        return Ok(());
    }
    let tokens = tokens(head);
    let (kept, nominated): (Vec<_>, Vec<_>) = tokens.into_iter().partition(|token| kept(token));
    // Refused here and now: whatever is left for the engine to refuse, it may read otherwise and strip too late.
    let refused = |token: &String| {
        HeaderName::from_bytes(token.as_bytes())
            .map_or(true, |name| name == "host" || name.as_str().starts_with("x-forwarded-"))
    };
    if nominated.iter().any(refused) {
        return Err(Failure::new(Cause::RequestInvalid, "`Connection` names what it may not"));
    }
    for name in nominated.iter().filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok()) {
        head.remove_header(&name);
    }
    let upgrades = head.headers.contains_key(UPGRADE);
    let rest: Vec<_> =
        kept.into_iter().filter(|token| upgrades || !token.eq_ignore_ascii_case("upgrade")).collect();
    match HeaderValue::from_str(&rest.join(", ")) {
        Ok(value) if !rest.is_empty() => {
            let _ = head.insert_header(CONNECTION, value);
        }
        _ => {
            head.remove_header(&CONNECTION);
        }
    }
    Ok(())
}
