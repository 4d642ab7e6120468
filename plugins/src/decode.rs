//! From a YAML value to a typed one, with every problem told at once and in words for the person who typed
//! it.
//!
//! Nothing here knows files or lines: a problem has the path of the value that it is about.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_yaml::Value;

use crate::problem::{Path, Problem, Segment, did_you_mean, nearest};

/// More problems than this are not looked for: nobody reads on, and each costs a decoding of the whole value.
pub const MOST_PROBLEMS: usize = 100;

/// Decodes `value`. What cannot be decoded is told as a problem and left out, and the rest is decoded without
/// it, up to `MOST_PROBLEMS`; so there may be both a value and problems. The value counts only where there is
/// no problem.
///
/// A custom error of a `Deserialize` passes through as written; a last line `hint: …` in it becomes the hint.
pub fn decode<T: DeserializeOwned>(value: &Value) -> (Option<T>, Vec<Problem>) {
    let mut remaining = value.clone();
    let mut cut = Cut::default();
    let mut problems = Vec::new();
    while problems.len() < MOST_PROBLEMS {
        let error = match serde_path_to_error::deserialize::<_, T>(&remaining) {
            Ok(decoded) => return (Some(decoded), problems),
            Err(error) => error,
        };
        let found = nearest_known(error.path(), &remaining);
        let path = cut.before(&found);
        let complaint = Complaint::of(&error.inner().to_string());
        if !complaint.follows_from(&cut, &path) {
            problems.push(complaint.problem(path.clone(), find(&remaining, &found)));
        }
        if !remove(&mut remaining, &found) {
            return (None, problems);
        }
        cut.add(&path);
    }
    (None, problems)
}

/// A text as a message may show it: one line, and of a long one its beginning.
pub fn shown(text: &str) -> String {
    const MOST: usize = 40;
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.len() < text.trim_end().len() => format!("{line}…"),
        None => line.to_owned(),
    }
}

/// What serde says, taken apart.
enum Complaint {
    UnknownKey { key: String, known: Vec<String> },
    MissingKey(String),
    UnknownWord { word: String, known: Vec<String> },
    Unexpected { expected: String },
    Custom { message: String, hint: Option<String> },
}

impl Complaint {
    // serde tells what was wrong as a text only: these are the texts of `serde::de::Error`'s provided
    // methods.
    fn of(message: &str) -> Self {
        let quoted =
            |rest: &str| match rest.rsplit_once("`, expected ").or(rest.rsplit_once("`, there are no ")) {
                Some((given, known)) => (given.to_owned(), in_backticks(known)),
                None => (rest.to_owned(), Vec::new()),
            };
        if let Some(rest) = message.strip_prefix("unknown field `") {
            let (key, known) = quoted(rest);
            return Self::UnknownKey { key, known };
        }
        if let Some(rest) = message.strip_prefix("unknown variant `") {
            let (word, known) = quoted(rest);
            return Self::UnknownWord { word, known };
        }
        if let Some(key) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
            return Self::MissingKey(key.to_owned());
        }
        if let Some((_, expected)) = ["invalid type: ", "invalid value: ", "invalid length "]
            .iter()
            .find_map(|kind| message.strip_prefix(kind))
            .and_then(|rest| rest.rsplit_once(", expected "))
        {
            return Self::Unexpected { expected: in_plain_words(expected) };
        }
        match message.split_once("\nhint: ") {
            Some((message, hint)) => {
                Self::Custom { message: message.to_owned(), hint: Some(hint.to_owned()) }
            }
            None => Self::Custom { message: message.to_owned(), hint: None },
        }
    }

    /// Whether this is only the consequence of what was left out before, and so no news.
    fn follows_from(&self, cut: &Cut, path: &Path) -> bool {
        match self {
            Self::UnknownKey { .. } => false,
            Self::MissingKey(key) => cut.has_nearly(path, key),
            _ => cut.has_inside(path),
        }
    }

    fn problem(self, path: Path, given: Option<&Value>) -> Problem {
        match self {
            Self::UnknownKey { key, known } => {
                let hint =
                    did_you_mean(&key, known.iter().map(String::as_str)).unwrap_or_else(|| {
                        match known.is_empty() {
                            true => "no key is allowed here".to_owned(),
                            false => format!("allowed here: {}", listed(&known, ", ")),
                        }
                    });
                Problem::new(path, format!("unknown key `{}`", shown(&key))).hint(hint)
            }
            Self::MissingKey(key) => Problem::new(path, format!("`{key}` is missing")),
            Self::UnknownWord { word, known } => {
                let message = format!("expected {}, got the text `{}`", listed(&known, " or "), shown(&word));
                let hint = did_you_mean(&word, known.iter().map(String::as_str));
                Problem { path, message, hint }
            }
            Self::Unexpected { expected } => {
                let hint = given.and_then(|given| remedy(&expected, given));
                let message = match given {
                    Some(given) => format!("expected {expected}, got {}", described(given)),
                    None => format!("expected {expected}"),
                };
                Problem { path, message, hint }
            }
            Self::Custom { message, hint } => Problem { path, message, hint },
        }
    }
}

