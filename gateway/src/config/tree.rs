//! A YAML text as a tree in which each key and each list item knows where it stands.
//!
//! This is the one parser of the file. The limits hold here, before any value is built of it. What a key
//! means is not known here.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_yaml::{Mapping, Value};
use vestibule_plugins::{
    Path, Problem,
    decode::{MOST_PROBLEMS, shown},
};

use super::syntax;

/// More values than this, counted with every alias written out, are refused.
pub(super) const MOST_NODES: usize = 1_000_000;
/// Lists and maps may hold one another so deep.
pub(super) const MOST_DEPTH: usize = 64;

/// A place in one of the files; line and column count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The file's number.
    pub file: usize,
    pub line: usize,
    pub column: usize,
}

/// A value and where it begins.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub at: Mark,
    pub kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a map, where it stands, and its value. Keys are texts, whatever YAML would take `8080:` or `on:`
/// for.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: String,
    pub at: Mark,
    pub value: Node,
}

impl Node {
    /// The tree without its marks.
    pub fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::List(items) => Value::Sequence(items.iter().map(Node::value).collect()),
            Kind::Map(entries) => Value::Mapping(mapping(entries)),
        }
    }

    fn size(&self) -> usize {
        1 + match &self.kind {
            Kind::Scalar(_) => 0,
            Kind::List(items) => items.iter().map(Node::size).sum(),
            Kind::Map(entries) => entries.iter().map(|entry| entry.value.size()).sum(),
        }
    }

    fn depth(&self) -> usize {
        match &self.kind {
            Kind::Scalar(_) => 0,
            Kind::List(items) => 1 + items.iter().map(Node::depth).max().unwrap_or(0),
            Kind::Map(entries) => 1 + entries.iter().map(|entry| entry.value.depth()).max().unwrap_or(0),
        }
    }
}

/// The entries of a map without their marks.
pub(super) fn mapping(entries: &[Entry]) -> Mapping {
    entries.iter().map(|entry| (Value::String(entry.key.clone()), entry.value.value())).collect()
}

/// What ends the reading of a file.
#[derive(Debug)]
pub(super) struct Fault {
    pub at: Mark,
    pub problem: Problem,
}

/// A text's one document, and what is wrong with it that leaves a tree nevertheless.
pub(super) struct Tree {
    /// `None` where the text holds nothing.
    pub root: Option<Node>,
    pub problems: Vec<(Problem, Mark)>,
}

/// Parses the text of the file number `file`.
pub(super) fn read(text: &str, file: usize) -> Result<Tree, Fault> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        file,
        nodes: 0,
        depth: 0,
        anchors: HashMap::new(),
        path: Path::root(),
        problems: Vec::new(),
    };
    let root = reader.document()?;
    Ok(Tree { root, problems: reader.problems })
}

struct Reader<'text> {
    parser: Parser<'text, StrInput<'text>>,
    file: usize,
    nodes: usize,
    depth: usize,
    anchors: HashMap<usize, Anchor>,
    path: Path,
    problems: Vec<(Problem, Mark)>,
}

struct Anchor {
    node: Node,
    size: usize,
    depth: usize,
}

