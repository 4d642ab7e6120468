//! `vestibule explain` and `vestibule test` against the gateway that runs, and their words against the page and the
//! golden files that print them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fastrand::Rng;
use serde_json::{Value, json};
use tempfile::TempDir;
use vestibule_tests::client::{Client, Response};
use vestibule_tests::gateway::{Gateway, binary};
use vestibule_tests::origin::{Origin, Reply};
use vestibule_tests::ports;

use crate::example::repository;
use crate::page::{Block, Page};
use crate::random::{Sent, table};

/// How many random tables there are, and requests for each.
const TABLES: u64 = 20;
const REQUESTS: usize = 500;

#[test]
fn explain_and_the_gateway_agree_on_random_requests_against_random_tables() {
    let seed = std::env::var("VESTIBULE_SEED").ok().and_then(|seed| seed.parse().ok());
    let first: u64 = seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let tables = if seed.is_some() { 1 } else { TABLES };
    let origins: Vec<Origin> = ["a", "b", "c"].into_iter().map(named).collect();
    let reached: Vec<Reached> = (0..tables).map(|table| agree(first + table, &origins)).collect();
    let sum = |count: fn(&Reached) -> usize| reached.iter().map(count).sum::<usize>();
    let (forwarded, answered, refused) =
        (sum(|it| it.forwarded), sum(|it| it.answered), sum(|it| it.refused));
    eprintln!("seeds from {first}: {forwarded} forwarded, {answered} answered, {refused} refused");
    // Tables and requests that never meet would agree on nothing.
    let least = REQUESTS * tables as usize / 20;
    assert!(forwarded > least && answered > least && refused > least, "{forwarded} {answered} {refused}");
}

/// How often which end was reached.
#[derive(Default)]
struct Reached {
    forwarded: usize,
    answered: usize,
    refused: usize,
}

fn agree(seed: u64, origins: &[Origin]) -> Reached {
    let told = |what: &str| format!("{what}\nto see it again: VESTIBULE_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let listeners = [("web", ports::free()), ("other", ports::free())];
    let addresses: Vec<String> = origins.iter().map(Origin::address).collect();
    let yaml = table(&mut rng, &listeners, &addresses);
    let sent: Vec<Sent> = (0..REQUESTS).map(|_| Sent::random(&mut rng)).collect();

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("gateway.yaml"), &yaml).unwrap();
    let cases: Vec<Value> = sent.iter().map(|sent| sent.case()).collect();
    fs::write(folder.path().join("cases.yaml"), serde_yaml::to_string(&cases).unwrap()).unwrap();
    let out =
        vestibule(&folder, &["explain", "--all", "cases.yaml", "--format", "json", "-c", "gateway.yaml"]);
    assert!(out.status.success(), "{}", told(&format!("{}\n{yaml}", String::from_utf8_lossy(&out.stderr))));
    let explained: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(explained.len(), sent.len());

    let _gateway = Gateway::start(&yaml);
    let mut reached = Reached::default();
    let mut clients = listeners.map(|(_, port)| Client::plain(port));
    for (sent, explained) in sent.iter().zip(&explained) {
        let at = usize::from(sent.listener != listeners[0].0);
        // The engine does not keep a connection after each of these.
        let mut fresh = sent.is_odd().then(|| Client::plain(listeners[at].1));
        let client = fresh.as_mut().unwrap_or(&mut clients[at]);
        let response = client.send(sent.bytes()).response();
        if response.header("connection") == Some("close") && !sent.is_odd() {
            // A request that is refused ends its connection.
            clients[at] = Client::plain(listeners[at].1);
        }
        let differ = match explained["outcome"].as_str() {
            Some("forwarded") => {
                reached.forwarded += 1;
                forwarded(explained, &response)
            }
            Some("answered") => {
                reached.answered += 1;
                answered(explained, &response)
            }
            _ => {
                reached.refused += 1;
                let status = json!(response.status);
                (explained["status"] != status).then(|| format!("status {status}"))
            }
        };
        let text = String::from_utf8_lossy(&sent.bytes()).into_owned();
        assert!(
            differ.is_none(),
            "{}",
            told(&format!(
                "{}\nof\n{text}explained as\n{explained:#}\nby\n{yaml}",
                differ.unwrap_or_default()
            ))
        );
    }
    reached
}

/// What of an upstream's answer is not as explained.
fn forwarded(explained: &Value, response: &Response) -> Option<String> {
    if response.status != 200 || response.header("x-route") != explained["route"].as_str() {
        return Some(format!("{response:?}"));
    }
    let seen = response.json();
    let parts = explained["upstreams"].as_array()?;
    let part = parts.iter().find(|part| part["upstream"]["name"] == seen["origin"] && part["weight"] != 0);
    let Some(part) = part else { return Some(format!("it went to {}", seen["origin"])) };
    let mut headers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for field in part["headers"].as_array()? {
        headers.entry(field[0].as_str()?).or_default().push(field[1].as_str()?);
    }
    let headers: BTreeMap<&str, String> =
        headers.into_iter().map(|(name, all)| (name, all.join(", "))).collect();
    let is_same = part["target"] == seen["target"] && json!(headers) == seen["headers"];
    (!is_same).then(|| format!("the origin saw {seen:#}"))
}

/// What of the gateway's own answer is not as explained.
fn answered(explained: &Value, response: &Response) -> Option<String> {
    let fields = explained["headers"].as_array()?;
    let is_there =
        |field: &Value| response.header(field[0].as_str().unwrap_or_default()) == field[1].as_str();
    let is_same = explained["status"] == json!(response.status)
        && response.header("x-route") == explained["route"].as_str()
        && response.header("location") == explained["location"].as_str()
        && fields.iter().all(is_there)
        && explained["body_bytes"] == json!(response.body.len());
    (!is_same).then(|| format!("{response:?}"))
}

