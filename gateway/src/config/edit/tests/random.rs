//! Random edits of random texts and of the examples: what the result means, and which bytes of it are new.

use std::fs;
use std::ops::Range;
use std::path::Path as FilePath;

use fastrand::Rng;

use super::super::layout::{self, Kind, Layout, Node, Style};
use super::*;

const KEYS: [&str; 10] = ["a", "b", "tls", "verify", "\"x y\"", "'it''s'", "8080", "on", "é", "'key: '"];
const SCALARS: [&str; 9] =
    ["off", "1.2", "\"1.2\"", "'#'", "a b", "http://x/#y", "\"\\\"\"", "ü", "two\n@lines"];
const NEW: [&str; 12] = [
    "off",
    "\"1.2\"",
    "a.test",
    "[a, b]",
    "{ cert: a.crt, key: a.key }",
    "{}",
    "[]",
    "\"a, b\"",
    "null",
    "5",
    "a b",
    "x, y",
];

/// Writes a text of blocks and flows, with comments numbered so that each is told from the others.
struct Writer {
    rng: Rng,
    text: String,
    comments: usize,
    /// With anchors, and texts of which blank lines and comments below may become a part: an edit may be refused,
    /// but not wrong.
    is_hard: bool,
    anchors: usize,
}

impl Writer {
    fn document(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let is_hard = rng.u8(..4) == 0;
        let mut writer = Self { rng, text: String::new(), comments: 0, is_hard, anchors: 0 };
        if writer.chance(8) {
            writer.text.push_str("version: 1\n");
            writer.map(0, 3, false);
        } else {
            writer.text.push_str("{ version: 1, a: ");
            writer.flow(4, 3);
            writer.text.push_str(" }\n");
        }
        if writer.chance(3) {
            writer.text.truncate(writer.text.trim_end().len());
        }
        if writer.chance(3) {
            writer.text = writer.text.replace('\n', "\r\n");
        }
        writer
    }

    /// True so many times in ten.
    fn chance(&mut self, in_ten: u8) -> bool {
        self.rng.u8(..10) < in_ten
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.usize(..of.len())]
    }

    fn comment(&mut self, in_ten: u8) {
        if self.chance(in_ten) {
            self.text.push_str(&format!(" # c{};", self.comments));
            self.comments += 1;
        }
    }

    fn newline(&mut self, indent: usize) {
        self.text.push('\n');
        if self.chance(1) {
            self.text.push('\n');
        }
        if self.chance(1) {
            self.text.push_str(&" ".repeat(indent));
            self.comment(10);
            self.text.push('\n');
        }
    }

    fn anchor(&mut self) {
        if self.is_hard && self.chance(3) {
            self.anchors += 1;
            self.text.push_str(&format!(" &n{}", self.anchors));
        }
    }

    fn map(&mut self, indent: usize, depth: usize, is_compact: bool) {
        let mut keys = KEYS;
        self.rng.shuffle(&mut keys);
        let count = self.rng.usize(1..5);
        for (position, key) in keys.into_iter().take(count).enumerate() {
            if position > 0 || !is_compact {
                self.text.push_str(&" ".repeat(indent));
            }
            self.text.push_str(key);
            self.text.push(':');
            self.value(indent, depth, false);
        }
        if self.is_hard && self.anchors > 0 && self.chance(2) {
            let anchor = self.rng.usize(1..=self.anchors);
            self.text.push_str(&format!("{}z: *n{anchor}\n", " ".repeat(indent)));
        }
    }

    fn list(&mut self, indent: usize, depth: usize) {
        for _ in 0..self.rng.usize(1..4) {
            self.text.push_str(&" ".repeat(indent));
            self.text.push('-');
            self.value(indent, depth, true);
        }
    }

    /// What stands behind a key or a dash, to the end of its last line.
    fn value(&mut self, indent: usize, depth: usize, is_item: bool) {
        match self.rng.u8(..if depth == 0 { 5 } else { 10 }) {
            0 => self.comment(3),
            3 if self.is_hard => {
                let header = self.one(&["|", ">-", "|+"]);
                let lines = format!("\n{0}text: # no comment\n\n{0}more", " ".repeat(indent + 2));
                self.text.push_str(&format!(" {header}{lines}"));
            }
            1..4 => {
                let scalar = self.one(&SCALARS).replace('@', &" ".repeat(indent + 3));
                self.text.push_str(&format!(" {scalar}"));
                self.comment(3);
            }
            4..7 => {
                self.anchor();
                self.text.push(' ');
                self.flow(indent + 3, depth.min(2));
                self.comment(3);
            }
            7 if is_item => {
                self.text.push(' ');
                return self.map(indent + 2, depth - 1, true);
            }
            7 | 8 => {
                self.anchor();
                self.comment(2);
                let deeper = indent + self.one(&[2, 4]);
                self.newline(deeper);
                return self.map(deeper, depth - 1, false);
            }
            _ => {
                self.comment(2);
                let deeper = indent + if is_item { 2 } else { self.one(&[0, 2]) };
                self.newline(deeper);
                return self.list(deeper, depth - 1);
            }
        }
        self.newline(indent);
    }

    fn flow(&mut self, indent: usize, depth: usize) {
        let is_map = self.chance(6);
        let mut keys = ["a", "b", "tls", "\"x y\"", "é"];
        self.rng.shuffle(&mut keys);
        let count = self.rng.usize(..4);
        let (pad, gap) = (self.one(&["", " "]), self.one(&[", ", ",", "\n"]));
        self.text.push(if is_map { '{' } else { '[' });
        self.text.push_str(pad);
        for (position, key) in keys.iter().take(count).enumerate() {
            if gap == "\n" && self.chance(7) {
                self.comment(3);
                self.text.push_str(&format!("\n{}", " ".repeat(indent)));
            }
            if is_map {
                self.text.push_str(&format!("{key}: "));
            }
            match self.rng.u8(..4) {
                0 if depth > 0 => self.flow(indent + 2, depth - 1),
                1 if is_map => {}
                _ => {
                    let scalar = self.one(&["off", "\"a, b\"", "'#'", "ü", "x"]);
                    self.text.push_str(scalar);
                }
            }
            if position + 1 < count {
                self.text.push_str(gap.replace('\n', ", ").as_str());
            } else if self.chance(2) {
                self.text.push(',');
            }
        }
        if gap == "\n" {
            self.comment(3);
            self.text.push_str(&format!("\n{}", " ".repeat(indent)));
        } else {
            self.text.push_str(pad);
        }
        self.text.push(if is_map { '}' } else { ']' });
    }
}

