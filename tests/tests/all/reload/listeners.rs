//! Listeners come, change and go without a restart and without touching each other.

use std::net::{TcpListener, TcpStream};

use openssl::ssl::{SslConnector, SslMethod, SslSession, SslVersion};
use vestibule_tests::certs::{Certs, Pair};
use vestibule_tests::client::{self, Client, ClientTls};
use vestibule_tests::gateway::Gateway;
use vestibule_tests::ports;

use crate::quoted;

const ROUTES: &str = "routes: [{ respond: { body: hello }, plugins: [{ headers: { response: { set: { x-listener: $listener } } } }] }]";

fn yaml(listeners: &str) -> String {
    format!("version: 1\nlisteners: {{ {listeners} }}\n{ROUTES}\n")
}

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[test]
fn a_listener_is_added_renamed_and_removed_and_the_others_keep_their_connections() {
    let [web, other] = [ports::free(), ports::free()];
    let keep = format!("web: {{ address: \"127.0.0.1:{web}\" }}");
    let gateway = Gateway::start(&yaml(&keep));
    let mut kept = Client::plain(web);
    assert_eq!(kept.get("a.test", "/").header("x-listener"), Some("web"));

    let told = gateway.reload(&yaml(&format!("{keep}, more: {{ address: \"127.0.0.1:{other}\" }}")));
    assert!(told.starts_with("signal: applied: "), "{told}");
    assert_eq!(client::get(other, "a.test", "/").header("x-listener"), Some("more"));

    gateway.reload(&yaml(&format!("{keep}, less: {{ address: \"127.0.0.1:{other}\" }}")));
    assert_eq!(client::get(other, "a.test", "/").header("x-listener"), Some("less"));

    let mut going = Client::plain(other);
    assert_eq!(going.get("a.test", "/").header("connection"), Some("keep-alive"));
    gateway.reload(&yaml(&keep));
    assert!(!listens(other), "a listener that is gone takes connections");
    // It may have been on its way when the listener went: it is answered, and told to be the last.
    let last = going.get("a.test", "/");
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert_eq!(
        kept.get("a.test", "/").header("connection"),
        Some("keep-alive"),
        "the other listener's connection goes on"
    );
}

#[test]
fn two_listeners_change_places_without_letting_go_of_an_address() {
    let [one, two] = [ports::free(), ports::free()];
    let at = |a: u16, b: u16| {
        yaml(&format!("a: {{ address: \"127.0.0.1:{a}\" }}, b: {{ address: \"127.0.0.1:{b}\" }}"))
    };
    let gateway = Gateway::start(&at(one, two));
    let told = gateway.reload(&at(two, one));
    assert!(told.starts_with("signal: applied: "), "{told}");
    assert_eq!(client::get(one, "a.test", "/").header("x-listener"), Some("b"));
    assert_eq!(client::get(two, "a.test", "/").header("x-listener"), Some("a"));
}

#[test]
fn an_address_that_cannot_be_had_refuses_the_whole_reload() {
    let [web, free] = [ports::free(), ports::free()];
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_at = taken.local_addr().unwrap();
    let keep = format!("web: {{ address: \"127.0.0.1:{web}\" }}");
    let gateway = Gateway::start(&yaml(&keep));
    let told = gateway.reload(&yaml(&format!(
        "{keep}, free: {{ address: \"127.0.0.1:{free}\" }}, taken: {{ address: \"{taken_at}\" }}"
    )));
    assert!(told.starts_with("signal: refused: 1 problem; nothing has changed, "), "{told}");
    gateway.wait_for("gateway.yaml:2:");
    gateway.wait_for("  listeners.taken.address");
    gateway.wait_for(&format!("listener `taken` cannot listen on {taken_at}: Address already in use"));
    gateway.wait_for("hint: another program listens there: `ss -ltnp` names it");
    assert!(!listens(free), "a refused reload leaves a listener behind");
    assert_eq!(client::get(web, "a.test", "/").text(), "hello");

    drop(taken);
    let told = gateway.hang_up();
    assert!(told.starts_with("signal: applied: "), "{told}");
    assert!(listens(free) && listens(taken_at.port()));
}

