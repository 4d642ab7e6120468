//! The documentation as data: its code blocks and tables. What they claim is checked elsewhere.

use std::fs;
use std::path::PathBuf;

use serde_yaml::{Mapping, Value};
use vestibule_tests::certs::Certs;

use crate::auth::issuer::Issuer;
use crate::example::{Example, repository};

/// A page of the documentation.
pub struct Page {
    /// Its path in the repository.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

/// A fenced code block.
#[derive(Debug)]
pub struct Block {
    /// Where it begins, for messages.
    pub place: String,
    /// What stands behind the fence: `yaml`, `yaml wrong`, `text`, …
    pub kind: String,
    /// What stands in it.
    pub text: String,
}

impl Page {
    /// A page by its path in the repository.
    pub fn read(path: &str) -> Self {
        Self { path: path.into(), text: fs::read_to_string(repository().join(path)).unwrap() }
    }

    /// The README and every page of `docs`.
    pub fn all() -> Vec<Self> {
        let mut names = vec!["README.md".to_owned()];
        for entry in fs::read_dir(repository().join("docs")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                names.push(format!("docs/{name}"));
            }
        }
        names.iter().map(|name| Self::read(name)).collect()
    }

    /// Its code blocks, in order.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut is_open = false;
        for (number, line) in self.text.lines().enumerate() {
            match (line.strip_prefix("```"), is_open) {
                (Some(kind), false) => {
                    let place = format!("{}:{}", self.path.display(), number + 1);
                    blocks.push(Block { place, kind: kind.to_owned(), text: String::new() });
                    is_open = true;
                }
                (Some(_), true) => is_open = false,
                (None, true) => blocks.last_mut().unwrap().text += &format!("{line}\n"),
                (None, false) => {}
            }
        }
        blocks
    }

    /// Its one complete configuration that is not wrong; the first, where there are more.
    pub fn configuration(&self) -> Example {
        let blocks = self.blocks();
        let block = blocks.iter().find(|block| block.kind == "yaml" && block.text.starts_with("version: 1"));
        block.expect("a complete configuration").example()
    }

    /// The rows of the table whose head is this, as texts without their backticks.
    pub fn table(&self, head: &str) -> Vec<Vec<String>> {
        let mut lines = self.text.lines().skip_while(|line| *line != head);
        assert!(lines.next().is_some(), "{} has no table `{head}`", self.path.display());
        let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
        rows.map(|row| {
            let cells =
                row.trim_matches('|').split(" |").map(|cell| cell.trim().trim_matches('`').to_owned());
            cells.collect()
        })
        .collect()
    }
}

impl Block {
    /// The configuration that it is, or is a part of, with every file that it names.
    pub fn example(&self) -> Example {
        let parsed: Value =
            serde_yaml::from_str(&self.text).unwrap_or_else(|e| panic!("{}: {e}", self.place));
        let whole = match parsed {
            Value::Mapping(map) if map.contains_key("version") => self.text.clone(),
            part => serde_yaml::to_string(&completed(part)).unwrap(),
        };
        let mut example = Example::of_text(&whole);
        let certs = Certs::new();
        let ca = certs.authority("CA");
        // One pair for all: what is checked is that a certificate and its key belong together.
        let pair = certs.server(&ca, &["localhost"]);
        let crl = certs.crl(&ca, &[]);
        let token = certs.folder().join("token");
        fs::write(&token, "token").unwrap();
        let (keys, users) = (certs.folder().join("keys.json"), certs.folder().join("users.htpasswd"));
        fs::write(&keys, Issuer::new("one").keys()).unwrap();
        fs::write(&users, format!("alice:{}\n", bcrypt::hash("sesame", 4).unwrap())).unwrap();
        for (key, file) in files(&serde_yaml::from_str(&whole).unwrap()) {
            let from = match key.as_str() {
                "key" => &pair.key,
                "cert" => &pair.cert,
                "crl" => &crl,
                "token_file" => &token,
                "file" if file.ends_with(".json") => &keys,
                "file" if file.ends_with(".htpasswd") => &users,
                _ => &ca.cert,
            };
            example.file(&file, from);
        }
        example
    }
}

/// A part of a configuration within the least that makes it a whole one.
fn completed(part: Value) -> Value {
    const REST: &str = "{ version: 1, listeners: { web: { address: '127.0.0.1:80' } }, upstreams: \
                        { app: { endpoints: ['10.0.0.1:80'] }, blue: { endpoints: ['10.0.0.2:80'] }, \
                        green: { endpoints: ['10.0.0.3:80'] } } }";
    let mut whole: Mapping = serde_yaml::from_str(REST).unwrap();
    match part {
        Value::Mapping(sections) => whole.extend(sections),
        plugins => {
            let mut route: Mapping = serde_yaml::from_str("{ match: { paths: /p }, upstream: app }").unwrap();
            route.insert("plugins".into(), plugins);
            whole.insert("routes".into(), vec![Value::Mapping(route)].into());
        }
    }
    Value::Mapping(whole)
}

/// Every file that a configuration names, with the key that names it.
pub fn files(value: &Value) -> Vec<(String, String)> {
    match value {
        Value::Sequence(items) => items.iter().flat_map(files).collect(),
        Value::Mapping(map) => map
            .iter()
            .flat_map(|(key, value)| match (key.as_str(), value.as_str()) {
                (
                    Some(key @ ("cert" | "key" | "ca" | "crl" | "file" | "token_file" | "keys_file")),
                    Some(file),
                ) if file != "system" => {
                    vec![(key.to_owned(), file.to_owned())]
                }
                _ => files(value),
            })
            .collect(),
        _ => Vec::new(),
    }
}
