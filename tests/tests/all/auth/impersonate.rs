//! Whom the Kubernetes API is asked as. A real API server is asked in `kube`.

use serde_json::json;
use vestibule_tests::certs::Certs;
use vestibule_tests::client::{Client, ClientTls};
use vestibule_tests::gateway::Gateway;
use vestibule_tests::origin::Origin;
use vestibule_tests::ports;

use super::arrived;
use super::issuer::Issuer;
use crate::quoted;

const CLAIMED: &str =
    "Impersonate-User: admin\r\nImpersonate-Group: system:masters\r\nX-Remote-User: admin\r\n";

#[test]
fn a_client_acts_as_its_certificate_or_its_token_says_and_never_as_it_says_itself() {
    let (certs, app, issuer) = (Certs::new(), Origin::echo(), Issuer::new("one"));
    let ca = certs.authority("ca");
    let (leaf, alice) = (certs.server(&ca, &["a.test"]), certs.client(&ca, "alice"));
    let keys = certs.folder().join("keys.json");
    std::fs::write(&keys, issuer.keys()).unwrap();
    let port = ports::free();
    let gateway = Gateway::start(&format!(
        "version: 1\nlisteners: {{ web: {{ address: '127.0.0.1:{port}', tls: {{ certificates: [{{ cert: {}, key: {} }}], \
         client_certificate: {{ ca: {}, require: false }} }} }} }}\n\
         upstreams: {{ app: {{ endpoints: ['{}'] }} }}\nroutes:\n\
         - {{ match: {{ paths: /cert }}, upstream: app, plugins: [kube_impersonate: {{ from: client_certificate }}] }}\n\
         - {{ match: {{ paths: /token }}, upstream: app, plugins: [\
         {{ jwt: {{ issuer: idp, audience: shop, jwks: {{ file: {} }}, forward: true }} }}, \
         {{ kube_impersonate: {{ from: jwt, groups_claim: groups, user_prefix: 'oidc:' }} }}] }}\n",
        quoted(&leaf.cert),
        quoted(&leaf.key),
        quoted(&ca.cert),
        app.address(),
        quoted(&keys)
    ));
    let ask = |certificate, path: &str, line: &str| {
        let tls = ClientTls { sni: Some("a.test"), ca: Some(&ca.cert), certificate };
        let mut client = Client::tls(port, &tls).unwrap();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{CLAIMED}{line}\r\n\r\n")).response()
    };
    let by_certificate = ask(Some(&alice), "/cert", "Authorization: Bearer x");
    let token = issuer.bearer(&json!({ "groups": ["devs", "ops"] }));
    let by_token = ask(None, "/token", &token);
    for (response, user, groups) in
        [(&by_certificate, "alice", None), (&by_token, "oidc:alice", Some("devs, ops"))]
    {
        assert_eq!(arrived(response, "impersonate-user").as_deref(), Some(user));
        assert_eq!(arrived(response, "impersonate-group").as_deref(), groups);
        assert_eq!(arrived(response, "x-remote-user"), None);
        assert_eq!(arrived(response, "authorization"), None);
    }
    let seen = app.requests().len();
    assert_eq!(ask(None, "/cert", "X-A: 1").status, 401);
    assert_eq!(ask(Some(&alice), "/token", "X-A: 1").status, 401);
    let system = issuer.bearer(&json!({ "groups": ["system:masters"] }));
    assert_eq!(ask(None, "/token", &system).status, 403);
    gateway.log_line(|line| line["path"] == "/token" && line["cause"] == "not_allowed");
    assert_eq!(app.requests().len(), seen);
}
