//! What `docs/admin.md` prints is what its commands print, at a gateway that runs the page's own file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use regex::Regex;
use tempfile::TempDir;
use vestibule_tests::client;
use vestibule_tests::gateway::{Gateway, binary};
use vestibule_tests::origin::Origin;
use vestibule_tests::ports;
use vestibule_tests::process::Process;
use vestibule_tests::real;

use super::eventually;
use crate::example::repository;
use crate::page::{Block, Page};

const PAGE: &str = "docs/admin.md";

/// The page's gateway, moved to ports that are free.
struct Moved {
    folder: TempDir,
    /// What the page says, and what stands in its place.
    places: Vec<(&'static str, String)>,
    process: Process,
}

impl Moved {
    fn start(page: &Page) -> Self {
        let blocks = page.blocks();
        let file = blocks.iter().find(|block| block.kind == "yaml" && block.text.starts_with("version: 1"));
        let here = || format!("127.0.0.1:{}", ports::free());
        let places = ["127.0.0.1:9901", "0.0.0.0:8080", "0.0.0.0:8443", "10.0.0.5:8080", "10.0.0.6:8080"];
        let places: Vec<_> = places.into_iter().map(|place| (place, here())).collect();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tls")).unwrap();
        let keys = repository().join("tests/golden/keys");
        for (from, to) in [("a.crt", "tls/web.crt"), ("a.key", "tls/web.key")] {
            fs::copy(keys.join(from), folder.path().join(to)).unwrap();
        }
        fs::write(folder.path().join("gateway.yaml"), moved(&file.unwrap().text, &places)).unwrap();
        let mut command = Command::new(binary());
        command.args(["run", "-c", "gateway.yaml"]).current_dir(&folder).env("RUST_LOG", "info");
        let process = Process::spawn("gateway", &mut command);
        process.wait_for("ready: listening on");
        Self { folder, places, process }
    }

