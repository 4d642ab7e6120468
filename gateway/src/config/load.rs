//! From bytes to a `Config`: files found and read, their trees joined, every value decoded.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use openssl::sha::{Sha256, sha256};
use serde::de::DeserializeOwned;
use serde_yaml::Value;
use vestibule_plugins::decode::{MOST_PROBLEMS, decode};
use vestibule_plugins::{Path as Place, Problem};

use super::Config;
use super::document::{Document, Position};
use super::scalar::Version;
use super::tree::{self, Entry, Fault, Kind, Mark};
use crate::snapshot::problem::{Located, Report};
use crate::snapshot::sources::{Names, Sources};

/// A larger file is refused unread.
const MOST_BYTES_A_FILE: u64 = 4 << 20;
/// And so are files that are larger together.
const MOST_BYTES: u64 = 16 << 20;

/// What came of reading: all that decoded, and every problem of what did not.
#[derive(Debug)]
pub struct Loaded {
    /// What decoded; what has a problem is absent from it.
    pub config: Config,
    /// Where each value stands.
    pub document: Document,
    /// What is wrong. The config may be used only where this is empty.
    pub problems: Vec<Problem>,
}

/// Reads a file, or the `*.yaml` files of a folder in name order. An error where no config could be made at
/// all.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    load_noting(path).0
}

/// The same, and what was looked at for it.
pub fn load_noting(path: &Path) -> (Result<Loaded, Report>, Sources) {
    let mut sources = Sources::default();
    (read(path, &mut sources), sources)
}

fn read(path: &Path, noted: &mut Sources) -> Result<Loaded, Report> {
    noted.note(path, Names::Yaml);
    let is_folder = fs::metadata(path).map_err(|error| unreadable(path, &error))?.is_dir();
    let (names, base) = match is_folder {
        true => (files_of(path)?, path),
        false => (vec![path.to_owned()], path.parent().unwrap_or(path)),
    };
    let mut total = 0;
    let mut sources = Vec::new();
    for name in names {
        noted.note(&name, Names::None);
        let bytes = bytes_of(&name)?;
        noted.has_read(&name, &bytes);
        total += bytes.len() as u64;
        if total > MOST_BYTES {
            let message = format!("the files of the folder hold more than {} MiB", MOST_BYTES >> 20);
            return Err(Report::io(path, message, None));
        }
        sources.push((name, bytes));
    }
    join(sources, base)
}

/// Reads a file that is not a configuration but a list, of a test's cases say, by the same rules. What it decoded to
/// counts only where there is no problem.
///
/// # Errors
/// It cannot be read, or is no YAML.
pub fn list<T: DeserializeOwned>(path: &Path) -> Result<(Vec<T>, Document, Vec<Problem>), Report> {
    let bytes = bytes_of(path)?;
    let files = [path.to_owned()];
    let refused = |fault| Report::of([located(fault, &files)]);
    let tree = utf8(&bytes, 0).and_then(|text| tree::read(text, 0)).map_err(refused)?;
    let mut problems: Vec<Problem> = tree.problems.iter().map(|(problem, _)| problem.clone()).collect();
    let root = tree.root.map_or(Kind::Scalar(Value::Null), |root| root.kind);
    let start = Mark { file: 0, line: 1, column: 1 };
    let value = tree::Node { at: start, kind: root.clone() }.value();
    let (decoded, found) = match value {
        Value::Sequence(_) => decode(&value),
        _ => (None, vec![Problem::new(Place::root(), "expected a list").hint("begin each item with a `-`")]),
    };
    problems.extend(found);
    let document = Document {
        root,
        files: files.to_vec(),
        texts: vec![String::from_utf8_lossy(&bytes).into_owned()],
        base: base_of(path.parent().unwrap_or(path)),
        hash: short(&sha256(&bytes)),
        exact: tree.problems,
    };
    Ok((decoded.unwrap_or_default(), document, problems))
}