fn in_backticks(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn listed(names: &[String], last: &str) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((end, [])) => end.clone(),
        Some((end, begin)) => format!("{}{last}{end}", begin.join(", ")),
        None => String::new(),
    }
}

const TEXT: &str = "a text";
const LIST: &str = "a list";
const MAP: &str = "a map";
const BOOLEAN: &str = "`true` or `false`";
const WHOLE_NUMBER: &str = "a whole number";

/// serde's and the standard library's words for what they expect are Rust's; these are YAML's.
fn in_plain_words(expected: &str) -> String {
    let signed =
        |bits: u32| format!("{WHOLE_NUMBER} from -{} to {}", 1u64 << (bits - 1), (1u64 << (bits - 1)) - 1);
    match expected {
        "u8" => format!("{WHOLE_NUMBER} from 0 to {}", u8::MAX),
        "u16" => format!("{WHOLE_NUMBER} from 0 to {}", u16::MAX),
        "u32" => format!("{WHOLE_NUMBER} from 0 to {}", u32::MAX),
        "u64" | "u128" | "usize" => format!("{WHOLE_NUMBER} from 0"),
        "i8" => signed(8),
        "i16" => signed(16),
        "i32" => signed(32),
        "i64" | "i128" | "isize" => WHOLE_NUMBER.to_owned(),
        nonzero if nonzero.starts_with("a nonzero u") => format!("{WHOLE_NUMBER} from 1"),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => BOOLEAN.to_owned(),
        "a string" | "a borrowed string" | "path string" | "a character" => TEXT.to_owned(),
        "a sequence" => LIST.to_owned(),
        "a map" => MAP.to_owned(),
        of_rust if of_rust.starts_with("struct ") => MAP.to_owned(),
        ours => ours.to_owned(),
    }
}

fn described(given: &Value) -> String {
    match given {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(number) => format!("the number `{number}`"),
        Value::String(text) if text.is_empty() => "an empty text".to_owned(),
        Value::String(text) => format!("the text `{}`", shown(text)),
        Value::Sequence(_) => LIST.to_owned(),
        Value::Mapping(_) => MAP.to_owned(),
        Value::Tagged(_) => "a value with a tag".to_owned(),
    }
}

/// The slips that have one sure remedy.
fn remedy(expected: &str, given: &Value) -> Option<String> {
    match (expected, given) {
        (TEXT, Value::Number(number)) => Some(format!("put it in quotes: `\"{number}\"`")),
        (TEXT, Value::Bool(value)) => Some(format!("put it in quotes: `\"{value}\"`")),
        (LIST, Value::Mapping(_)) => Some("begin each item with a `-`".to_owned()),
        (LIST, Value::String(text)) => Some(format!("write `[{}]`", shown(text))),
        (MAP, Value::Sequence(_)) => Some("write `name: …` for each entry, without a `-`".to_owned()),
        (BOOLEAN, Value::String(text)) => match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "true" => Some("write `true`".to_owned()),
            "no" | "off" | "false" => Some("write `false`".to_owned()),
            _ => None,
        },
        (number, Value::String(text)) if number.starts_with(WHOLE_NUMBER) && text.parse::<u64>().is_ok() => {
            Some(format!("remove the quotes: `{text}`"))
        }
        _ => None,
    }
}

