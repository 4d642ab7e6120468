//! A request's head as HTTP/2 has it: pseudo-headers in place of the first line and of Host, and nothing that speaks
//! of a connection (RFC 9113 section 8.2.2).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri, Version};
use pingora_http::RequestHeader;

use crate::diagnose::{Cause, Failure};

/// Says something of one connection, of which there is another one here.
const FORBIDDEN: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// The head to send, of the one that an attempt would send over HTTP/1.1.
///
/// # Errors
/// A Host or a target that HTTP/2 cannot carry.
pub fn head(request: RequestHeader, scheme: Scheme) -> Result<Request<()>, Failure> {
    let invalid =
        |what: &str| Failure::new(Cause::RequestInvalid, format!("{what} cannot be sent over HTTP/2"));
    let path = PathAndQuery::try_from(request.raw_path()).map_err(|_| invalid("the target"))?;
    let mut parts: http::request::Parts = request.into();
    let host = parts.headers.remove(header::HOST).ok_or_else(|| invalid("a request without a Host"))?;
    let authority = Authority::try_from(host.as_bytes()).map_err(|_| invalid("the Host"))?;
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
    parts.uri = uri.map_err(|_| invalid("the target"))?;
    sanitize(&mut parts.headers, parts.version);
    parts.version = Version::HTTP_2;
    parts.extensions.clear();
    Ok(Request::from_parts(parts, ()))
}

fn sanitize(headers: &mut HeaderMap, came_by: Version) {
    for name in &FORBIDDEN {
        headers.remove(name);
    }
    // Of HTTP/1.1, TE speaks of one connection; of HTTP/2, `trailers` is the one thing that it may say, and gRPC asks
    // for it.
    let wants_trailers = came_by == Version::HTTP_2
        && headers
            .get_all(header::TE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")));
    headers.remove(header::TE);
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_of_a_connection_is_left_out() {
        let sent = head(
            request(
                Version::HTTP_11,
                &[
                    ("host", "a.test:8443"),
                    ("connection", "upgrade"),
                    ("upgrade", "websocket"),
                    ("keep-alive", "timeout=5"),
                    ("proxy-connection", "keep-alive"),
                    ("transfer-encoding", "chunked"),
                    ("http2-settings", "AAMAAABk"),
                    ("te", "trailers"),
                    ("x-kept", "1"),
                ],
            ),
            Scheme::HTTPS,
        )
        .unwrap();
        assert_eq!(sent.uri(), "https://a.test:8443/x?y=%2F");
        assert_eq!(sent.version(), Version::HTTP_2);
        let names: Vec<_> = sent.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-kept"]);
    }

    #[test]
    fn te_says_trailers_where_an_http2_client_said_so_and_nothing_else() {
        for (version, te, expected) in [
            (Version::HTTP_2, "trailers", Some("trailers")),
            (Version::HTTP_2, "gzip, Trailers", Some("trailers")),
            (Version::HTTP_2, "gzip", None),
            (Version::HTTP_11, "trailers", None),
        ] {
            let sent = head(request(version, &[("host", "a.test"), ("te", te)]), Scheme::HTTP).unwrap();
            let told = sent.headers().get("te").map(|value| value.to_str().unwrap());
            assert_eq!(told, expected, "{version:?} {te}");
        }
    }

    #[test]
    fn a_host_or_a_target_that_http2_cannot_carry_is_refused() {
        for host in [None, Some("a b"), Some("")] {
            let headers: Vec<_> = host.map(|host| ("host", host)).into_iter().collect();
            let refused = head(request(Version::HTTP_11, &headers), Scheme::HTTP).unwrap_err();
            assert_eq!(refused.cause, Cause::RequestInvalid, "{host:?}");
        }
        let mut latin1 = request(Version::HTTP_11, &[("host", "a.test")]);
        latin1.set_raw_path(b"/caf\xe9").unwrap();
        assert_eq!(head(latin1, Scheme::HTTP).unwrap_err().cause, Cause::RequestInvalid);
    }

    fn request(version: Version, headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/x?y=%2F", None).unwrap();
        request.set_version(version);
        for (name, value) in headers {
            request.append_header(*name, *value).unwrap();
        }
        request
    }
}
