//! From one edit to the bytes that change.
//!
//! Written for what configs hold. What it gets wrong, such as a map with `?` keys, is found when the text is read again,
//! so nothing here needs to be proof against all of YAML.

use std::ops::Range;

use serde_yaml::Value;
use vestibule_plugins::{Path, Problem, Segment, decode::shown};

use super::expected;
use super::layout::{Entry, Kind, Layout, Node, Style};
use super::quoted::quoted;
use super::source::Source;
use crate::config::tree;

/// Bytes, and what stands there instead.
pub(super) type Splice = (Range<usize>, String);

/// A text, where its values are, and what they are.
pub(super) struct Text<'a> {
    pub source: Source<'a>,
    pub layout: &'a Layout,
    pub tree: &'a Value,
}

impl Text<'_> {
    /// Writes a value at the path.
    pub fn set(&self, path: &Path, value: &str) -> Result<Vec<Splice>, Problem> {
        let mut node = &self.layout.root;
        let mut is_flow = false;
        let mut has_colon = true;
        for (depth, segment) in path.0.iter().enumerate() {
            let here = || Path(path.0[..depth].to_vec());
            self.check_own(node, &here())?;
            let rest = &path.0[depth..];
            match (&node.kind, segment) {
                (Kind::Map(style, entries), Segment::Key(key)) => {
                    is_flow |= *style != Style::Block;
                    match entries.iter().find(|entry| entry.key == *key && !entry.is_merge) {
                        Some(entry) => {
                            has_colon = entry.has_colon;
                            node = &entry.value;
                        }
                        None => {
                            self.check_not_merged(entries, &path.0[..=depth], rest.len() > 1)?;
                            let value = nested(&rest[1..], value, is_flow)?;
                            return self.insert(node, &format!("{}: {value}", quoted(key)), &here());
                        }
                    }
                }
                (Kind::List(style, items), Segment::Index(index)) => {
                    is_flow |= *style != Style::Block;
                    match items.get(*index) {
                        Some(item) => node = &item.value,
                        None => {
                            let sign = if *style == Style::Block { "- " } else { "" };
                            let value = nested(&rest[1..], value, is_flow)?;
                            return self.insert(node, &format!("{sign}{value}"), &here());
                        }
                    }
                }
                // A scalar, or nothing, becomes the map or the list that the path goes on in.
                _ => return Ok(self.replace(node, &nested(rest, value, is_flow)?, has_colon)),
            }
        }
        self.check_unshared(node, path)?;
        Ok(self.replace(node, &nested(&[], value, is_flow)?, has_colon))
    }

    /// Takes the path's key or item out.
    pub fn remove(&self, path: &Path) -> Result<Vec<Splice>, Problem> {
        let absent = || Problem::new(path.clone(), "there is nothing here to take out");
        let (last, parents) = path.0.split_last().ok_or_else(absent)?;
        let mut node = &self.layout.root;
        for (depth, segment) in parents.iter().enumerate() {
            self.check_own(node, &Path(path.0[..depth].to_vec()))?;
            node = match (&node.kind, segment) {
                (Kind::Map(_, entries), Segment::Key(key)) => match own(entries, key) {
                    Some(position) => entries.get(position).map(|entry| &entry.value),
                    None => {
                        self.check_not_merged(entries, &path.0[..=depth], true)?;
                        None
                    }
                },
                (Kind::List(_, items), Segment::Index(index)) => items.get(*index).map(|item| &item.value),
                _ => None,
            }
            .ok_or_else(absent)?;
        }
        self.check_own(node, &Path(parents.to_vec()))?;
        let (style, position) = match (&node.kind, last) {
            (Kind::Map(style, entries), Segment::Key(key)) => match own(entries, key) {
                Some(position) => (*style, position),
                None => {
                    self.check_not_merged(entries, &path.0, true)?;
                    return Err(absent());
                }
            },
            (Kind::List(style, _), Segment::Index(index)) => (*style, *index),
            _ => return Err(absent()),
        };
        self.check_unshared(node.inner().nth(position).ok_or_else(absent)?, path)?;
        let parts = node.parts();
        match style {
            Style::Pair => Err(Problem::new(path.clone(), "this map stands in a list without braces")
                .hint("put it into `{ }`")),
            Style::Flow => Ok(self.remove_flow(node, &parts, position)),
            Style::Block if parts.len() == 1 => {
                let empty = if matches!(node.kind, Kind::Map(..)) { "{}" } else { "[]" };
                Ok(self.replace(node, empty, true))
            }
            Style::Block => Ok(self.remove_block(&parts, position)),
        }
    }

    fn replace(&self, node: &Node, value: &str, has_colon: bool) -> Vec<Splice> {
        let Node { head, span, .. } = node;
        let behind_head = (*head..*head, format!("{} {value}", if has_colon { "" } else { ":" }));
        let is_block = matches!(node.kind, Kind::Map(Style::Block, _) | Kind::List(Style::Block, _));
        match node.kind {
            Kind::Empty => vec![behind_head],
            // On lines of its own: they go, and the new value is written behind the key.
            _ if is_block && self.source.line_start(span.start) > *head => {
                vec![behind_head, (self.source.lines(span.clone()), String::new())]
            }
            _ => vec![(span.clone(), value.to_owned())],
        }
    }

    /// Adds an entry or an item at the end.
    fn insert(&self, node: &Node, new: &str, path: &Path) -> Result<Vec<Splice>, Problem> {
        let parts = node.parts();
        let style = match &node.kind {
            Kind::Map(style, _) | Kind::List(style, _) => *style,
            _ => Style::Pair,
        };
        match (style, parts.first(), parts.last()) {
            (Style::Flow, ..) => Ok(self.insert_flow(node, &parts, new)),
            (Style::Block, Some(first), Some(last)) => {
                let at = self.source.line_end(last.end);
                let (newline, indentation) = (self.source.newline(at), self.source.indentation(first.start));
                Ok(vec![(at..at, format!("{newline}{indentation}{new}"))])
            }
            _ => Err(Problem::new(path.clone(), "this map stands in a list without braces")
                .hint("put it into `{ }`")),
        }
    }

    fn insert_flow(&self, node: &Node, parts: &[Range<usize>], new: &str) -> Vec<Splice> {
        let source = self.source;
        let (open, close) = (node.span.start + 1, node.span.end - 1);
        let Some(last) = parts.last() else {
            let inner = source.slice(open..close);
            let pad = if inner.is_empty() && matches!(node.kind, Kind::List(..)) { "" } else { " " };
            return match inner.contains('\n') {
                true => vec![(open..open, format!(" {new}"))],
                false => vec![(open..close, format!("{pad}{new}{pad}"))],
            };
        };
        let comma = source.skip_blank(last.end);
        let has_comma = source.byte(comma) == Some(b',');
        let (before, after) = if has_comma { ("", ",") } else { (",", "") };
        if source.is_first_on_line(last.start) && source.line_start(last.start) > node.span.start {
            let newline = format!("{}{}", source.newline(last.start), source.indentation(last.start));
            let behind = if has_comma { comma + 1 } else { last.end };
            return match source.is_last_on_line(behind) {
                // A comment on the last entry's line stays with it.
                true => {
                    let at = source.line_end(behind);
                    vec![(last.end..last.end, before.to_owned()), (at..at, format!("{newline}{new}{after}"))]
                }
                false => vec![(behind..behind, format!("{before}{newline}{new}{after}"))],
            };
        }
        let between = match parts {
            [.., before_last, last] => source.slice(before_last.end..last.start),
            _ => ", ",
        };
        let is_usual = between.starts_with(',') && between[1..].bytes().all(|byte| byte == b' ');
        vec![(last.end..last.end, format!("{}{new}", if is_usual { between } else { ", " }))]
    }

    fn remove_block(&self, parts: &[Range<usize>], position: usize) -> Vec<Splice> {
        let source = self.source;
        let part = parts[position].clone();
        if source.is_first_on_line(part.start) {
            return vec![(source.lines(part), String::new())];
        }
        // The first of a map that begins behind a `-`.
        let Some(next) = parts.get(position + 1) else { return Vec::new() };
        match source.slice(source.line_end(part.end)..next.start).contains('#') {
            // Full lines of comments stay where they are, below the `-`.
            true => {
                vec![(source.behind_blanks(part.start)..source.line_end(part.end), String::new())]
            }
            false => vec![(part.start..next.start, String::new())],
        }
    }

    fn remove_flow(&self, node: &Node, parts: &[Range<usize>], position: usize) -> Vec<Splice> {
        let source = self.source;
        let (open, close) = (node.span.start + 1, node.span.end - 1);
        let part = parts[position].clone();
        let before = position.checked_sub(1).and_then(|before| parts.get(before));
        let after = parts.get(position + 1);
        let has_comment = |range: Range<usize>| source.slice(range).contains('#');
        let cut = |range: Range<usize>| vec![(range, String::new())];
        let comma = source.skip_blank(part.end);
        let has_comma = source.byte(comma) == Some(b',');
        let behind = if has_comma { comma + 1 } else { part.end };
        if parts.len() == 1 {
            return match has_comment(open..part.start) || has_comment(part.end..close) {
                true => cut(source.behind_blanks(part.start)..behind),
                false => cut(open..close),
            };
        }
        let has_own_lines = source.is_first_on_line(part.start)
            && source.line_start(part.start) > node.span.start
            && source.is_one_line(part.end..behind)
            && source.is_last_on_line(behind);
        if has_own_lines {
            let mut splices = cut(source.lines(part.start..behind));
            if let (false, Some(before)) = (has_comma, before) {
                // The last one now, so its comma goes too.
                let comma = source.skip_blank(before.end);
                if source.byte(comma) == Some(b',') {
                    splices.insert(0, (comma..comma + 1, String::new()));
                }
            }
            return splices;
        }
        let to_next = after.map(|after| part.start..after.start);
        let from_last = before.map(|before| before.end..part.end);
        let gap_after = after.map(|after| source.slice(part.end..after.start));
        let gap_before = before.map(|before| source.slice(before.end..part.start));
        let is_near = |gap: Option<&str>| gap.is_some_and(|gap| !gap.contains('\n'));
        let is_bare = |gap: Option<&str>| gap.is_some_and(|gap| !gap.contains('#'));
        match (to_next, from_last) {
            (Some(range), _) if is_near(gap_after) => cut(range),
            (_, Some(range)) if is_near(gap_before) => cut(range),
            (Some(range), _) if is_bare(gap_after) => cut(range),
            (_, Some(range)) if is_bare(gap_before) => cut(range),
            // A comment stays on the line.
            _ => cut(source.behind_blanks(part.start)..behind),
        }
    }

    /// A value on the path is written here, and nowhere else shown.
    fn check_own(&self, node: &Node, path: &Path) -> Result<(), Problem> {
        if let Kind::Alias = node.kind {
            let message = "this is an alias, so a change inside it would change other places too";
            return Err(Problem::new(path.clone(), message).hint("write the value out in its place first"));
        }
        match self.layout.used.contains(&node.anchor) {
            true => Err(anchored(path)),
            false => Ok(()),
        }
    }

    /// Nothing that goes is shown elsewhere.
    fn check_unshared(&self, node: &Node, path: &Path) -> Result<(), Problem> {
        if self.layout.used.contains(&node.anchor) {
            return Err(anchored(path));
        }
        node.inner().try_for_each(|inner| self.check_unshared(inner, path))
    }

    /// A key that only a merged map has may be overridden as a whole, but neither changed inside nor taken out.
    fn check_not_merged(&self, entries: &[Entry], path: &[Segment], is_inside: bool) -> Result<(), Problem> {
        let is_merged = entries.iter().any(|entry| entry.is_merge) && expected::at(self.tree, path).is_some();
        match is_merged && is_inside {
            true => Err(Problem::new(Path(path.to_vec()), "this comes from a map that `<<` merges in")
                .hint("write it out in its place first")),
            false => Ok(()),
        }
    }
}

