//! A size as the file spells it: a whole number and a unit, `512B`, `64KiB`, `10MiB`, `1GiB`.
//!
//! Which sizes make sense where is for the key's owner to say.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Unit and its length in bytes, the longest first.
const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// What people write for a unit of a thousand, or in short, and the unit that is meant most likely.
const LOOSE: [(&str, &str); 9] = [
    ("g", "GiB"),
    ("gb", "GiB"),
    ("gib", "GiB"),
    ("m", "MiB"),
    ("mb", "MiB"),
    ("mib", "MiB"),
    ("k", "KiB"),
    ("kb", "KiB"),
    ("kib", "KiB"),
];

/// A number of bytes in a config type; the schema describes its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SizeText(pub u64);

impl fmt::Display for SizeText {
    /// As it is read, by the longest unit that leaves no rest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, length)| self.0 >= *length && self.0.is_multiple_of(*length));
        let (unit, length) = whole.unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / length)
    }
}

/// Reads `10MiB`; the error says what was given and what to write instead.
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unreadable = || {
        let shown = crate::decode::shown(text);
        format!("`{shown}` is not a size; write a whole number and `B`, `KiB`, `MiB` or `GiB`, as in `64KiB`")
    };
    if number.is_empty() {
        return Err(unreadable());
    }
    let too_large = || format!("`{}` is too large a size", crate::decode::shown(text));
    let number: u64 = number.parse().map_err(|_| too_large())?;
    if let Some((_, length)) = UNITS.iter().find(|(name, _)| *name == unit) {
        return number.checked_mul(*length).ok_or_else(too_large);
    }
    let loose = unit.trim().to_ascii_lowercase();
    Err(match LOOSE.iter().find(|(name, _)| *name == loose) {
        Some((_, meant)) => format!("`{text}` is not a size; write `{number}{meant}`"),
        None if unit.is_empty() => format!("`{text}` has no unit; write `{number}B` for bytes"),
        None => unreadable(),
    })
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = SizeText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size with a unit, as in `64KiB`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<SizeText, E> {
        parse(text).map(SizeText).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<SizeText, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<SizeText, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<SizeText, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de> Deserialize<'de> for SizeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

impl JsonSchema for SizeText {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A whole number and a unit: 512B, 64KiB, 10MiB, 1GiB.",
            "type": "string",
            "pattern": "^\\d+(B|KiB|MiB|GiB)$",
            "examples": ["64KiB", "10MiB"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_told_alike() {
        for (text, bytes) in
            [("0B", 0), ("1B", 1), ("512B", 512), ("64KiB", 65_536), ("10MiB", 10_485_760), ("1GiB", 1 << 30)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
            assert_eq!(SizeText(bytes).to_string(), text);
        }
        assert_eq!(SizeText(1025).to_string(), "1025B");
    }

    #[test]
    fn what_is_no_size_is_refused_with_what_was_meant() {
        for (text, told) in [
            ("10", "`10` has no unit; write `10B` for bytes"),
            ("10M", "`10M` is not a size; write `10MiB`"),
            ("10 MB", "`10 MB` is not a size; write `10MiB`"),
            ("64kib", "`64kib` is not a size; write `64KiB`"),
            ("lots", "`lots` is not a size; write a whole number"),
            ("1.5MiB", "`1.5MiB` is not a size; write a whole number"),
            ("-1B", "`-1B` is not a size"),
            ("", "`` is not a size"),
            ("99999999999GiB", "`99999999999GiB` is too large a size"),
            ("99999999999999999999B", "is too large a size"),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.contains(told), "{text}: {refused}");
        }
        let decoded: Result<SizeText, _> = serde_yaml::from_str("25");
        assert!(decoded.unwrap_err().to_string().starts_with("`25` has no unit"));
    }
}
