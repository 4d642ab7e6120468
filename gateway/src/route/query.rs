//! Reads a query as `application/x-www-form-urlencoded` (the WHATWG URL Standard): `&` parts the pairs, `+`
//! is a space, `%41` is an `A`, and a `%` without two hex digits stands for itself. Reading only: the query
//! is sent on as it came.

use std::borrow::Cow;

/// The values, not yet decoded, of the parameters whose decoded name is `name`. A pair without `=` has an
/// empty value.
pub(super) fn values<'q>(query: &'q str, name: &str) -> impl Iterator<Item = &'q str> {
    query.split('&').filter(|pair| !pair.is_empty()).filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        decodes_to(key, name).then_some(value)
    })
}

/// Whether `raw` stands for `text`; nothing is allocated to find out.
pub(super) fn decodes_to(raw: &str, text: &str) -> bool {
    decoded(raw).eq(text.bytes())
}

/// The text that `raw` stands for; none if that is not UTF-8. Allocates only where there is something to
/// decode.
pub(super) fn decode(raw: &str) -> Option<Cow<'_, str>> {
    if raw.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        String::from_utf8(decoded(raw).collect()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(raw))
    }
}

fn decoded(raw: &str) -> impl Iterator<Item = u8> {
    let mut rest = raw.as_bytes();
    std::iter::from_fn(move || {
        let (&first, after) = rest.split_first()?;
        let (byte, after) = match (first, after) {
            (b'+', _) => (b' ', after),
            (b'%', &[high, low, ref after @ ..]) => match (hex(high), hex(low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (first, &rest[1..]),
            },
            _ => (first, after),
        };
        rest = after;
        Some(byte)
    })
}

fn hex(digit: u8) -> Option<u8> {
    // A hex digit is below 16, so the cast loses nothing.
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once_and_broken_ones_stand_for_themselves() {
        let check = |raw: &str, text: &str| {
            assert_eq!(decode(raw).as_deref(), Some(text), "{raw}");
            assert!(decodes_to(raw, text), "{raw}");
        };
        check("", "");
        check("abc", "abc");
        check("a+b%20c", "a b c");
        check("%2541", "%41");
        check("%", "%");
        check("%4", "%4");
        check("%zz", "%zz");
        check("%%41", "%A");
        check("%4%41", "%4A");
        check("%c3%A9", "é");
        assert_eq!(decode("%ff"), None);
        assert!(!decodes_to("ab", "a"));
        assert!(!decodes_to("a", "ab"));
    }

    #[test]
    fn pairs_are_parted_before_they_are_decoded() {
        let check = |query: &str, name: &str, expected: &[&str]| {
            assert_eq!(values(query, name).collect::<Vec<_>>(), expected, "{query} {name}");
        };
        check("a=1&b=2&a=3", "a", &["1", "3"]);
        check("a=1%26b=2", "b", &[]);
        check("a%3D1", "a=1", &[""]);
        check("&&a&", "a", &[""]);
        check("&&a&", "", &[]);
        check("=1", "", &["1"]);
    }
}
