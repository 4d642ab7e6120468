//! The small values that many nouns of the file share, and the visitors that take more than one form of them.
//!
//! Every visitor here goes through `deserialize_any`, never through an untagged enum: only so does
//! `serde_path_to_error` still see which key inside a map or a list was at fault. A custom message may end in
//! a line that begins with `hint: `, which becomes the problem's hint.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer, StrDeserializer};
use serde::de::{self, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use vestibule_plugins::problem::did_you_mean;

pub use vestibule_plugins::duration::{DurationText, deserialize as duration};

/// The version of the file's format. There is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Version;

impl TextOrNumber for Version {
    const EXPECTED: &'static str = "`1`, the one version there is";

    fn from_text(text: &str) -> Option<Self> {
        (text == "1").then_some(Self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        text_or_number(from)
    }
}

impl JsonSchema for Version {
    fn schema_name() -> Cow<'static, str> {
        "Version".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "The version of the file's format.", "const": 1 })
    }
}

/// A status that may end a request, 200 to 599; in the file a number, in quotes or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Status(u16);

impl Status {
    /// 200.
    pub const OK: Self = Self(200);
    /// 302.
    pub const FOUND: Self = Self(302);

    /// The number.
    pub fn code(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TextOrNumber for Status {
    const EXPECTED: &'static str = "a status from 200 to 599";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().filter(|code| (200..=599).contains(code)).map(Self)
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        text_or_number(from)
    }
}

impl JsonSchema for Status {
    fn schema_name() -> Cow<'static, str> {
        "Status".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A status, 200 to 599.",
            "anyOf": [
                { "type": "integer", "minimum": 200, "maximum": 599 },
                { "type": "string", "pattern": "^[2-5][0-9]{2}$" }
            ]
        })
    }
}

/// One value or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [generator.subschema_for::<T>(), generator.subschema_for::<Vec<T>>()]
        })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OneOrManyVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one value or a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Vec<T>, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
                T::deserialize(StrDeserializer::new(text)).map(|one| vec![one])
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Vec<T>, E> {
                T::deserialize(value.into_deserializer()).map(|one| vec![one])
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Vec<T>, E> {
                T::deserialize(value.into_deserializer()).map(|one| vec![one])
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Vec<T>, E> {
                T::deserialize(value.into_deserializer()).map(|one| vec![one])
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Vec<T>, E> {
                T::deserialize(value.into_deserializer()).map(|one| vec![one])
            }

            // A key with nothing behind it is an empty list here, as it is for serde_yaml's own lists.
            fn visit_unit<E: de::Error>(self) -> Result<Vec<T>, E> {
                Ok(Vec::new())
            }
        }

        from.deserialize_any(OneOrManyVisitor(PhantomData)).map(Self)
    }
}

/// For `deserialize_with`: one value or a list.
pub(super) fn one_or_many<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    OneOrMany::deserialize(from).map(|list| list.0)
}

/// For `deserialize_with`: one value or a list that is not empty.
pub(super) fn one_or_more<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    one_or_many(from).and_then(not_empty)
}

/// For `deserialize_with`: a list that is not empty.
pub(super) fn at_least_one<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    Vec::deserialize(from).and_then(not_empty)
}

fn not_empty<T, E: de::Error>(list: Vec<T>) -> Result<Vec<T>, E> {
    match list.is_empty() {
        true => Err(E::custom("expected a list of at least one, got an empty one")),
        false => Ok(list),
    }
}

/// For `deserialize_with`: a key that may be absent, but says something where it stands.
///
/// A plain `Option` would take `upstream:` with nothing behind it as absent; here it is an error, and `tls:`
/// with nothing behind it is an empty map, so that TLS is never lost by commenting out what stood below.
pub(crate) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// For `deserialize_with`: a count from 1.
pub(super) fn from_one<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    NonZeroUsize::deserialize(from).map(NonZeroUsize::get)
}

/// A whole number within bounds, both included.
pub(super) fn whole_number<'de, D: Deserializer<'de>>(
    from: D,
    least: u32,
    most: u32,
) -> Result<u32, D::Error> {
    struct WholeNumber(u32, u32);

    impl Visitor<'_> for WholeNumber {
        type Value = u32;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a whole number from {} to {}", self.0, self.1)
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<u32, E> {
            let within = u32::try_from(value).ok().filter(|value| (self.0..=self.1).contains(value));
            within.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(value), &self))
        }
    }

    from.deserialize_any(WholeNumber(least, most))
}

/// For `deserialize_with`: `ip:port`, to listen on.
pub(super) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    const EXPECTED: &str = "`ip:port` such as `0.0.0.0:8080`";
    text(from, EXPECTED, |text| {
        text.parse().map_err(|_| {
            let digits = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")).unwrap_or(text);
            let hint = match (digits.parse::<u16>(), text.parse(), text.rsplit_once(':')) {
                (Ok(port), _, _) => format!("write `0.0.0.0:{port}` for every interface"),
                (_, Ok(IpAddr::V4(ip)), _) => format!("write the port too: `{ip}:8080`"),
                (_, Ok(IpAddr::V6(ip)), _) => format!("write the port too, and brackets: `[{ip}]:8080`"),
                (_, _, Some(("localhost", port))) => format!("write `127.0.0.1:{port}`"),
                (_, _, Some((_, port))) if port.parse::<u16>().is_err() => {
                    "a port is a number from 0 to 65535".into()
                }
                _ => "names are not resolved here: write the IP address of an interface".into(),
            };
            format!("{}\nhint: {hint}", unexpected_text(EXPECTED, text))
        })
    })
}

