//! A name that an upstream's certificate is verified for.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use openssl::x509::X509Ref;

use super::ffi::{self, Compare};

/// One of the kinds of name that a certificate may be for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VerifiedName {
    /// A DNS name, compared by RFC 9525 section 6.3.
    Dns(String),
    /// An IP address.
    Ip(IpAddr),
    /// A URI such as a SPIFFE ID, compared byte by byte.
    Uri(String),
}

impl VerifiedName {
    /// The name that is verified for an SNI, or for the address that stands in its place; nothing for nothing.
    pub fn of_identity(identity: &str) -> Option<Self> {
        match (identity, identity.parse()) {
            ("", _) => None,
            (_, Ok(ip)) => Some(Self::Ip(ip)),
            (name, Err(_)) => Some(Self::Dns(name.to_owned())),
        }
    }

    /// Whether the certificate is for this name.
    pub fn is_in(&self, certificate: &X509Ref, compare: Compare) -> bool {
        match self {
            Self::Dns(name) => ffi::is_for_host(certificate, name, compare),
            Self::Ip(ip) => ffi::is_for_ip(certificate, *ip),
            Self::Uri(uri) => {
                let names = certificate.subject_alt_names();
                names.iter().flatten().any(|name| name.uri() == Some(uri.as_str()))
            }
        }
    }
}

impl FromStr for VerifiedName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if let Some((scheme, rest)) = text.split_once("://") {
            let is_scheme = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
            return match is_scheme && !scheme.is_empty() && !rest.is_empty() {
                true => Ok(Self::Uri(text.to_owned())),
                false => Err("write a whole URI, such as `spiffe://example.org/app`"),
            };
        }
        if let Ok(ip) = text.trim_matches(['[', ']']).parse() {
            return Ok(Self::Ip(ip));
        }
        if text.contains('*') {
            return Err(
                "write one name of those that the wildcard stands for: it is the certificate that may have one",
            );
        }
        let is_label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        match text.strip_suffix('.').unwrap_or(text).split('.').all(is_label) {
            true => Ok(Self::Dns(text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase())),
            false => Err("write it without a scheme, a port or a path: `www.example.com`"),
        }
    }
}

impl fmt::Display for VerifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) | Self::Uri(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_name_an_address_or_a_uri() {
        for (text, expected) in [
            ("www.A.test", Some(VerifiedName::Dns("www.a.test".into()))),
            ("a.test.", Some(VerifiedName::Dns("a.test".into()))),
            ("10.0.0.1", Some(VerifiedName::Ip("10.0.0.1".parse().unwrap()))),
            ("[::1]", Some(VerifiedName::Ip("::1".parse().unwrap()))),
            ("spiffe://example.org/Ns/app", Some(VerifiedName::Uri("spiffe://example.org/Ns/app".into()))),
            ("*.a.test", None),
            ("a.test:443", None),
            (".a.test", None),
            ("a b", None),
            ("://x", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
