//! One spelling for each path: what a client writes becomes what is matched, checked and sent upstream. Pure.
//!
//! RFC 3986 section 6.2.2, as far as it changes no meaning: escapes of letters, digits and `-._~` are decoded, dot
//! segments resolved. Every other escape stays as it is, byte for byte. What servers read in more than one way is
//! refused, so that no upstream can see another path than the one that found the route. The query is no part of it.

use std::borrow::Cow;
use std::fmt;

/// What a listener makes of paths that can be read in more than one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathRules {
    /// `%2f` and `%5c`.
    pub encoded_slashes: EncodedSlashes,
    /// `//`.
    pub slashes: Slashes,
    /// `.` and `..`.
    pub dot_segments: DotSegments,
}

/// What becomes of `%2f`, and of `%5c`, which some servers take for a slash too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncodedSlashes {
    /// The request is refused.
    #[default]
    Reject,
    /// It stays as it is and separates nothing.
    Keep,
    /// It is a slash.
    Decode,
}

/// What becomes of several slashes in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slashes {
    /// They are one.
    #[default]
    Merge,
    /// They stay, with empty elements between them.
    Keep,
}

/// What becomes of the elements `.` and `..`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DotSegments {
    /// They are resolved as in RFC 3986 section 5.2.4, but that none may climb above the root.
    #[default]
    Resolve,
    /// The request is refused.
    Reject,
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFault {
    /// It does not begin with a slash.
    NotAbsolute,
    /// A control character, a space, a `#` or a `?`, or the escape of a control character.
    Control,
    /// A `%` without two hexadecimal digits behind it.
    Escape,
    /// A character of UTF-8 in more bytes than it takes, by which a slash or a dot may be hidden.
    Overlong,
    /// `%2f` or `%5c`.
    EncodedSlash,
    /// A bare backslash, which no path may have and some servers take for a slash.
    Backslash,
    /// `..` at the root.
    Climbs,
    /// `.` or `..` where these are refused.
    DotSegment,
    /// `..;x`, or `..` beside an encoded slash: a dot segment to some servers and a name to others.
    HiddenDots,
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "a path that does not begin with `/`",
            Self::Control => "a control character in the path",
            Self::Escape => "a `%` without two hexadecimal digits in the path",
            Self::Overlong => "an overlong UTF-8 character in the path",
            Self::EncodedSlash => {
                "an encoded slash in the path, which the listener's `paths: { encoded_slashes: … }` refuses"
            }
            Self::Backslash => "a backslash in the path",
            Self::Climbs => "a path that climbs above the root",
            Self::DotSegment => {
                "a dot segment in the path, which the listener's `paths: { dot_segments: … }` refuses"
            }
            Self::HiddenDots => "a dot segment behind `;` or an encoded slash in the path",
        })
    }
}

impl std::error::Error for PathFault {}

/// The one spelling of a path, which is given without its query. Of its own result it is the same again.
///
/// # Errors
/// The path is not legal, or can be read in more than one way.
pub fn normalize<'a>(path: &'a [u8], rules: &PathRules) -> Result<Cow<'a, [u8]>, PathFault> {
    if path.first() != Some(&b'/') {
        return Err(PathFault::NotAbsolute);
    }
    if is_plain(path) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decoded(path, rules.encoded_slashes)?;
    let normal = resolved(&decoded, rules)?;
    Ok(if normal == path { Cow::Borrowed(path) } else { Cow::Owned(normal) })
}

/// Whether there is nothing to look at closely, as in nearly every path.
fn is_plain(path: &[u8]) -> bool {
    let mut before = 0;
    path.iter().all(|byte| {
        let plain = match byte {
            b'/' | b'.' => before != b'/',
            b'%' | b'\\' | b'#' | b'?' | b';' => false,
            _ => matches!(byte, 0x21..=0x7e),
        };
        before = *byte;
        plain
    })
}