/// What was left out so far, by the paths of the whole value.
#[derive(Default)]
struct Cut {
    here: bool,
    inside: BTreeMap<Segment, Cut>,
}

impl Cut {
    fn add(&mut self, path: &Path) {
        let mut at = self;
        for segment in &path.0 {
            at = at.inside.entry(segment.clone()).or_default();
        }
        at.here = true;
    }

    fn at(&self, path: &Path) -> Option<&Cut> {
        path.0.iter().try_fold(self, |at, segment| at.inside.get(segment))
    }

    /// Whether `key` of the map at `path` was left out, or a key that was told to be a misspelling of it.
    fn has_nearly(&self, path: &Path, key: &str) -> bool {
        self.at(path).is_some_and(|cut| {
            cut.inside.iter().any(|(segment, cut)| match segment {
                Segment::Key(given) => cut.here && nearest(given, [key]).is_some(),
                Segment::Index(_) => false,
            })
        })
    }

    fn has_inside(&self, path: &Path) -> bool {
        self.at(path).is_some_and(|cut| !cut.inside.is_empty())
    }

    /// The path that `path` had before list items in front of it were left out.
    fn before(&self, path: &Path) -> Path {
        let mut at = Some(self);
        let mut whole = Path::root();
        for segment in &path.0 {
            let segment = match (segment, at) {
                (Segment::Index(index), Some(cut)) => Segment::Index(cut.index_before(*index)),
                (segment, _) => segment.clone(),
            };
            at = at.and_then(|cut| cut.inside.get(&segment));
            whole.0.push(segment);
        }
        whole
    }

    fn index_before(&self, mut index: usize) -> usize {
        for (segment, cut) in &self.inside {
            if let Segment::Index(gone) = segment
                && cut.here
                && *gone <= index
            {
                index += 1;
            }
        }
        index
    }
}

/// serde's path as ours, as far as it leads to something.
fn nearest_known(path: &serde_path_to_error::Path, value: &Value) -> Path {
    let mut known = Path::root();
    let mut at = value;
    for segment in path.iter() {
        let (segment, next) = match segment {
            serde_path_to_error::Segment::Seq { index } => (Segment::Index(*index), at.get(index)),
            serde_path_to_error::Segment::Map { key } => (Segment::Key(key.clone()), at.get(key)),
            // The variant of an enum is the value itself, or the key that follows.
            serde_path_to_error::Segment::Enum { .. } => continue,
            serde_path_to_error::Segment::Unknown => break,
        };
        let Some(next) = next else { break };
        known.0.push(segment);
        at = next;
    }
    known
}

fn find<'a>(value: &'a Value, path: &Path) -> Option<&'a Value> {
    path.0.iter().try_fold(value, |at, segment| match segment {
        Segment::Index(index) => at.get(index),
        Segment::Key(key) => at.get(key),
    })
}

