//! Changes the user's own file: a value is set or taken out at a path, and only the lines that it stands on change.
//!
//! Nothing is written to a disk here. Each edited text is read again by the loader and held against the tree that the
//! edits mean; what is not the same is an error, never a wrong file.

mod expected;
mod layout;
mod quoted;
mod source;
mod splice;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

use serde_yaml::Value;
use similar::TextDiff;
use vestibule_plugins::{Path, Problem, Segment};

use self::source::Source;
use self::splice::Text;
use super::{Document, Loaded, load, tree};
use crate::snapshot::problem::Located;

pub use quoted::quoted;

/// One change to the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Writes a value at a key or a list's item, making the maps on the way where they are missing. The item behind
    /// a list's last one is added to it.
    Set {
        /// Where.
        path: Path,
        /// YAML of one line, such as `off`, `www.a.test`, `[a, b]` or `{ cert: a.crt, key: a.key }`. A text of
        /// which that is not known goes through [`quoted()`].
        value: String,
    },
    /// Takes a key or an item out. A map that is left empty by it becomes `{}`, since `tls: {}` is TLS and no `tls`
    /// is plain.
    Remove {
        /// What.
        path: Path,
    },
}

impl Edit {
    /// What is changed.
    pub fn path(&self) -> &Path {
        match self {
            Self::Set { path, .. } | Self::Remove { path } => path,
        }
    }
}

/// What changes in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The file as it was named.
    pub file: PathBuf,
    /// Its text.
    pub before: String,
    /// Its text with the edits.
    pub after: String,
}

impl Change {
    /// The change as a unified diff, which `patch -p0` takes.
    pub fn diff(&self) -> String {
        let name = self.file.display().to_string();
        // By `\n` alone, as `patch` counts lines.
        let before: Vec<&str> = self.before.split_inclusive('\n').collect();
        let after: Vec<&str> = self.after.split_inclusive('\n').collect();
        TextDiff::configure()
            .newline_terminated(true)
            .diff_slices(&before, &after)
            .unified_diff()
            .context_radius(3)
            .header(&name, &name)
            .to_string()
    }
}

/// Why an edit was not made, and where it was to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditError(pub Located);

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for EditError {}

/// Makes the edits in order, each on what the ones before have left. The files that change, in their order.
pub fn apply(document: &Document, edits: &[Edit]) -> Result<Vec<Change>, EditError> {
    let located =
        |problem: Problem| EditError(Located { position: document.position(&problem.path), problem });
    let mut texts = document.texts.clone();
    for edit in edits {
        let text = texts.get_mut(file_of(document, edit.path())).ok_or_else(|| {
            located(Problem::new(edit.path().clone(), "there is no file to write this into"))
        })?;
        *text = edited(text, edit).map_err(located)?;
    }
    check(document, &texts, edits).map_err(located)?;
    let files = document.files.iter().zip(document.texts.iter().zip(texts));
    Ok(files
        .filter(|(_, (before, after))| *before != after)
        .map(|(file, (before, after))| Change { file: file.clone(), before: before.clone(), after })
        .collect())
}

/// The number of the file that holds the path's section; a new section goes into the first one.
fn file_of(document: &Document, path: &Path) -> usize {
    let section = match path.0.first() {
        Some(Segment::Key(key)) => document.sections().iter().find(|entry| entry.key == *key),
        _ => None,
    };
    section.map_or(0, |section| section.at.file)
}

/// One text with one edit.
fn edited(text: &str, edit: &Edit) -> Result<String, Problem> {
    let (mark, body) = match text.strip_prefix('\u{feff}') {
        Some(body) => ("\u{feff}", body),
        None => ("", text),
    };
    let unreadable = || Problem::new(edit.path().clone(), "the file cannot be read to be edited");
    let tree = read(body).ok_or_else(unreadable)?;
    let layout = layout::read(body).ok().flatten().ok_or_else(unreadable)?;
    let mut wanted = tree.clone();
    let place = Text { source: Source(body), layout: &layout, tree: &tree };
    let mut splices = match edit {
        Edit::Set { path, value } => {
            expected::set(&mut wanted, path, splice::parsed(value).map_err(|problem| problem.under(path))?)?;
            place.set(path, value)?
        }
        Edit::Remove { path } => {
            // The text first: it knows better why not.
            let splices = place.remove(path)?;
            expected::remove(&mut wanted, path)?;
            splices
        }
    };
    splices.sort_by_key(|(range, _)| range.start);
    let mut after = body.to_owned();
    for (range, new) in splices.iter().rev() {
        after.replace_range(range.clone(), new);
    }
    let difference = match read(&after) {
        Some(found) => expected::difference(&wanted, &found),
        None => Some(edit.path().clone()),
    };
    match difference {
        None => Ok(format!("{mark}{after}")),
        Some(path) => Err(unfaithful(path)),
    }
}

fn read(text: &str) -> Option<Value> {
    Some(tree::read(text, 0).ok()?.root?.value())
}

/// The files as the loader reads them: all of them hold what was asked, and no problem that they did not have.
fn check(document: &Document, texts: &[String], edits: &[Edit]) -> Result<(), Problem> {
    let load = |texts: &[String]| {
        let texts = texts.iter().map(|text| text.clone().into_bytes());
        load::join(document.files.iter().cloned().zip(texts).collect(), &document.base)
            .map_err(|report| report.problems().first().map(|located| located.problem.clone()))
            .map_err(|problem| problem.unwrap_or_else(|| unfaithful(Path::root())))
    };
    let Loaded { problems: known, .. } = load(&document.texts)?;
    let Loaded { document: found, problems, .. } = load(texts)?;
    if let Some(news) = problems.into_iter().find(|problem| !known.contains(problem)) {
        return Err(news);
    }
    let mut wanted = Value::Mapping(tree::mapping(document.sections()));
    for edit in edits {
        match edit {
            Edit::Set { path, value } => expected::set(&mut wanted, path, splice::parsed(value)?)?,
            Edit::Remove { path } => expected::remove(&mut wanted, path)?,
        }
    }
    match expected::difference(&wanted, &Value::Mapping(tree::mapping(found.sections()))) {
        None => Ok(()),
        Some(path) => Err(unfaithful(path)),
    }
}

fn unfaithful(path: Path) -> Problem {
    Problem::new(path, "the file is written in a way that this edit would break")
        .hint("make the change by hand")
}
