mod random;

use std::fs;
use std::path::Path as FilePath;

use super::*;
use crate::config::{load as load_path, parse};

/// A path as it is shown: `upstreams.x.endpoints[0]`.
fn path(text: &str) -> Path {
    text.split('.').fold(Path::root(), |path, part| {
        let (key, index) = match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
            Some((key, index)) => (key, Some(index.parse().unwrap())),
            None => (part, None),
        };
        let path = if key.is_empty() { path } else { path.key(key) };
        index.map_or(path.clone(), |index| path.index(index))
    })
}

fn set(at: &str, value: &str) -> Edit {
    Edit::Set { path: path(at), value: value.into() }
}

fn remove(at: &str) -> Edit {
    Edit::Remove { path: path(at) }
}

fn check(before: &str, edit: Edit, after: &str) {
    assert_eq!(edited(before, &edit).as_deref(), Ok(after), "{before}\n{edit:?}");
}

fn refused(before: &str, edit: Edit, problem: &str) {
    let Problem { path, message, hint } = edited(before, &edit).unwrap_err();
    let text = format!("{path}: {message}; {}", hint.unwrap_or_default());
    assert!(text.contains(problem), "{text}\ndoes not say: {problem}");
}

#[test]
fn a_value_is_written_in_the_place_of_another() {
    let off = || set("a.tls.verify", "off");
    check(
        "a:\n  tls:\n    verify: {} # why\n    sni: x\n",
        off(),
        "a:\n  tls:\n    verify: off # why\n    sni: x\n",
    );
    check("a: { tls: { verify: \"x, y\" } }", off(), "a: { tls: { verify: off } }");
    check("a: {tls: {verify: 'it''s', b: c}}\n", off(), "a: {tls: {verify: off, b: c}}\n");
    check("a: { tls: { \"verify\":1 } }\n", off(), "a: { tls: { \"verify\":off } }\n");
    check(
        "a:\r\n  tls:\r\n    verify: é\r\n    c: d\r\n",
        off(),
        "a:\r\n  tls:\r\n    verify: off\r\n    c: d\r\n",
    );
    check("a: { é: ü, tls: { verify: ö } } # ä\n", off(), "a: { é: ü, tls: { verify: off } } # ä\n");
    check("\u{feff}a: { tls: { verify: x } }\n", off(), "\u{feff}a: { tls: { verify: off } }\n");
    check(
        "a:\n  tls:\n    verify: two\n      lines # c\nb: 1\n",
        off(),
        "a:\n  tls:\n    verify: off # c\nb: 1\n",
    );
    check(
        "a:\n  tls:\n    verify: |\n      text\n      more\n\n# c\nb: 1\n",
        off(),
        "a:\n  tls:\n    verify: off\n\n# c\nb: 1\n",
    );
    check(
        "a:\n  tls:\n    verify: # of what\n      # and why\n      ca: x # c\n      name: y # d\n\n    # e\n    b: c\n",
        off(),
        "a:\n  tls:\n    verify: off # of what\n      # and why\n\n    # e\n    b: c\n",
    );
    check("a:\n  tls:\n    verify:\n    - x\n    - y", off(), "a:\n  tls:\n    verify: off");
    check("a: [1, two, [3]]\n", set("a[1]", "2"), "a: [1, 2, [3]]\n");
    check("a:\n- b: c # d\n  e: f\n- g\n", set("a[0]", "x"), "a:\n- x\n- g\n");
    check("a:\n- b: c # d\n  e: f\n- g\n", set("a[0].e", "x"), "a:\n- b: c # d\n  e: x\n- g\n");
}

#[test]
fn an_absent_value_is_written_behind_its_key() {
    let off = || set("tls.verify", "off");
    check("tls:\n  verify:\n  sni: x\n", off(), "tls:\n  verify: off\n  sni: x\n");
    check("tls:\n  verify: # c\n", off(), "tls:\n  verify: off # c\n");
    check("tls:\n  verify:", off(), "tls:\n  verify: off");
    check("tls: { verify, a: b }", off(), "tls: { verify: off, a: b }");
    check("tls: { verify: }", off(), "tls: { verify: off }");
    check("tls: {verify:}", set("tls.a", "off"), "tls: {verify:, a: off}");
    check("tls:\nb: c\n", off(), "tls: { verify: off }\nb: c\n");
    check("tls: # c\n", off(), "tls: { verify: off } # c\n");
    check("tls: ~\n", off(), "tls: { verify: off }\n");
    check("a:\n  -\n  - b\n", set("a[0]", "x"), "a:\n  - x\n  - b\n");
}

