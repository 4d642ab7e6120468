//! Who may ask: whoever shows the token, where there is one. Where there is none, whoever reaches the address, but for the
//! pages of a browser that come from elsewhere.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, StatusCode};

use super::problem::Problem;
use crate::snapshot::Admin;

/// Whether a request that has come to this address may be answered, where `admin` is what the running configuration says.
///
/// # Errors
/// The answer in its stead.
pub fn check(head: &Parts, address: SocketAddr, admin: Option<&Admin>) -> Result<(), Problem> {
    // A connection may be older than the configuration: who has reached an address for which a token was needed is not
    // let in because the endpoint is elsewhere by now and needs none there.
    let Some(admin) = admin.filter(|admin| admin.address == address) else {
        let detail = "the admin endpoint is at this address no more";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    };
    match &admin.token {
        // A page whose own name leads to this address would be of the same origin as the endpoint, and could read all of
        // it (DNS rebinding). It does not know the token.
        None => own_name(head)?,
        Some(token) if !shown(&head.headers).is_some_and(|it| token.is(it)) => {
            return Err(Problem::no_token());
        }
        Some(_) => {}
    }
    if [Method::GET, Method::HEAD].contains(&head.method) { Ok(()) } else { own_page(&head.headers) }
}

/// Refuses names that others could have given to this address.
fn own_name(head: &Parts) -> Result<(), Problem> {
    let fields = head.headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let target = head.uri.authority().map(Authority::as_str);
    match fields.chain(target).find(|host| !is_local(host)) {
        None => Ok(()),
        Some(host) => Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!(
                "the Host `{host}` is neither an IP address nor `localhost`, so a web page elsewhere may have sent \
                 this: ask by the address, or give the endpoint an `admin.token_file`"
            ),
        )),
    }
}

fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let ip = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    ip.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

/// Refuses what a page of another origin lets the browser send: it may send a POST to anywhere, though it cannot read
/// the answer. Browsers tell of it by `Origin` (RFC 6454 section 7) and `Sec-Fetch-Site`.
fn own_page(headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers.get(header::HOST).map(|host| host.as_bytes());
    let is_own = |origin: &[u8]| {
        let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
        authority.is_some_and(|it| host.is_some_and(|host| it.eq_ignore_ascii_case(host)))
    };
    let is_from_own = |site: &[u8]| site == b"same-origin" || site == b"none";
    let origins = headers.get_all(header::ORIGIN).iter();
    let sites = headers.get_all("sec-fetch-site").iter();
    let is_foreign = origins.map(|it| is_own(it.as_bytes())).any(|is_own| !is_own)
        || sites.map(|it| is_from_own(it.as_bytes())).any(|is_own| !is_own);
    match is_foreign {
        false => Ok(()),
        true => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "a web page of another origin has sent this (`Origin`, `Sec-Fetch-Site`): nothing is done for such pages",
        )),
    }
}

/// The bearer token of a request, if it shows one; the scheme in any case, by RFC 9110 section 11.1.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn allowed(method: &str, target: &str, fields: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let admin = Admin { address: "127.0.0.1:9901".parse().unwrap(), token: None };
        check(&request.body(()).unwrap().into_parts().0, admin.address, Some(&admin)).is_ok()
    }

    #[test]
    fn without_a_token_only_addresses_and_localhost_are_hosts() {
        for (host, expected) in [
            ("127.0.0.1:9901", true),
            ("[::1]:9901", true),
            ("10.1.2.3", true),
            ("localhost:9901", true),
            ("LOCALHOST.", true),
            ("admin.localhost:9901", true),
            ("evil.example", false),
            ("localhost.evil.example:9901", false),
            ("evillocalhost", false),
            ("127.0.0.1.evil.example", false),
            ("127.0.0.1@evil.example", false),
            ("", false),
        ] {
            assert_eq!(allowed("GET", "/config", &[("host", host)]), expected, "{host}");
        }
        // No browser leaves it out.
        assert!(allowed("GET", "/config", &[]));
        assert!(!allowed("GET", "/config", &[("host", "localhost"), ("host", "evil.example")]));
        assert!(!allowed("GET", "http://evil.example/config", &[("host", "localhost")]));
    }

    #[test]
    fn a_page_of_another_origin_changes_nothing() {
        let host = ("host", "127.0.0.1:9901");
        for (fields, expected) in [
            (vec![], true),
            (vec![("origin", "http://127.0.0.1:9901")], true),
            (vec![("origin", "http://127.0.0.1:9901"), ("sec-fetch-site", "same-origin")], true),
            (vec![("sec-fetch-site", "none")], true),
            (vec![("origin", "http://127.0.0.1:8080")], false),
            (vec![("origin", "http://localhost:9901")], false),
            (vec![("origin", "null")], false),
            (vec![("origin", "https://evil.example")], false),
            (vec![("sec-fetch-site", "cross-site")], false),
            (vec![("sec-fetch-site", "same-site")], false),
            (vec![("origin", "http://127.0.0.1:9901"), ("origin", "https://evil.example")], false),
        ] {
            let fields = [&[host], fields.as_slice()].concat();
            assert_eq!(allowed("POST", "/reload", &fields), expected, "{fields:?}");
            assert!(allowed("GET", "/reloads", &fields), "a browser does not let it read the answer");
        }
    }
}
