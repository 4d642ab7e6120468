//! Path patterns: the very path, a prefix element by element, or a regex.
//! Paths are compared byte for byte. Those of requests are in the form of `normal`, and so is what is written here, as far
//! as bytes go that no path may carry.

use std::fmt;

use regex::Regex;

use super::normal::{DotSegments, EncodedSlashes, PathRules, Slashes, normalize};
use super::rank::PathRank;
use super::text::compile;

/// What a route says about the path. Made by `exact`, `prefix` and `regex`, which refuse what could never
/// match.
#[derive(Debug, Clone)]
pub enum PathPattern {
    /// This path and no other.
    Exact(String),
    /// Every path that begins with these elements: `/api` takes `/api`, `/api/` and `/api/v1`, never `/apix`.
    /// Kept without its trailing slash, so that `/` is the empty string.
    Prefix(String),
    /// Every path in which the regex is found; it begins with `^` where it is to match from the start.
    Regex(Regex),
}

impl PathPattern {
    /// The path `text` itself.
    pub fn exact(text: &str) -> Result<Self, String> {
        check_path(text)?;
        Ok(Self::Exact(ascii(text)))
    }

    /// `text` and everything below it; `/api/` and `/api` are the same prefix.
    pub fn prefix(text: &str) -> Result<Self, String> {
        check_path(text)?;
        if text.contains("//") {
            return Err(format!(
                "path `{text}` has an empty element (`//`), which a prefix may not have: use a regex"
            ));
        }
        Ok(Self::Prefix(ascii(text.strip_suffix('/').unwrap_or(text))))
    }

    /// A regex of the crate `regex`: linear time, no look-around, no back-references.
    pub fn regex(text: &str) -> Result<Self, String> {
        compile(text).map(Self::Regex)
    }

    /// Whether this pattern takes the path, and how closely.
    pub(super) fn rank(&self, path: &str) -> Option<PathRank> {
        match self {
            Self::Exact(text) => (path == text).then_some(PathRank::Exact),
            Self::Prefix(text) => starts_with_elements(path, text).then_some(PathRank::Prefix(text.len())),
            Self::Regex(regex) => regex.is_match(path).then_some(PathRank::Regex),
        }
    }
}

impl fmt::Display for PathPattern {
    /// As the file spells it, but for the trailing slash of a prefix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "exact: {text}"),
            Self::Prefix(text) if text.is_empty() => f.write_str("/"),
            Self::Prefix(text) => f.write_str(text),
            Self::Regex(regex) => write!(f, "regex: {regex}"),
        }
    }
}

/// The text with its letters beyond ASCII escaped, as those of a request are.
fn ascii(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            0x80.. => ascii.push_str(&format!("%{byte:02X}")),
            byte => ascii.push(char::from(byte)),
        }
    }
    ascii
}

fn starts_with_elements(path: &str, prefix: &str) -> bool {
    // `OPTIONS *` has a path that does not begin with a slash, and `/` takes it too.
    prefix.is_empty()
        || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn check_path(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(match text {
            "" => "a path is empty: write `/` for every path".into(),
            "*" => "path `*` is no pattern: write `/` for every path".into(),
            _ if text.starts_with('^') => {
                format!(
                    "path `{text}` does not begin with `/`: if it is a regex, write `{{ regex: \"{text}\" }}`"
                )
            }
            _ => format!("path `{text}` does not begin with `/`: write `/{text}`"),
        });
    }
    if let Some((path, _)) = text.split_once('?') {
        return Err(format!("path `{text}` has a query: write `{path}`, and the parameters under `query`"));
    }
    if let Some((path, _)) = text.split_once('#') {
        return Err(format!("path `{text}` has a fragment, which no client sends: write `{path}`"));
    }
    if text.chars().any(|c| c == ' ' || c.is_ascii_control()) {
        let (text, mended) = (text.escape_debug(), escaped(text));
        return Err(format!("path `{text}` has a space or control character: write `{mended}`"));
    }
    let written = ascii(text);
    match normalize(written.as_bytes(), &ANY) {
        Ok(normal) if *normal == *written.as_bytes() => Ok(()),
        Ok(normal) => {
            let normal = String::from_utf8_lossy(&normal);
            Err(format!("path `{text}` is none that a request is matched by: write `{normal}`"))
        }
        Err(fault) => Err(format!("path `{text}` is refused in requests, as {fault}")),
    }
}