/// An origin that tells its name, and what it was asked.
fn named(name: &'static str) -> Origin {
    Origin::script(move |request| {
        let mut headers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, value) in &request.headers {
            headers.entry(name).or_default().push(value);
        }
        let headers: BTreeMap<&str, String> =
            headers.into_iter().map(|(name, values)| (name, values.join(", "))).collect();
        Reply::json(&json!({ "origin": name, "target": request.target, "headers": headers })).into()
    })
}

#[test]
fn explain_names_the_host_the_sni_and_the_names_that_the_documentation_does() {
    let page = Page::read("docs/upstream-tls.md");
    let blocks = page.blocks();
    let block = blocks.iter().find(|block| block.kind == "yaml" && block.text.starts_with("version: 1"));
    let folder = folder_of(&block.unwrap().text);
    let rows = page.table("| upstream | Host | SNI | verified |");
    assert!(rows.len() >= 4);
    for row in rows {
        let url = format!("http://shop.example.com:8080/{}", row[0]);
        let out = vestibule(&folder, &["explain", "GET", &url, "-c", "gateway.yaml", "--format", "json"]);
        let explained: Value = serde_json::from_slice(&out.stdout).unwrap();
        let endpoint = &explained["upstreams"][0]["endpoints"][0];
        let sni = endpoint["sni"].as_str().unwrap_or_default();
        let told = (endpoint["host"].as_str(), sni, endpoint["verified"][0].as_str());
        assert_eq!(told, (Some(&*row[1]), &*row[2], Some(&*row[3])), "{row:?}");
    }
}

#[test]
fn the_page_prints_what_the_commands_print() {
    let page = Page::read("docs/explain.md");
    let blocks = page.blocks();
    let of_kind = |kind: &str| blocks.iter().filter(|block| block.kind == kind).collect::<Vec<_>>();
    let folder = folder_of(&of_kind("yaml")[0].text);
    fs::write(folder.path().join("cases.yaml"), &of_kind("yaml cases")[0].text).unwrap();
    let consoles = of_kind("console");
    assert!(consoles.len() >= 4);
    let mut text = page.text.clone();
    for block in consoles {
        text = text.replace(&block.text, &transcript(&folder, block));
    }
    compare(&repository().join(&page.path), &page.text, &text);
}

#[test]
fn explanations_and_refusals_are_told_in_exactly_these_words() {
    let (golden, folder) = golden();
    let mut count = 0;
    for entry in fs::read_dir(&golden).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "console") {
            let text = fs::read_to_string(&path).unwrap();
            let place = path.display().to_string();
            let block = Block { place, kind: "console".into(), text: text.clone() };
            compare(&path, &text, &transcript(&folder, &block));
            count += 1;
        }
    }
    assert!(count >= 4, "only {count} transcripts");
}

#[test]
fn test_ends_with_1_where_a_case_differs_and_with_0_where_none_does() {
    let (_, folder) = golden();
    for (cases, status) in [("good.yaml", 0), ("different.yaml", 1), ("wrong.yaml", 1)] {
        let out = vestibule(&folder, &["test", "-c", "gateway.yaml", cases]);
        assert_eq!(out.status.code(), Some(status), "{cases}: {out:?}");
    }
}

/// The golden files, and a folder with the configuration and the cases among them.
fn golden() -> (PathBuf, TempDir) {
    let golden = repository().join("tests/golden/explain");
    let folder = folder_of(&fs::read_to_string(golden.join("gateway.yaml")).unwrap());
    for entry in fs::read_dir(&golden).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    (golden, folder)
}

/// A configuration in a folder of its own, with the one certificate that always is the same wherever it names a file.
pub fn folder_of(yaml: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("gateway.yaml"), yaml).unwrap();
    let keys = repository().join("tests/golden/keys");
    for word in yaml.split(|c: char| c.is_whitespace() || ",{}[]".contains(c)) {
        let from = match Path::new(word).extension().and_then(|end| end.to_str()) {
            Some("crt") => "a.crt",
            Some("key") => "a.key",
            _ => continue,
        };
        let to = folder.path().join(word);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(keys.join(from), to).unwrap();
    }
    folder
}

/// The same commands with what they print now.
pub fn transcript(folder: &TempDir, block: &Block) -> String {
    let commands: Vec<&str> = block.text.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    assert!(!commands.is_empty(), "{} has no command", block.place);
    let told = commands.iter().map(|command| {
        let program = format!("vestibule() {{ {:?} \"$@\"; }}; {command}", binary().display().to_string());
        let mut shell = Command::new("sh");
        let out = shell.args(["-c", &program]).current_dir(folder).env("RUST_LOG", "error").output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        format!("$ {command}\n{stdout}{stderr}")
    });
    told.collect::<Vec<_>>().join("\n")
}

pub fn vestibule(folder: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(folder).env("RUST_LOG", "error").output().unwrap()
}

/// Fails where a file does not hold this text; writes it there where `VESTIBULE_BLESS=1`.
pub fn compare(file: &Path, held: &str, expected: &str) {
    if std::env::var("VESTIBULE_BLESS").is_ok_and(|value| value == "1") {
        return fs::write(file, expected).unwrap();
    }
    assert!(held == expected, "{} is out of date; it would be\n{expected}", file.display());
}