/// Removes what `path` leads to; the root cannot be removed.
fn remove(value: &mut Value, path: &Path) -> bool {
    let Some((last, holders)) = path.0.split_last() else { return false };
    let holder = holders.iter().try_fold(value, |at, segment| match segment {
        Segment::Index(index) => at.get_mut(index),
        Segment::Key(key) => at.get_mut(key),
    });
    match (holder, last) {
        (Some(Value::Sequence(list)), Segment::Index(index)) if *index < list.len() => {
            list.remove(*index);
            true
        }
        (Some(Value::Mapping(map)), Segment::Key(key)) => map.shift_remove(key).is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde::de::Error;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Outer {
        items: Vec<Item>,
        small: u8,
        signed: i8,
        some: Option<bool>,
        words: BTreeMap<String, Word>,
        #[serde(deserialize_with = "even")]
        even: u64,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Item {
        name: String,
        #[serde(default)]
        size: u32,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        Left,
        Right,
    }

    fn even<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let number = u64::deserialize(from)?;
        match number % 2 {
            0 => Ok(number),
            _ => Err(D::Error::custom(format!("`{number}` is odd\nhint: add one"))),
        }
    }

    fn told(yaml: &str) -> String {
        let (_, problems) = decode::<Outer>(&serde_yaml::from_str(yaml).unwrap());
        let lines = problems.iter().map(|problem| {
            let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{}: {}{hint}", problem.path, problem.message)
        });
        lines.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn each_slip_is_told_with_its_path_what_was_given_and_what_is_allowed() {
        for (yaml, expected) in [
            ("small: 5", ""),
            ("small: 300", "small: expected a whole number from 0 to 255, got the number `300`"),
            (
                "small: '5'",
                "small: expected a whole number from 0 to 255, got the text `5` (remove the quotes: `5`)",
            ),
            ("signed: -129", "signed: expected a whole number from -128 to 127, got the number `-129`"),
            ("some: yes", "some: expected `true` or `false`, got the text `yes` (write `true`)"),
            ("smal: 5", "smal: unknown key `smal` (did you mean `small`?)"),
            (
                "other: 5",
                "other: unknown key `other` (allowed here: `items`, `small`, `signed`, `some`, `words`, `even`)",
            ),
            ("even: 3", "even: `3` is odd (add one)"),
            ("items: a", "items: expected a list, got the text `a` (write `[a]`)"),
            ("items: [{}]", "items[0]: `name` is missing"),
            (
                "items: [{ name: 5 }]",
                "items[0].name: expected a text, got the number `5` (put it in quotes: `\"5\"`)",
            ),
            ("items: [5]", "items[0]: expected a map, got the number `5`"),
            (
                "words: { a: lef }",
                "words.a: expected `left` or `right`, got the text `lef` (did you mean `left`?)",
            ),
            ("small: \"a\\nb\"", "small: expected a whole number from 0 to 255, got the text `a…`"),
        ] {
            assert_eq!(told(yaml), expected, "{yaml}");
        }
    }

    #[test]
    fn indexes_count_in_the_file_although_items_before_were_left_out() {
        let yaml = "items: [5, { name: a }, 6, { name: b, size: x }, { nam: c }]";
        assert_eq!(
            told(yaml),
            "items[0]: expected a map, got the number `5`; items[2]: expected a map, got the number `6`; \
             items[3].size: expected a whole number from 0 to 4294967295, got the text `x`; \
             items[4].nam: unknown key `nam` (did you mean `name`?)"
        );
    }

    #[test]
    fn what_is_sound_is_decoded_beside_what_is_not() {
        let value =
            serde_yaml::from_str("{ small: 300, even: 4, items: [{ name: a }, { name: 5 }] }").unwrap();
        let (decoded, problems) = decode::<Outer>(&value);
        let items = vec![Item { name: "a".into(), size: 0 }];
        assert_eq!(decoded, Some(Outer { even: 4, items, ..Outer::default() }));
        assert_eq!(problems.len(), 2);
    }

    #[test]
    fn the_search_ends_after_a_hundred_problems() {
        let yaml = format!("items: [{}]", "5, ".repeat(150));
        let (decoded, problems) = decode::<Outer>(&serde_yaml::from_str(&yaml).unwrap());
        assert_eq!((decoded, problems.len()), (None, MOST_PROBLEMS));
    }

    #[test]
    fn a_long_text_is_shown_by_its_beginning() {
        for (text, expected) in [
            ("short", "short".to_owned()),
            ("end\n", "end".to_owned()),
            ("-----BEGIN KEY-----\nsecret", "-----BEGIN KEY-----…".to_owned()),
            (&"é".repeat(41), format!("{}…", "é".repeat(40))),
        ] {
            assert_eq!(shown(text), expected);
        }
    }
}
