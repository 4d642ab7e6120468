//! Text patterns: what a route says about the value of a header or of a query parameter.
//! Values are compared with upper and lower case told apart. A name given repeatedly matches if any of its
//! values does.

use http::{HeaderMap, HeaderName};
use regex::Regex;

use super::query;

/// What a route says about a value.
#[derive(Debug, Clone)]
pub enum TextPattern {
    /// This text and no other.
    Exact(String),
    /// Every text in which the regex is found. A value that is not UTF-8 has none.
    Regex(Regex),
    /// The name is there, with whatever value (`true`), or is not there at all (`false`).
    Present(bool),
}

impl TextPattern {
    /// A regex of the crate `regex`; it begins with `^` and ends with `$` where it is to match the whole
    /// value.
    pub fn regex(text: &str) -> Result<Self, String> {
        compile(text).map(Self::Regex)
    }

    /// Whether the field is as the route wants it.
    pub fn matches_header(&self, name: &HeaderName, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(name).iter();
        match self {
            Self::Exact(text) => values.any(|value| value.as_bytes() == text.as_bytes()),
            Self::Regex(regex) => values
                .any(|value| std::str::from_utf8(value.as_bytes()).is_ok_and(|value| regex.is_match(value))),
            Self::Present(wanted) => values.next().is_some() == *wanted,
        }
    }

    /// Whether the parameter is; `query` is what stands after the `?`, as it came.
    pub fn matches_query(&self, name: &str, query: Option<&str>) -> bool {
        let mut values = query::values(query.unwrap_or(""), name);
        match self {
            Self::Exact(text) => values.any(|value| query::decodes_to(value, text)),
            Self::Regex(regex) => {
                values.any(|value| query::decode(value).is_some_and(|value| regex.is_match(&value)))
            }
            Self::Present(wanted) => values.next().is_some() == *wanted,
        }
    }
}

/// Compiles a regex; the error is one line, where the crate's own draws the pattern over several.
pub(super) fn compile(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| {
        let cause = match &error {
            regex::Error::CompiledTooBig(limit) => format!("it needs more than {limit} bytes"),
            error => {
                let drawn = error.to_string();
                drawn.lines().last().unwrap_or("").trim_start_matches("error: ").to_owned()
            }
        };
        format!("regex `{text}` does not compile: {cause}")
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn exact(text: &str) -> TextPattern {
        TextPattern::Exact(text.into())
    }

    fn regex(text: &str) -> TextPattern {
        TextPattern::regex(text).unwrap()
    }

    #[test]
    fn a_header_matches_if_any_of_its_values_does() {
        let check = |pattern: TextPattern, values: &[&[u8]], matches: bool| {
            let name = HeaderName::from_static("x-canary");
            let mut headers = HeaderMap::new();
            headers.insert("x-other", HeaderValue::from_static("always"));
            for value in values {
                headers.append(&name, HeaderValue::from_bytes(value).unwrap());
            }
            assert_eq!(pattern.matches_header(&name, &headers), matches, "{pattern:?} {values:?}");
        };
        check(exact("always"), &[b"always"], true);
        check(exact("always"), &[b"never", b"always"], true);
        check(exact("always"), &[b"Always"], false);
        check(exact("always"), &[b"always, never"], false);
        check(exact("always"), &[], false);
        check(exact("é"), &["é".as_bytes()], true);
        check(regex("^a.*s$"), &[b"x", b"always"], true);
        check(regex("way"), &[b"always"], true);
        check(regex("^way"), &[b"always"], false);
        check(regex(""), &[], false);
        check(regex("a"), &[b"a\xff"], false);
        check(TextPattern::Present(true), &[b""], true);
        check(TextPattern::Present(true), &[], false);
        check(TextPattern::Present(false), &[b""], false);
        check(TextPattern::Present(false), &[], true);
    }

    #[test]
    fn a_query_parameter_matches_as_a_form_would_read_it() {
        let check = |pattern: TextPattern, query: Option<&str>, matches: bool| {
            assert_eq!(pattern.matches_query("a b", query), matches, "{pattern:?} {query:?}");
        };
        check(exact("2"), Some("a+b=2"), true);
        check(exact("2"), Some("x=1&a%20b=%32"), true);
        check(exact("2"), Some("a+b=1&a+b=2"), true);
        check(exact("x+y z"), Some("a+b=x%2By+z"), true);
        check(exact("x=y"), Some("a+b=x=y"), true);
        check(exact("2"), Some("a+b=2x"), false);
        check(exact("2"), Some("a+bc=2"), false);
        check(exact(""), Some("a+b"), true);
        check(exact(""), Some("a+b="), true);
        check(exact(""), None, false);
        check(exact("é"), Some("a+b=%C3%a9"), true);
        check(regex("^[0-9]$"), Some("a+b=x&a+b=%37"), true);
        check(regex("^[0-9]$"), Some("a+b=77"), false);
        check(regex("."), Some("a+b=a%FF"), false);
        check(regex(""), Some(""), false);
        check(TextPattern::Present(true), Some("a+b"), true);
        check(TextPattern::Present(true), Some("c"), false);
        check(TextPattern::Present(false), Some("a%20b=1"), false);
        check(TextPattern::Present(false), None, true);
    }

    #[test]
    fn a_wrong_regex_is_refused_in_one_line() {
        let check = |given: &str, cause: &str| {
            let message = TextPattern::regex(given).unwrap_err();
            assert_eq!(message, format!("regex `{given}` does not compile: {cause}"));
        };
        check("[a", "unclosed character class");
        check("(?=a)", "look-around, including look-ahead and look-behind, is not supported");
        check(r"\w{9000}{9000}", "it needs more than 10485760 bytes");
    }
}