impl<'text> Reader<'text> {
    fn document(&mut self) -> Result<Option<Node>, Fault> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(_) if root.is_some() => {
                    let hint = "put it into a file of its own, or remove the `---`";
                    return Err(self.fault(
                        span,
                        "a second document begins here, and a file holds one",
                        hint,
                    ));
                }
                Event::DocumentStart(_) => {
                    let (event, span) = self.next()?;
                    root = Some(self.node(event, span)?);
                }
                _ => {}
            }
        }
    }

    fn node(&mut self, event: Event<'text>, span: Span) -> Result<Node, Fault> {
        self.count(1, span)?;
        let at = self.mark(span);
        let (kind, anchor) = match event {
            Event::Alias(id) => return self.alias(id, span),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                (Kind::Scalar(scalar(&text, style)), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                (self.inside(span, Self::list)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                (self.inside(span, Self::map)?, anchor)
            }
            // The parser brings these at a document's ends only.
            _ => return Err(self.fault(span, "a value is missing here", None)),
        };
        let node = Node { at, kind };
        if anchor > 0 {
            let (size, depth) = (node.size(), node.depth());
            self.anchors.insert(anchor, Anchor { node: node.clone(), size, depth });
        }
        Ok(node)
    }

    fn inside(&mut self, span: Span, read: fn(&mut Self) -> Result<Kind, Fault>) -> Result<Kind, Fault> {
        self.check_depth(1, span)?;
        self.depth += 1;
        let kind = read(self)?;
        self.depth -= 1;
        Ok(kind)
    }

    fn list(&mut self) -> Result<Kind, Fault> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Kind::List(items));
            }
            let path = self.path.index(items.len());
            items.push(self.at(path, event, span)?);
        }
    }

    fn map(&mut self) -> Result<Kind, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut known: HashMap<String, Mark> = HashMap::new();
        let mut merged = None;
        loop {
            let (event, span) = self.next()?;
            let at = self.mark(span);
            if event == Event::MappingEnd {
                break;
            }
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let key = self.key(event, span)?;
            let path = self.path.key(key.as_str());
            let (event, span) = self.next()?;
            let value = self.at(path.clone(), event, span)?;
            match known.get(&key) {
                Some(first) => {
                    let problem = Problem::new(path, format!("duplicate key `{}`", shown(&key)));
                    let hint = match is_merge {
                        true => "name both in one list: `<<: [*a, *b]`".to_owned(),
                        false => format!("it stands in line {} already", first.line),
                    };
                    self.note(problem.hint(hint), at);
                }
                None if is_merge => {
                    known.insert(key, at);
                    merged = Some((value, at));
                }
                None => {
                    known.insert(key.clone(), at);
                    entries.push(Entry { key, at, value });
                }
            }
        }
        if let Some((value, at)) = merged {
            self.merge(&mut entries, known, value, at);
        }
        Ok(Kind::Map(entries))
    }

    fn key(&mut self, event: Event<'text>, span: Span) -> Result<String, Fault> {
        match event {
            Event::Scalar(text, style, _, tag) if !(text.is_empty() && style == ScalarStyle::Plain) => {
                self.count(1, span)?;
                self.refuse_tag(tag.as_deref(), self.mark(span));
                Ok(text.into_owned())
            }
            Event::Scalar(..) => Err(self.fault(span, "a key is missing before this `:`", None)),
            // Above all a `{{ template }}` that nobody filled in.
            Event::MappingStart(..) => {
                let hint = "if this is a text that begins with `{`, put it in quotes";
                Err(self.fault(span, "a key is a text, not a map", hint))
            }
            _ => Err(self.fault(span, "a key is a text, not an alias or a list", None)),
        }
    }

    /// YAML 1.1's merge key: what the map has itself counts, then the first map named.
    fn merge(&mut self, entries: &mut Vec<Entry>, mut known: HashMap<String, Mark>, value: Node, at: Mark) {
        let maps = match value.kind {
            Kind::List(items) => items,
            _ => vec![value],
        };
        for map in maps {
            let Kind::Map(inherited) = map.kind else {
                let problem = Problem::new(self.path.key("<<"), "`<<` takes a map or a list of maps");
                self.note(problem.hint("name an anchor of a map: `<<: *name`"), at);
                continue;
            };
            for entry in inherited {
                if known.insert(entry.key.clone(), entry.at).is_none() {
                    entries.push(entry);
                }
            }
        }
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<Node, Fault> {
        let Some(anchor) = self.anchors.get(&id) else {
            return Err(self.fault(span, "this alias names a value that it is itself a part of", None));
        };
        // Weighed before it is copied: nine aliases of nine aliases, nine times over, would fill the memory.
        let (size, depth) = (anchor.size, anchor.depth);
        self.count(size, span)?;
        self.check_depth(depth, span)?;
        let kind = self.anchors.get(&id).map(|anchor| anchor.node.kind.clone());
        Ok(Node { at: self.mark(span), kind: kind.unwrap_or(Kind::Scalar(Value::Null)) })
    }

    fn at(&mut self, path: Path, event: Event<'text>, span: Span) -> Result<Node, Fault> {
        let holder = std::mem::replace(&mut self.path, path);
        let node = self.node(event, span)?;
        self.path = holder;
        Ok(node)
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, at: Mark) {
        let Some(tag) = tag else { return };
        let spelt = match tag.is_yaml_core_schema() {
            true => format!("!!{}", tag.suffix),
            false => tag.to_string(),
        };
        let problem =
            Problem::new(self.path.clone(), format!("the tag `{}` means nothing here", shown(&spelt)));
        self.note(problem.hint("remove it; quotes make a text of a number"), at);
    }

    fn note(&mut self, problem: Problem, at: Mark) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push((problem, at));
        }
    }

    fn count(&mut self, more: usize, span: Span) -> Result<(), Fault> {
        self.nodes += more;
        match self.nodes > MOST_NODES {
            true => {
                let message = format!(
                    "the file holds more than {MOST_NODES} values, counted with its aliases written out"
                );
                Err(self.fault(span, &message, "split it into the files of a folder, or use fewer aliases"))
            }
            false => Ok(()),
        }
    }

    fn check_depth(&self, more: usize, span: Span) -> Result<(), Fault> {
        match self.depth + more > MOST_DEPTH {
            true => {
                let message = format!("lists and maps hold one another more than {MOST_DEPTH} levels deep");
                // The path would be as deep, and say no more than the place does.
                let problem = Problem::new(Path::root(), message);
                Err(Fault { at: self.mark(span), problem })
            }
            false => Ok(()),
        }
    }

    fn next(&mut self) -> Result<(Event<'text>, Span), Fault> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn syntax(&self, error: &ScanError) -> Fault {
        let (message, hint) = syntax::in_plain_words(error.info());
        let at = Mark { file: self.file, line: error.marker().line(), column: error.marker().col() + 1 };
        Fault { at, problem: Problem { path: self.path.clone(), message, hint } }
    }

    fn mark(&self, span: Span) -> Mark {
        Mark { file: self.file, line: span.start.line(), column: span.start.col() + 1 }
    }

    fn fault<'a>(&self, span: Span, message: &str, hint: impl Into<Option<&'a str>>) -> Fault {
        let hint = hint.into().map(str::to_owned);
        Fault {
            at: self.mark(span),
            problem: Problem { path: self.path.clone(), message: message.to_owned(), hint },
        }
    }
}

