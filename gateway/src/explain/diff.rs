//! How a request's head changes on its way: which lines go, which come, and whose doing each is.
//!
//! Fields are compared as a set: their order means nothing, and the engine does not keep it.

use pingora_http::RequestHeader;
use serde::Serialize;

/// A line of a head, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Whether it stayed.
    pub change: Change,
    /// The request line, or `name: value`.
    pub text: String,
    /// Who took it away or put it in; absent where it stayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It stayed.
    Kept,
    /// It went.
    Removed,
    /// It came.
    Added,
}

/// A head from its first form to its last.
pub struct Diff {
    lines: Vec<Followed>,
}

/// A line that was there at some time.
struct Followed {
    text: String,
    added: Option<String>,
    removed: Option<String>,
}

impl Diff {
    /// Begins with this head.
    pub fn new(head: &RequestHeader) -> Self {
        let followed = |text| Followed { text, added: None, removed: None };
        Self { lines: lines(head).into_iter().map(followed).collect() }
    }

    /// Goes on to this head, which is what `by` left.
    pub fn step(&mut self, head: &RequestHeader, by: &str) {
        let mut new: Vec<Option<String>> = lines(head).into_iter().map(Some).collect();
        for line in self.lines.iter_mut().filter(|line| line.removed.is_none()) {
            let same = new.iter_mut().find(|new| new.as_ref().is_some_and(|new| is_same(new, &line.text)));
            match same.and_then(Option::take) {
                Some(text) => line.text = text,
                None => line.removed = Some(by.to_owned()),
            }
        }
        for text in new.into_iter().flatten() {
            // A new value stands behind the old one.
            let place = self.lines.iter().rposition(|line| name(&line.text) == name(&text));
            let place = place.map_or(self.lines.len(), |place| place + 1);
            self.lines.insert(place, Followed { text, added: Some(by.to_owned()), removed: None });
        }
    }

    /// From the first head to the last. What came and went again on the way is left out.
    pub fn lines(&self) -> Vec<Line> {
        let lines = self.lines.iter().filter(|line| line.added.is_none() || line.removed.is_none());
        lines
            .map(|line| Line {
                change: match (&line.added, &line.removed) {
                    (_, Some(_)) => Change::Removed,
                    (Some(_), None) => Change::Added,
                    (None, None) => Change::Kept,
                },
                text: line.text.clone(),
                by: line.removed.as_ref().or(line.added.as_ref()).cloned(),
            })
            .collect()
    }
}

fn lines(head: &RequestHeader) -> Vec<String> {
    let mut wire = Vec::new();
    head.header_to_h1_wire(&mut wire);
    let target = String::from_utf8_lossy(head.raw_path());
    let fields = String::from_utf8_lossy(&wire);
    let fields = fields.split("\r\n").filter(|line| !line.is_empty()).map(str::to_owned);
    std::iter::once(format!("{} {target} HTTP/1.1", head.method)).chain(fields).collect()
}

/// A field's name in lower case; nothing for the request line, whose first blank comes before any colon.
fn name(line: &str) -> Option<String> {
    let (name, _) = line.split_once(':').filter(|(name, _)| !name.contains(' '))?;
    Some(name.to_ascii_lowercase())
}

fn is_same(new: &str, known: &str) -> bool {
    let value = |line: &str| line.split_once(':').map(|(_, value)| value.to_owned());
    match name(known) {
        None => new == known,
        known_name => name(new) == known_name && value(new) == value(known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(heads: &[(&str, &str)]) -> String {
        let head = |text: &str| {
            let mut lines = text.lines();
            let mut head = RequestHeader::build("GET", lines.next().unwrap().as_bytes(), None).unwrap();
            for line in lines {
                let (name, value) = line.split_once(": ").unwrap();
                head.append_header(name.to_owned(), value).unwrap();
            }
            head
        };
        let mut diff = Diff::new(&head(heads[0].1));
        for (by, text) in &heads[1..] {
            diff.step(&head(text), by);
        }
        let line = |line: Line| {
            let mark = match line.change {
                Change::Kept => " ",
                Change::Removed => "-",
                Change::Added => "+",
            };
            format!("{mark} {} {}", line.text, line.by.unwrap_or_default()).trim_end().to_owned()
        };
        diff.lines().into_iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn each_change_has_its_author_and_what_comes_and_goes_is_left_out() {
        let heads = [
            ("", "/a\nHost: a\nX-Gone: 1\nX-Twice: 1\nX-Twice: 2\nX-Stays: 1"),
            ("one", "/b\nX-Stays: 1\nX-Twice: 2\nHost: a\nX-Passing: 1"),
            ("two", "/b\nX-Stays: 1\nX-Twice: 2\nX-Twice: 3\nhost: b\nX-New: 1"),
        ];
        assert_eq!(
            told(&heads),
            "- GET /a HTTP/1.1 one\n+ GET /b HTTP/1.1 one\n- Host: a two\n+ host: b two\n- X-Gone: 1 one\n\
             - X-Twice: 1 one\n  X-Twice: 2\n+ X-Twice: 3 two\n  X-Stays: 1\n+ X-New: 1 two"
        );
    }

    #[test]
    fn the_case_of_a_name_is_no_change_and_a_path_with_a_colon_is_no_field() {
        let heads = [("", "/a:b\nX-A: 1"), ("one", "/a:c\nx-a: 1")];
        assert_eq!(told(&heads), "- GET /a:b HTTP/1.1 one\n+ GET /a:c HTTP/1.1 one\n  x-a: 1");
    }
}
