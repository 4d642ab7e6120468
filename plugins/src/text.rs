//! A text that a person may have typed as something else: `x-version: 2` and `x-debug: true` mean their
//! letters.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A string, or a whole number or truth value taken by its letters. A fraction is refused, because `1.10` has
/// become `1.1` before anyone can look.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(pub String);

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Text, E> {
        Ok(Text(truth.to_string()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Text, E> {
        Ok(Text(number.to_string()))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Text, E> {
        Err(E::custom(
            "a number with a fraction may lose digits on its way; put it in quotes, as in \"1.10\"",
        ))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer", "boolean"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_and_truth_values_are_their_letters() {
        for (yaml, text) in
            [("plain", "plain"), ("2", "2"), ("-2", "-2"), ("true", "true"), ("\"1.10\"", "1.10")]
        {
            let decoded: Text = serde_yaml::from_str(yaml).unwrap();
            assert_eq!(decoded.0, text);
        }
    }

    #[test]
    fn a_fraction_is_refused_because_its_digits_are_lost() {
        let refused = serde_yaml::from_str::<Text>("1.10").map(|text| text.0).unwrap_err();
        assert!(refused.to_string().contains("put it in quotes"));
    }
}
