//! An authorisation server that is asked for each request.

use vestibule_tests::certs::Certs;
use vestibule_tests::origin::{Origin, OriginTls, Reply, Request};

use super::{arrived, get};
use crate::{Edge, quoted};

/// Lets pass who has the cookie, and sends everybody else to the login.
fn judge(request: &Request) -> Reply {
    match request.header("cookie") {
        Some("sid=1") => Reply::new(204, "").header("x-user", "alice").header("x-secret", "1"),
        _ => Reply::new(302, "log in")
            .header("location", "/login")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2"),
    }
}

fn edge(auth: &str, app: &Origin) -> Edge {
    Edge::start(&format!(
        "upstreams:\n  auth: {auth}\n  app: {{ endpoints: ['{}'] }}\n\
         routes: [{{ upstream: app, plugins: [{{ forward_auth: {{ upstream: auth, path: /verify, \
         response_headers: [x-user, x-groups] }} }}] }}]\n",
        app.address()
    ))
}

#[test]
fn the_server_decides_and_names_the_client() {
    let (app, auth) = (Origin::echo(), Origin::script(|request| judge(request).into()));
    let edge = edge(&format!("{{ endpoints: ['{}'] }}", auth.address()), &app);
    let lines = ["Cookie: sid=1", "X-User: admin", "X-Groups: root", "X-Private: 1"].map(str::to_owned);
    for _ in 0..3 {
        let response = get(edge.port, "/a?b=c", &lines);
        for (name, expected) in [("x-user", Some("alice")), ("x-groups", None), ("x-secret", None)] {
            assert_eq!(arrived(&response, name).as_deref(), expected, "{name}");
        }
    }
    let asked = auth.requests();
    for (name, expected) in [
        ("x-forwarded-method", Some("GET")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("a.test")),
        ("x-forwarded-uri", Some("/a?b=c")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("cookie", Some("sid=1")),
        ("x-private", None),
    ] {
        assert_eq!(asked[0].header(name), expected, "{name}");
    }
    assert_eq!((&*asked[0].target, auth.connections()), ("/verify", 1), "its connection is kept");

    let seen = app.requests().len();
    let upgrade = ["Connection: Upgrade", "Upgrade: websocket"].map(str::to_owned);
    for lines in [&[][..], &upgrade] {
        let response = get(edge.port, "/", lines);
        let cookies = response.headers.iter().filter(|(name, _)| name == "set-cookie").count();
        assert_eq!((response.status, response.header("location"), cookies), (302, Some("/login"), 2));
        assert_eq!(response.text(), "log in");
    }
    assert_eq!(app.requests().len(), seen);
}

#[test]
fn nothing_passes_while_the_server_is_away() {
    let (app, auth) = (Origin::echo(), Origin::script(|request| judge(request).into()));
    let edge = edge(&format!("{{ endpoints: ['{}'] }}", auth.address()), &app);
    let lines = ["Cookie: sid=1".to_owned()];
    assert_eq!(get(edge.port, "/", &lines).status, 200);
    drop(auth);
    let response = get(edge.port, "/away", &lines);
    assert_eq!(response.status, 503, "{response:?}");
    assert_eq!(edge.gateway.log_of("/away")["cause"], "plugin_unavailable");
    assert_eq!(app.requests().len(), 1);
}

#[test]
fn the_server_is_asked_by_its_upstreams_own_tls() {
    let folder = Certs::new();
    let ca = folder.authority("ca");
    let (leaf, own) = (folder.server(&ca, &["auth.test"]), folder.client(&ca, "gateway"));
    let tls = OriginTls { certificate: &leaf, clients: Some(ca.cert.clone()), insist_on_sni: true };
    let (app, auth) = (Origin::echo(), Origin::tls(&tls, |request| judge(request).into()));
    let upstream = |name: &str| {
        format!(
            "{{ endpoints: ['{}'], host: {name}, tls: {{ verify: {{ ca: {} }}, client_certificate: {{ cert: {}, key: {} }} }} }}",
            auth.address(),
            quoted(&ca.cert),
            quoted(&own.cert),
            quoted(&own.key)
        )
    };
    let lines = ["Cookie: sid=1".to_owned()];
    assert_eq!(get(edge(&upstream("auth.test"), &app).port, "/", &lines).status, 200);
    let handshake = &auth.handshakes()[0];
    assert_eq!((handshake.sni.as_deref(), handshake.client.as_deref()), (Some("auth.test"), Some("gateway")));
    assert_eq!(auth.requests()[0].header("host"), Some("auth.test"));
    assert_eq!(
        get(edge(&upstream("other.test"), &app).port, "/", &lines).status,
        503,
        "its certificate is for another"
    );
}
