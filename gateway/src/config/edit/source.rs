//! Lines, blanks and comments of a YAML text, by byte.

use std::ops::Range;

/// The text that is edited.
#[derive(Clone, Copy)]
pub(super) struct Source<'text>(pub &'text str);

impl<'text> Source<'text> {
    pub fn byte(self, at: usize) -> Option<u8> {
        self.0.as_bytes().get(at).copied()
    }

    pub fn slice(self, range: Range<usize>) -> &'text str {
        self.0.get(range).unwrap_or_default()
    }

    /// The first byte from here on that is neither blank nor part of a comment. Only between values, where a `#` can
    /// be nothing else.
    pub fn skip_blank(self, mut at: usize) -> usize {
        while let Some(byte) = self.byte(at) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => at += 1,
                b'#' => at = self.line_end(at),
                _ => break,
            }
        }
        at
    }

    /// Behind the anchor and the tag that follow here.
    pub fn behind_properties(self, mut at: usize) -> usize {
        loop {
            let next = self.skip_blank(at);
            if !matches!(self.byte(next), Some(b'&' | b'!')) {
                return at;
            }
            let ends = |c: char| c.is_ascii_whitespace() || ",[]{}".contains(c);
            let rest = self.slice(next..self.0.len());
            at = next + rest.find(ends).unwrap_or(rest.len());
        }
    }

    /// Behind the quote that ends the scalar which begins here.
    pub fn behind_quotes(self, start: usize) -> usize {
        let quote = self.byte(start);
        let mut at = start + 1;
        while let Some(byte) = self.byte(at) {
            match (quote, byte) {
                (Some(b'"'), b'\\') => at += 1,
                (Some(b'\''), b'\'') if self.byte(at + 1) == quote => at += 1,
                (_, byte) if Some(byte) == quote => return at + 1,
                _ => {}
            }
            at += 1;
        }
        self.0.len()
    }

    /// Behind the bracket that ends a flow map or list, from the end of the last that it holds.
    pub fn behind_bracket(self, at: usize) -> usize {
        let next = self.skip_blank(at);
        match self.byte(next) {
            Some(b',') => self.skip_blank(next + 1) + 1,
            _ => next + 1,
        }
    }

    /// The end of a value that the parser ends at `end`, less the blanks that it counts in.
    pub fn trim_end(self, start: usize, end: usize) -> usize {
        start + self.slice(start..end).trim_end_matches([' ', '\t', '\r', '\n']).len()
    }

    /// `at`, or before the one newline that ends there.
    pub fn without_newline(self, at: usize) -> usize {
        let before = self.slice(0..at);
        let before = before.strip_suffix('\n').unwrap_or(before);
        before.strip_suffix('\r').unwrap_or(before).len()
    }

    pub fn line_start(self, at: usize) -> usize {
        self.slice(0..at).rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// The end of the line, before its newline.
    pub fn line_end(self, at: usize) -> usize {
        let end = self.slice(at..self.0.len()).find('\n').map_or(self.0.len(), |newline| at + newline);
        match end > at && self.byte(end - 1) == Some(b'\r') && end < self.0.len() {
            true => end - 1,
            false => end,
        }
    }

    /// The start of the line after, or the end of the text.
    pub fn next_line(self, at: usize) -> usize {
        self.slice(at..self.0.len()).find('\n').map_or(self.0.len(), |newline| at + newline + 1)
    }

    /// Behind what stands before this on its line; the same place where nothing does.
    pub fn behind_blanks(self, at: usize) -> usize {
        match self.is_first_on_line(at) {
            true => at,
            false => self.trim_end(self.line_start(at), at),
        }
    }

    /// Whether only blanks stand before this on its line.
    pub fn is_first_on_line(self, at: usize) -> bool {
        self.slice(self.line_start(at)..at).trim().is_empty()
    }

    /// Whether only blanks and a comment stand on the line from here on.
    pub fn is_last_on_line(self, at: usize) -> bool {
        let rest = self.slice(at..self.line_end(at)).trim_start();
        rest.is_empty() || rest.starts_with('#')
    }

    pub fn is_one_line(self, range: Range<usize>) -> bool {
        !self.slice(range).contains('\n')
    }

    /// The indentation of what stands here: blanks as they are, and a space for each other character.
    pub fn indentation(self, at: usize) -> String {
        let before = self.slice(self.line_start(at)..at).chars();
        before.map(|c| if c == '\t' { c } else { ' ' }).collect()
    }

    /// The newline that ends this line, or at the end of the text those before it.
    pub fn newline(self, at: usize) -> &'static str {
        let rest = self.slice(self.line_end(at)..self.0.len());
        match rest.find('\n').or_else(|| self.0.find('\n').map(|_| usize::MAX)) {
            Some(usize::MAX) if self.0.contains("\r\n") => "\r\n",
            Some(_) if rest.starts_with("\r\n") => "\r\n",
            _ => "\n",
        }
    }

    /// The whole lines that a range touches. Where they end the text without a newline, the one before them goes
    /// instead, so that the text ends as it did; not that of a blank line, which may be part of a text above.
    pub fn lines(self, range: Range<usize>) -> Range<usize> {
        let (start, end) = (self.line_start(range.start), self.next_line(range.end));
        let before = self.without_newline(start);
        match self.slice(0..end).ends_with('\n') || self.is_first_on_line(before) {
            true => start..end,
            false => before..end,
        }
    }
}
