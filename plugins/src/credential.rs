//! Where a request carries a credential: finds it there, and takes it out.
//!
//! Whether it is a good one is for the plugins to say.

use std::borrow::Cow;

use http::HeaderValue;
use http::header::{AUTHORIZATION, COOKIE, HeaderName};
use pingora_http::RequestHeader;

use crate::field::FieldName;
use crate::problem::{Path, Problem};
use crate::target::{Target, replace_query};
use crate::template::percent_decoded;

/// One place of a request.
pub(crate) enum Place {
    /// `Authorization: Bearer …`, or another scheme of that header.
    Scheme(&'static str),
    Header(HeaderName),
    Cookie(String),
    Query(String),
}

/// The same place has several credentials, so that this side and the upstream might take different ones.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Several;

impl Place {
    /// The place that one of these keys names; the problem's path is the root where there is not just one.
    pub(crate) fn parse(
        header: Option<&str>,
        cookie: Option<&str>,
        query: Option<&str>,
    ) -> Result<Self, Problem> {
        let nameless = |key: &str| Problem::new(Path::root().key(key), "an empty text is no name");
        match (header, cookie, query) {
            (Some(name), None, None) => {
                let at = Path::root().key("header");
                FieldName::parse(name)
                    .map(|name| Self::Header(name.name))
                    .map_err(|problem| problem.under(&at))
            }
            (None, Some(name), None) if !name.is_empty() => Ok(Self::Cookie(name.to_owned())),
            (None, None, Some(name)) if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            (None, Some(_), None) => Err(nameless("cookie")),
            (None, None, Some(_)) => Err(nameless("query")),
            _ => Err(Problem::new(Path::root(), "just one place carries it")
                .hint("write one of `header: NAME`, `cookie: NAME` or `query: NAME`")),
        }
    }

    /// The credential, if there is one. What is no UTF-8 is none.
    pub(crate) fn find<'a>(&self, head: &'a RequestHeader) -> Result<Option<Cow<'a, str>>, Several> {
        match self {
            Self::Scheme(scheme) => {
                let value = only(head.headers.get_all(AUTHORIZATION).iter())?;
                let value = value.and_then(|value| value.to_str().ok());
                Ok(value.and_then(|value| {
                    let (given, rest) = value.split_once(' ')?;
                    given.eq_ignore_ascii_case(scheme).then(|| rest.trim().into())
                }))
            }
            Self::Header(name) => {
                let value = only(head.headers.get_all(name).iter())?;
                // A line that holds two, joined by whoever stands before us, is no key and no token.
                Ok(value.and_then(|value| value.to_str().ok()).map(|value| value.trim().into()))
            }
            Self::Cookie(name) => {
                let found = cookies(head).filter(|pair| name_of(pair) == name.as_bytes());
                let value = only(found)?.and_then(|pair| pair.splitn(2, |byte| *byte == b'=').nth(1));
                let value = value.and_then(|value| std::str::from_utf8(value.trim_ascii()).ok());
                Ok(value.map(|value| value.trim_matches('"').into()))
            }
            Self::Query(name) => {
                let query = Target::of(head).and_then(|target| target.query()).unwrap_or_default();
                let found =
                    parameters(query).filter(|pair| *percent_decoded(name_of(pair)) == *name.as_bytes());
                let value =
                    only(found)?.map(|pair| pair.splitn(2, |byte| *byte == b'=').nth(1).unwrap_or_default());
                Ok(value.and_then(|value| match percent_decoded(value) {
                    Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
                    Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
                }))
            }
        }
    }

    /// Takes out whatever stands there.
    pub(crate) fn remove_from(&self, head: &mut RequestHeader) {
        match self {
            Self::Scheme(_) => {
                head.remove_header(&AUTHORIZATION);
            }
            Self::Header(name) => {
                head.remove_header(name);
            }
            Self::Cookie(name) => {
                let kept: Vec<&[u8]> =
                    cookies(head).filter(|pair| name_of(pair) != name.as_bytes()).collect();
                let kept = kept.join(&b"; "[..]);
                head.remove_header(&COOKIE);
                // What stood in a header before can stand there again.
                if let Some(value) = HeaderValue::from_bytes(&kept).ok().filter(|value| !value.is_empty()) {
                    let _ = head.insert_header(COOKIE, value);
                }
            }
            Self::Query(name) => {
                let Some(query) = Target::of(head).and_then(|target| target.query()) else { return };
                let kept: Vec<&[u8]> = parameters(query)
                    .filter(|pair| *percent_decoded(name_of(pair)) != *name.as_bytes())
                    .collect();
                let kept = kept.join(&b'&');
                // Shorter than it was, so never too long.
                let _ = replace_query(head, (!kept.is_empty()).then_some(&kept[..]));
            }
        }
    }
}