/// `expected …, got the text …`, for a custom error.
pub(super) fn unexpected_text(expected: &str, given: &str) -> String {
    format!("expected {expected}, got the text `{}`", vestibule_plugins::decode::shown(given))
}

/// One of a few words.
pub(super) trait Word: Copy + 'static {
    /// Each word and what it means.
    const WORDS: &'static [(&'static str, Self)];
}

/// Decodes one of a few words.
pub(super) fn word<'de, T: Word, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    struct Choice<T>(PhantomData<T>);

    impl<T: Word> Visitor<'_> for Choice<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for (position, (word, _)) in T::WORDS.iter().enumerate() {
                let before = match position {
                    0 => "",
                    last if last + 1 == T::WORDS.len() => " or ",
                    _ => ", ",
                };
                write!(f, "{before}`{word}`")?;
            }
            Ok(())
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            if let Some((_, meaning)) = T::WORDS.iter().find(|(word, _)| *word == text) {
                return Ok(*meaning);
            }
            let expected = (&self as &dyn de::Expected).to_string();
            let hint = did_you_mean(text, T::WORDS.iter().map(|(word, _)| *word));
            let hint = hint.map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
            Err(E::custom(format!("{}{hint}", unexpected_text(&expected, text))))
        }
    }

    from.deserialize_any(Choice(PhantomData))
}

/// Decodes a text by a function whose error is the whole message.
pub(super) fn text<'de, T, D: Deserializer<'de>>(
    from: D,
    expected: &'static str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    struct Text<T>(&'static str, fn(&str) -> Result<T, String>);

    impl<T> Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text).map_err(E::custom)
        }
    }

    from.deserialize_any(Text(expected, parse))
}

/// What people type as a number or in quotes alike.
pub(super) trait TextOrNumber: Sized {
    /// What is allowed, as a message says it.
    const EXPECTED: &'static str;

    /// The value, if the text or the number's digits spell one.
    fn from_text(text: &str) -> Option<Self>;
}

/// Decodes a `TextOrNumber`.
pub(super) fn text_or_number<'de, T: TextOrNumber, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    struct Either<T>(PhantomData<T>);

    impl<T: TextOrNumber> Visitor<'_> for Either<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(T::EXPECTED)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            T::from_text(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
            T::from_text(&value.to_string())
                .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(value), &self))
        }

        fn visit_f64<E: de::Error>(self, value: f64) -> Result<T, E> {
            T::from_text(&value.to_string()).ok_or_else(|| E::invalid_value(Unexpected::Float(value), &self))
        }
    }

    from.deserialize_any(Either(PhantomData))
}

/// What has a short form, a text, and a long one, a map. The errors are whole messages.
pub(super) trait TextOrMap: Sized {
    /// The long form.
    type Map: for<'de> Deserialize<'de>;
    /// What is allowed, as a message says it.
    const EXPECTED: &'static str;

    /// From the short form.
    fn from_text(text: &str) -> Result<Self, String>;

    /// From the long form.
    fn from_map(map: Self::Map) -> Result<Self, String>;

    /// From `true` or `false`, where that says something.
    fn from_bool(_: bool) -> Option<Result<Self, String>> {
        None
    }

    /// From a whole number, where that says something.
    fn from_integer(_: i128) -> Option<Result<Self, String>> {
        None
    }

    /// From a number with a fraction, where that says something.
    fn from_fraction(_: f64) -> Option<Result<Self, String>> {
        None
    }
}

/// Decodes a `TextOrMap`.
pub(super) fn text_or_map<'de, T: TextOrMap, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    from.deserialize_any(Form(PhantomData))
}

struct Form<T>(PhantomData<T>);

impl<T: TextOrMap> Form<T> {
    fn or_invalid<E: de::Error>(
        self,
        read: Option<Result<T, String>>,
        given: Unexpected<'_>,
    ) -> Result<T, E> {
        match read {
            Some(read) => read.map_err(E::custom),
            None => Err(E::invalid_type(given, &self)),
        }
    }
}

impl<'de, T: TextOrMap> Visitor<'de> for Form<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::Map::deserialize(MapAccessDeserializer::new(map))
            .and_then(|map| T::from_map(map).map_err(de::Error::custom))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
        self.or_invalid(T::from_bool(value), Unexpected::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
        self.or_invalid(T::from_integer(value.into()), Unexpected::Unsigned(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        self.or_invalid(T::from_integer(value.into()), Unexpected::Signed(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<T, E> {
        self.or_invalid(T::from_fraction(value), Unexpected::Float(value))
    }
}
