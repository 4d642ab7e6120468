//! The text that a config came from, kept to say where a path stands.

use std::fmt;
use std::path::{Path, PathBuf};

use vestibule_plugins::{Problem, Segment};

use super::tree::{Entry, Kind, Mark, Node};

/// A position in a file; line and column count from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The file as it was named.
    pub file: PathBuf,
    /// The line; 0 where the file as a whole is meant.
    pub line: usize,
    /// The column, in characters; 0 where the line is.
    pub column: usize,
}

impl Position {
    /// The file as a whole.
    pub fn whole(file: &Path) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file.display()),
            line => write!(f, "{}:{line}:{}", self.file.display(), self.column),
        }
    }
}

/// The text that a config came from: answers where a path stands.
#[derive(Debug)]
pub struct Document {
    pub(super) root: Kind,
    pub(super) files: Vec<PathBuf>,
    /// What each file holds, to edit it.
    pub(super) texts: Vec<String>,
    pub(super) base: PathBuf,
    pub(super) hash: String,
    /// Problems whose place their path does not tell, as a key's that stands there twice.
    pub(super) exact: Vec<(Problem, Mark)>,
}

impl Document {
    /// Where a value stands: the key of a map entry, the first character of a list item. Of an unknown path,
    /// its nearest known parent.
    pub fn position(&self, path: &vestibule_plugins::Path) -> Position {
        let mut at = Mark { file: 0, line: 1, column: 1 };
        let mut known = Some(&self.root);
        for segment in &path.0 {
            known = match (known, segment) {
                (Some(Kind::Map(entries)), Segment::Key(key)) => entry(entries, key, &mut at),
                (Some(Kind::List(items)), Segment::Index(index)) => {
                    items.get(*index).inspect(|item| at = item.at)
                }
                _ => None,
            }
            .map(|node| &node.kind);
        }
        self.at(at)
    }

    /// Where a problem stands. Only what the parser itself found may stand in more than one place: each file
    /// of a folder that lacks its `version`, for one.
    pub fn places(&self, problem: &Problem) -> Vec<Position> {
        let exact = self.exact.iter().filter(|(known, _)| known == problem);
        let exact: Vec<_> = exact.map(|(_, mark)| self.at(*mark)).collect();
        match exact.is_empty() {
            true => vec![self.position(&problem.path)],
            false => exact,
        }
    }

    /// The folder that relative paths in the file start from.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The files that were read.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// SHA-256 over the files' bytes in order, the first 12 hex digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The top-level keys; none of a list.
    pub(super) fn sections(&self) -> &[Entry] {
        match &self.root {
            Kind::Map(sections) => sections,
            _ => &[],
        }
    }

    /// Names that stand under a top-level map, decoded or not, so that a reference to a broken entry is not
    /// called dangling.
    pub fn keys_of(&self, section: &str) -> Vec<String> {
        let section = self.sections().iter().find(|entry| entry.key == section);
        match section.map(|section| &section.value.kind) {
            Some(Kind::Map(entries)) => entries.iter().map(|entry| entry.key.clone()).collect(),
            _ => Vec::new(),
        }
    }

    fn at(&self, mark: Mark) -> Position {
        let file = self.files.get(mark.file).cloned().unwrap_or_default();
        Position { file, line: mark.line, column: mark.column }
    }
}

fn entry<'a>(entries: &'a [Entry], key: &str, at: &mut Mark) -> Option<&'a Node> {
    let entry = entries.iter().find(|entry| entry.key == key)?;
    *at = entry.at;
    Some(&entry.value)
}