/// The same for what is in memory; `name` is shown in positions, relative paths start at `base`.
pub fn parse(name: &str, text: impl AsRef<[u8]>, base: &Path) -> Result<Loaded, Report> {
    join(vec![(name.into(), text.as_ref().to_vec())], base)
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>, Report> {
    let list = |names: Names| names.list(folder).map_err(|error| unreadable(folder, &error));
    let yaml = list(Names::Yaml)?;
    if yaml.is_empty() {
        let others: Vec<PathBuf> = list(Names::Visible)?.into_iter().map(PathBuf::from).collect();
        let other_spelling = others.iter().find(|path| path.extension().is_some_and(|end| end == "yml"));
        let hint = other_spelling.and_then(|path| path.file_stem()).map(|stem| {
            let stem = stem.to_string_lossy();
            format!("rename `{stem}.yml` to `{stem}.yaml`")
        });
        return Err(Report::io(folder, "the folder holds no `*.yaml` file", hint));
    }
    Ok(yaml.into_iter().map(|name| folder.join(name)).collect())
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, Report> {
    let mut bytes = Vec::new();
    // Not by the size that the file system tells: a pipe has none.
    fs::File::open(path)
        .and_then(|file| file.take(MOST_BYTES_A_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(path, &error))?;
    match bytes.len() as u64 > MOST_BYTES_A_FILE {
        true => {
            let message = format!("the file is larger than {} MiB", MOST_BYTES_A_FILE >> 20);
            Err(Report::io(path, message, Some("split it into the files of a folder".into())))
        }
        false => Ok(bytes),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Report {
    let message = match error.kind() {
        io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        io::ErrorKind::PermissionDenied => "the file may not be read: permission denied".to_owned(),
        _ => format!("the file cannot be read: {}", error.to_string().to_lowercase()),
    };
    Report::io(path, message, None)
}

/// The same for files that were read already.
pub(crate) fn join(sources: Vec<(PathBuf, Vec<u8>)>, base: &Path) -> Result<Loaded, Report> {
    let mut hash = Sha256::new();
    let mut faults = Vec::new();
    let mut exact = Vec::new();
    let mut entries: Vec<Entry> = Vec::new();
    let mut files = Vec::new();
    let mut texts = Vec::new();
    for (number, (name, bytes)) in sources.into_iter().enumerate() {
        hash.update(&bytes);
        match sections(&bytes, number, &mut exact) {
            Ok(sections) => add(sections, &mut entries, &files, &mut exact),
            Err(fault) => faults.push(fault),
        }
        files.push(name);
        // What is not UTF-8 was a fault, so no document keeps what this makes of it.
        texts.push(String::from_utf8(bytes).unwrap_or_default());
    }
    let mut whole = tree::mapping(&entries);
    let document = Document {
        root: Kind::Map(entries),
        files,
        texts,
        base: base_of(base),
        hash: short(&hash.finish()),
        exact,
    };
    let mut problems: Vec<Problem> = document.exact.iter().map(|(problem, _)| problem.clone()).collect();
    if !faults.is_empty() {
        let known = Report::new(problems, &document);
        let found = faults.into_iter().map(|fault| located(fault, &document.files));
        return Err(Report::of(found.chain(known.problems().iter().cloned())));
    }
    // Each file's own was looked at, and one that is missing is told once.
    whole.insert("version".into(), 1.into());
    let (config, found) = decode::<Config>(&Value::Mapping(whole));
    problems.extend(found);
    match config {
        Some(config) => Ok(Loaded { config, document, problems }),
        None => {
            let message = format!("there are {MOST_PROBLEMS} problems or more; the rest was not looked for");
            problems.push(Problem::new(Place::root(), message));
            Err(Report::new(problems, &document))
        }
    }
}

/// A bare file name has an empty parent, which is no folder to open.
fn base_of(folder: &Path) -> PathBuf {
    if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() }
}

/// As much of a hash as is shown.
pub(crate) fn short(hash: &[u8]) -> String {
    hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn located(fault: Fault, files: &[PathBuf]) -> Located {
    let Mark { file, line, column } = fault.at;
    let position = Position { file: files.get(file).cloned().unwrap_or_default(), line, column };
    Located { position, problem: fault.problem }
}

/// The top-level sections of one file of this format's version.
fn sections(bytes: &[u8], file: usize, exact: &mut Vec<(Problem, Mark)>) -> Result<Vec<Entry>, Fault> {
    let start = Mark { file, line: 1, column: 1 };
    let fault = |at, message: &str, hint: &str| Fault {
        at,
        problem: Problem::new(Place::root(), message).hint(hint),
    };
    let tree = tree::read(utf8(bytes, file)?, file)?;
    let sections = match tree.root {
        Some(tree::Node { kind: Kind::Map(sections), .. }) => sections,
        None | Some(tree::Node { kind: Kind::Scalar(Value::Null), .. }) => {
            return Err(fault(start, "the file is empty", "begin with `version: 1`"));
        }
        Some(other) => {
            let message = "expected a map of sections such as `listeners`, `upstreams` and `routes`";
            return Err(fault(other.at, message, "begin with `version: 1`"));
        }
    };
    match sections.iter().find(|section| section.key == "version") {
        // Another version's keys are another's affair, so nothing else is judged.
        Some(version) => {
            let (_, problems) = decode::<Version>(&version.value.value());
            if let Some(problem) = problems.into_iter().next() {
                return Err(Fault { at: version.at, problem: problem.under(&Place::root().key("version")) });
            }
        }
        None => {
            let problem =
                Problem::new(Place::root(), "`version` is missing").hint("begin the file with `version: 1`");
            exact.push((problem, start));
        }
    }
    exact.extend(tree.problems);
    Ok(sections)
}

/// The text of the file number `file`, without its byte order mark.
fn utf8(bytes: &[u8], file: usize) -> Result<&str, Fault> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default());
        let line = good.rsplit('\n').next().unwrap_or_default();
        let at = Mark { file, line: good.matches('\n').count() + 1, column: line.chars().count() + 1 };
        let problem = Problem::new(Place::root(), "this byte is not UTF-8").hint("save the file as UTF-8");
        Fault { at, problem }
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Adds a file's sections to those of the files before it.
fn add(sections: Vec<Entry>, to: &mut Vec<Entry>, files: &[PathBuf], exact: &mut Vec<(Problem, Mark)>) {
    for section in sections {
        match to.iter().find(|known| known.key == section.key) {
            Some(_) if section.key == "version" => {}
            Some(known) => {
                let Mark { file, line, column } = known.at;
                let file = files.get(file).cloned().unwrap_or_default();
                let first = Position { file, line, column };
                let message = format!("the section `{}` stands in two files", section.key);
                let problem = Problem::new(Place::root().key(section.key.as_str()), message);
                exact.push((problem.hint(format!("join it to the one at `{first}`")), section.at));
            }
            None => to.push(section),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EndpointAddress, PathConfig, TextMatchConfig, TlsVersion, VerifyConfig};

    fn parsed(text: &str) -> Loaded {
        let loaded = parse("a.yaml", text, Path::new("conf")).unwrap();
        assert_eq!(loaded.problems, [], "{text}");
        loaded
    }

    fn refused(path: &Path) -> String {
        let report = match load(path) {
            Ok(loaded) => Report::new(loaded.problems, &loaded.document),
            Err(report) => report,
        };
        report.to_string().replace(&format!("{}", path.display()), "DIR")
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn values_mean_what_they_look_like_in_either_version_of_yaml() {
        let config = parsed(
            "version: '1'\n\
             listeners: { web: { address: '[::]:80', tls: { certificates: [{cert: a, key: b}], min_version: 1.3 } } }\n\
             upstreams:\n  a: { endpoints: app.example:80, tls: { verify: false } }\n\
             \x20 b: { endpoints: [{ address: 'unix:/run/a', weight: 3 }], tls: { verify: off } }\n\
             \x20 c: { endpoints: ['10.0.0.1:80'], tls: }\n\
             routes:\n  - { respond: { status: '503' }, match: { query: { version: 2, on: true }, paths: /a } }\n\
             plugins: [{ request_id: }]\n",
        )
        .config;
        let tls = |name: &str| config.upstreams[name].tls.clone().unwrap();
        assert_eq!(tls("a").verify, Some(VerifyConfig::Off));
        assert_eq!(tls("a"), tls("b"));
        assert_eq!(tls("c").verify, None, "a bare `tls:` is TLS with its defaults, not plain HTTP");
        let name = EndpointAddress::Name { host: "app.example".into(), port: 80 };
        assert_eq!(config.upstreams["a"].endpoints[0].address, name);
        assert_eq!(config.upstreams["b"].endpoints[0].weight, 3);
        assert_eq!(config.upstreams["b"].endpoints[0].address.to_string(), "unix:/run/a");
        assert_eq!(config.listeners["web"].tls.as_ref().unwrap().min_version, TlsVersion::Tls13);
        let route = &config.routes[0];
        assert_eq!(route.respond.as_ref().unwrap().status.code(), 503);
        assert_eq!(route.r#match.query["version"], TextMatchConfig::Exact("2".into()));
        assert_eq!(route.r#match.query["on"], TextMatchConfig::Exact("true".into()));
        assert_eq!(route.r#match.paths, [PathConfig::Prefix("/a".into())]);
        assert_eq!(config.plugins[0].config, Value::Mapping(serde_yaml::Mapping::new()));
    }

    #[test]
    fn a_merged_map_lends_what_the_map_has_not_itself() {
        let config = parsed(
            "version: 1\nupstreams:\n  a: &a { endpoints: 'a:1', connect_timeout: 1s }\n  b: &b { host: endpoint, endpoints: 'b:1' }\n  \
             c: { <<: [*a, *b], connect_timeout: 2s }\n",
        )
        .config;
        let c = &config.upstreams["c"];
        assert_eq!(c.endpoints[0].address.to_string(), "a:1");
        assert_eq!((c.connect_timeout.as_secs(), &c.host), (2, &crate::config::HostConfig::Endpoint));
    }

    #[test]
    fn a_path_is_found_or_else_its_nearest_known_parent() {
        let text = "version: 1\nroutes:\n  - name: a\n    respond: { status: 200 }\n  - name: b\n    respond:\n      body: x\n";
        let document = parsed(text).document;
        let route = |index| Place::root().key("routes").index(index);
        for (path, expected) in [
            (Place::root(), "a.yaml:1:1"),
            (Place::root().key("routes"), "a.yaml:2:1"),
            (route(1), "a.yaml:5:5"),
            (route(1).key("respond").key("body"), "a.yaml:7:7"),
            (route(0).key("respond").key("status"), "a.yaml:4:16"),
            (route(0).key("upstream").key("x"), "a.yaml:3:5"),
            (route(7), "a.yaml:2:1"),
            (Place::root().key("listeners").key("web"), "a.yaml:1:1"),
        ] {
            assert_eq!(document.position(&path).to_string(), expected, "{path}");
        }
    }

    #[test]
    fn a_document_knows_its_names_its_base_and_its_hash() {
        let text = "version: 1\nupstreams: { blue: { endpoints: [nowhere] }, green: 5 }\n";
        let document = parse("a.yaml", text, Path::new("")).unwrap().document;
        assert_eq!(document.keys_of("upstreams"), ["blue", "green"]);
        assert_eq!(document.keys_of("routes"), Vec::<String>::new());
        assert_eq!(document.base(), Path::new("."));
        let abc = parse("a.yaml", "version: 1\n", Path::new("conf")).unwrap().document;
        // printf 'version: 1\n' | sha256sum
        assert_eq!((abc.hash(), abc.hash().len()), (SHA_OF_VERSION_1, 12));
        assert_ne!(abc.hash(), document.hash());
    }

    const SHA_OF_VERSION_1: &str = "09bfcc6a14b8";

    #[test]
    fn the_files_of_a_folder_are_joined_in_name_order() {
        let folder = folder(&[
            ("20-routes.yaml", "version: 1\nroutes: [{ respond: {} }]\n"),
            ("10-base.yaml", "version: 1\nlisteners: { web: { address: '0.0.0.0:80' } }\n"),
            (".hidden.yaml", "not: read\n"),
            ("notes.yml", "not: read\n"),
        ]);
        fs::create_dir(folder.path().join("sub.yaml")).unwrap();
        let loaded = load(folder.path()).unwrap();
        assert_eq!(loaded.problems, []);
        assert_eq!((loaded.config.listeners.len(), loaded.config.routes.len()), (1, 1));
        let names: Vec<_> = loaded.document.files().iter().map(|file| file.file_name().unwrap()).collect();
        assert_eq!(names, ["10-base.yaml", "20-routes.yaml"]);
        assert_eq!(loaded.document.base(), folder.path());
    }

    #[test]
    fn what_is_wrong_across_the_files_of_a_folder_names_each_place() {
        for (files, expected) in [
            (
                vec![("a.yaml", "version: 1\nroutes: []\n"), ("b.yaml", "version: 1\n\nroutes: []\n")],
                "DIR/b.yaml:3:1  routes\nthe section `routes` stands in two files\n\
                 hint: join it to the one at `DIR/a.yaml:2:1`",
            ),
            (
                vec![("a.yaml", "routes: []\n"), ("b.yaml", "listeners: {}\n")],
                "DIR/a.yaml:1:1\n`version` is missing\nhint: begin the file with `version: 1`\n\n\
                 DIR/b.yaml:1:1\n`version` is missing\nhint: begin the file with `version: 1`",
            ),
            (
                vec![("a.yaml", "version: 1\nroutes: [}\n"), ("b.yaml", "{}\n")],
                "DIR/a.yaml:2:10  routes\na value is missing here\n\n\
                 DIR/b.yaml:1:1\n`version` is missing\nhint: begin the file with `version: 1`",
            ),
            (
                vec![("a.yml", "version: 1\n")],
                "DIR\nthe folder holds no `*.yaml` file\nhint: rename `a.yml` to `a.yaml`",
            ),
            (vec![], "DIR\nthe folder holds no `*.yaml` file"),
        ] {
            assert_eq!(refused(folder(&files).path()), expected);
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_one_sentence() {
        let folder = folder(&[]);
        let file = folder.path().join("a.yaml");
        assert_eq!(refused(&file), "DIR\nthere is no such file or folder");
        fs::write(&file, b"version: 1\n# caf\xe9\n").unwrap();
        assert_eq!(refused(&file), "DIR:2:6\nthis byte is not UTF-8\nhint: save the file as UTF-8");
        fs::write(&file, "#".repeat(MOST_BYTES_A_FILE as usize + 1)).unwrap();
        assert_eq!(
            refused(&file),
            "DIR\nthe file is larger than 4 MiB\nhint: split it into the files of a folder"
        );
        fs::remove_file(&file).unwrap();
        let comment = "#".repeat(MOST_BYTES_A_FILE as usize);
        for name in ["a.yaml", "b.yaml", "c.yaml", "d.yaml", "e.yaml"] {
            fs::write(folder.path().join(name), &comment).unwrap();
        }
        assert_eq!(refused(folder.path()), "DIR\nthe files of the folder hold more than 16 MiB");
    }

    #[test]
    fn after_a_hundred_problems_the_report_says_that_there_may_be_more() {
        let text = format!("version: 1\nroutes:\n{}", "  - 5\n".repeat(150));
        let report = parse("a.yaml", &text, Path::new("")).unwrap_err();
        assert_eq!(report.count(), 101);
        assert!(report.to_string().starts_with("a.yaml:1:1\nthere are 100 problems or more"));
    }

    #[test]
    fn the_schema_describes_every_section_and_leaves_plugins_open() {
        let schema = schemars::schema_for!(Config);
        let at = |pointer: &str| schema.pointer(pointer).unwrap_or_else(|| panic!("{pointer} in {schema:?}"));
        assert_eq!(at("/additionalProperties"), false);
        assert_eq!(at("/properties/plugins/items/$ref"), "#/$defs/Plugin");
        assert_eq!(at("/$defs/Plugin/maxProperties"), 1);
        assert_eq!(at("/$defs/RouteConfig/properties/match/$ref"), "#/$defs/MatchConfig");
        assert_eq!(at("/required"), &serde_json::json!(["version"]));
    }
}