#[test]
fn the_maps_that_are_missing_are_made_on_one_line() {
    check(
        "x:\n  host: a\n",
        set("x.tls.verify.ca", "ca.crt"),
        "x:\n  host: a\n  tls: { verify: { ca: ca.crt } }\n",
    );
    check(
        "x: { host: a }\n",
        set("x.tls.verify.ca", "ca.crt"),
        "x: { host: a, tls: { verify: { ca: ca.crt } } }\n",
    );
    check(
        "tls:\n  verify: off # c\n",
        set("tls.verify.name", "a.test"),
        "tls:\n  verify: { name: a.test } # c\n",
    );
    check("tls: {verify: off}\n", set("tls.verify.name", "a.test"), "tls: {verify: { name: a.test }}\n");
    check("tls: {}\n", set("tls.sni", "none"), "tls: { sni: none }\n");
    check("tls: { } # c\n", set("tls.sni", "none"), "tls: { sni: none } # c\n");
    check("tls: {\n }\n", set("tls.sni", "none"), "tls: { sni: none\n }\n");
    check("a: 1\n", set("tls.verify.pins[0]", "x"), "a: 1\ntls: { verify: { pins: [x] } }\n");
    check("a: 1", set("on.8080", "\"off\""), "a: 1\n\"on\": { \"8080\": \"off\" }");
    check("a: { b: c }", set("a.d", "x, y"), "a: { b: c, d: \"x, y\" }");
}

#[test]
fn a_new_key_goes_behind_the_last_one() {
    let pins = || set("tls.verify.pins", "[x, y]");
    check(
        "tls:\n  verify:\n    ca: a # c\n    # d\n\n  sni: b\n",
        pins(),
        "tls:\n  verify:\n    ca: a # c\n    pins: [x, y]\n    # d\n\n  sni: b\n",
    );
    check("tls:\r\n  verify:\r\n    ca: a", pins(), "tls:\r\n  verify:\r\n    ca: a\r\n    pins: [x, y]");
    check(
        "tls:\n  verify:\n    ca: |\n      a\n\n\n  sni: b\n",
        pins(),
        "tls:\n  verify:\n    ca: |\n      a\n    pins: [x, y]\n\n\n  sni: b\n",
    );
    check(
        "tls:\n  verify:\n    ca: |+\n      a\n\n\n  sni: b\n",
        pins(),
        "tls:\n  verify:\n    ca: |+\n      a\n\n\n    pins: [x, y]\n  sni: b\n",
    );
    check(
        "tls:\n  verify:\n    ca:\n    - a\n    - b: [\n       c ]\n",
        pins(),
        "tls:\n  verify:\n    ca:\n    - a\n    - b: [\n       c ]\n    pins: [x, y]\n",
    );
    check("a:\n  - b: c\n  - d\n", set("a[0].e", "f"), "a:\n  - b: c\n    e: f\n  - d\n");
    check("a:\n  - b\n  # c\n", set("a[1]", "d"), "a:\n  - b\n  - d\n  # c\n");
    check("a: [b]\n", set("a[1]", "d"), "a: [b, d]\n");
    check("a: []\n", set("a[0].b", "d"), "a: [{ b: d }]\n");
    check("tls: { verify: {ca: a,name: b} }\n", pins(), "tls: { verify: {ca: a,name: b,pins: [x, y]} }\n");
    check("tls: { verify: { ca: a, }}\n", pins(), "tls: { verify: { ca: a, pins: [x, y], }}\n");
    check(
        "tls:\n  verify: { ca: a,\n            name: b } # c\n",
        pins(),
        "tls:\n  verify: { ca: a,\n            name: b,\n            pins: [x, y] } # c\n",
    );
    check(
        "tls:\n  verify: {\n    ca: a, # c\n    name: b # d\n  }\n",
        pins(),
        "tls:\n  verify: {\n    ca: a, # c\n    name: b, # d\n    pins: [x, y]\n  }\n",
    );
    check(
        "tls:\n  verify: {\n    ca: a, # c\n    name: b, # d\n    # e\n  }\n",
        pins(),
        "tls:\n  verify: {\n    ca: a, # c\n    name: b, # d\n    pins: [x, y],\n    # e\n  }\n",
    );
}

