//! Where each key and value of a YAML text begins and ends, in bytes.
//!
//! The parser tells where a value begins, but not always where it ends, nor where the `:` or `-` before an empty one
//! is, so these are looked for in the text. What a value means is the marked tree's affair, and aliases are not
//! followed here.

use std::collections::HashSet;
use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::source::Source;

/// The layout of one text.
pub(super) struct Layout {
    pub root: Node,
    /// Anchors that an alias names.
    pub used: HashSet<usize>,
}

/// A value's place.
pub(super) struct Node {
    /// Behind the `:` or `-` that the value belongs to, and behind its anchor and tag.
    pub head: usize,
    /// The value itself, without anchor, tag and comment.
    pub span: Range<usize>,
    /// The number of its anchor; 0 where it has none.
    pub anchor: usize,
    pub kind: Kind,
}

/// What a value is made of.
pub(super) enum Kind {
    /// Nothing is written.
    Empty,
    Scalar,
    Alias,
    Map(Style, Vec<Entry>),
    List(Style, Vec<Item>),
}

/// How a map or a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// By indentation.
    Block,
    /// In braces or brackets.
    Flow,
    /// The one entry of a map without braces in a flow list: `[a: b]`.
    Pair,
}

/// A key and its value.
pub(super) struct Entry {
    pub key: String,
    /// The key is `<<`, so the value is merged into the map.
    pub is_merge: bool,
    pub start: usize,
    /// Whether there is a `:`; a flow map may leave it out.
    pub has_colon: bool,
    pub value: Node,
}

/// An item of a list; it begins with its `-` in a block list.
pub(super) struct Item {
    pub start: usize,
    pub value: Node,
}

impl Node {
    /// The places of what a map or a list holds, the keys and dashes included.
    pub fn parts(&self) -> Vec<Range<usize>> {
        match &self.kind {
            Kind::Map(_, entries) => entries.iter().map(|entry| entry.start..entry.value.span.end).collect(),
            Kind::List(_, items) => items.iter().map(|item| item.start..item.value.span.end).collect(),
            _ => Vec::new(),
        }
    }

    /// The values inside this one.
    pub fn inner(&self) -> Box<dyn Iterator<Item = &Node> + '_> {
        match &self.kind {
            Kind::Map(_, entries) => Box::new(entries.iter().map(|entry| &entry.value)),
            Kind::List(_, items) => Box::new(items.iter().map(|item| &item.value)),
            _ => Box::new(std::iter::empty()),
        }
    }
}

/// Reads a text that the loader has read already; `None` where it holds nothing.
pub(super) fn read(text: &str) -> Result<Option<Layout>, ScanError> {
    let offsets = match text.is_ascii() {
        true => None,
        false => Some(text.char_indices().map(|(at, _)| at).collect()),
    };
    let mut reader =
        Reader { parser: Parser::new_from_str(text), source: Source(text), offsets, used: HashSet::new() };
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(None),
            (Event::DocumentStart(_), _) => {
                let (event, span) = reader.next()?;
                let root = reader.node(event, span, 0)?;
                // A second document is refused by the loader, and aliases reach no further than their own.
                return Ok(Some(Layout { root, used: reader.used }));
            }
            _ => {}
        }
    }
}

struct Reader<'text> {
    parser: Parser<'text, StrInput<'text>>,
    source: Source<'text>,
    /// Where each character begins, in bytes; the parser counts characters.
    offsets: Option<Vec<usize>>,
    used: HashSet<usize>,
}

