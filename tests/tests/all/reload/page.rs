//! The page on reloading, command by command, on a gateway that runs.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use vestibule_tests::gateway::binary;
use vestibule_tests::origin::{Answer, Origin, Reply};
use vestibule_tests::ports;
use vestibule_tests::process::Process;
use vestibule_tests::real;

use crate::example::repository;
use crate::explain::compare;
use crate::page::Page;

#[test]
fn the_blue_green_walk_through_does_what_it_prints() {
    let [blue, green] = ["blue\n", "green\n"].map(|name| Origin::script(|_| Answer::Reply(Reply::ok(name))));
    let of = |origin: &Origin| origin.address().rsplit(':').next().unwrap().to_owned();
    // Each port of the page, and the one that stands for it here.
    let moved = [
        ("8080", ports::free().to_string()),
        ("9901", ports::free().to_string()),
        ("9001", of(&blue)),
        ("9002", of(&green)),
    ];
    let there =
        |text: &str| moved.iter().fold(text.to_owned(), |text, (page, here)| text.replace(page, here));
    let back = |text: &str| moved.iter().fold(text.to_owned(), |text, (page, here)| text.replace(here, page));

    let page = Page::read("docs/reload.md");
    let blocks = page.blocks();
    let of_kind = |kind: &str| &blocks.iter().find(|block| block.kind == kind).unwrap().text;
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("conf");
    fs::create_dir(&conf).unwrap();
    let admin = format!("admin: {{ address: \"127.0.0.1:{}\" }}", moved[1].1);
    let gateway = there(of_kind("yaml gateway")).replace("admin: {}", &admin);
    fs::write(conf.join("gateway.yaml"), gateway).unwrap();
    fs::write(conf.join("routes.yaml"), of_kind("yaml routes")).unwrap();
    let mut command = Command::new(binary());
    command.args(["run", "-c", "conf"]).current_dir(&folder).env("RUST_LOG", "info");
    let process = Process::spawn("vestibule", &mut command);
    process.wait_for("ready: listening on");

    let mut text = page.text.clone();
    for block in blocks.iter().filter(|block| block.kind == "console") {
        let commands = block.text.lines().filter_map(|line| line.strip_prefix("$ "));
        let told = commands.map(|command| {
            let run = there(command).replace("admin: {}", &admin.replace('"', "\\\""));
            // Where the page trusts the default, the test has another port.
            let program = format!(
                "vestibule() {{ command=$1; shift; {:?} $command --admin http://127.0.0.1:{} \"$@\"; }}\n\
                 curl() {{ {:?} \"$@\"; }}\n{run}",
                binary().display().to_string(),
                moved[1].1,
                real::program("curl").display().to_string(),
            );
            let out = Command::new("sh")
                .args(["-c", &program])
                .current_dir(&folder)
                .env("RUST_LOG", "error")
                .output()
                .unwrap();
            let [out, err] = [out.stdout, out.stderr].map(|text| back(&String::from_utf8_lossy(&text)));
            format!("$ {command}\n{out}{err}")
        });
        text = text.replace(&block.text, &told.collect::<Vec<_>>().join("\n"));
    }
    // The hashes are those of other ports; which of them are the same must be so.
    let (held, now) = (without_hashes(&page.text), without_hashes(&text));
    if held != now {
        compare(&repository().join(&page.path), &page.text, &text);
    }
}

/// The text with each hash of a configuration as its number.
fn without_hashes(text: &str) -> String {
    let mut known = BTreeMap::new();
    let is_word = |letter: char| letter.is_ascii_alphanumeric();
    let words = text.split_inclusive(|letter| !is_word(letter));
    let told = words.map(|word| {
        let bare = word.trim_end_matches(|letter| !is_word(letter));
        let is_hash = bare.len() == 12 && bare.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match is_hash {
            true => {
                let number = known.len();
                let number = *known.entry(bare.to_owned()).or_insert(number);
                word.replace(bare, &format!("hash-{number}"))
            }
            false => word.to_owned(),
        }
    });
    told.collect()
}
