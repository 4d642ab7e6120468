//! A number of bytes as the file spells it: a whole number with its unit, `512B`, `64KiB`, `1MiB`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserializer;

use super::scalar::{text, unexpected_text};

/// For the schema of a key that is a size.
pub struct SizeText;

/// Unit and its length in bytes, the largest first, so that a size is told by the one that it is a multiple of.
const UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

const EXPECTED: &str = "a size such as `64KiB`";

/// Decodes a size within bounds, both included.
pub fn size<'de, D: Deserializer<'de>>(from: D, least: usize, most: usize) -> Result<usize, D::Error> {
    use serde::de::Error;

    let bytes = text(from, EXPECTED, parse)?;
    if (least..=most).contains(&bytes) {
        return Ok(bytes);
    }
    Err(D::Error::custom(format!(
        "expected a size from {} to {}, got {}",
        told(least),
        told(most),
        told(bytes)
    )))
}

fn parse(given: &str) -> Result<usize, String> {
    let digits = given.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: Option<usize> = digits.parse().ok();
    let unit = UNITS.iter().find(|(unit, _)| *unit == &given[digits.len()..]);
    if let (Some(number), Some((_, length))) = (number, unit) {
        return number.checked_mul(*length).ok_or_else(|| unexpected_text(EXPECTED, given));
    }
    let hint = match (number, given[digits.len()..].to_ascii_lowercase().as_str()) {
        (Some(number), "") => format!("write the unit too: `{number}B`, `{number}KiB` or `{number}MiB`"),
        (Some(number), "k" | "kb" | "ki" | "kib") => format!("write `{number}KiB`"),
        (Some(number), "m" | "mb" | "mi" | "mib") => format!("write `{number}MiB`"),
        _ => "write a whole number and one of the units `B`, `KiB` and `MiB`".to_owned(),
    };
    Err(format!("{}\nhint: {hint}", unexpected_text(EXPECTED, given)))
}

fn told(bytes: usize) -> String {
    let unit = UNITS.iter().find(|(_, length)| bytes >= *length && bytes.is_multiple_of(*length));
    let (unit, length) = unit.unwrap_or(&("B", 1));
    format!("`{}{unit}`", bytes / length)
}

impl JsonSchema for SizeText {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of bytes: a whole number with its unit.",
            "type": "string",
            "pattern": "^\\d+([KMG]i)?B$",
            "examples": ["512B", "64KiB"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_and_a_unit() {
        for (given, bytes) in
            [("0B", 0), ("512B", 512), ("64KiB", 65_536), ("1MiB", 1 << 20), ("2GiB", 2 << 30)]
        {
            assert_eq!(parse(given), Ok(bytes), "{given}");
            assert_eq!(told(bytes), format!("`{given}`"));
        }
        for (given, hint) in [
            ("64", "write the unit too: `64B`, `64KiB` or `64MiB`"),
            ("64k", "write `64KiB`"),
            ("64KB", "write `64KiB`"),
            ("1M", "write `1MiB`"),
            ("much", "write a whole number and one of the units `B`, `KiB` and `MiB`"),
            ("1.5KiB", "write a whole number and one of the units `B`, `KiB` and `MiB`"),
        ] {
            let refused = parse(given).unwrap_err();
            assert_eq!(refused.split_once("\nhint: ").map(|it| it.1), Some(hint), "{given}");
        }
        assert!(parse("99999999999999999999GiB").is_err() && parse("17179869185GiB").is_err());
    }
}
