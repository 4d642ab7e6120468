//! What the documentation says that its examples do, done by the gateway's own binary.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};
use vestibule_tests::certs::{Authority, Certs};
use vestibule_tests::client::{Client, ClientTls, get};
use vestibule_tests::gateway::binary;
use vestibule_tests::origin::{Answer, Origin, OriginTls, Reply};

use crate::example::{Example, Running, seen};
use crate::examples::echo;
use crate::page::{Block, Page};

#[test]
fn routing_takes_the_route_that_its_page_names() {
    let page = Page::read("docs/routing.md");
    let example = page.configuration();
    let port = example.port("web");
    let _gateway = example.start();
    for row in page.table("| request | route |") {
        let [method, host, path] = row[0].split(' ').collect::<Vec<_>>()[..] else { panic!("{row:?}") };
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(Client::plain(port).send(request).response().text(), row[1], "{}", row[0]);
    }
}

#[test]
fn prefixes_are_replaced_as_the_table_says() {
    let rows = Page::read("docs/routing.md").table("| path | prefix | replaced by | result |");
    assert!(rows.len() >= 14);
    let mut yaml =
        "version: 1\nlisteners: { web: { address: '0.0.0.0:80' } }\nupstreams: { app: { endpoints: \
                    ['10.0.0.1:80'] } }\nroutes:\n"
            .to_owned();
    for (number, row) in rows.iter().enumerate() {
        yaml += &format!(
            "  - {{ match: {{ headers: {{ x-row: {number} }} }}, upstream: app, plugins: [{{ path_rewrite: \
             {{ replace_prefix: {{ from: {}, to: '{}' }} }} }}] }}\n",
            row[1], row[2]
        );
    }
    let (mut example, origin) = (Example::of_text(&yaml), Origin::script(echo));
    example.endpoints("app", [origin.address()]);
    let port = example.port("web");
    let _gateway = example.start();
    for (number, row) in rows.iter().enumerate() {
        let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\nX-Row: {number}\r\n\r\n", row[0]);
        assert_eq!(seen(&Client::plain(port).send(request).response())["target"], row[3].as_str(), "{row:?}");
    }
}

#[test]
fn host_sni_and_verified_name_are_those_of_the_table() {
    let page = Page::read("docs/upstream-tls.md");
    let rows = page.table("| upstream | Host | SNI | verified |");
    let (certs, host) = (Certs::new(), "shop.example.com:8080");
    let ca = certs.authority("CA");
    let origins: Vec<Origin> = rows.iter().map(|row| served_as(&row[3], &certs, &ca)).collect();
    let (port, _gateway) = in_front_of(&page, &rows, &origins, &ca);
    for (row, origin) in rows.iter().zip(&origins) {
        let echoed = seen(&get(port, host, &format!("/{}", row[0])));
        assert_eq!(echoed["headers"]["host"], row[1].as_str(), "{row:?}");
        assert_eq!(origin.handshakes()[0].sni.as_deref().unwrap_or_default(), row[2], "{row:?}");
    }
    // A certificate for another name is refused, and the log names the one that was verified.
    let strangers: Vec<Origin> = rows.iter().map(|_| served_as("stranger.example", &certs, &ca)).collect();
    let (port, gateway) = in_front_of(&page, &rows, &strangers, &ca);
    for row in &rows {
        let refused = gateway.failure(port, host, &format!("/{}", row[0]));
        assert_eq!(refused, (502, "tls_name_mismatch".into()), "{row:?}");
        let told = gateway.line(&format!("upstream `{}`, ", row[0]));
        assert!(told.contains(&format!("verified `{}`", row[3])), "{told}");
    }
}

fn served_as(name: &str, certs: &Certs, ca: &Authority) -> Origin {
    let certificate = &certs.server(ca, &[name]);
    Origin::tls(&OriginTls { certificate, clients: None, insist_on_sni: false }, echo)
}

fn in_front_of(page: &Page, rows: &[Vec<String>], origins: &[Origin], ca: &Authority) -> (u16, Running) {
    let mut example = page.configuration();
    example.file("tls/ca.crt", &ca.cert);
    for (row, origin) in rows.iter().zip(origins) {
        example.endpoints(&row[0], [origin.address()]);
    }
    (example.port("web"), example.start())
}

