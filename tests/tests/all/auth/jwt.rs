//! Tokens against keys of a file and of an upstream, and what becomes of both as they change.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use vestibule_tests::PATIENCE;
use vestibule_tests::client::Response;
use vestibule_tests::origin::Origin;
use vestibule_tests::ports;

use super::issuer::{Issuer, now, server};
use super::{arrived, get};
use crate::{Edge, quoted};

fn edge(idp: &str, app: &Origin) -> Edge {
    Edge::start(&format!(
        "upstreams: {{ idp: {{ endpoints: ['{idp}'] }}, app: {{ endpoints: ['{}'] }} }}\n\
         routes:\n- upstream: app\n  plugins:\n  \
         - jwt: {{ issuer: idp, audience: shop, jwks: {{ upstream: idp, path: /keys }}, headers: {{ x-user: sub }} }}\n  \
         - headers: {{ request: {{ set: {{ x-name: $user, x-roles: '${{jwt.realm.roles}}' }} }} }}\n",
        app.address()
    ))
}

/// Asks until the answer is as wanted.
fn until(status: u16, mut ask: impl FnMut() -> Response) -> Response {
    let end = Instant::now() + PATIENCE;
    loop {
        let response = ask();
        if response.status == status {
            return response;
        }
        assert!(Instant::now() < end, "still {response:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_token_passes_by_a_key_of_the_issuer_and_no_other_does() {
    let (issuer, stranger) = (Issuer::new("one"), Issuer::new("one"));
    let (app, idp) = (Origin::echo(), server(&Arc::new(Mutex::new(issuer.keys()))));
    let edge = edge(&idp.address(), &app);
    let claims = json!({ "realm": { "roles": ["dev", "ops"] } });
    let forged_user = "X-User: admin".to_owned();
    let good = issuer.bearer(&claims);
    let response = get(edge.port, "/", &[good.clone(), forged_user]);
    for (name, expected) in [
        ("x-user", Some("alice")),
        ("x-name", Some("alice")),
        ("x-roles", Some("dev,ops")),
        ("authorization", None),
    ] {
        assert_eq!(arrived(&response, name).as_deref(), expected, "{name}");
    }

    let seen = app.requests().len();
    let tampered = {
        let parts: Vec<&str> = good.split('.').collect();
        let other = issuer.bearer(&json!({ "sub": "admin" }));
        format!("{}.{}.{}", parts[0], other.split('.').nth(1).unwrap(), parts[2])
    };
    let long = format!("Authorization: Bearer {}", "a".repeat(20_000));
    for (line, told) in [
        (stranger.bearer(&claims), "the signature of the token is wrong"),
        (tampered, "the signature of the token is wrong"),
        (issuer.bearer(&json!({ "exp": now() - 3600 })), "the token has expired"),
        (issuer.bearer(&json!({ "nbf": now() + 3600 })), "the token is not valid yet"),
        (issuer.bearer(&json!({ "iss": "other" })), "the token is of another issuer"),
        (issuer.bearer(&json!({ "aud": "other" })), "the token is for another audience"),
        (
            "Authorization: Bearer eyJhbGciOiJub25lIn0.e30.".to_owned(),
            "the algorithm of the token is not accepted",
        ),
        (long, "the token is too long"),
    ] {
        let response = get(edge.port, "/", &[line]);
        let challenge = response.header("www-authenticate").unwrap_or_default();
        assert_eq!(response.status, 401, "{told}");
        assert!(challenge.contains("error=\"invalid_token\"") && challenge.contains(told), "{challenge}");
    }
    let response = get(edge.port, "/bare", &[]);
    assert_eq!(response.header("www-authenticate"), Some("Bearer realm=\"vestibule\""));
    assert_eq!(edge.gateway.log_of("/bare")["cause"], "not_authenticated");
    assert_eq!(app.requests().len(), seen, "the upstream saw none of them");
    let (token, log) = (good.rsplit(' ').next().unwrap(), edge.gateway.stderr());
    assert!(!log.contains(token) && !edge.gateway.log().iter().any(|line| line.to_string().contains(token)));
}

#[test]
fn a_new_key_is_found_at_once_and_the_last_good_ones_are_kept() {
    let (first, second) = (Issuer::new("one"), Issuer::new("two"));
    let keys = Arc::new(Mutex::new(first.keys()));
    let (app, idp) = (Origin::echo(), server(&keys));
    let edge = edge(&idp.address(), &app);
    let ask = |issuer: &Issuer| get(edge.port, "/", &[issuer.bearer(&json!({}))]);
    assert_eq!(ask(&first).status, 200);

    // The next regular time is five minutes away.
    *keys.lock().unwrap() = second.keys();
    until(200, || ask(&second));
    assert_eq!(ask(&first).status, 401, "its key is gone");

    keys.lock().unwrap().clear();
    let before = idp.requests().len();
    let unknown = Issuer::new("three");
    for _ in 0..50 {
        assert_eq!(ask(&unknown).status, 401);
    }
    assert!(idp.requests().len() - before < 25, "made-up keys do not become questions");
    assert_eq!(ask(&second).status, 200, "the issuer fails, and its keys are kept");
    let response = until(200, || ask(&second));
    assert!(arrived(&response, "x-user").is_some());
}

#[test]
fn without_keys_nobody_passes() {
    let app = Origin::echo();
    let edge = edge(&format!("127.0.0.1:{}", ports::free()), &app);
    let response = get(edge.port, "/", &[Issuer::new("one").bearer(&json!({}))]);
    assert_eq!(response.status, 503, "{response:?}");
    assert_eq!(edge.gateway.log_of("/")["cause"], "plugin_unavailable");
    assert!(app.requests().is_empty());
}

#[test]
fn keys_of_a_file_follow_a_reload() {
    let (first, second) = (Issuer::new("one"), Issuer::new("one"));
    let (app, folder) = (Origin::echo(), tempfile::tempdir().unwrap());
    let file = folder.path().join("keys.json");
    fs::write(&file, first.keys()).unwrap();
    let edge = Edge::start(&format!(
        "upstreams: {{ app: {{ endpoints: ['{}'] }} }}\n\
         routes: [{{ upstream: app, plugins: [jwt: {{ issuer: idp, audience: shop, jwks: {{ file: {} }} }}] }}]\n",
        app.address(),
        quoted(&file)
    ));
    let ask = |issuer: &Issuer| get(edge.port, "/", &[issuer.bearer(&json!({}))]).status;
    assert_eq!((ask(&first), ask(&second)), (200, 401));
    fs::write(&file, second.keys()).unwrap();
    edge.gateway.hang_up();
    assert_eq!((ask(&first), ask(&second)), (401, 200));
}