#[test]
fn a_key_of_a_block_goes_with_its_lines() {
    let before = "tls:\n  # of a\n  a: 1 # a\n  b: # b\n    c: d # d\n    # e\n    f:\n    - g # g\n\n  # of h\n  h: i # i\n";
    check(
        before,
        remove("tls.a"),
        "tls:\n  # of a\n  b: # b\n    c: d # d\n    # e\n    f:\n    - g # g\n\n  # of h\n  h: i # i\n",
    );
    check(before, remove("tls.b"), "tls:\n  # of a\n  a: 1 # a\n\n  # of h\n  h: i # i\n");
    check(
        before,
        remove("tls.h"),
        "tls:\n  # of a\n  a: 1 # a\n  b: # b\n    c: d # d\n    # e\n    f:\n    - g # g\n\n  # of h\n",
    );
    check(before, remove("tls.b.f"), &before.replace("    f:\n    - g # g\n", ""));
    check(before, remove("tls.b.f[0]"), &before.replace("f:\n    - g # g\n", "f: []\n"));
    check("a: 1\ntls:\n  sni: none\n", remove("tls.sni"), "a: 1\ntls: {}\n");
    check("tls: # c\n  # d\n  sni: none # e\n  # f", remove("tls.sni"), "tls: {} # c\n  # d\n  # f");
    check("a: 1\ntls:\n  sni: none", remove("tls"), "a: 1");
    check("a: 1\r\ntls:\r\n  b: 1\r\n  sni: none", remove("tls.sni"), "a: 1\r\ntls:\r\n  b: 1");
    check("a:\n  - b: c # d\n    e: f\n", remove("a[0].b"), "a:\n  - e: f\n");
    check("a:\n  - b: c\n    # of e\n    e: f\n", remove("a[0].b"), "a:\n  -\n    # of e\n    e: f\n");
    check("a:\n  - b: c # d\n", remove("a[0].b"), "a:\n  - {} # d\n");
    check("a:\n  - b: c\n    d: e\n  # f\n  - g\n", remove("a[0]"), "a:\n  # f\n  - g\n");
    check("a:\n- - b\n  - c\n", Edit::Remove { path: path("a[0]").index(0) }, "a:\n- - c\n");
}

#[test]
fn a_key_of_a_flow_goes_with_its_comma() {
    check("{ a: 1, b: 2, c: 3 }\n", remove("a"), "{ b: 2, c: 3 }\n");
    check("{ a: 1, b: 2, c: 3 }\n", remove("b"), "{ a: 1, c: 3 }\n");
    check("{ a: 1, b: 2, c: 3 }\n", remove("c"), "{ a: 1, b: 2 }\n");
    check("{a: 1,b: 2,}\n", remove("b"), "{a: 1,}\n");
    check("{ a: 1, }\n", remove("a"), "{}\n");
    check("tls: { sni: none } # c\n", remove("tls.sni"), "tls: {} # c\n");
    check("x: [a, b: c, {d: e}] # f\n", remove("x[1]"), "x: [a, {d: e}] # f\n");
    check("x: [a]\n", remove("x[0]"), "x: []\n");
    let lines = "x: {\n  a: 1, # a\n  # of b\n  b: 2, # b\n  c: 3 # c\n }\n";
    check(lines, remove("x.a"), "x: {\n  # of b\n  b: 2, # b\n  c: 3 # c\n }\n");
    check(lines, remove("x.b"), "x: {\n  a: 1, # a\n  # of b\n  c: 3 # c\n }\n");
    check(lines, remove("x.c"), "x: {\n  a: 1, # a\n  # of b\n  b: 2 # b\n }\n");
    let hanging = "x: { a: 1, # a\n     b: 2, c: 3,\n     d: 4 }\n";
    check(hanging, remove("x.a"), "x: { # a\n     b: 2, c: 3,\n     d: 4 }\n");
    check(hanging, remove("x.b"), "x: { a: 1, # a\n     c: 3,\n     d: 4 }\n");
    check(hanging, remove("x.c"), "x: { a: 1, # a\n     b: 2,\n     d: 4 }\n");
    check(hanging, remove("x.d"), "x: { a: 1, # a\n     b: 2, c: 3 }\n");
    check("x: { # c\n  a: 1 # d\n  }\n", remove("x.a"), "x: { # c\n   # d\n  }\n");
}

