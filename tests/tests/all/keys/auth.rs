//! Keys of the plugins that ask who a client is: all in one gateway, each side of a case under a host of its own.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openssl::base64::encode_block;
use openssl::sha::sha256;
use serde_json::json;
use vestibule_tests::client::Client;
use vestibule_tests::gateway::Gateway;
use vestibule_tests::origin::{Origin, Reply};
use vestibule_tests::ports;

use crate::auth::issuer::{Issuer, now, server};
use crate::quoted;

pub const KEYS: &[&str] = &[
    "plugins.api_key.forward",
    "plugins.api_key.header",
    "plugins.api_key.keys.name",
    "plugins.api_key.keys.sha256",
    "plugins.api_key.keys_file",
    "plugins.api_key.query",
    "plugins.basic_auth.file",
    "plugins.basic_auth.forward",
    "plugins.basic_auth.realm",
    "plugins.forward_auth.method",
    "plugins.forward_auth.path",
    "plugins.forward_auth.request_headers",
    "plugins.forward_auth.response_headers",
    "plugins.forward_auth.timeout",
    "plugins.forward_auth.upstream",
    "plugins.jwt.audience",
    "plugins.jwt.forward",
    "plugins.jwt.from.cookie",
    "plugins.jwt.from.header",
    "plugins.jwt.from.query",
    "plugins.jwt.headers",
    "plugins.jwt.issuer",
    "plugins.jwt.jwks.file",
    "plugins.jwt.jwks.path",
    "plugins.jwt.jwks.refresh",
    "plugins.jwt.jwks.upstream",
    "plugins.jwt.leeway",
    "plugins.jwt.required_claims",
    "plugins.kube_impersonate.allow_system",
    "plugins.kube_impersonate.extra",
    "plugins.kube_impersonate.from",
    "plugins.kube_impersonate.groups_claim",
    "plugins.kube_impersonate.groups_prefix",
    "plugins.kube_impersonate.uid_claim",
    "plugins.kube_impersonate.user_claim",
    "plugins.kube_impersonate.user_prefix",
];