    fn port(&self, place: &str) -> u16 {
        let (_, moved) = self.places.iter().find(|(known, _)| *known == place).unwrap();
        moved.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// The commands of a block with what they print, in the page's own terms.
    fn transcript(&self, block: &Block) -> String {
        let commands: Vec<&str> = block.text.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
        assert!(!commands.is_empty(), "{} has no command", block.place);
        let told = commands.iter().map(|command| format!("$ {command}\n{}", self.run(command)));
        told.collect::<Vec<_>>().join("\n")
    }

    fn run(&self, command: &str) -> String {
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        let (vestibule, curl) = (quoted(&binary()), quoted(&real::program("curl")));
        // The command line asks at the default address, which here is another one.
        let admin = moved("http://127.0.0.1:9901", &self.places);
        let functions = format!(
            "curl() {{ {curl} \"$@\"; }}; \
             vestibule() {{ case $1 in reload|promote|abort|rollback) set -- \"$@\" --admin {admin};; esac; {vestibule} \"$@\"; }}"
        );
        let mut shell = Command::new("sh");
        let program = format!("{functions}; {}", moved(command, &self.places));
        let out =
            shell.args(["-c", &program]).current_dir(&self.folder).env("RUST_LOG", "error").output().unwrap();
        let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        self.places.iter().fold(text, |text, (place, moved)| text.replace(moved, place))
    }
}

fn moved(text: &str, places: &[(&str, String)]) -> String {
    places.iter().fold(text.to_owned(), |text, (place, moved)| text.replace(place, moved))
}

/// The text without what differs from one run to the next: times, durations, and hashes of a file with other ports.
fn masked(text: &str) -> String {
    let masks = [
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "TIME"),
        (r#""duration_ms": [0-9.]+"#, "DURATION"),
        (r#""expires_in_days": \d+"#, "DAYS"),
        (r#""seconds_left": \d+"#, "LEFT"),
        (r#""version": "[0-9.]+""#, "VERSION"),
        (r"\b[0-9a-f]{12}\b", "HASH"),
        (r"_seconds ?[0-9.e-]+", "SECONDS"),
    ];
    masks.iter().fold(text.to_owned(), |text, (mask, word)| {
        Regex::new(mask).unwrap().replace_all(&text, *word).into_owned()
    })
}

#[test]
fn the_page_prints_what_its_commands_print() {
    let page = Page::read(PAGE);
    let gateway = Moved::start(&page);
    let port = gateway.port("0.0.0.0:8080");
    assert_eq!(client::get(port, "app.example.com", "/").status, 502);
    gateway.process.wait_for("\"status\":502");
    let mut blessed = page.text.clone();
    let blocks = page.blocks();
    let consoles: Vec<_> = blocks.iter().filter(|block| block.kind == "console").collect();
    assert!(consoles.len() >= 8);
    let mut wrong = Vec::new();
    for block in consoles {
        let told = gateway.transcript(block);
        if masked(&told) != masked(&block.text) {
            wrong.push(format!("{}\n{told}", block.place));
            blessed = blessed.replace(&block.text, &told);
        }
    }
    if std::env::var("VESTIBULE_BLESS").is_ok_and(|value| value == "1") {
        return fs::write(repository().join(PAGE), blessed).unwrap();
    }
    assert!(wrong.is_empty(), "out of date; it would be\n{}", wrong.join("\n"));
}

#[test]
fn the_page_lists_every_metric_with_its_labels() {
    let page = Page::read(PAGE);
    let gateway = Moved::start(&page);
    let (admin, port) = (gateway.port("127.0.0.1:9901"), gateway.port("0.0.0.0:8080"));
    assert_eq!(client::get(port, "app.example.com", "/").status, 502);
    // One handshake that succeeds and one that fails, so that both have their series.
    let tls = gateway.port("0.0.0.0:8443");
    let any = client::ClientTls::default();
    assert_eq!(client::Client::tls(tls, &any).unwrap().get("app.example.com", "/").status, 502);
    let mut plain = client::Client::plain(tls);
    plain.send("GET / HTTP/1.1\r\n\r\n");
    let _ = plain.to_end();

    let rows = page.table("| metric | labels | counts |");
    let expected: BTreeMap<String, BTreeSet<String>> = rows
        .iter()
        .map(|row| {
            let labels = row[1].split(", ").map(|label| label.trim_matches('`').to_owned());
            (row[0].clone(), labels.filter(|label| !label.is_empty()).collect())
        })
        .collect();
    // The page's own file has nothing at layer 4.
    let (origin, [other_admin, passing, refusing]) = (Origin::echo(), [0; 3].map(|_| ports::free()));
    let _other = Gateway::start(&format!(
        "version: 1\nadmin: {{ address: \"127.0.0.1:{other_admin}\" }}\nlisteners:\n  \
         passing: {{ address: \"127.0.0.1:{passing}\", tcp: {{ upstream: u }} }}\n  \
         refusing: {{ address: \"127.0.0.1:{refusing}\", tcp: {{ by_sni: {{ a.test: u }} }} }}\n\
         upstreams: {{ u: {{ endpoints: [\"{}\"] }} }}\n",
        origin.address()
    ));
    assert_eq!(client::get(passing, "a.test", "/").status, 200);
    let mut plain = client::Client::plain(refusing);
    plain.send("GET / HTTP/1.1\r\n\r\n");
    let _ = plain.to_end();
    let families = || -> BTreeMap<String, BTreeSet<String>> {
        let text =
            [admin, other_admin].map(|admin| client::get(admin, "localhost", "/metrics").text()).concat();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let own = types.filter(|name| name.starts_with("vestibule_"));
        own.map(|name| {
            let sample = text.lines().find(|line| line.starts_with(name)).unwrap();
            let labels = sample.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
            let labels = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            (name.to_owned(), labels.filter(|label| label != "le").collect())
        })
        .collect()
    };
    eventually("every family is there", || families().len() >= expected.len());
    assert_eq!(families(), expected);
}