/// What some listener may let pass.
const ANY: PathRules = PathRules {
    encoded_slashes: EncodedSlashes::Keep,
    slashes: Slashes::Keep,
    dot_segments: DotSegments::Resolve,
};

fn escaped(text: &str) -> String {
    text.chars()
        .map(
            |c| {
                if c == ' ' || c.is_ascii_control() {
                    format!("%{:02X}", u32::from(c))
                } else {
                    c.to_string()
                }
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_matches_element_by_element() {
        let check = |prefix: &str, path: &str, length: Option<usize>| {
            let pattern = PathPattern::prefix(prefix).unwrap();
            assert_eq!(pattern.rank(path), length.map(PathRank::Prefix), "{prefix} {path}");
        };
        for prefix in ["/api", "/api/"] {
            check(prefix, "/api", Some(4));
            check(prefix, "/api/", Some(4));
            check(prefix, "/api/v1", Some(4));
            check(prefix, "/api//v1", Some(4));
            check(prefix, "/apix", None);
            check(prefix, "/ap", None);
            check(prefix, "/API", None);
            check(prefix, "/%61pi", None);
            check(prefix, "/x/api", None);
            check(prefix, "", None);
        }
        check("/api/v1", "/api", None);
        check("/api/v1", "/api/v1/x", Some(7));
        for path in ["/", "/api", "//", "*", ""] {
            check("/", path, Some(0));
        }
    }

    #[test]
    fn an_exact_path_takes_no_other() {
        let check = |pattern: &str, path: &str, matches: bool| {
            let pattern = PathPattern::exact(pattern).unwrap();
            assert_eq!(pattern.rank(path), matches.then_some(PathRank::Exact), "{pattern:?} {path}");
        };
        check("/api", "/api", true);
        check("/api", "/api/", false);
        check("/api/", "/api", false);
        check("/api/", "/api/", true);
        check("/", "/", true);
        check("/", "/x", false);
        check("//x", "//x", true);
        check("/café", "/caf%C3%A9", true);
    }

    #[test]
    fn a_regex_is_found_anywhere_unless_anchored() {
        let check = |pattern: &str, path: &str, matches: bool| {
            let pattern = PathPattern::regex(pattern).unwrap();
            assert_eq!(pattern.rank(path), matches.then_some(PathRank::Regex), "{pattern:?} {path}");
        };
        check(r"^/v\d+/", "/v12/x", true);
        check(r"^/v\d+/", "/x/v12/", false);
        check(r"\.php$", "/a/b.php", true);
        check(r"\.php$", "/a/b.php/c", false);
    }

    #[test]
    fn a_wrong_path_is_refused_with_what_to_write_instead() {
        let both = |given: &str, message: &str| {
            assert_eq!(PathPattern::exact(given).unwrap_err(), message);
            assert_eq!(PathPattern::prefix(given).unwrap_err(), message);
        };
        both("", "a path is empty: write `/` for every path");
        both("*", "path `*` is no pattern: write `/` for every path");
        both("api", "path `api` does not begin with `/`: write `/api`");
        both("^/v1", "path `^/v1` does not begin with `/`: if it is a regex, write `{ regex: \"^/v1\" }`");
        both("/a?b=c", "path `/a?b=c` has a query: write `/a`, and the parameters under `query`");
        both("/a#b", "path `/a#b` has a fragment, which no client sends: write `/a`");
        both("/a b\n", "path `/a b\\n` has a space or control character: write `/a%20b%0A`");
        both("/a/../%62", "path `/a/../%62` is none that a request is matched by: write `/b`");
        both(
            "/%zz",
            "path `/%zz` is refused in requests, as a `%` without two hexadecimal digits in the path",
        );
        let message = "path `/a//b` has an empty element (`//`), which a prefix may not have: use a regex";
        assert_eq!(PathPattern::prefix("/a//b").unwrap_err(), message);
        assert_eq!(PathPattern::regex("/(a").unwrap_err(), "regex `/(a` does not compile: unclosed group");
    }
}