fn only<T>(mut found: impl Iterator<Item = T>) -> Result<Option<T>, Several> {
    match (found.next(), found.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(Several),
    }
}

fn parameters(query: &[u8]) -> impl Iterator<Item = &[u8]> {
    query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty())
}

/// RFC 6265 section 5.2: the pairs of all Cookie fields, of which HTTP/2 may send several.
fn cookies(head: &RequestHeader) -> impl Iterator<Item = &[u8]> {
    let values = head.headers.get_all(COOKIE).iter();
    let pairs = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty())
}

fn name_of(pair: &[u8]) -> &[u8] {
    pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::get;

    fn head(target: &str, fields: &[(&str, &str)]) -> RequestHeader {
        let mut head = get(target);
        for (name, value) in fields {
            head.append_header((*name).to_owned(), *value).unwrap();
        }
        head
    }

    #[test]
    fn a_credential_is_found_in_its_place_and_only_once() {
        let check = |place: &Place,
                     target: &str,
                     fields: &[(&str, &str)],
                     expected: Result<Option<&str>, Several>| {
            let head = head(target, fields);
            let found = place.find(&head);
            assert_eq!(
                found.as_ref().map(|found| found.as_deref()).map_err(|_| Several),
                expected,
                "{target} {fields:?}"
            );
        };
        let bearer = Place::Scheme("Bearer");
        check(&bearer, "/", &[], Ok(None));
        check(&bearer, "/", &[("authorization", "bearer  x ")], Ok(Some("x")));
        check(&bearer, "/", &[("authorization", "Basic x")], Ok(None));
        check(&bearer, "/", &[("authorization", "Bearer")], Ok(None));
        check(&bearer, "/", &[("authorization", "Bearer x"), ("authorization", "Bearer x")], Err(Several));
        let header = Place::Header(HeaderName::from_static("x-key"));
        check(&header, "/", &[("x-key", " a b ")], Ok(Some("a b")));
        check(&header, "/", &[("x-key", "a"), ("x-key", "b")], Err(Several));
        let cookie = Place::Cookie("sid".to_owned());
        check(&cookie, "/", &[("cookie", "a=1; sid=\"x=y\""), ("cookie", "sidx=2")], Ok(Some("x=y")));
        check(&cookie, "/", &[("cookie", "sid=1"), ("cookie", "sid=2")], Err(Several));
        let query = Place::Query("k".to_owned());
        check(&query, "/?a=1&%6B=x%20y", &[], Ok(Some("x y")));
        check(&query, "/?k", &[], Ok(Some("")));
        check(&query, "/?kk=1", &[], Ok(None));
        check(&query, "/?k=1&k=2", &[], Err(Several));
        check(&query, "/?k=%ff", &[], Ok(None));
    }

    #[test]
    fn all_of_it_is_taken_out_and_nothing_else() {
        let place = Place::Query("k".to_owned());
        for (before, after) in
            [("/a?k=1", "/a"), ("/a?k=1&b=%20&%6b=2&c", "/a?b=%20&c"), ("/a?b=1", "/a?b=1"), ("/a", "/a")]
        {
            let mut head = head(before, &[]);
            place.remove_from(&mut head);
            assert_eq!(head.raw_path(), after.as_bytes());
            assert_eq!(head.uri, after);
        }
        let mut head =
            head("/", &[("cookie", "a=1; sid=2;b=3"), ("cookie", "sid=4; c=5"), ("authorization", "x")]);
        Place::Cookie("sid".to_owned()).remove_from(&mut head);
        assert!(head.headers.get_all("cookie").iter().eq(["a=1; b=3; c=5"]));
        Place::Cookie("a".to_owned()).remove_from(&mut head);
        Place::Scheme("Bearer").remove_from(&mut head);
        assert!(!head.headers.contains_key("authorization"));
        let mut head = self::head("/", &[("cookie", "sid=2")]);
        Place::Cookie("sid".to_owned()).remove_from(&mut head);
        assert!(!head.headers.contains_key("cookie"));
    }
}