/// What a scalar is: by serde_yaml's own rules, which are YAML 1.2's core schema, so `off` and `012` are
/// texts.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::String(text.to_owned());
    }
    if text.is_empty() {
        return Value::Null;
    }
    // Only what these letters begin and make up can be anything but a text, and alone it can hold no
    // structure.
    let begins = text.starts_with(|c: char| c.is_ascii_digit() || "+-.~nNtTfF".contains(c));
    let consists = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._~".contains(&byte));
    let says = text == "~" || text.bytes().any(|byte| byte.is_ascii_alphanumeric());
    let read = match begins && consists && says && text.len() <= 64 {
        true => serde_yaml::from_str(text).ok(),
        false => None,
    };
    match read {
        Some(value @ (Value::Null | Value::Bool(_) | Value::Number(_))) => value,
        _ => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_scalar_is_what_yaml_1_2_takes_it_for() {
        for (text, expected) in [
            ("5", Value::from(5)),
            ("0x10", Value::from(16)),
            ("1.5", Value::from(1.5)),
            ("true", Value::from(true)),
            ("~", Value::Null),
            ("null", Value::Null),
            ("", Value::Null),
            ("off", Value::from("off")),
            ("yes", Value::from("yes")),
            ("012", Value::from("012")),
            ("1.2.3", Value::from("1.2.3")),
            ("10s", Value::from("10s")),
            ("---", Value::from("---")),
            ("0.0.0.0:80", Value::from("0.0.0.0:80")),
        ] {
            assert_eq!(scalar(text, ScalarStyle::Plain), expected, "{text}");
            assert_eq!(scalar(text, ScalarStyle::SingleQuoted), Value::from(text), "{text} in quotes");
        }
    }

    #[test]
    fn the_limits_are_met_exactly() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        // The list counts as a value too.
        let long = |items: usize| format!("[{}]", "a,".repeat(items));
        for (text, is_read) in [
            (nested(MOST_DEPTH), true),
            (nested(MOST_DEPTH + 1), false),
            (format!("- &a {}\n- [*a]", nested(MOST_DEPTH - 2)), true),
            (format!("- &a {}\n- [[*a]]", nested(MOST_DEPTH - 2)), false),
            (long(MOST_NODES - 1), true),
            (long(MOST_NODES), false),
        ] {
            assert_eq!(read(&text, 0).is_ok(), is_read, "{:.80}", text);
        }
    }

    #[test]
    fn a_flood_of_duplicate_keys_is_told_up_to_the_most_that_is_told_of_anything() {
        let tree = read(&"a: 1\n".repeat(1000), 0).unwrap();
        assert_eq!(tree.problems.len(), MOST_PROBLEMS);
    }
}