fn anchored(path: &Path) -> Problem {
    Problem::new(
        path.clone(),
        "this has an anchor that an alias names, so a change would change other places too",
    )
    .hint("write the value out where the alias stands first")
}

fn own(entries: &[Entry], key: &str) -> Option<usize> {
    entries.iter().position(|entry| entry.key == key && !entry.is_merge)
}

/// The value with the maps and lists of the path around it, on one line.
fn nested(path: &[Segment], value: &str, is_flow: bool) -> Result<String, Problem> {
    Ok(match path.split_first() {
        Some((Segment::Key(key), rest)) => format!("{{ {}: {} }}", quoted(key), nested(rest, value, true)?),
        Some((Segment::Index(_), rest)) => format!("[{}]", nested(rest, value, true)?),
        None => written(value, is_flow)?,
    })
}

/// The value as it is, or quoted where a flow would take it for something else.
fn written(value: &str, is_flow: bool) -> Result<String, Problem> {
    let wanted = parsed(value)?;
    let again = match is_flow {
        true => parsed(&format!("[{value}]")).ok().and_then(|list| match list {
            Value::Sequence(items) => <[Value; 1]>::try_from(items).ok().map(|[item]| item),
            _ => None,
        }),
        false => parsed(&format!("k: {value}")).ok().and_then(|map| map.get("k").cloned()),
    };
    match (again == Some(wanted.clone()), wanted) {
        (true, _) => Ok(value.to_owned()),
        (false, Value::String(text)) => Ok(quoted(&text)),
        _ => Err(unfit(value)),
    }
}

/// A value of one line.
pub(super) fn parsed(value: &str) -> Result<Value, Problem> {
    if value.contains(['\n', '\r']) || value.trim().is_empty() {
        return Err(unfit(value));
    }
    let tree = tree::read(value, 0).map_err(|_| unfit(value))?;
    match tree.root {
        Some(root) if tree.problems.is_empty() => Ok(root.value()),
        _ => Err(unfit(value)),
    }
}

fn unfit(value: &str) -> Problem {
    Problem::new(Path::root(), format!("the new value `{}` is not YAML of one line", shown(value)))
}
