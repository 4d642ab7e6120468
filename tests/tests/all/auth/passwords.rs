//! Passwords of a file, and keys.

use std::fs;

use openssl::base64::encode_block;
use vestibule_tests::origin::Origin;

use super::{arrived, get};
use crate::{Edge, quoted};

#[test]
fn a_password_passes_under_its_users_name_until_the_file_changes() {
    let (app, folder) = (Origin::echo(), tempfile::tempdir().unwrap());
    let file = folder.path().join("users.htpasswd");
    let write = |password: &str| {
        let hash = bcrypt::hash(password, 5).unwrap().replacen("$2b$", "$2y$", 1);
        fs::write(&file, format!("alice:{hash}\n")).unwrap();
    };
    write("sesame");
    let edge = Edge::start(&format!(
        "upstreams: {{ app: {{ endpoints: ['{}'] }} }}\n\
         routes: [{{ upstream: app, plugins: [{{ basic_auth: {{ file: {} }} }}, \
         {{ headers: {{ request: {{ set: {{ x-name: $user }} }} }} }}] }}]\n",
        app.address(),
        quoted(&file)
    ));
    let line = |pair: &str| format!("Authorization: Basic {}", encode_block(pair.as_bytes()));
    for _ in 0..3 {
        let response = get(edge.port, "/", &[line("alice:sesame")]);
        assert_eq!(arrived(&response, "x-name").as_deref(), Some("alice"));
        assert_eq!(arrived(&response, "authorization"), None);
    }
    for given in [vec![], vec![line("alice:wrong")], vec![line("bob:sesame")], vec![line("alice")]] {
        let response = get(edge.port, "/no", &given);
        assert_eq!(response.status, 401, "{given:?}");
        assert_eq!(response.header("www-authenticate"), Some("Basic realm=\"vestibule\", charset=\"UTF-8\""));
    }
    assert_eq!(edge.gateway.log_of("/no")["cause"], "not_authenticated");

    write("mellon");
    edge.gateway.hang_up();
    assert_eq!(get(edge.port, "/", &[line("alice:sesame")]).status, 401, "what was right is not remembered");
    assert_eq!(get(edge.port, "/", &[line("alice:mellon")]).status, 200);
    let log = edge.gateway.stderr();
    assert!(
        !["sesame", "mellon", "$2y$", &line("alice:sesame")[21..]].iter().any(|secret| log.contains(secret))
    );
}

#[test]
fn a_key_passes_under_its_name_and_goes_no_further() {
    let app = Origin::echo();
    let hash: String = openssl::sha::sha256(b"k3y").iter().map(|byte| format!("{byte:02x}")).collect();
    let edge = Edge::start(&format!(
        "upstreams: {{ app: {{ endpoints: ['{}'] }} }}\n\
         routes: [{{ upstream: app, plugins: [{{ api_key: {{ query: key, keys: [{{ name: shop, sha256: {hash} }}] }} }}, \
         {{ headers: {{ request: {{ set: {{ x-name: $user }} }} }} }}] }}]\n",
        app.address()
    ));
    let response = get(edge.port, "/a?x=1&key=k3y&y=2", &[]);
    assert_eq!(arrived(&response, "x-name").as_deref(), Some("shop"));
    assert_eq!(response.json()["target"], "/a?x=1&y=2");
    for target in ["/a", "/a?key=", "/a?key=k3z", "/a?key=k3y&key=k3y"] {
        assert_eq!(get(edge.port, target, &[]).status, 401, "{target}");
    }
    assert!(!edge.gateway.stderr().contains("k3y"));
}
