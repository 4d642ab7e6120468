//! `vestibule plan` in the words of its golden files and its page, against files and against an admin endpoint.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;
use vestibule_tests::origin::{Origin, Reply};

use crate::example::repository;
use crate::explain::{compare, folder_of, transcript, vestibule};
use crate::page::{Block, Page};

#[test]
fn plans_are_told_in_exactly_these_words() {
    let (golden, folder) = golden();
    let mut count = 0;
    for entry in fs::read_dir(&golden).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "console") {
            let text = fs::read_to_string(&path).unwrap();
            let block =
                Block { place: path.display().to_string(), kind: "console".into(), text: text.clone() };
            let told = transcript(&folder, &block);
            for secret in ["first-7d1f", "other-9c2e"] {
                assert!(!told.contains(secret), "{told}");
            }
            compare(&path, &text, &told);
            count += 1;
        }
    }
    assert!(count >= 4, "only {count} transcripts");
}

#[test]
fn each_request_of_a_plan_goes_where_explain_says_that_it_does() {
    let (_, folder) = golden();
    let out = vestibule(&folder, &["plan", "-c", "new.yaml", "--from", "old.yaml", "--format", "json"]);
    let plan: Value = serde_json::from_slice(&out.stdout).unwrap();
    let moved = plan["requests"]["moved"].as_array().unwrap();
    assert!(moved.len() >= 5, "{plan:#}");
    for detour in moved {
        let request = &detour["request"];
        let mut arguments =
            vec!["explain", request["method"].as_str().unwrap(), request["url"].as_str().unwrap()];
        let headers: Vec<String> = request["headers"].as_array().unwrap().iter().map(header).collect();
        headers.iter().for_each(|header| arguments.extend(["-H", header.as_str()]));
        arguments.extend(request["listener"].as_str().into_iter().flat_map(|name| ["--listener", name]));
        for (file, side) in [("old.yaml", "old"), ("new.yaml", "new")] {
            let arguments = [arguments.as_slice(), &["--format", "json", "-c", file]].concat();
            let out = vestibule(&folder, &arguments);
            let told: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{out:?}"));
            let route = &detour[side]["route"];
            assert_eq!(&told["route"], route, "{file} {detour:#}");
        }
    }
}

fn header(field: &Value) -> String {
    format!("{}: {}", field[0].as_str().unwrap(), field[1].as_str().unwrap())
}

#[test]
fn the_page_prints_what_plan_prints() {
    let page = Page::read("docs/plan.md");
    let blocks = page.blocks();
    let files: Vec<_> = blocks.iter().filter(|block| block.kind == "yaml").collect();
    let folder = folder_of(&files[0].text);
    fs::write(folder.path().join("new.yaml"), &files[1].text).unwrap();
    let consoles: Vec<_> = blocks.iter().filter(|block| block.kind == "console").collect();
    assert!(consoles.len() >= 2);
    let mut text = page.text.clone();
    for block in consoles {
        text = text.replace(&block.text, &transcript(&folder, block));
    }
    compare(&repository().join(&page.path), &page.text, &text);
}