#[derive(Clone, Copy)]
enum See {
    Status,
    /// A header of the request as it reached the upstream.
    Arrived(&'static str),
    /// A header of the response.
    Header(&'static str),
}

/// Keys, what is seen, the request's header lines, and each side's plugins with what is seen by them.
type Case = (&'static [&'static str], See, String, [(String, &'static str); 2]);

fn hex(key: &str) -> String {
    sha256(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn each_key_makes_a_difference() {
    use See::*;

    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        quoted(&path)
    };
    let (issuer, other) = (Issuer::new("one"), Issuer::new("one"));
    let sets = [write("one.json", &issuer.keys()), write("two.json", &other.keys())];
    let passwords = ["sesame", "mellon"].map(|word| {
        write(&format!("{word}.htpasswd"), &format!("alice:{}\n", bcrypt::hash(word, 4).unwrap()))
    });
    let lists = ["key", "other"].map(|key| write(&format!("{key}.keys"), &format!("shop:{}\n", hex(key))));
    let app = Origin::echo();
    let auth = Origin::script(|request| match request.target.as_str() {
        "/no" => Reply::new(403, "no").into(),
        "/slow" => {
            std::thread::sleep(Duration::from_secs(1));
            Reply::ok("").into()
        }
        _ => Reply::ok("")
            .header("x-method", &request.method)
            .header("x-seen", request.header("x-a").unwrap_or("nothing"))
            .into(),
    });
    let deny = Origin::script(|_| Reply::new(403, "no").into());
    let keys = issuer.keys();
    let idp = Origin::script(move |request| match request.target.as_str() {
        "/keys" => Reply::ok(&keys).into(),
        _ => Reply::new(404, "").into(),
    });
    let stranger = server(&Arc::new(Mutex::new(other.keys())));

    let mut cases: Vec<Case> = Vec::new();
    let mut add = |keys, see, lines: &str, one: (String, &'static str), two: (String, &'static str)| {
        cases.push((keys, see, lines.to_owned(), [one, two]));
    };
    let is_key = "x-a: key";
    let known = format!("keys: [{{ name: shop, sha256: {} }}]", hex("key"));
    let api = |text: String| format!("{{ api_key: {{ {text} }} }}");
    let named =
        |text: String| format!("{}, {{ headers: {{ request: {{ set: {{ x-name: $user }} }} }} }}", api(text));
    add(
        &["plugins.api_key.header"],
        Status,
        is_key,
        (api(format!("header: x-a, {known}")), "200"),
        (api(format!("header: x-b, {known}")), "401"),
    );
    add(
        &["plugins.api_key.query"],
        Status,
        "",
        (api(format!("query: k, {known}")), "200"),
        (api(format!("query: j, {known}")), "401"),
    );
    add(
        &["plugins.api_key.keys.name"],
        Arrived("x-name"),
        is_key,
        (named(format!("header: x-a, {known}")), "shop"),
        (named(format!("header: x-a, keys: [{{ name: two, sha256: {} }}]", hex("key"))), "two"),
    );
    add(
        &["plugins.api_key.keys.sha256"],
        Status,
        is_key,
        (api(format!("header: x-a, {known}")), "200"),
        (api(format!("header: x-a, keys: [{{ name: shop, sha256: {} }}]", hex("other"))), "401"),
    );
    add(
        &["plugins.api_key.keys_file"],
        Status,
        is_key,
        (api(format!("header: x-a, keys_file: {}", lists[0])), "200"),
        (api(format!("header: x-a, keys_file: {}", lists[1])), "401"),
    );
    add(
        &["plugins.api_key.forward"],
        Arrived("x-a"),
        is_key,
        (api(format!("header: x-a, {known}, forward: true")), "key"),
        (api(format!("header: x-a, {known}, forward: false")), "-"),
    );

    let pair = encode_block(b"alice:sesame");
    let basic_line = format!("Authorization: Basic {pair}");
    let basic_value: &'static str = format!("Basic {pair}").leak();
    let basic = |text: String| format!("{{ basic_auth: {{ {text} }} }}");
    add(
        &["plugins.basic_auth.file"],
        Status,
        &basic_line,
        (basic(format!("file: {}", passwords[0])), "200"),
        (basic(format!("file: {}", passwords[1])), "401"),
    );
    add(
        &["plugins.basic_auth.forward"],
        Arrived("authorization"),
        &basic_line,
        (basic(format!("file: {}, forward: true", passwords[0])), basic_value),
        (basic(format!("file: {}, forward: false", passwords[0])), "-"),
    );
    add(
        &["plugins.basic_auth.realm"],
        Header("www-authenticate"),
        "",
        (basic(format!("file: {}, realm: one", passwords[0])), "Basic realm=\"one\", charset=\"UTF-8\""),
        (basic(format!("file: {}, realm: two", passwords[0])), "Basic realm=\"two\", charset=\"UTF-8\""),
    );

    let forward = |text: &str| format!("{{ forward_auth: {{ {text} }} }}");
    let mut ask = |keys, see, one: (&str, &'static str), two: (&str, &'static str)| {
        add(keys, see, is_key, (forward(one.0), one.1), (forward(two.0), two.1));
    };
    ask(
        &["plugins.forward_auth.upstream"],
        Status,
        ("upstream: auth, path: /yes", "200"),
        ("upstream: deny, path: /yes", "403"),
    );
    ask(
        &["plugins.forward_auth.path"],
        Status,
        ("upstream: auth, path: /yes", "200"),
        ("upstream: auth, path: /no", "403"),
    );
    ask(
        &["plugins.forward_auth.timeout"],
        Status,
        ("upstream: auth, path: /slow, timeout: 19s", "200"),
        ("upstream: auth, path: /slow, timeout: 100ms", "503"),
    );
    ask(
        &["plugins.forward_auth.method"],
        Arrived("x-method"),
        ("upstream: auth, path: /yes, method: GET, response_headers: x-method", "GET"),
        ("upstream: auth, path: /yes, method: POST, response_headers: x-method", "POST"),
    );
    ask(
        &["plugins.forward_auth.request_headers"],
        Arrived("x-seen"),
        ("upstream: auth, path: /yes, request_headers: [x-a], response_headers: x-seen", "key"),
        ("upstream: auth, path: /yes, request_headers: [x-b], response_headers: x-seen", "nothing"),
    );
    ask(
        &["plugins.forward_auth.response_headers"],
        Arrived("x-method"),
        ("upstream: auth, path: /yes, response_headers: [x-method]", "GET"),
        ("upstream: auth, path: /yes, response_headers: [x-seen]", "-"),
    );

    let claims = json!({ "email": "a@a.test", "groups": ["dev"], "exp": now() + 3600 });
    let token = issuer.token(&claims);
    let bearer = format!("Authorization: Bearer {token}");
    let bearer_value: &'static str = format!("Bearer {token}").leak();
    let jwt = |iss: &str, aud: &str, jwks: &str, rest: &str| {
        format!("{{ jwt: {{ issuer: {iss}, audience: {aud}, jwks: {{ {jwks} }}, {rest} }} }}")
    };
    let file = format!("file: {}", sets[0]);
    let with = |rest: &str| jwt("idp", "shop", &file, rest);
    let by = |jwks: &str| jwt("idp", "shop", jwks, "leeway: 60s");
    add(&["plugins.jwt.issuer"], Status, &bearer, (with(""), "200"), (jwt("me", "shop", &file, ""), "401"));
    add(&["plugins.jwt.audience"], Status, &bearer, (with(""), "200"), (jwt("idp", "me", &file, ""), "401"));
    add(
        &["plugins.jwt.jwks.file"],
        Status,
        &bearer,
        (by(&file), "200"),
        (by(&format!("file: {}", sets[1])), "401"),
    );
    add(
        &["plugins.jwt.jwks.upstream"],
        Status,
        &bearer,
        (by("upstream: idp, path: /keys"), "200"),
        (by("upstream: stranger, path: /keys"), "401"),
    );
    add(
        &["plugins.jwt.jwks.path"],
        Status,
        &bearer,
        (by("upstream: idp, path: /keys"), "200"),
        (by("upstream: idp, path: /none"), "503"),
    );
    let expired = issuer.bearer(&json!({ "exp": now() - 30 }));
    add(&["plugins.jwt.leeway"], Status, &expired, (with("leeway: 2h"), "200"), (with("leeway: 1s"), "401"));
    add(
        &["plugins.jwt.required_claims"],
        Status,
        &bearer,
        (with("required_claims: { groups: [dev, ops] }"), "200"),
        (with("required_claims: { groups: [ops] }"), "403"),
    );
    add(
        &["plugins.jwt.forward"],
        Arrived("authorization"),
        &bearer,
        (with("forward: true"), bearer_value),
        (with("forward: false"), "-"),
    );
    add(
        &["plugins.jwt.headers"],
        Arrived("x-who"),
        &bearer,
        (with("headers: { x-who: email }"), "a@a.test"),
        (with("headers: { x-who: iss }"), "idp"),
    );
    for (key, place, line) in [
        (&["plugins.jwt.from.cookie"], "cookie", format!("Cookie: sid={token}")),
        (&["plugins.jwt.from.header"], "header", format!("sid: {token}")),
        (&["plugins.jwt.from.query"], "query", format!("?sid={token}")),
    ] {
        let from = |name: &str| with(&format!("from: {{ {place}: {name} }}"));
        add(key, Status, &line, (from("sid"), "200"), (from("other"), "401"));
    }

    let kube = |text: &str| format!("{}, {{ kube_impersonate: {{ {text} }} }}", with(""));
    let mut act = |keys, see, one: (&str, &'static str), two: (&str, &'static str)| {
        add(keys, see, &bearer, (kube(one.0), one.1), (kube(two.0), two.1));
    };
    act(
        &["plugins.kube_impersonate.from"],
        Status,
        ("from: jwt", "200"),
        ("from: client_certificate", "401"),
    );
    act(
        &["plugins.kube_impersonate.user_claim"],
        Arrived("impersonate-user"),
        ("from: jwt, user_claim: sub", "alice"),
        ("from: jwt, user_claim: email", "a@a.test"),
    );
    act(
        &["plugins.kube_impersonate.user_prefix"],
        Arrived("impersonate-user"),
        ("from: jwt", "alice"),
        ("from: jwt, user_prefix: 'oidc:'", "oidc:alice"),
    );
    act(
        &["plugins.kube_impersonate.groups_claim"],
        Arrived("impersonate-group"),
        ("from: jwt, groups_claim: groups", "dev"),
        ("from: jwt, groups_claim: iss", "idp"),
    );
    act(
        &["plugins.kube_impersonate.groups_prefix"],
        Arrived("impersonate-group"),
        ("from: jwt, groups_claim: groups", "dev"),
        ("from: jwt, groups_claim: groups, groups_prefix: 'g:'", "g:dev"),
    );
    act(
        &["plugins.kube_impersonate.uid_claim"],
        Arrived("impersonate-uid"),
        ("from: jwt, uid_claim: email", "a@a.test"),
        ("from: jwt", "-"),
    );
    act(
        &["plugins.kube_impersonate.extra"],
        Arrived("impersonate-extra-mail"),
        ("from: jwt, extra: { mail: email }", "a@a.test"),
        ("from: jwt, extra: { other: email }", "-"),
    );
    act(
        &["plugins.kube_impersonate.allow_system"],
        Status,
        ("from: jwt, user_prefix: 'system:', allow_system: true", "200"),
        ("from: jwt, user_prefix: 'system:', allow_system: false", "403"),
    );

    let covered: Vec<&str> = cases.iter().flat_map(|(keys, ..)| keys.iter().copied()).collect();
    let missing: Vec<_> =
        KEYS.iter().filter(|key| !covered.contains(key) && **key != "plugins.jwt.jwks.refresh").collect();
    assert!(missing.is_empty(), "keys without a case: {missing:?}");

    let port = ports::free();
    let mut yaml =
        format!("version: 1\nlisteners: {{ web: {{ address: '127.0.0.1:{port}' }} }}\nupstreams:\n");
    for (name, origin) in
        [("app", &app), ("auth", &auth), ("deny", &deny), ("idp", &idp), ("stranger", &stranger)]
    {
        yaml += &format!("  {name}: {{ endpoints: ['{}'] }}\n", origin.address());
    }
    yaml += "routes:\n";
    for (number, (.., sides)) in cases.iter().enumerate() {
        for (side, (plugins, _)) in sides.iter().enumerate() {
            yaml += &format!(
                "- {{ match: {{ hosts: h{number}-{side}.test }}, upstream: app, plugins: [{plugins}] }}\n"
            );
        }
    }
    let _gateway = Gateway::start(&yaml);
    for (number, (keys, see, lines, sides)) in cases.iter().enumerate() {
        for (side, (plugins, expected)) in sides.iter().enumerate() {
            let (target, line) = match lines.strip_prefix('?') {
                Some(query) => (format!("/?{query}"), String::new()),
                None => (
                    "/?k=key".to_owned(),
                    if lines.is_empty() { String::new() } else { format!("{lines}\r\n") },
                ),
            };
            let request = format!("GET {target} HTTP/1.1\r\nHost: h{number}-{side}.test\r\n{line}\r\n");
            let response = Client::plain(port).send(request).response();
            let seen = match see {
                Status => response.status.to_string(),
                Header(name) => response.header(name).unwrap_or("-").to_owned(),
                Arrived(name) => response.json()["headers"][name].as_str().unwrap_or("-").to_owned(),
            };
            assert_eq!(seen, *expected, "{keys:?} by {plugins}");
        }
    }
}

#[test]
fn the_pause_between_two_questions_for_keys_is_the_files() {
    let issuer = Issuer::new("one");
    let idp = server(&Arc::new(Mutex::new(issuer.keys())));
    let jwt = |path: &str, refresh: &str| {
        format!(
            "{{ match: {{ paths: {path} }}, respond: {{ body: '' }}, plugins: [jwt: {{ issuer: i, audience: a, \
             jwks: {{ upstream: idp, path: {path}, refresh: {refresh} }} }}] }}"
        )
    };
    let _gateway = Gateway::start(&format!(
        "version: 1\nlisteners: {{ web: {{ address: '127.0.0.1:{}' }} }}\nupstreams: {{ idp: {{ endpoints: ['{}'] }} }}\n\
         routes: [{}, {}]\n",
        ports::free(),
        idp.address(),
        jwt("/often", "1s"),
        jwt("/seldom", "1h")
    ));
    idp.wait_for("three questions and one", |requests| {
        let count = |path: &str| requests.iter().filter(|request| request.target == path).count();
        count("/often") >= 3 && count("/seldom") >= 1
    });
    assert_eq!(idp.requests().iter().filter(|request| request.target == "/seldom").count(), 1);
}