#[test]
fn an_address_that_one_of_our_own_covers_is_told_as_that() {
    let web = ports::free();
    let gateway = Gateway::start(&yaml(&format!("first: {{ address: \"127.0.0.1:{web}\" }}")));
    // By the name that it has now.
    gateway.reload(&yaml(&format!("web: {{ address: \"127.0.0.1:{web}\" }}")));
    let told = gateway.reload(&yaml(&format!("web: {{ address: \"0.0.0.0:{web}\" }}")));
    assert!(told.starts_with("signal: refused: "), "{told}");
    gateway.wait_for(&format!(
        "hint: the listener `web` of the running configuration holds 127.0.0.1:{web}, which takes the same connections: \
         go by way of another port, or restart the gateway"
    ));
}

#[test]
fn what_is_read_at_start_only_refuses_the_reload() {
    let web = ports::free();
    let keep = yaml(&format!("web: {{ address: \"127.0.0.1:{web}\" }}"));
    let gateway = Gateway::start(&format!("server: {{ threads: 2 }}\n{keep}"));
    let told = gateway
        .reload(&format!("server: {{ threads: 3, drain_timeout: 1s, upstream_pool_size: 7 }}\n{keep}"));
    assert!(told.starts_with("signal: refused: 3 problems; "), "{told}");
    for line in [
        "  server.threads",
        "`threads` is read at start only: the gateway runs with `2`, and this is `3`",
        "`drain_timeout` is read at start only: the gateway runs with `30s`, and this is `1s`",
        "`upstream_pool_size` is read at start only: the gateway runs with `512`, and this is `7`",
        "hint: restart the gateway, or take this change back",
    ] {
        gateway.wait_for(line);
    }
    assert_eq!(client::get(web, "a.test", "/").text(), "hello");
}

#[test]
fn plain_becomes_tls_on_the_same_port_and_a_new_certificate_is_for_the_next_handshake() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let [first, second] = ["first.test", "second.test"].map(|name| certs.server(&ca, &[name]));
    let web = ports::free();
    let tls = |pair: &Pair| {
        yaml(&format!(
            "web: {{ address: \"127.0.0.1:{web}\", tls: {{ certificates: [{{ cert: {}, key: {} }}] }} }}",
            quoted(&pair.cert),
            quoted(&pair.key)
        ))
    };
    let gateway = Gateway::start(&yaml(&format!("web: {{ address: \"127.0.0.1:{web}\" }}")));
    let mut plain = Client::plain(web);
    assert_eq!(plain.get("a.test", "/").status, 200);

    gateway.reload(&tls(&first));
    let ask = ClientTls { ca: Some(&ca.cert), ..ClientTls::default() };
    let mut kept = Client::tls(web, &ask).unwrap();
    assert_eq!(kept.peer_name().as_deref(), Some("first.test"));
    assert_eq!(kept.get("a.test", "/").header("connection"), Some("keep-alive"));
    assert_eq!(plain.get("a.test", "/").header("connection"), Some("close"), "it is TLS now");

    gateway.reload(&tls(&second));
    assert_eq!(Client::tls(web, &ask).unwrap().peer_name().as_deref(), Some("second.test"));
    let again = kept.get("a.test", "/");
    assert_eq!(
        (again.status, again.header("connection")),
        (200, Some("keep-alive")),
        "its certificate was good"
    );
}