/// Every path inside a value.
fn paths(value: &Value, here: &Path, all: &mut Vec<Path>) {
    let inner: Vec<(Path, &Value)> = match value {
        Value::Mapping(map) => {
            map.iter().map(|(key, value)| (here.key(key.as_str().unwrap()), value)).collect()
        }
        Value::Sequence(items) => {
            items.iter().enumerate().map(|(at, value)| (here.index(at), value)).collect()
        }
        _ => Vec::new(),
    };
    for (path, value) in inner {
        all.push(path.clone());
        paths(value, &path, all);
    }
}

fn random_edit(rng: &mut Rng, text: &str) -> Option<Edit> {
    let tree = read(text.trim_start_matches('\u{feff}'))?;
    let mut all = Vec::new();
    paths(&tree, &Path::root(), &mut all);
    all.retain(|path| *path != Path::root().key("version"));
    let path = rng.choice(all)?;
    let value = (*rng.choice(&NEW)?).to_owned();
    Some(match (rng.u8(..10), expected::at(&tree, &path.0)?) {
        (0..4, _) => Edit::Remove { path },
        (4..7, _) => Edit::Set { path, value },
        (_, Value::Sequence(items)) => Edit::Set { path: path.index(items.len()), value },
        (7, _) => Edit::Set { path: path.key("new"), value },
        (8, Value::Null) => Edit::Set { path: path.index(0), value },
        _ => Edit::Set { path: path.key(format!("deep{}", rng.u32(..))).key("off").key("x: y"), value },
    })
}

/// The bytes that an edit may change: those of the value at its path, or of the value that it becomes a part of, to
/// the ends of its first and last lines.
fn touched(text: &str, layout: &Layout, edit: &Edit) -> Range<usize> {
    let source = Source(text);
    let mut node: &Node = &layout.root;
    let (mut start, mut whole) = (0, 0..text.len());
    for (depth, segment) in edit.path().0.iter().enumerate() {
        let found = match (&node.kind, segment) {
            (Kind::Map(style, entries), Segment::Key(key)) => entries
                .iter()
                .find(|entry| entry.key == *key)
                .map(|entry| (*style, entry.start, &entry.value)),
            (Kind::List(style, items), Segment::Index(index)) => {
                items.get(*index).map(|item| (*style, item.start, &item.value))
            }
            _ => None,
        };
        let Some((style, begin, value)) = found else {
            let is_added_to = matches!(node.kind, Kind::Map(Style::Block, _) | Kind::List(Style::Block, _));
            // Only the last line's end is new.
            return if is_added_to { source.line_start(node.span.end)..node.span.end } else { whole };
        };
        let siblings = node.parts();
        let is_last = depth + 1 == edit.path().0.len();
        whole = match (style, edit) {
            // The comma before or behind goes with it, and the only one leaves `{}`.
            (Style::Flow | Style::Pair, Edit::Remove { .. }) if is_last => {
                let position = siblings.iter().position(|part| part.start == begin).unwrap();
                let before = position.checked_sub(1).map_or(node.span.start, |before| siblings[before].end);
                before..siblings.get(position + 1).map_or(node.span.end, |after| after.start)
            }
            // What follows the first one moves up behind the dash.
            (_, Edit::Remove { .. }) if is_last && siblings.len() > 1 && !source.is_first_on_line(begin) => {
                begin..siblings[1].start
            }
            (_, Edit::Remove { .. }) if is_last && siblings.len() == 1 => start..node.span.end,
            _ => begin..value.span.end,
        };
        (start, node) = (begin, value);
    }
    whole
}

