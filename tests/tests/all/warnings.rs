//! Warnings of `check` and `run`, as the binary gives them: where they go, what they are worth, and that what is
//! shipped gives none. Their exact words are under `golden`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use vestibule_tests::certs::Certs;
use vestibule_tests::gateway::{Gateway, binary};
use vestibule_tests::ports;

use crate::example::repository;
use crate::page::{Block, Page, files};

const DOUBTFUL: &str = "version: 1\nlisteners: { web: { address: '127.0.0.1:PORT' } }\n\
    upstreams:\n  legacy: { endpoints: ['127.0.0.1:9'], tls: { verify: off } }\n  spare: { endpoints: ['127.0.0.1:9'] }\n\
    routes: [{ upstream: legacy }]\n";

fn check(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(["check", "-c", "gateway.yaml"]).args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_warning_refuses_nothing_unless_warnings_are_denied() {
    let folder = tempfile::tempdir().unwrap();
    let write = |yaml: &str| fs::write(folder.path().join("gateway.yaml"), yaml).unwrap();
    let doubtful = DOUBTFUL.replace("PORT", "80");
    write(&doubtful);

    let told = check(folder.path(), &[]);
    let (out, err) = (text(&told.stdout), text(&told.stderr));
    assert_eq!(told.status.code(), Some(0), "{err}");
    assert_eq!(err.matches("\nwarning: ").count(), 2, "{err}");
    assert!(
        out.starts_with("gateway.yaml: good: 1 listener, 1 route, 2 upstreams, 2 warnings (config "),
        "{out}"
    );

    let denied = check(folder.path(), &["--deny-warnings"]);
    let last = "gateway.yaml: refused, as `--deny-warnings` says, 2 warnings\n";
    assert_eq!(denied.status.code(), Some(1));
    assert_eq!((text(&denied.stdout), text(&denied.stderr)), (String::new(), format!("{err}{last}")));

    write(
        &doubtful
            .replace(", tls: { verify: off }", "")
            .replace("  spare: { endpoints: ['127.0.0.1:9'] }\n", ""),
    );
    let good = check(folder.path(), &["--deny-warnings"]);
    assert_eq!((good.status.code(), text(&good.stderr)), (Some(0), String::new()));
    assert!(text(&good.stdout).contains("1 upstream (config "), "no warnings, and none are counted");

    // A problem is told alone: what else the file says may have another sense once it is mended.
    write(&doubtful.replace("routes: [{ upstream: legacy }]", "routes: [{ upstream: nobody }]"));
    let wrong = check(folder.path(), &[]);
    assert_eq!((wrong.status.code(), text(&wrong.stderr).contains("warning: ")), (Some(1), false));
}

#[test]
fn a_start_tells_its_warnings_in_the_log() {
    let gateway = Gateway::start(&DOUBTFUL.replace("PORT", &ports::free().to_string()));
    let log = gateway.stderr();
    for told in [
        "gateway.yaml:4:48  upstreams.legacy.tls.verify: `verify: off`: anybody in between can pose as the upstream `legacy`; name the CA",
        "gateway.yaml:5:3  upstreams.spare: nothing leads to the upstream `spare`; remove it",
    ] {
        let line = log.lines().find(|line| line.contains(told));
        assert!(line.is_some_and(|line| line.contains("WARN")), "{told} is not in\n{log}");
    }
}

#[test]
fn what_is_shipped_and_documented_gives_no_warning_but_a_meant_one() {
    let mut shipped = Vec::new();
    let folder = repository().join("conf");
    for path in [folder.clone(), folder.join("examples")] {
        for entry in fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            // The routes of the folder are checked as one with the rest of it, below.
            if path.extension().is_some_and(|end| end == "yaml") && path.parent() != Some(&folder) {
                let place = path.display().to_string();
                shipped.push(Block { place, kind: "yaml".into(), text: fs::read_to_string(path).unwrap() });
            }
        }
    }
    let pages: Vec<_> =
        Page::all().iter().flat_map(Page::blocks).filter(|block| block.kind == "yaml").collect();
    // A part of a configuration stands beside upstreams that it does not use.
    shipped.extend(pages.into_iter().filter(|block| block.text.starts_with("version: 1")));
    assert!(shipped.len() >= 20, "only {} were found", shipped.len());
    let own_plugin = |block: &Block| block.text.contains("maintenance:");
    for block in shipped.iter().filter(|block| !own_plugin(block)) {
        let told = block.example().check(&binary());
        let err = text(&told.stderr);
        // What lends its certificate to everybody on purpose says so.
        let lent =
            |line: &&str| line.contains("for everybody") && block.text.contains("# Anybody who reaches");
        let warnings = err.lines().filter(|line| line.starts_with("warning: "));
        let warnings: Vec<_> = warnings.filter(|line| !lent(line)).collect();
        // The page shows which route a request does not take.
        let expected: &[&str] = match block.text.contains("name: numbered") {
            true => &[
                "warning: the route `numbered` never gets a request: `api` (line 9) ranks before it and takes all that it matches",
            ],
            false => &[],
        };
        assert_eq!((told.status.code(), warnings.as_slice()), (Some(0), expected), "{}: {err}", block.place);
    }
    let told = Command::new(binary()).args(["check", "-c"]).arg(&folder).output().unwrap();
    assert_eq!((told.status.code(), text(&told.stderr)), (Some(0), String::new()));
}

#[test]
fn every_doubtful_configuration_in_the_documentation_is_warned_of_as_printed_below_it() {
    let mut count = 0;
    for page in Page::all() {
        let blocks = page.blocks();
        for (block, next) in
            blocks.iter().zip(blocks.iter().skip(1)).filter(|(block, _)| block.kind == "yaml warned")
        {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("gateway.yaml"), &block.text).unwrap();
            write_files(folder.path(), &block.text);
            let told = check(folder.path(), &[]);
            assert_eq!(text(&told.stderr), next.text, "{}", next.place);
            assert_eq!(told.status.code(), Some(0), "{}", block.place);
            let last = text(&told.stdout);
            let warnings = next.text.matches("\nwarning: ").count();
            assert!(last.contains(&format!(" {warnings} warning")), "{last}");
            if count == 0 {
                assert!(page.text.contains(last.trim_end()), "the last line is {last}");
            }
            count += 1;
        }
    }
    assert!(count >= 8, "only {count} were found");
}

/// The certificates and keys that a configuration names, in the state that their names tell.
fn write_files(folder: &Path, yaml: &str) {
    use std::os::unix::fs::PermissionsExt;

    let certs = Certs::new();
    let ca = certs.authority("CA");
    let pair = match yaml.contains("expired.crt") {
        true => certs.expired(&ca, &["localhost"]),
        false => certs.server(&ca, &["localhost"]),
    };
    for (key, file) in files(&serde_yaml::from_str(yaml).unwrap()) {
        let to = folder.join(&file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(if key == "key" { &pair.key } else { &pair.cert }, &to).unwrap();
        if file.contains("readable") {
            fs::set_permissions(&to, fs::Permissions::from_mode(0o644)).unwrap();
        }
    }
}