#[test]
fn claims_of_identity_pass_only_where_a_route_trusts_them() {
    let page = Page::read("docs/configuration.md");
    let blocks = page.blocks();
    let trusting = blocks.iter().find(|block| block.kind == "yaml" && block.text.contains("trust_headers:"));
    let request = "GET / HTTP/1.1\r\nHost: shop.example.com\r\nX-Forwarded-For: 192.0.2.1\r\n\
                   X-Forwarded-Proto: https\r\nX-Real-IP: 192.0.2.1\r\nX-Remote-User: root\r\n\
                   Impersonate-User: root\r\nForwarded: for=x\r\n\r\n";
    let host = "shop.example.com";
    for (mut example, expected) in [
        (page.configuration(), json!({ "for": "127.0.0.1", "proto": "http", "host": host, "ip": null })),
        (
            trusting.unwrap().example(),
            json!({ "for": "192.0.2.1, 127.0.0.1", "proto": "https", "host": host, "ip": "192.0.2.1" }),
        ),
    ] {
        let origin = Origin::script(echo);
        example.endpoints("app", [origin.address()]);
        let port = example.port("web");
        let _gateway = example.start();
        let seen = seen(&Client::plain(port).send(request).response())["headers"].clone();
        let told = json!({
            "for": seen["x-forwarded-for"],
            "proto": seen["x-forwarded-proto"],
            "host": seen["x-forwarded-host"],
            "ip": seen["x-real-ip"],
        });
        assert_eq!(told, expected);
        for name in ["x-remote-user", "impersonate-user", "forwarded"] {
            assert!(seen.get(name).is_none(), "{seen}");
        }
    }
}

#[test]
fn a_response_that_takes_too_long_is_a_504_or_is_cut() {
    let text = "version: 1\nlisteners: { web: { address: '0.0.0.0:80' } }\n\
                upstreams: { app: { endpoints: ['10.0.0.1:80'] } }\nroutes:\n\
                - { match: { paths: /attempt }, upstream: app, timeouts: { attempt: 200ms } }\n\
                - { match: { paths: /request }, upstream: app, timeouts: { request: 200ms } }\n\
                - { match: { paths: /idle }, upstream: app, timeouts: { idle: 200ms } }\n";
    let silent = Origin::script(|_| Answer::Stall);
    let half = Origin::script(|_| Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf".to_vec()));
    for (origin, whole) in [(silent, Some(504)), (half, None)] {
        let mut example = Example::of_text(text);
        example.endpoints("app", [origin.address()]);
        let port = example.port("web");
        let _gateway = example.start();
        for path in ["/attempt", "/request", "/idle"] {
            let mut client = Client::plain(port);
            client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            assert_eq!(client.try_response().ok().map(|response| response.status), whole, "{path}");
        }
    }
}

#[test]
fn more_header_fields_than_the_limit_are_a_431() {
    let example = Page::read("docs/container.md").configuration();
    let port = example.port("web");
    let _gateway = example.start();
    for (count, status) in [(100 - 1, 200), (100, 431)] {
        let fields: String = (0..count).map(|number| format!("X-{number}: 1\r\n")).collect();
        let request = format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        assert_eq!(Client::plain(port).send(request).response().status, status, "{count} and the Host");
    }
}

#[test]
fn templates_render_as_printed() {
    let page = Page::read("docs/plugins.md");
    let blocks = page.blocks();
    let example = blocks.iter().find(|block| block.text.contains("name: mirror")).unwrap().example();
    let port = example.port("web");
    let _gateway = example.start();
    let request = "GET /p%20q?a=1%262 HTTP/1.1\r\nHost: localhost\r\nX-B: two\r\nCookie: c=three\r\n\r\n";
    let response = Client::plain(port).send(request).response();
    let printed = blocks.iter().find(|block| block.kind == "text" && block.text.starts_with("x-request: "));
    for line in printed.unwrap().text.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        assert_eq!(response.header(name), Some(value), "{name}");
    }
}

#[test]
fn a_quota_is_told_and_used_up_as_printed() {
    let blocks = Page::read("docs/plugins.md").blocks();
    let is_complete =
        |block: &&Block| block.text.starts_with("version: 1") && block.text.contains("rate_limit:");
    let example = blocks.iter().find(is_complete).unwrap().example();
    let port = example.port("web");
    let _gateway = example.start();
    let ask = || get(port, "localhost", "/");
    let first = ask();
    let printed = blocks.iter().find(|block| block.kind == "text" && block.text.starts_with("ratelimit: "));
    for line in printed.unwrap().text.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        assert_eq!(first.header(name), Some(value), "{name}");
    }
    assert_eq!([ask().status, ask().status], [204, 429]);
}

#[test]
fn a_plugin_of_ones_own_runs_without_any_change_of_this_repository() {
    let blocks = Page::read("docs/plugins.md").blocks();
    let is_complete =
        |block: &&Block| block.text.starts_with("version: 1") && block.text.contains("maintenance:");
    let example = blocks.iter().find(is_complete).unwrap().example();
    let refused = example.check(&binary());
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("no plugin is named `maintenance`"), "{told}");
    let port = example.port("web");
    let _gateway = example.start_with(&custom_plugin());
    let response = get(port, "localhost", "/any");
    assert_eq!((response.status, response.header("retry-after")), (503, Some("300")));
    assert_eq!(response.text(), "back soon\n");
}

/// The example of the gateway's crate, built beside its binary.
pub fn custom_plugin() -> PathBuf {
    example_binary("custom_plugin")
}

/// One of the binaries of `gateway/examples`.
pub fn example_binary(name: &str) -> PathBuf {
    let program = binary().with_file_name("examples").join(name);
    assert!(program.is_file(), "no {}: run `cargo build --workspace --examples` first", program.display());
    program
}

