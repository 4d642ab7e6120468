//! The path of a request as it came in, byte for byte, and its replacement.
//!
//! Says nothing about which path is right; `path_rewrite` does.

use bytes::Bytes;
use http::uri::PathAndQuery;
use pingora_http::RequestHeader;
use pingora_http::authority::{RawTargetAuthority, raw_target_authority};

/// A request target that has a path: origin-form, absolute-form, or what HTTP/2 carries instead.
pub(crate) struct Target<'a> {
    /// `http://host` of an absolute-form target, otherwise empty.
    before: &'a [u8],
    path: &'a [u8],
    query: Option<&'a [u8]>,
}

/// The path would make the target longer than the 64 KiB that one can be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl<'a> Target<'a> {
    /// `None` for `*` and for the authority of a CONNECT, which have no path.
    pub(crate) fn of(head: &'a RequestHeader) -> Option<Self> {
        let raw = head.raw_path();
        let from = match raw.first() {
            None | Some(b'/' | b'?') => 0,
            Some(_) => match raw_target_authority(raw) {
                RawTargetAuthority::Absolute { path_and_query, .. } => raw.len() - path_and_query.len(),
                RawTargetAuthority::None | RawTargetAuthority::AmbiguousAuthority => return None,
            },
        };
        let (before, rest) = raw.split_at(from);
        let mut halves = rest.splitn(2, |byte| *byte == b'?');
        Some(Self { before, path: halves.next().unwrap_or_default(), query: halves.next() })
    }

    /// Never empty: no path is the path `/`.
    pub(crate) fn path(&self) -> &'a [u8] {
        if self.path.is_empty() { b"/" } else { self.path }
    }

    pub(crate) fn query(&self) -> Option<&'a [u8]> {
        self.query
    }

    fn with_path(&self, path: &[u8]) -> Vec<u8> {
        let mut target = [self.before, path].concat();
        if let Some(query) = self.query {
            target.push(b'?');
            target.extend_from_slice(query);
        }
        target
    }
}

/// Puts `path`, which starts with `/`, in the place of the request's own; everything around it stays. Bytes
/// that no path may carry are percent-encoded, the others go through as they are.
pub(crate) fn replace_path(head: &mut RequestHeader, path: &[u8]) -> Result<(), TooLong> {
    let Some(target) = Target::of(head) else { return Ok(()) };
    let target = target.with_path(&encoded(path));
    put(head, target)
}

/// Puts another query, or none, in the place of the request's own, which has no bytes that the other had not.
pub(crate) fn replace_query(head: &mut RequestHeader, query: Option<&[u8]>) -> Result<(), TooLong> {
    let Some(target) = Target::of(head) else { return Ok(()) };
    let path = target.path;
    let target = Target { query, ..target }.with_path(path);
    put(head, target)
}

fn put(head: &mut RequestHeader, target: Vec<u8>) -> Result<(), TooLong> {
    if head.uri.authority().is_none() {
        return head.set_raw_path(&target).map_err(|_| TooLong);
    }
    // HTTP/2: the authority stands in the URI and nowhere else, so only a part of the URI may be replaced.
    let mut parts = head.uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(|_| TooLong)?);
    head.set_uri(http::Uri::from_parts(parts).map_err(|_| TooLong)?);
    Ok(())
}

fn encoded(path: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    // `http::Uri` takes every other byte in a path.
    let refused = |byte: &u8| matches!(byte, 0..=b' ' | b'#' | b'<' | b'>' | b'?' | b'`' | 0x7f);
    if !path.iter().any(refused) {
        return path.into();
    }
    let mut encoded = Vec::with_capacity(path.len() + 8);
    for byte in path {
        if refused(byte) {
            encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            encoded.push(*byte);
        }
    }
    encoded.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::get;

    #[test]
    fn only_the_path_of_a_target_is_replaced() {
        for (before, after) in [
            ("/a", "/new"),
            ("/a?x=%26&y", "/new?x=%26&y"),
            ("/a?", "/new?"),
            ("/?a?b", "/new?a?b"),
            ("?x=1", "/new?x=1"),
            ("http://shop.example:8443/a?x=1", "http://shop.example:8443/new?x=1"),
            ("http://shop.example:8443?x=1", "http://shop.example:8443/new?x=1"),
            ("http://shop.example:8443", "http://shop.example:8443/new"),
            ("*", "*"),
        ] {
            let mut head = get(before);
            replace_path(&mut head, b"/new").unwrap();
            assert_eq!(String::from_utf8_lossy(head.raw_path()), after, "{before}");
        }
    }

    #[test]
    fn scheme_and_authority_of_http2_stay() {
        let (parts, ()) = http::Request::get("https://shop.example/a?x=1")
            .version(http::Version::HTTP_2)
            .body(())
            .unwrap()
            .into_parts();
        let mut head = RequestHeader::from(parts);
        replace_path(&mut head, b"/new").unwrap();
        assert_eq!(head.uri, "https://shop.example/new?x=1");
    }

    #[test]
    fn bytes_that_are_no_utf8_go_through() {
        let mut head = get(b"/a\xff?q=\xfe");
        assert_eq!(Target::of(&head).unwrap().path(), b"/a\xff");
        replace_path(&mut head, b"/new\xfd").unwrap();
        assert_eq!(head.raw_path(), b"/new\xfd?q=\xfe");
    }

    #[test]
    fn every_byte_can_stand_in_a_path() {
        for byte in 0..=255u8 {
            let mut head = get("/?x=1");
            replace_path(&mut head, &[b'/', byte]).unwrap();
            let target = Target::of(&head).unwrap();
            assert!(
                target.path() == [b'/', byte] || target.path() == format!("/%{byte:02X}").as_bytes(),
                "{byte}"
            );
            assert_eq!(target.query(), Some(&b"x=1"[..]), "{byte}");
        }
    }

    #[test]
    fn a_target_beyond_what_a_request_line_may_hold_is_refused() {
        let mut head = get("/a");
        assert_eq!(replace_path(&mut head, &[b'/'; 70_000]), Err(TooLong));
        assert_eq!(head.raw_path(), b"/a");
    }
}