#[test]
fn the_gateway_that_runs_is_asked_with_its_token() {
    const TOKEN: &str = "t0ken-5f0a";
    let running = json!({
        "hash": "0123456789ab",
        "files": ["/etc/vestibule/gateway.yaml"],
        "tree": {
            "version": 1,
            "listeners": { "web": { "address": "0.0.0.0:8080" } },
            "upstreams": { "blue": { "endpoints": ["10.0.0.7:8080"] } },
            "routes": [{ "name": "all", "upstream": "blue" }],
        },
        "certificates": [], "policies": {}, "bodies": {},
    });
    let endpoint =
        Origin::script(move |request| match (request.target.as_str(), request.header("authorization")) {
            ("/config", Some(shown)) if shown == format!("Bearer {TOKEN}") => {
                Reply::json(&json!({ "described": running, "more": 1 })).into()
            }
            _ => Reply::new(401, "").into(),
        });
    let (_, folder) = golden();
    fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
    let url = format!("http://{}", endpoint.address());
    let plan =
        |more: &[&str]| told(&folder, &[&["plan", "-c", "one.yaml", "--admin", url.as_str()], more].concat());

    let (code, text) = plan(&["--token-file", "token", "--exit-code"]);
    assert_eq!(code, Some(2), "{text}");
    for line in [
        "/etc/vestibule/gateway.yaml (0123456789ab) -> one.yaml (",
        "      endpoints[0]: 10.0.0.7:8080 -> 10.0.0.1:8080",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains(TOKEN) && !text.contains("routes"), "{text}");
    let (code, text) = plan(&[]);
    assert_eq!(code, Some(1));
    assert!(text.contains("`admin:`") || text.contains("--token-file FILE"), "{text}");
}

#[test]
fn what_an_admin_endpoint_says_of_a_problem_is_passed_on() {
    let (_, folder) = golden();
    for (reply, expected) in [
        (
            Reply::new(503, json!({ "title": "no", "detail": "no snapshot serves yet" }).to_string()),
            "no snapshot serves yet",
        ),
        (Reply::new(404, "no such page"), "the admin endpoint answers with 404"),
        (Reply::json(&json!({})), "the admin endpoint does not describe its configuration"),
        (Reply::json(&json!({ "described": [] })), "describes its configuration in another form"),
        (
            Reply::json(&json!({ "described": { "hash": "h", "files": [], "tree": { "versoin": 1 } } })),
            "the configuration h is not one of this version's: versoin: unknown key `versoin`",
        ),
    ] {
        let endpoint = Origin::script(move |_| reply.clone().into());
        let url = format!("http://{}", endpoint.address());
        let (code, text) = told(&folder, &["plan", "-c", "one.yaml", "--admin", &url]);
        assert!(code == Some(1) && text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn a_certificate_with_another_content_is_told_though_no_key_differs() {
    let (_, folder) = golden();
    let other = folder.path().join("other");
    fs::create_dir_all(other.join("tls")).unwrap();
    fs::copy(folder.path().join("old.yaml"), other.join("old.yaml")).unwrap();
    for name in ["web", "ca", "gw"] {
        fs::copy(folder.path().join("tls/next.crt"), other.join(format!("tls/{name}.crt"))).unwrap();
        fs::copy(folder.path().join("tls/next.key"), other.join(format!("tls/{name}.key"))).unwrap();
    }
    let (code, text) = told(&folder, &["plan", "-c", "other/old.yaml", "--from", "old.yaml", "--exit-code"]);
    assert_eq!(code, Some(2), "{text}");
    for line in [
        "  ~ web-tls  https 0.0.0.0:8443\n      the next handshake is served with the new certificates",
        "  ~ secure  10.0.0.3:8443 over TLS\n      a certificate, CA or revocation list, or a route's own `tls`, is another one: the next",
        "  ~ listeners.web-tls  certificate CN=a.test",
        "  ~ upstreams.secure  client certificate CN=a.test",
        "  ~ upstreams.secure  CA CN=a.test",
        "      warning: the new one expires sooner",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("routes\n"), "{text}");
}

/// The exit code, and all that is printed.
fn told(folder: &TempDir, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = vestibule(folder, arguments);
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

/// The golden files, and a folder with the configurations among them and their certificates: `next` is another one.
fn golden() -> (PathBuf, TempDir) {
    let golden = repository().join("tests/golden/plan");
    let folder = folder_of(&fs::read_to_string(golden.join("old.yaml")).unwrap());
    for entry in fs::read_dir(&golden).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let others = repository().join("tests/golden/warnings/keys");
    fs::copy(others.join("two-weeks.crt"), folder.path().join("tls/next.crt")).unwrap();
    fs::copy(others.join("a.key"), folder.path().join("tls/next.key")).unwrap();
    (golden, folder)
}