#[test]
fn what_is_shown_in_two_places_is_not_changed_in_one() {
    let shared = "a: &t\n  b: { c: d }\ne: *t\nf:\n  <<: *t\n  g: h\n";
    refused(shared, set("a.b", "x"), "a: this has an anchor that an alias names");
    refused(shared, set("a", "x"), "a: this has an anchor");
    refused(shared, remove("a"), "a: this has an anchor");
    refused(shared, set("a.b.c", "x"), "a: this has an anchor");
    refused(
        shared,
        set("e.b", "x"),
        "e: this is an alias, so a change inside it would change other places too",
    );
    refused(shared, remove("e.b"), "e: this is an alias");
    refused(shared, set("f.b.c", "x"), "f.b: this comes from a map that `<<` merges in");
    refused(shared, remove("f.b"), "f.b: this comes from a map that `<<` merges in");
    check(shared, set("e", "x"), &shared.replace("e: *t", "e: x"));
    check(shared, remove("e"), &shared.replace("e: *t\n", ""));
    check(shared, set("f.b", "off"), &format!("{shared}  b: off\n"));
    check(shared, set("f.i", "off"), &format!("{shared}  i: off\n"));
    check("a: &t # c\n  b: d\n", remove("a.b"), "a: &t {} # c\n");
    check("a: &t b\n", set("a", "c"), "a: &t c\n");
    check("a: &t\n", set("a", "c"), "a: &t c\n");
    check("a: &t {b: c}\n", set("a.b", "d"), "a: &t {b: d}\n");
}

#[test]
fn what_cannot_be_done_is_told_with_its_place() {
    refused("a: { b: [c] }\n", set("a.b.c", "x"), "a.b: this is a list, which has no key `c`");
    refused("a: { b: c }\n", set("a.b[1]", "x"), "a.b: this is no list, so it has no item 1");
    refused("a: [b]\n", set("a[3]", "x"), "a: the list has 1 items");
    refused("a: [b]\n", remove("a[1]"), "a[1]: there is nothing here to take out");
    refused("a: b\n", remove("c"), "c: there is nothing here to take out");
    refused("a: b\n", remove("a.c"), "a.c: there is nothing here to take out");
    refused("a: b\n", set("a", "b\nc: d"), "is not YAML of one line");
    refused("a: b\n", set("a", "{"), "is not YAML of one line");
    refused("a: [b: c]\n", set("a[0].d", "e"), "a[0]: this map stands in a list without braces");
    refused("? a\n: b\n", set("c", "d"), "the file is written in a way that this edit would break");
    refused("a: 1\na: 2\n", remove("a"), "the file is written in a way that this edit would break");
}

fn config(text: &str) -> Document {
    let loaded = parse("conf/gateway.yaml", text, FilePath::new("conf")).unwrap();
    assert_eq!(loaded.problems, []);
    loaded.document
}

/// An edit of a whole config, by way of the loader; `before` and `after` are what stands below `x:`.
fn check_upstream(before: &str, edits: &[Edit], after: &str) {
    let text = |upstream: &str| {
        format!("version: 1\nupstreams:\n  x:{upstream}\n  y: {{ endpoints: [b:80] }} # y\n")
    };
    let before = text(before);
    let [change] = <[Change; 1]>::try_from(apply(&config(&before), edits).unwrap()).unwrap();
    assert_eq!((change.before, change.after), (before, text(after)));
}

