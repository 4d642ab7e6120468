//! Requests to change the protocol: which of them stay such requests, and what of their heads goes on to the upstream.

use http::{HeaderValue, Version, header};
use pingora_core::Result;
use pingora_http::RequestHeader;

use crate::snapshot::Upgrades;

/// Leaves of `Upgrade` what the route allows. A token that it does not allow is ignored, which RFC 9110 section 7.8
/// lets any server do: the request goes on as a plain one. In HTTP/1.0 there is nothing to allow.
pub fn allow(head: &mut RequestHeader, allowed: &Upgrades) {
    if !head.headers.contains_key(header::UPGRADE) {
        return;
    }
    let values = head.headers.get_all(header::UPGRADE).iter();
    let tokens = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let kept: Vec<&str> = tokens.map(str::trim).filter(|token| allowed.contains(token)).collect();
    match HeaderValue::from_str(&kept.join(", ")) {
        Ok(kept) if !kept.is_empty() && head.version == Version::HTTP_11 => {
            let _ = head.insert_header(header::UPGRADE, kept);
        }
        _ => {
            head.remove_header(&header::UPGRADE);
        }
    }
}

/// Makes of a request to upgrade the head that the upstream gets. The engine strips nothing of one that it lets pass
/// whatever its token is (`H1UpgradePolicy::Preserve`), so what concerns one connection only goes here. Where the body
/// has no length, the engine frames it anew.
///
/// # Errors
/// A header block that the engine cannot hold.
pub fn strip_hop_by_hop(request: &mut RequestHeader) -> Result<()> {
    const STRIPPED: [&str; 8] = [
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "http2-settings",
    ];
    for name in STRIPPED {
        request.remove_header(name);
    }
    request.insert_header("Connection", "Upgrade")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_lets_its_own_tokens_pass() {
        fn check(allowed: &[&str], version: Version, given: &[&str], expected: Option<&str>) {
            let allowed = Upgrades(allowed.iter().map(|token| (*token).into()).collect());
            let mut head = RequestHeader::build("GET", b"/", None).unwrap();
            head.set_version(version);
            for value in given {
                head.append_header("Upgrade", *value).unwrap();
            }
            allow(&mut head, &allowed);
            let values: Vec<_> = head.headers.get_all("upgrade").iter().collect();
            assert_eq!(values, expected.into_iter().collect::<Vec<_>>(), "{given:?} where {allowed:?}");
        }
        let both = ["websocket", "spdy/3.1"];
        let http11 = Version::HTTP_11;
        check(&["websocket"], http11, &["websocket"], Some("websocket"));
        check(&["websocket"], http11, &["WebSocket"], Some("WebSocket"));
        check(&["websocket"], http11, &["SPDY/3.1"], None);
        check(&both, http11, &["SPDY/3.1"], Some("SPDY/3.1"));
        check(&both, http11, &["h2c, SPDY/3.1", "foo/1,websocket"], Some("SPDY/3.1, websocket"));
        check(&both, http11, &["spdy", "websocket/13"], None);
        check(&[], http11, &["websocket"], None);
        check(&both, http11, &["", ","], None);
        check(&both, Version::HTTP_10, &["websocket"], None);
        check(&both, http11, &[], None);
    }

    #[test]
    fn what_concerns_one_connection_is_not_passed_on() {
        let mut head = RequestHeader::build("POST", b"/", None).unwrap();
        for (name, value) in [
            ("Connection", "keep-alive, Upgrade"),
            ("Upgrade", "SPDY/3.1"),
            ("Keep-Alive", "5"),
            ("Proxy-Connection", "keep-alive"),
            ("Proxy-Authorization", "Basic x"),
            ("TE", "trailers"),
            ("Trailer", "x"),
            ("Transfer-Encoding", "chunked"),
            ("HTTP2-Settings", "AAA"),
            ("X-Stream-Protocol-Version", "v4.channel.k8s.io"),
        ] {
            head.append_header(name, value).unwrap();
        }
        strip_hop_by_hop(&mut head).unwrap();
        let mut left: Vec<_> =
            head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort();
        let expected = [
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
        ];
        assert_eq!(left, expected);
    }
}
