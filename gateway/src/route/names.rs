//! Values by host pattern, where nothing but the host decides: the exact name before a wildcard, the longer before the
//! shorter, as in a table of routes.

use std::collections::HashMap;

use super::host::{HostPattern, comparable};

/// Values by host pattern.
#[derive(Debug)]
pub struct Names<T> {
    /// A suffix begins with a dot, which no name does.
    values: HashMap<Box<str>, T, ahash::RandomState>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { values: HashMap::default() }
    }
}

impl<T> Names<T> {
    /// Adds a value; gives the value back where the pattern has one already.
    pub fn insert(&mut self, pattern: HostPattern, value: T) -> Result<(), T> {
        let (HostPattern::Exact(key) | HostPattern::Suffix(key)) = pattern;
        if self.values.contains_key(key.as_str()) {
            return Err(value);
        }
        self.values.insert(key.into(), value);
        Ok(())
    }

    /// The value for a host without a port, in whatever case.
    pub fn find(&self, host: &str) -> Option<&T> {
        let host = comparable(host);
        let dots = host.bytes().enumerate().filter(|(at, byte)| *at > 0 && *byte == b'.');
        let mut keys = [0].into_iter().chain(dots.map(|(at, _)| at)).map(|at| &host[at..]);
        // A name that begins with a dot is none, and must not be taken for a suffix.
        keys.find_map(|key| self.values.get(key)).filter(|_| !host.starts_with('.'))
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Every value.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.values.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_pattern_wins() {
        let mut names = Names::default();
        for pattern in ["a.blue.test", "*.blue.test", "*.a.blue.test", "*.test", "blue"] {
            names.insert(HostPattern::parse(pattern).unwrap(), pattern).unwrap();
        }
        let check = |host: &str, expected: Option<&str>| {
            assert_eq!(names.find(host).copied(), expected, "{host}");
        };
        check("a.blue.test", Some("a.blue.test"));
        check("A.Blue.Test.", Some("a.blue.test"));
        check("b.blue.test", Some("*.blue.test"));
        check("c.b.blue.test", Some("*.blue.test"));
        check("x.a.blue.test", Some("*.a.blue.test"));
        check("blue.test", Some("*.test"));
        check("blue", Some("blue"));
        check("test", None);
        check("", None);
        check(".", None);
        check(".blue.test", None);
        check("a.other", None);
    }

    #[test]
    fn a_pattern_has_one_value() {
        let mut names = Names::default();
        assert!(names.insert(HostPattern::parse("a.test").unwrap(), 1).is_ok());
        assert_eq!(names.insert(HostPattern::parse("A.test.").unwrap(), 2), Err(2));
        assert!(names.insert(HostPattern::parse("*.test").unwrap(), 3).is_ok());
    }
}
