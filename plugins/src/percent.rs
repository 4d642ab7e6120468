//! A share as the file spells it: `20%`, from `0%` to `100%` with at most two decimals.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A share between none and all, exact to a hundredth of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent {
    basis_points: u16,
}

impl Percent {
    /// Everything.
    pub const ALL: Self = Self { basis_points: 10_000 };
    /// `10%`.
    pub const TENTH: Self = Self { basis_points: 1_000 };
    /// `1%`.
    pub const HUNDREDTH: Self = Self { basis_points: 100 };

    /// Reads `20%`; the error says what was given and what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is not a share; write a number from `0%` to `100%`, as in `20%`");
        let number = text.strip_suffix('%').ok_or_else(refused)?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |s: &str| !s.is_empty() && s.len() <= 3 && s.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > 2 {
            return Err(refused());
        }
        let hundredths: u16 = format!("{whole}{decimals:0<2}").parse().map_err(|_| refused())?;
        if hundredths > Self::ALL.basis_points {
            return Err(refused());
        }
        Ok(Self { basis_points: hundredths })
    }

    /// Hundredths of a percent: 2000 for `20%`.
    pub fn basis_points(self) -> u16 {
        self.basis_points
    }

    /// Between 0 and 1: 0.2 for `20%`.
    pub fn fraction(self) -> f64 {
        f64::from(self.basis_points) / f64::from(Self::ALL.basis_points)
    }
}

impl fmt::Display for Percent {
    /// As it is read, with as few decimals as it needs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.basis_points) / 100.0)
    }
}

struct PercentVisitor;

impl Visitor<'_> for PercentVisitor {
    type Value = Percent;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a share, as in `20%`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Percent, E> {
        Percent::parse(text).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Percent, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Percent, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Percent, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PercentVisitor)
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A share from 0% to 100%, with at most two decimals.",
            "type": "string",
            "pattern": "^\\d{1,3}(\\.\\d{1,2})?%$",
            "examples": ["20%"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_exactly() {
        for (text, basis_points) in
            [("0%", 0), ("20%", 2000), ("100%", 10_000), ("0.5%", 50), ("12.25%", 1225)]
        {
            assert_eq!(Percent::parse(text).map(Percent::basis_points), Ok(basis_points), "{text}");
        }
        assert_eq!(Percent::parse("20%").unwrap().fraction(), 0.2);
        for text in ["0%", "20%", "100%", "0.5%", "12.25%"] {
            assert_eq!(Percent::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_share_is_refused_with_the_spelling_that_is_one() {
        for text in ["", "%", "20", "0.2", "-1%", "101%", "100.01%", "1.234%", "1.%", ".5%", "a%", "20 %"] {
            let refused = Percent::parse(text).unwrap_err();
            assert!(refused.contains("as in `20%`"), "{text}: {refused}");
        }
        let decoded: Result<Percent, _> = serde_yaml::from_str("20");
        assert!(decoded.unwrap_err().to_string().starts_with("`20` is not a share"));
    }
}