/// The path with each byte in its one form, its elements as they are.
fn decoded(path: &[u8], slashes: EncodedSlashes) -> Result<Vec<u8>, PathFault> {
    let mut decoded = Vec::with_capacity(path.len());
    let (mut rest, mut before) = (path, 0);
    while let Some((first, behind)) = rest.split_first() {
        let (byte, length) = match first {
            b'%' => (escaped(behind)?, 3),
            b'\\' => return Err(PathFault::Backslash),
            b'#' | b'?' | b' ' => return Err(PathFault::Control),
            byte => (*byte, 1),
        };
        match (byte, slashes) {
            (0..=0x1f | 0x7f, _) => return Err(PathFault::Control),
            (b'/' | b'\\', EncodedSlashes::Reject) if length > 1 => return Err(PathFault::EncodedSlash),
            (b'/' | b'\\', EncodedSlashes::Decode) => decoded.push(b'/'),
            (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~', _) => decoded.push(byte),
            (0x80.., _) if is_overlong(before, byte) => return Err(PathFault::Overlong),
            (0x80.., _) if length == 1 => decoded.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            _ => decoded.extend_from_slice(&rest[..length]),
        }
        before = byte;
        rest = &rest[length..];
    }
    Ok(decoded)
}

/// The byte of an escape, given what follows its `%`.
fn escaped(behind: &[u8]) -> Result<u8, PathFault> {
    let digit = |place: usize| behind.get(place).and_then(|digit| char::from(*digit).to_digit(16));
    match (digit(0), digit(1)) {
        (Some(high), Some(low)) => Ok((high * 16 + low) as u8),
        _ => Err(PathFault::Escape),
    }
}

/// Whether two bytes begin a character that fewer bytes could say. RFC 3629 section 3 and, for the last two, what came
/// before it.
fn is_overlong(lead: u8, next: u8) -> bool {
    matches!(
        (lead, next),
        (0xc0 | 0xc1, 0x80..=0xbf)
            | (0xe0, 0x80..=0x9f)
            | (0xf0, 0x80..=0x8f)
            | (0xf8, 0x80..=0x87)
            | (0xfc, 0x80..=0x83)
    )
}

/// The path without dot segments, and without empty elements where these are merged.
fn resolved(path: &[u8], rules: &PathRules) -> Result<Vec<u8>, PathFault> {
    let mut resolved = Vec::with_capacity(path.len());
    let mut elements = path[1..].split(|byte| *byte == b'/').peekable();
    while let Some(element) = elements.next() {
        let last = elements.peek().is_none();
        match element {
            b"." | b".." if rules.dot_segments == DotSegments::Reject => return Err(PathFault::DotSegment),
            b".." => {
                let parent = resolved.iter().rposition(|byte| *byte == b'/').ok_or(PathFault::Climbs)?;
                resolved.truncate(parent);
            }
            b"." => {}
            b"" if !last && rules.slashes == Slashes::Merge => {}
            _ if hides_dots(element) => return Err(PathFault::HiddenDots),
            _ => {
                resolved.push(b'/');
                resolved.extend_from_slice(element);
                continue;
            }
        }
        if last {
            resolved.push(b'/');
        }
    }
    Ok(resolved)
}

/// Whether a part of an element, between encoded slashes and without its parameters, is a dot segment.
fn hides_dots(element: &[u8]) -> bool {
    let (mut from, mut at, mut parameters) = (0, 0, None);
    let is_dots = |part: &[u8]| matches!(part, b"." | b"..");
    while at < element.len() {
        let length = match (element[at], escaped(&element[at + 1..])) {
            (b';', _) | (b'%', Ok(b';')) if parameters.is_none() => {
                parameters = Some(at);
                1
            }
            (b'%', Ok(b'/' | b'\\')) => {
                if is_dots(&element[from..parameters.unwrap_or(at)]) {
                    return true;
                }
                (from, parameters) = (at + 3, None);
                3
            }
            _ => 1,
        };
        at += length;
    }
    is_dots(&element[from..parameters.unwrap_or(at)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: PathRules = PathRules {
        encoded_slashes: EncodedSlashes::Reject,
        slashes: Slashes::Merge,
        dot_segments: DotSegments::Resolve,
    };
    const KEEP: PathRules = PathRules { encoded_slashes: EncodedSlashes::Keep, ..DEFAULT };
    const DECODE: PathRules = PathRules { encoded_slashes: EncodedSlashes::Decode, ..DEFAULT };
    const EMPTY: PathRules = PathRules { slashes: Slashes::Keep, ..DEFAULT };
    const NO_DOTS: PathRules = PathRules { dot_segments: DotSegments::Reject, ..DEFAULT };

    #[track_caller]
    fn check(rules: &PathRules, given: impl AsRef<[u8]>, normal: Result<&str, PathFault>) {
        let given = given.as_ref();
        let got = normalize(given, rules).map(|path| String::from_utf8_lossy(&path).into_owned());
        assert_eq!(got.as_deref(), normal.as_ref().copied(), "{}", given.escape_ascii());
    }

    #[test]
    fn a_plain_path_is_not_even_copied() {
        for path in
            ["/", "/a", "/a/b.c/", "/a:b@c/!$&'()*+,=~_-", "/a.", "/a..b/c", "/.well-known/x", "/...", "/a;b"]
        {
            let normal = normalize(path.as_bytes(), &DEFAULT);
            assert!(matches!(normal, Ok(Cow::Borrowed(_))), "{path}: {normal:?}");
            check(&DEFAULT, path, Ok(path));
        }
    }

    #[test]
    fn dot_segments_are_resolved_and_none_climbs() {
        for (given, normal) in [
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/.", "/"),
            ("/a/b/c/./../../g", "/a/g"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/a//../b", "/b"),
        ] {
            check(&DEFAULT, given, Ok(normal));
            check(&NO_DOTS, given, Err(PathFault::DotSegment));
        }
        for given in ["/..", "/../a", "/a/../..", "/a/../../b", "/%2e%2e/", "//..", "/./.."] {
            check(&DEFAULT, given, Err(PathFault::Climbs));
        }
        check(&EMPTY, "/a//../b", Ok("/a/b"));
        check(&EMPTY, "//..", Ok("/"));
    }

    #[test]
    fn slashes_in_a_row_are_one_unless_they_are_kept() {
        for (given, merged, kept) in [
            ("//", "/", "//"),
            ("//a", "/a", "//a"),
            ("/a//b///c", "/a/b/c", "/a//b///c"),
            ("/a//", "/a/", "/a//"),
            ("/a//.", "/a/", "/a//"),
        ] {
            check(&DEFAULT, given, Ok(merged));
            check(&EMPTY, given, Ok(kept));
        }
    }

    #[test]
    fn an_encoded_slash_is_refused_kept_or_a_slash() {
        for (given, decoded) in [
            ("/a%2fb", "/a/b"),
            ("/a%2Fb", "/a/b"),
            ("/a%5cb", "/a/b"),
            ("/a%2f%2fb", "/a/b"),
            ("/%2f", "/"),
            ("/x%3b%2fb", "/x%3b/b"),
        ] {
            check(&DEFAULT, given, Err(PathFault::EncodedSlash));
            check(&KEEP, given, Ok(given));
            check(&DECODE, given, Ok(decoded));
        }
        check(&DECODE, "/a%2f..%5cb", Ok("/b"));
        check(&DECODE, "/%2f..", Err(PathFault::Climbs));
        check(&DECODE, "/a%252fb", Ok("/a%252fb"));
        for rules in [DEFAULT, KEEP, DECODE] {
            check(&rules, "/a\\b", Err(PathFault::Backslash));
        }
        for given in ["/a/..%2fb", "/a%2f..", "/a/%2e%2e%5cb", "/a%2f.%2fb", "/a%2f..;x", "/a%2f..%3bx%2fb"] {
            check(&KEEP, given, Err(PathFault::HiddenDots));
        }
        for given in ["/a/...%2fb", "/a%2f..b", "/a%2fb..", "/a;..%2fb"] {
            check(&KEEP, given, Ok(given));
        }
    }

    #[test]
    fn parameters_are_left_alone_but_behind_dots() {
        for given in ["/a;v=1/b", "/a;../b", "/;x", "/a..;x/b", "/a%3bb"] {
            check(&DEFAULT, given, Ok(given));
        }
        for given in ["/a/..;/b", "/..;x", "/a/.;/b", "/a/%2e.;x/b", "/a/..%3b/b", "/..%3B;"] {
            check(&DEFAULT, given, Err(PathFault::HiddenDots));
        }
    }

    #[test]
    fn only_escapes_that_mean_nothing_are_decoded() {
        for (given, normal) in [
            ("/%61%5A%30%2d%5F%7e", "/aZ0-_~"),
            ("/a%2eb", "/a.b"),
            ("/a%20b%3ac%40%25%2b%3b%3F%23", "/a%20b%3ac%40%25%2b%3b%3F%23"),
            ("/caf%c3%a9/%E9", "/caf%c3%a9/%E9"),
            ("/café", "/caf%C3%A9"),
            ("/%2561", "/%2561"),
            ("/%25%36%31", "/%2561"),
        ] {
            check(&DEFAULT, given, Ok(normal));
        }
        check(&DEFAULT, b"/\xff", Ok("/%FF"));
    }

    #[test]
    fn what_servers_read_in_several_ways_is_refused() {
        for given in ["/%", "/%2", "/%zz", "/%2g", "/%u002f", "/%%32e", "/a%"] {
            check(&DEFAULT, given, Err(PathFault::Escape));
        }
        for given in ["/%00", "/a%0d%0ab", "/%1f", "/%7F", "/a\0", "/a\tb", "/a b", "/a#b", "/a?b", "/\x7f"] {
            check(&DEFAULT, given, Err(PathFault::Control));
        }
        for given in
            ["/%c0%af", "/%C0%AE%c0%ae/", "/%e0%80%af", "/%f0%80%80%af", "/%c1%9c", "/%fc%80%80%80%80%af"]
        {
            check(&DEFAULT, given, Err(PathFault::Overlong));
        }
        check(&DEFAULT, b"/%c0\xaf", Err(PathFault::Overlong));
        for given in ["", "a", "*", "%2f", "http://a/"] {
            check(&DECODE, given, Err(PathFault::NotAbsolute));
        }
    }

    /// What a server would make of a path: everything decoded, every kind of slash a slash, dots resolved.
    fn meaning(path: &[u8]) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut rest = path;
        while let Some((first, behind)) = rest.split_first() {
            let escape = (*first == b'%').then(|| escaped(behind).unwrap());
            bytes.push(escape.unwrap_or(*first));
            rest = &rest[if escape.is_some() { 3 } else { 1 }..];
        }
        let mut elements: Vec<Vec<u8>> = Vec::new();
        for element in bytes.split(|byte| matches!(byte, b'/' | b'\\')) {
            match element.split(|byte| *byte == b';').next().unwrap_or_default() {
                b"" | b"." => {}
                b".." => drop(elements.pop()),
                name => elements.push(name.to_vec()),
            }
        }
        elements
    }

    #[test]
    fn random_paths_have_one_spelling_and_mean_what_they_say() {
        const PIECES: [&str; 26] = [
            "/", "//", ".", "..", "/../", "/./", "%2e", "%2E%2e", "%2f", "%5C", "\\", ";", "%3b", "a", "b",
            "%61", "%25", "%252e", "%c3%a9", "%c0", "%af", "é", "%20", "%00", "%", "~",
        ];
        let mut rng = fastrand::Rng::with_seed(5);
        let mut accepted = 0;
        for _ in 0..200_000 {
            let pieces = (0..rng.usize(..9)).map(|_| PIECES[rng.usize(..PIECES.len())]);
            let given: String = std::iter::once("/").chain(pieces).collect();
            let rules = [DEFAULT, KEEP, DECODE, EMPTY, NO_DOTS][rng.usize(..5)];
            let Ok(normal) = normalize(given.as_bytes(), &rules) else { continue };
            accepted += 1;
            assert_eq!(normalize(&normal, &rules).as_deref(), Ok(&*normal), "{given} {rules:?}");
            assert!(normal.starts_with(b"/") && normal.is_ascii(), "{given}");
            let meaning = meaning(&normal);
            if rules.encoded_slashes != EncodedSlashes::Keep {
                // Element by element, what the route table sees is what a server makes of it.
                let seen: Vec<_> = normal.split(|byte| *byte == b'/').filter(|it| !it.is_empty()).collect();
                let named = seen.iter().filter(|it| !it.starts_with(b";") && !it.starts_with(b"%3b")).count();
                assert_eq!(meaning.len(), named, "{given} {}", normal.escape_ascii());
            }
        }
        assert!(accepted > 20_000, "only {accepted} were accepted");
    }
}