#[test]
fn the_tls_of_an_upstream_is_mended() {
    let at = |key: &str| format!("upstreams.x.tls.{key}");
    check_upstream(
        "\n    endpoints: [a:443]\n    tls:\n      sni: none # why",
        &[remove(&at("sni"))],
        "\n    endpoints: [a:443]\n    tls: {}",
    );
    check_upstream(
        " { endpoints: [a:443], tls: { sni: none } }",
        &[remove(&at("sni"))],
        " { endpoints: [a:443], tls: {} }",
    );
    check_upstream(
        "\n    endpoints: [a:443]\n    tls:\n      verify: off # for now\n      sni: none",
        &[set(&at("verify.name"), "www.a.test"), remove(&at("sni"))],
        "\n    endpoints: [a:443]\n    tls:\n      verify: { name: www.a.test } # for now",
    );
    check_upstream(
        "\n    endpoints: [a:443]\n    tls: {}",
        &[
            set(&at("client_certificate"), "{ cert: a.crt, key: a.key }"),
            set(&at("verify.pins"), "[sha256/a]"),
        ],
        "\n    endpoints: [a:443]\n    tls: { client_certificate: { cert: a.crt, key: a.key }, verify: { pins: [sha256/a] } }",
    );
    check_upstream(
        "\n    endpoints: [a:443]\n    tls:\n      verify:\n        ca: a.crt # ours\n      sni: a",
        &[
            set(&at("verify.pins"), "[sha256/a]"),
            set(&at("client_certificate"), "{ cert: a.crt, key: a.key }"),
        ],
        "\n    endpoints: [a:443]\n    tls:\n      verify:\n        ca: a.crt # ours\n        pins: [sha256/a]\n      sni: a\n      client_certificate: { cert: a.crt, key: a.key }",
    );
    check_upstream(
        " { endpoints: [a:443], tls: { session_reuse: true, max_version: \"1.2\" } } # old",
        &[remove(&at("max_version"))],
        " { endpoints: [a:443], tls: { session_reuse: true } } # old",
    );
    check_upstream(
        "\n    endpoints:\n      - a:443",
        &[set(&at("verify.ca"), "ca.crt"), set(&at("min_version"), "\"1.0\"")],
        "\n    endpoints:\n      - a:443\n    tls: { verify: { ca: ca.crt }, min_version: \"1.0\" }",
    );
    check_upstream(
        " { endpoints: [a:80] }",
        &[set("upstreams.x.tls", "{}"), set("upstreams.x.endpoints[0]", &quoted("a:443"))],
        " { endpoints: [\"a:443\"], tls: {} }",
    );
}

#[test]
fn a_change_is_shown_as_a_diff_of_the_file() {
    let text = "version: 1\n\nupstreams:\n  a:\n    endpoints: [a:443]\n    # checked\n    tls:\n      verify: off # for now\n\nroutes: []\n";
    let edits = [set("upstreams.a.tls.verify.name", "a.test"), set("upstreams.a.tls.sni", "none")];
    let [change] = <[Change; 1]>::try_from(apply(&config(text), &edits).unwrap()).unwrap();
    assert_eq!(
        change.diff(),
        "--- conf/gateway.yaml\n+++ conf/gateway.yaml\n@@ -5,6 +5,7 @@\n     endpoints: [a:443]\n     # checked\n     tls:\n\
         -      verify: off # for now\n+      verify: {{ name: a.test }} # for now\n+      sni: none\n \n routes: []\n"
            .replace("{{", "{").replace("}}", "}")
    );
}

#[test]
fn an_edit_that_the_loader_refuses_is_not_made() {
    let error = apply(
        &config("version: 1\nupstreams:\n  a: { endpoints: [a:443], tls: {} }\n"),
        &[set("upstreams.a.tls.verify", "on")],
    );
    assert_eq!(
        error.unwrap_err().to_string().lines().next(),
        Some("conf/gateway.yaml:3:28  upstreams.a.tls.verify")
    );
}

#[test]
fn each_section_is_changed_in_the_file_of_the_folder_that_it_stands_in() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), "version: 1\nupstreams: { a: { endpoints: [a:443] } }\n")
        .unwrap();
    fs::write(folder.path().join("b.yaml"), "version: 1\nroutes:\n  - name: b\n    upstream: a").unwrap();
    let document = load_path(folder.path()).unwrap().document;
    let edits = [
        set("routes[0].tls.sni", "b"),
        set("upstreams.a.tls", "{}"),
        set("listeners.web.address", "\"[::]:80\""),
        set("upstreams.a.tls.sni", "a"),
    ];
    let changes = apply(&document, &edits).unwrap();
    let shown: Vec<_> = changes
        .iter()
        .map(|change| (change.file.file_name().unwrap().to_str().unwrap(), change.after.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            (
                "a.yaml",
                "version: 1\nupstreams: { a: { endpoints: [a:443], tls: { sni: a } } }\nlisteners: { web: { address: \"[::]:80\" } }\n"
            ),
            ("b.yaml", "version: 1\nroutes:\n  - name: b\n    upstream: a\n    tls: { sni: b }"),
        ]
    );
    assert!(changes[1].diff().ends_with("-    upstream: a\n\\ No newline at end of file\n+    upstream: a\n+    tls: { sni: b }\n\\ No newline at end of file\n"), "{}", changes[1].diff());
    assert_eq!(apply(&document, &edits[..0]).unwrap(), []);
}
