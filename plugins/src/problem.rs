//! One thing that is wrong in the file, and the path of the value that it is about.
//!
//! Where that value stands (file, line, column) is known only to the loader, which looks the path up.

use std::fmt;

/// One step from a value to a value inside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// The value of this key of a map.
    Key(String),
    /// This item of a list, counted from 0.
    Index(usize),
}

/// The way from the root of the file to a value, shown as `routes[2].upstream`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(pub Vec<Segment>);

impl Path {
    /// The root of the file.
    pub fn root() -> Self {
        Self::default()
    }

    /// This path and one key more.
    pub fn key(&self, key: impl Into<String>) -> Self {
        self.and(Segment::Key(key.into()))
    }

    /// This path and one list index more.
    pub fn index(&self, index: usize) -> Self {
        self.and(Segment::Index(index))
    }

    /// This path with `tail` behind it.
    pub fn join(&self, tail: &Path) -> Self {
        Self(self.0.iter().chain(&tail.0).cloned().collect())
    }

    /// Whether `self` is `other` or leads to it.
    pub fn leads_to(&self, other: &Path) -> bool {
        other.0.starts_with(&self.0)
    }

    fn and(&self, segment: Segment) -> Self {
        Self(self.0.iter().cloned().chain([segment]).collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if position == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

/// One thing that is wrong: where, what, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The value that is wrong; for an unknown key, the path that ends in that key.
    pub path: Path,
    /// What was given and what is allowed: lower case, no full stop, values in backticks, never a secret.
    pub message: String,
    /// How to mend it, where that is known.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(path: Path, message: impl Into<String>) -> Self {
        Self { path, message: message.into(), hint: None }
    }

    /// The same with a remedy.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same problem, told from a value that holds the one it was found in.
    pub fn under(mut self, parent: &Path) -> Self {
        self.path = parent.join(&self.path);
        self
    }
}

/// The hint `did you mean …?` for the known name nearest to `given`, if one is near enough to be a typing error.
pub fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(given, known).map(|name| format!("did you mean `{name}`?"))
}

/// The known name nearest to `given`: at most a third of its letters differ, one of a short name's, or it is the same
/// but for case and `-`/`_`. Names of one or two letters are near to everything, and so to nothing.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |s: &str| s.to_ascii_lowercase().replace(['-', '_'], "");
    let given_plain = plain(given);
    let allowed = match given_plain.chars().count() {
        0..=2 => 0,
        length => (length / 3).max(1),
    };
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&given_plain, &plain(name)), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}