/// Holds one edit against what it means and what it may touch.
fn check(text: &str, edit: &Edit, after: &str, seed: u64) {
    let told = || format!("seed {seed}: {edit:?}\n{text}\n--- after\n{after}");
    let mut wanted = read(text).unwrap();
    match edit {
        Edit::Set { path, value } => {
            expected::set(&mut wanted, path, splice::parsed(value).unwrap()).unwrap()
        }
        Edit::Remove { path } => expected::remove(&mut wanted, path).unwrap(),
    }
    assert_eq!(read(after), Some(wanted), "{}", told());
    let layout = layout::read(text).unwrap().unwrap();
    let touched = touched(text, &layout, edit);
    let source = Source(text);
    let (first, last) = (source.line_start(touched.start), source.line_end(touched.end));
    // The newline before belongs to the last line where that has none.
    let first = if source.next_line(last) == text.len() { source.without_newline(first) } else { first };
    assert!(after.starts_with(&text[..first]), "before {first} something is new: {}", told());
    let rest = &text[source.next_line(last)..];
    assert!(after.ends_with(rest), "behind {last} something is new: {}", told());
    // Without its last line, a text that has no newline there may end in a blank line.
    assert!(after.ends_with('\n') || !text.ends_with('\n'), "{}", told());
    if !text.contains("\r\n") {
        assert!(!after.contains('\r'), "{}", told());
    } else {
        assert_eq!(after.matches('\n').count(), after.matches("\r\n").count(), "{}", told());
    }
}

fn edit_at_random(text: &str, rng: &mut Rng, seed: u64, is_plain: bool) -> usize {
    let mut text = text.to_owned();
    let mut made = 0;
    for _ in 0..4 {
        let Some(edit) = random_edit(rng, &text) else { break };
        match edited(&text, &edit) {
            Ok(after) => {
                check(&text, &edit, &after, seed);
                let change = Change { file: "a.yaml".into(), before: text, after };
                assert_eq!(patched(&change.before, &change.diff()), change.after, "{}", change.diff());
                text = change.after;
                made += 1;
            }
            Err(problem) => assert!(!is_plain, "seed {seed}: {edit:?} {problem:?}\n{text}"),
        }
    }
    made
}

/// What `patch` makes of a text.
fn patched(text: &str, diff: &str) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut hunks = diff.split_inclusive('\n').skip(2).peekable();
    let (mut patched, mut at) = (Vec::new(), 0);
    while let Some(line) = hunks.next() {
        let ends_bare = hunks.peek().is_some_and(|next| next.starts_with('\\'));
        let (sign, body) = line.split_at(1);
        let body = if ends_bare { body.strip_suffix('\n').unwrap() } else { body };
        match sign {
            "@" => {
                let old = body.split(' ').nth(1).unwrap().trim_start_matches('-');
                let (start, count) = old.split_once(',').unwrap_or((old, "1"));
                let start = start.parse::<usize>().unwrap() - usize::from(count != "0");
                patched.extend_from_slice(&lines[at..start]);
                at = start;
            }
            "+" => patched.push(body),
            "\\" => {}
            _ => {
                assert_eq!(lines[at], body);
                at += 1;
                if sign == " " {
                    patched.push(body);
                }
            }
        }
    }
    patched.extend_from_slice(&lines[at..]);
    patched.concat()
}

#[test]
fn random_edits_of_random_texts_mean_what_they_say_and_leave_the_rest_as_it_is() {
    let (mut valid, mut made) = (0, 0);
    for seed in 0..600 {
        let mut writer = Writer::document(seed);
        let is_valid = tree::read(&writer.text, 0).is_ok_and(|tree| tree.problems.is_empty());
        if !is_valid {
            continue;
        }
        valid += 1;
        made += edit_at_random(&writer.text, &mut writer.rng, seed, !writer.is_hard);
    }
    assert!(valid > 500 && made > 2 * valid, "{valid} texts, {made} edits");
}

#[test]
fn random_edits_of_the_examples_mean_what_they_say_and_leave_the_rest_as_it_is() {
    let folder = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../conf/examples");
    let mut made = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|end| end == "yaml") {
            let text = fs::read_to_string(file).unwrap();
            for seed in 0..8 {
                made += edit_at_random(&text, &mut Rng::with_seed(seed), seed, true);
            }
        }
    }
    assert!(made > 300, "{made}");
}