impl<'text> Reader<'text> {
    fn node(&mut self, event: Event<'text>, span: Span, head: usize) -> Result<Node, ScanError> {
        let source = self.source;
        let (start, end) = (self.byte(span.start.index()), self.byte(span.end.index()));
        let end = source.trim_end(start, end);
        Ok(match event {
            Event::Alias(id) => {
                self.used.insert(id);
                Node { head, span: start..end, anchor: 0, kind: Kind::Alias }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_empty = text.is_empty() && style == ScalarStyle::Plain;
                let has_properties = anchor > 0 || tag.is_some();
                let head = match has_properties {
                    true => source.behind_properties(head),
                    false => head,
                };
                match style {
                    _ if is_empty => Node { head, span: head..head, anchor, kind: Kind::Empty },
                    ScalarStyle::Literal | ScalarStyle::Folded => {
                        // The parser leaves the header out, and takes the blank lines that follow in.
                        let start = source.skip_blank(head);
                        let header = source.line_end(start);
                        let keeps =
                            source.slice(start..header).split('#').next().is_some_and(|h| h.contains('+'));
                        let last = self.byte(span.end.index());
                        let end = match keeps {
                            true => source.without_newline(match source.is_first_on_line(last) {
                                true => source.line_start(last),
                                false => last,
                            }),
                            false => end,
                        };
                        Node { head, span: start..end.max(header), anchor, kind: Kind::Scalar }
                    }
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
                        let start = if has_properties { source.skip_blank(head) } else { start };
                        // The parser takes the comment that follows in.
                        Node { head, span: start..source.behind_quotes(start), anchor, kind: Kind::Scalar }
                    }
                    ScalarStyle::Plain => {
                        let start = if has_properties { source.skip_blank(head) } else { start };
                        Node { head, span: start..end.max(start), anchor, kind: Kind::Scalar }
                    }
                }
            }
            Event::MappingStart(anchor, tag) => {
                let (head, start) = match anchor > 0 || tag.is_some() {
                    true => {
                        let head = source.behind_properties(start);
                        (head, source.skip_blank(head))
                    }
                    false => (head, start),
                };
                let style = match source.byte(start) {
                    Some(b'{') => Style::Flow,
                    // The parser says no more; a pair stands in a flow list, whose reader knows better.
                    _ => Style::Block,
                };
                let entries = self.entries()?;
                let last = entries.last().map_or(start + 1, |last| last.value.span.end);
                let end = if style == Style::Flow { source.behind_bracket(last) } else { last };
                Node { head, span: start..end, anchor, kind: Kind::Map(style, entries) }
            }
            Event::SequenceStart(anchor, tag) => {
                let head = match anchor > 0 || tag.is_some() {
                    true => source.behind_properties(head),
                    false => head,
                };
                let start = source.skip_blank(head);
                let style = match source.byte(start) {
                    Some(b'[') => Style::Flow,
                    _ => Style::Block,
                };
                let items = self.items(style, start)?;
                let last = items.last().map_or(start + 1, |last| last.value.span.end);
                let end = if style == Style::Flow { source.behind_bracket(last) } else { last };
                Node { head, span: start..end, anchor, kind: Kind::List(style, items) }
            }
            _ => Node { head, span: head..head, anchor: 0, kind: Kind::Empty },
        })
    }

    fn entries(&mut self) -> Result<Vec<Entry>, ScanError> {
        let mut entries = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let start = self.byte(span.start.index());
            let Event::Scalar(key, style, ..) = event else { return Ok(entries) };
            let is_merge = key == "<<" && style == ScalarStyle::Plain;
            let end = match style {
                ScalarStyle::Plain => self.source.trim_end(start, self.byte(span.end.index())),
                _ => {
                    let head = self.source.behind_properties(start);
                    self.source.behind_quotes(self.source.skip_blank(head))
                }
            };
            let colon = self.source.skip_blank(end);
            let has_colon = self.source.byte(colon) == Some(b':');
            let head = if has_colon { colon + 1 } else { end };
            let (event, span) = self.next()?;
            let value = self.node(event, span, head)?;
            entries.push(Entry { key: key.into_owned(), is_merge, start, has_colon, value });
        }
    }

    fn items(&mut self, style: Style, start: usize) -> Result<Vec<Item>, ScanError> {
        let mut items: Vec<Item> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(items);
            }
            // Before an item stands its `-`, the `[`, or the `,` of the item before.
            let sign = match items.last() {
                Some(last) => self.source.skip_blank(last.value.span.end),
                None => start,
            };
            let mut value = self.node(event, span, sign + 1)?;
            let start = match style {
                Style::Block => sign,
                _ => self.source.skip_blank(sign + 1),
            };
            if let (Style::Flow, Kind::Map(inner @ Style::Block, _)) = (style, &mut value.kind) {
                *inner = Style::Pair;
            }
            items.push(Item { start, value });
        }
    }

    fn next(&mut self) -> Result<(Event<'text>, Span), ScanError> {
        self.parser.next_event().unwrap_or(Ok((Event::StreamEnd, Span::default())))
    }

    fn byte(&self, index: usize) -> usize {
        match &self.offsets {
            Some(offsets) => offsets.get(index).copied().unwrap_or(self.source.0.len()),
            None => index.min(self.source.0.len()),
        }
    }
}
