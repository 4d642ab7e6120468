//! A duration as the file spells it: whole numbers with a unit each, `25ms`, `2s`, `1m30s`, `1h`.
//!
//! Which durations make sense where is for the key's owner to say.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Unit and its length in milliseconds, in the order in which they may follow one another.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A duration in a config type; the schema describes its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DurationText(pub Duration);

impl fmt::Display for DurationText {
    /// As it is read; what is below a millisecond is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_millis() as u64;
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, length) in UNITS {
            if rest >= length {
                write!(f, "{}{unit}", rest / length)?;
                rest %= length;
            }
        }
        Ok(())
    }
}

/// Reads `1m30s`; the error says what was given, what is allowed and what to write instead.
pub fn parse(text: &str) -> Result<Duration, String> {
    if text.is_empty() {
        return Err("an empty text is not a duration; write a number and a unit, as in `25s`".to_owned());
    }
    if text.parse::<f64>().is_ok_and(f64::is_finite) {
        return Err(format!("`{text}` has no unit; write {}", with_unit(text)));
    }
    let mut rest = text;
    let mut milliseconds = 0u64;
    let mut units = &UNITS[..];
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.len() - tail.trim_start_matches(|c: char| !c.is_ascii_digit()).len();
        let (unit, tail) = tail.split_at(letters);
        let position = units.iter().position(|(name, _)| *name == unit).ok_or_else(|| unreadable(text))?;
        let number: u64 = number.parse().map_err(|_| unreadable(text))?;
        milliseconds = number
            .checked_mul(units[position].1)
            .and_then(|part| milliseconds.checked_add(part))
            .ok_or_else(|| format!("`{text}` is too long a duration"))?;
        units = &units[position + 1..];
        rest = tail;
    }
    Ok(Duration::from_millis(milliseconds))
}

/// For `#[serde(deserialize_with = "…")]` on a `Duration`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(DurationVisitor)
}

fn unreadable(text: &str) -> String {
    format!(
        "`{text}` is not a duration; write whole numbers with the units `h`, `m`, `s` or `ms`, the longest \
         first, as in `1m30s`"
    )
}

/// What a bare number may have meant.
fn with_unit(text: &str) -> String {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("`{text}s` for seconds or `{text}ms` for milliseconds")
    } else {
        "a whole number and a unit, as in `25s` or `1500ms`".to_owned()
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with a unit, as in `25s`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Duration, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Duration, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Duration, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Whole numbers with a unit each, the longest first: 25ms, 2s, 1m30s, 1h.",
            "type": "string",
            "pattern": "^(\\d+h)?(\\d+m)?(\\d+s)?(\\d+ms)?$",
            "minLength": 2,
            "examples": ["25ms", "2s", "1m30s", "1h"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_added_up() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("25ms", 25),
            ("2s", 2_000),
            ("3m", 180_000),
            ("1h", 3_600_000),
            ("1m30s", 90_000),
            ("1h2m3s4ms", 3_723_004),
            ("1m5ms", 60_005),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
            assert_eq!(DurationText(Duration::from_millis(milliseconds)).to_string(), text);
        }
    }

    #[test]
    fn a_bare_number_is_refused_and_the_hint_names_its_unit() {
        let hint = "`25` has no unit; write `25s` for seconds or `25ms` for milliseconds";
        assert_eq!(parse("25"), Err(hint.to_owned()));
        let decoded: Result<DurationText, _> = serde_yaml::from_str("25");
        assert!(decoded.unwrap_err().to_string().starts_with(hint));
        for text in ["1.5", "-3", "1e3"] {
            assert!(parse(text).unwrap_err().contains("as in `25s`"), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "s", "1.5s", "-1s", "1s1m", "1s1s", "1 s", "1d", "soon", "5ms3", "99999999999999999999s"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("9999999999999999h").unwrap_err().contains("too long"));
    }

    #[test]
    fn a_text_is_decoded_where_it_stands() {
        let decoded: DurationText = serde_yaml::from_str("1m30s").unwrap();
        assert_eq!(decoded.0, Duration::from_secs(90));
    }
}