#[test]
fn a_get_is_tried_again_and_a_post_is_not() {
    let mut example = Page::read("docs/retry.md").configuration();
    let (busy, good) = (Origin::script(|_| Reply::new(503, "busy").into()), Origin::script(echo));
    example.endpoints("app", [busy.address(), good.address()]);
    let port = example.port("web");
    let _gateway = example.start();
    for _ in 0..4 {
        assert_eq!(get(port, "localhost", "/").status, 200);
    }
    let posts: Vec<u16> = (0..4).map(|_| Client::plain(port).post("localhost", "/", b"x").status).collect();
    assert!(posts.contains(&503), "{posts:?}");
    assert_eq!(busy.count("POST") + good.count("POST"), posts.len(), "each was sent once");
}

#[test]
fn layer_4_passes_the_clients_own_certificate_and_logs_the_connection_at_its_end() {
    let mut example = Page::read("docs/layer-4.md").configuration();
    let certs = Certs::new();
    let ca = certs.authority("CA");
    let (server, alice) = (certs.server(&ca, &["kube.test"]), certs.client(&ca, "alice"));
    let tls = OriginTls { certificate: &server, clients: Some(ca.cert.clone()), insist_on_sni: true };
    let kube = Origin::tls(&tls, echo);
    example.endpoints(
        "kube-apiserver",
        [kube.address(), format!("127.0.0.1:{}", vestibule_tests::ports::free())],
    );
    let port = example.port("kube");
    let gateway = example.start();
    let tls = ClientTls { sni: Some("kube.test"), ca: Some(&ca.cert), certificate: Some(&alice) };
    assert_eq!(seen(&Client::tls(port, &tls).unwrap().get("kube.test", "/version"))["target"], "/version");
    assert_eq!(kube.handshakes()[0].client.as_deref(), Some("alice"));
    let line: Value = serde_json::from_str(&gateway.line("\"bytes_in\"")).unwrap();
    let keys: BTreeSet<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    assert!(line["bytes_in"].as_u64() > Some(0) && line["bytes_out"].as_u64() > Some(0), "{line}");
    assert!(keys.is_disjoint(&["request_id", "method", "host", "path", "status", "route"].into()), "{line}");
}

#[test]
fn the_access_log_has_the_fields_of_its_table_and_no_other() {
    let table = Page::read("docs/access-log.md").table("| field | is |");
    let told: BTreeSet<String> = table
        .iter()
        .flat_map(|row| row[0].split(", ").map(|field| field.trim_matches('`').to_owned()))
        .collect();
    let page = Page::read("docs/upstream-tls.md");
    let rows = page.table("| upstream | Host | SNI | verified |");
    let certs = Certs::new();
    let ca = certs.authority("CA");
    let names: Vec<&str> = rows.iter().map(|row| row[3].as_str()).collect();
    // The second upstream fails, so that there is a cause.
    let name_of = |place: usize| if place == 1 { "stranger.example" } else { names[place] };
    let origins: Vec<Origin> = (0..names.len()).map(|place| served_as(name_of(place), &certs, &ca)).collect();
    let (port, gateway) = in_front_of(&page, &rows, &origins, &ca);
    let mut fields = BTreeSet::new();
    for row in &rows[..2] {
        let path = format!("/{}", row[0]);
        get(port, "shop.example.com", &path);
        fields.extend(gateway.log_of(&path).as_object().unwrap().keys().cloned());
    }
    assert_eq!(fields, told);
}

#[test]
fn a_text_line_of_the_access_log_has_the_parts_that_are_printed() {
    let page = Page::read("docs/access-log.md");
    let blocks = page.blocks();
    let printed = blocks.iter().find(|block| block.kind == "text").unwrap();
    let origin = Origin::script(echo);
    let mut example = blocks.iter().find(|block| block.kind == "yaml").unwrap().example();
    example.value(|yaml| &mut yaml["access_log"]["format"], "text");
    example.value(
        |yaml| &mut yaml["routes"],
        serde_yaml::from_str::<serde_yaml::Value>("[{ name: app, upstream: app }]").unwrap(),
    );
    example.endpoints("app", [origin.address()]);
    let port = example.port("web");
    let gateway = example.start();
    assert_eq!(get(port, "localhost", "/a").status, 200);
    let line = gateway.line("\"GET localhost /a\" 200");
    let keys = |line: &str| -> Vec<String> {
        line.split(' ')
            .map(|word| word.split_once('=').map_or_else(String::new, |(key, _)| key.to_owned()))
            .collect()
    };
    assert_eq!(keys(&line), keys(printed.text.trim_end()), "{line}");
}

#[test]
fn the_configuration_of_the_container_answers_its_health_check() {
    let example = Page::read("docs/container.md").configuration();
    let port = example.port("web");
    let _gateway = example.start();
    assert_eq!(get(port, "localhost", "/health").text(), "ok\n");
}
