//! An origin as the file spells it, and whether the `Origin` of a request is one of those (RFC 6454, the Fetch standard).
//!
//! What is said to an origin is for `cors` to say.

use crate::problem::{Path, Problem};

/// `https://app.example.com`, or `https://*.example.com` for every name that ends so.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OriginPattern {
    /// Up to the host, or up to the star: `https://`.
    before: String,
    /// The host, or what stands behind its star: `.example.com`.
    host: Host,
    /// With its colon; empty where it is the scheme's own, which browsers leave out.
    port: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Host {
    Exact(String),
    EndsIn(String),
}

impl OriginPattern {
    /// Reads a pattern, in lower case and without its scheme's own port, as browsers send it.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let shown = crate::decode::shown(text);
        let refused = |told: &str| Problem::new(Path::root(), format!("`{shown}` {told}"));
        if text == "null" {
            return Err(refused("is what every sandboxed page says, so it is nobody's origin")
                .hint("leave it out, or write `*` alone for every page"));
        }
        let lower = text.to_ascii_lowercase();
        let Some((scheme, rest)) = lower.split_once("://") else {
            return Err(
                refused("is not an origin; it has no scheme").hint(format!("write `https://{lower}`"))
            );
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if !path.is_empty() {
            return Err(
                refused("is not an origin; it has a path").hint(format!("write `{scheme}://{authority}`"))
            );
        }
        let letters =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !letters(scheme) {
            return Err(refused("is not an origin; its scheme is none, such as `https`"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            // An IPv6 address keeps its colons, within brackets.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let port = match port.map(|port| (port, port.parse::<u16>())) {
            None => String::new(),
            Some((digits, Ok(port))) if port > 0 && digits == port.to_string() => match (scheme, port) {
                ("http", 80) | ("https", 443) => String::new(),
                _ => format!(":{port}"),
            },
            Some(_) => return Err(refused("is not an origin; its port is no number from 1 to 65535")),
        };
        let host = match host.strip_prefix('*') {
            None => Host::Exact(host.to_owned()),
            Some(end) => Host::EndsIn(end.to_owned()),
        };
        let is_legal = match &host {
            Host::Exact(host) if host.starts_with('[') => {
                host.trim_matches(['[', ']']).parse::<std::net::Ipv6Addr>().is_ok()
            }
            Host::Exact(host) => !host.is_empty() && host.bytes().all(is_of_name),
            Host::EndsIn(end) => end.starts_with('.') && end.len() > 1 && end.bytes().all(is_of_name),
        };
        if !is_legal {
            return Err(refused("is not an origin; its host is no name, address or `*.name`"));
        }
        Ok(Self { before: format!("{scheme}://"), host, port })
    }

    /// Whether it is the origin of this field. Case counts, since browsers send an origin in lower case.
    pub(crate) fn matches(&self, origin: &[u8]) -> bool {
        let host = origin
            .strip_prefix(self.before.as_bytes())
            .and_then(|authority| authority.strip_suffix(self.port.as_bytes()));
        match (host, &self.host) {
            (None, _) => false,
            (Some(host), Host::Exact(name)) => host == name.as_bytes(),
            // What the star stands for is a part of a name, so no colon, slash or `@` hides in it.
            (Some(host), Host::EndsIn(end)) => host
                .strip_suffix(end.as_bytes())
                .is_some_and(|labels| !labels.is_empty() && labels.iter().copied().all(is_of_name)),
        }
    }
}

/// Letters are in lower case by now; a name in another script is sent in its ASCII form.
fn is_of_name(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::told;

    fn matches(pattern: &str, origin: &str) -> bool {
        let pattern = OriginPattern::parse(pattern).unwrap_or_else(|problem| panic!("{}", told(&[problem])));
        pattern.matches(origin.as_bytes())
    }

    #[test]
    fn an_origin_is_its_scheme_host_and_port() {
        for (pattern, origin, expected) in [
            ("https://a.test", "https://a.test", true),
            ("https://A.Test:443", "https://a.test", true),
            ("http://a.test:80", "http://a.test", true),
            ("http://a.test:443", "http://a.test:443", true),
            ("https://a.test", "http://a.test", false),
            ("https://a.test", "https://a.test:8443", false),
            ("https://a.test:8443", "https://a.test", false),
            ("https://a.test", "https://b.a.test", false),
            ("https://a.test", "https://a.test.evil", false),
            ("https://a.test", "https://a.test/", false),
            ("https://a.test", "https://A.test", false),
            ("https://a.test", "null", false),
            ("https://a.test", "", false),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("capacitor://localhost", "capacitor://localhost", true),
        ] {
            assert_eq!(matches(pattern, origin), expected, "{origin} by {pattern}");
        }
    }

    #[test]
    fn a_star_stands_for_labels_and_for_nothing_else() {
        for (origin, expected) in [
            ("https://b.a.test", true),
            ("https://c.b.a.test", true),
            ("https://a.test", false),
            ("https://.a.test", false),
            ("https://ba.test", false),
            ("https://b.a.test:8443", false),
            ("http://b.a.test", false),
            ("https://evil.test/.a.test", false),
            ("https://evil.test#.a.test", false),
            ("https://evil.test:1.a.test", false),
            ("https://user@b.a.test", false),
            ("https://b.a.test.evil", false),
        ] {
            assert_eq!(matches("https://*.a.test", origin), expected, "{origin}");
        }
        assert!(matches("https://*.a.test:8443", "https://b.a.test:8443"));
        assert!(!matches("https://*.a.test:8443", "https://b.a.test"));
    }

    #[test]
    fn what_is_no_origin_is_refused_with_what_was_meant() {
        for (text, expected) in [
            ("a.test", ": `a.test` is not an origin; it has no scheme (write `https://a.test`)"),
            (
                "https://a.test/",
                ": `https://a.test/` is not an origin; it has a path (write `https://a.test`)",
            ),
            ("null", ": `null` is what every sandboxed page says, so it is nobody's origin"),
            ("https://", "its host is no name"),
            ("https://*", "its host is no name"),
            ("https://*a.test", "its host is no name"),
            ("https://a.*.test", "its host is no name"),
            ("https://*.", "its host is no name"),
            ("https://a b", "its host is no name"),
            ("https://[::1", "its host is no name"),
            ("https://u@a.test", "its host is no name"),
            ("https://a.test:0", "its port is no number"),
            ("https://a.test:", "its port is no number"),
            ("https://a.test:99999", "its port is no number"),
            ("1://a.test", "its scheme is none"),
        ] {
            let refused = told(&[OriginPattern::parse(text).unwrap_err()]);
            assert!(refused.contains(expected), "{text}: {refused}");
        }
    }
}