#[test]
fn clients_resume_their_sessions_over_a_reload_unless_the_certificate_is_another_one() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let [first, second] = [(); 2].map(|()| certs.server(&ca, &["a.test"]));
    let web = ports::free();
    let yaml = |pair: &Pair, more: &str| {
        let (cert, key) = (quoted(&pair.cert), quoted(&pair.key));
        let tls = format!("tls: {{ certificates: [{{ cert: {cert}, key: {key} }}] }}");
        yaml(&format!("web: {{ address: \"127.0.0.1:{web}\", {tls} }}{more}"))
    };
    // Under TLS 1.2 the session is there with the end of the handshake.
    let handshake = |session: Option<&[u8]>| {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
        builder.set_ca_file(&ca.cert).unwrap();
        builder.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
        let mut ssl = builder.build().configure().unwrap().into_ssl("a.test").unwrap();
        if let Some(session) = session {
            // From its bytes: the live one cannot be resumed once a connection of its has ended without a farewell.
            let session = SslSession::from_der(session).unwrap();
            // SAFETY: a session of a context with the same settings.
            unsafe { ssl.set_session(&session) }.unwrap();
        }
        let stream = TcpStream::connect(("127.0.0.1", web)).unwrap();
        let stream = ssl.connect(stream).unwrap();
        (stream.ssl().session().unwrap().to_der().unwrap(), stream.ssl().session_reused())
    };
    let gateway = Gateway::start(&yaml(&first, ""));
    let (session, _) = handshake(None);
    assert!(handshake(Some(&session)).1, "without a reload");
    let more = format!(", more: {{ address: \"127.0.0.1:{}\" }}", ports::free());
    gateway.reload(&yaml(&first, &more));
    assert!(handshake(Some(&session)).1, "after a reload of something else");
    gateway.reload(&yaml(&second, &more));
    assert!(!handshake(Some(&session)).1, "after the certificate was replaced");
}

#[test]
fn a_client_that_was_asked_for_no_certificate_is_not_served_once_one_is_required() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let (pair, me) = (certs.server(&ca, &["a.test"]), certs.client(&ca, "alice"));
    let web = ports::free();
    let yaml = |clients: &str| {
        let (cert, key) = (quoted(&pair.cert), quoted(&pair.key));
        yaml(&format!(
            "web: {{ address: \"127.0.0.1:{web}\", tls: {{ certificates: [{{ cert: {cert}, key: {key} }}]{clients} }} }}"
        ))
    };
    let gateway = Gateway::start(&yaml(""));
    let anonymous = ClientTls { ca: Some(&ca.cert), ..ClientTls::default() };
    let mut before = Client::tls(web, &anonymous).unwrap();
    assert_eq!(before.get("a.test", "/").status, 200);

    let required = format!(", client_certificate: {{ ca: {}, require: true }}", quoted(&ca.cert));
    gateway.reload(&yaml(&required));
    let refused = before.get("a.test", "/refused");
    assert_eq!((refused.status, refused.header("connection")), (421, Some("close")));
    assert_eq!(gateway.log_of("/refused")["cause"], "client_terms_changed");
    let known = ClientTls { certificate: Some(&me), ..anonymous };
    let mut after = Client::tls(web, &known).unwrap();
    assert_eq!(after.get("a.test", "/").status, 200);

    // The demand is gone: who has shown more than is asked for now is served, once more on this connection.
    gateway.reload(&yaml(""));
    let last = after.get("a.test", "/");
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
}

#[test]
fn fewer_connections_are_let_in_and_then_more() {
    let web = ports::free();
    let at_most =
        |count: usize| yaml(&format!("web: {{ address: \"127.0.0.1:{web}\", max_connections: {count} }}"));
    let gateway = Gateway::start(&at_most(3));
    let mut open: Vec<_> = (0..3).map(|_| Client::plain(web)).collect();
    for client in &mut open {
        assert_eq!(client.get("a.test", "/").status, 200);
    }
    gateway.reload(&at_most(1));
    open.truncate(1);
    let mut waiting = Client::plain(web);
    waiting.send("GET /waiting HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(open[0].get("a.test", "/").status, 200, "those that are open go on");
    gateway.reload(&at_most(2));
    assert_eq!(waiting.response().status, 200, "it waited in the queue, and was let in by the reload");
}
