//! A list that a person may write as its one item: `retry_on: 503` for `retry_on: [503]`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, SeqAccess, Visitor};

/// A list of plain values, or one of them. Not for lists of maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData)).map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list, or one of its items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Vec<T>, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
        T::deserialize(text.into_deserializer()).map(|item| vec![item])
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Vec<T>, E> {
        T::deserialize(number.into_deserializer()).map(|item| vec![item])
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Vec<T>, E> {
        T::deserialize(number.into_deserializer()).map(|item| vec![item])
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Vec<T>, E> {
        T::deserialize(number.into_deserializer()).map(|item| vec![item])
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Vec<T>, E> {
        T::deserialize(truth.into_deserializer()).map(|item| vec![item])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_item_is_a_list_of_one() {
        for (yaml, list) in [("a", vec!["a"]), ("[a]", vec!["a"]), ("[a, b]", vec!["a", "b"]), ("[]", vec![])]
        {
            let decoded: OneOrMany<String> = serde_yaml::from_str(yaml).unwrap();
            assert_eq!(decoded.0, list, "{yaml}");
        }
        let number: OneOrMany<u16> = serde_yaml::from_str("503").unwrap();
        assert_eq!(number.0, [503]);
    }

    #[test]
    fn an_item_of_the_wrong_kind_is_refused() {
        assert!(serde_yaml::from_str::<OneOrMany<u16>>("[503, no-number]").is_err());
        assert!(serde_yaml::from_str::<OneOrMany<u16>>("{ a: 1 }").is_err());
    }
}
