//! Everything that is wrong with a file, each with its place, as a person reads it; and what is only doubtful.
//!
//! What is wrong is found elsewhere: by `config::load` and by `snapshot::compile`; what is doubtful, by `snapshot::lint`.

use std::fmt;
use std::path::Path;

use vestibule_plugins::Problem;

use crate::config::{Document, Position};

/// A problem, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Where.
    pub position: Position,
    /// What.
    pub problem: Problem,
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "")
    }
}

impl Located {
    fn write(&self, f: &mut fmt::Formatter<'_>, kind: &str) -> fmt::Result {
        let Problem { path, message, hint } = &self.problem;
        match path.0.is_empty() {
            true => writeln!(f, "{}", self.position)?,
            false => writeln!(f, "{}  {path}", self.position)?,
        }
        write!(f, "{kind}{message}")?;
        match hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Why a configuration was refused: at least one problem, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    problems: Vec<Located>,
}

impl Report {
    /// Problems of a document that was parsed.
    pub fn new(problems: Vec<Problem>, document: &Document) -> Self {
        Self::of(problems.into_iter().flat_map(|problem| {
            document
                .places(&problem)
                .into_iter()
                .map(move |position| Located { position, problem: problem.clone() })
        }))
    }

    /// Problems whose places are known already.
    pub fn of(problems: impl IntoIterator<Item = Located>) -> Self {
        let mut problems: Vec<_> = problems.into_iter().collect();
        problems.sort_by(|a, b| {
            let key = |located: &Located| (located.position.clone(), located.problem.path.clone());
            key(a).cmp(&key(b)).then_with(|| a.problem.message.cmp(&b.problem.message))
        });
        // What is inherited by an alias is wrong on several paths, but is one thing to mend.
        problems.dedup_by(|b, a| {
            a.position == b.position
                && a.problem.message == b.problem.message
                && a.problem.hint == b.problem.hint
        });
        Self { problems }
    }

    /// A file or folder that is missing, too large or not to be read: there is no line to name.
    pub fn io(path: &Path, message: impl Into<String>, hint: Option<String>) -> Self {
        let problem = Problem { path: vestibule_plugins::Path::root(), message: message.into(), hint };
        Self { problems: vec![Located { position: Position::whole(path), problem }] }
    }

    /// How many problems there are.
    pub fn count(&self) -> usize {
        self.problems.len()
    }

    /// The problems, in the order of the file.
    pub fn problems(&self) -> &[Located] {
        &self.problems
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, located) in self.problems.iter().enumerate() {
            let gap = if number == 0 { "" } else { "\n\n" };
            write!(f, "{gap}{located}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// Where those keys stand that can turn out wrong only when a snapshot is to be put in force: an address that is taken,
/// say. The document itself is not kept.
#[derive(Debug, Clone)]
pub struct Places {
    whole: Position,
    known: Vec<(vestibule_plugins::Path, Position)>,
}

impl Places {
    /// The places of these paths.
    pub fn new(document: &Document, paths: impl IntoIterator<Item = vestibule_plugins::Path>) -> Self {
        let whole = document.position(&vestibule_plugins::Path::root());
        let known = paths.into_iter().map(|path| (path.clone(), document.position(&path)));
        Self { whole, known: known.collect() }
    }

    /// Problems at such paths.
    pub fn report(&self, problems: Vec<Problem>) -> Report {
        Report::of(problems.into_iter().map(|problem| {
            let known = self.known.iter().find(|(path, _)| *path == problem.path);
            let position = known.map_or(&self.whole, |(_, position)| position).clone();
            Located { position, problem }
        }))
    }
}

/// What a configuration that is good may hardly mean, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warnings(Report);

impl Warnings {
    /// Warnings about a document that was parsed.
    pub fn new(warnings: Vec<Problem>, document: &Document) -> Self {
        Self(Report::new(warnings, document))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.count()
    }

    /// Each of them.
    pub fn located(&self) -> &[Located] {
        self.0.problems()
    }

    /// Tells each in one line of the log.
    pub fn log(&self) {
        for Located { position, problem: Problem { path, message, hint } } in self.located() {
            match hint {
                Some(hint) => log::warn!("{position}  {path}: {message}; {hint}"),
                None => log::warn!("{position}  {path}: {message}"),
            }
        }
    }
}

impl fmt::Display for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, located) in self.located().iter().enumerate() {
            f.write_str(if number == 0 { "" } else { "\n\n" })?;
            located.write(f, "warning: ")?;
        }
        Ok(())
    }
}

/// The problems of both steps. A value that did not decode is absent for `compile`, which may then miss it,
/// or something that it should hold: that is no news, and left out.
pub fn merge(decode: Vec<Problem>, compile: Vec<Problem>) -> Vec<Problem> {
    let is_news = |found: &Problem| !decode.iter().any(|cause| found.path.leads_to(&cause.path));
    let news: Vec<_> = compile.into_iter().filter(is_news).collect();
    decode.into_iter().chain(news).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::parse;
    use vestibule_plugins::Path as Place;

    fn document() -> Document {
        let text = "version: 1\nroutes:\n  - upstream: paymets\n  - upstream: b\n";
        parse("conf/gateway.yaml", text, Path::new("conf")).unwrap().document
    }

    fn upstream_of(route: usize) -> Place {
        Place::root().key("routes").index(route).key("upstream")
    }

    #[test]
    fn a_report_reads_place_message_and_hint_in_the_order_of_the_file_without_repetition() {
        let first =
            Problem::new(upstream_of(0), "no upstream is named `paymets`").hint("did you mean `payments`?");
        let second = Problem::new(upstream_of(1), "no upstream is named `b`");
        let root = Problem::new(Place::root(), "there is no listener");
        let report = Report::new(vec![second.clone(), first, second, root], &document());
        assert_eq!(
            report.to_string(),
            "conf/gateway.yaml:1:1\nthere is no listener\n\n\
             conf/gateway.yaml:3:5  routes[0].upstream\nno upstream is named `paymets`\n\
             hint: did you mean `payments`?\n\n\
             conf/gateway.yaml:4:5  routes[1].upstream\nno upstream is named `b`"
        );
        assert_eq!(report.count(), 3);
    }

    #[test]
    fn what_is_absent_because_it_did_not_decode_is_no_news() {
        let at = |path: Place| Problem::new(path, "x");
        let routes = Place::root().key("routes");
        let decode = vec![at(upstream_of(0))];
        let compile = vec![
            at(routes.index(0)),
            at(upstream_of(0)),
            at(upstream_of(0).key("below")),
            at(routes.index(1)),
        ];
        let expected = vec![at(upstream_of(0)), at(upstream_of(0).key("below")), at(routes.index(1))];
        assert_eq!(merge(decode, compile), expected);
    }
}
