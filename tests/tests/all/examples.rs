//! Every file of `conf/examples` is run by the gateway's own binary, and sent the requests that its comment
//! names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::json;
use vestibule_tests::certs::{Authority, Certs, Pair};
use vestibule_tests::client::{Client, ClientTls, curl, get};
use vestibule_tests::http2::{Call, Http2Client, Http2Origin, message, trailers};
use vestibule_tests::origin::{Answer, Origin, OriginTls, Reply, Request};
use vestibule_tests::ports;

use crate::example::{Example, repository, seen};
use crate::kube;

type Case = fn(Example);

const CASES: [(&str, Case); 18] = [
    ("by-sni.yaml", by_sni),
    ("dns-name.yaml", dns_name),
    ("grpc.yaml", grpc),
    ("headers.yaml", headers),
    // What else kubectl does through them is in `kube`.
    ("kube-api-l4.yaml", |example| kube::l4(example).answers()),
    ("kube-api-l7-impersonate.yaml", |example| kube::l7_impersonate(example).answers()),
    ("kube-api-l7-mtls.yaml", |example| kube::l7_mtls(example).answers()),
    ("kube-api-l7-token.yaml", |example| kube::l7_token(example).answers()),
    ("landing-page.yaml", landing_page),
    ("mutual-tls.yaml", mutual_tls),
    ("other-name.yaml", other_name),
    ("prefix-rewrite.yaml", prefix_rewrite),
    ("redirect-to-https.yaml", redirect_to_https),
    ("retry.yaml", retry),
    ("sni-only-ingress.yaml", sni_only_ingress),
    ("split.yaml", split),
    ("tls-listener.yaml", tls_listener),
    ("unix-socket.yaml", unix_socket),
];

#[test]
fn every_example_does_what_its_comment_says() {
    let failed: Vec<&str> = CASES
        .into_iter()
        .filter(|(name, case)| catch_unwind(AssertUnwindSafe(|| case(Example::of_file(name)))).is_err())
        .map(|(name, _)| name)
        .collect();
    assert!(failed.is_empty(), "these fail, as told above: {failed:?}");
}

#[test]
fn every_example_is_run_and_begins_with_a_comment() {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(repository().join("conf/examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("# "), "{} does not say what it shows", path.display());
            files.insert(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    let cases: BTreeSet<String> = CASES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(files, cases, "the files of conf/examples, and the cases of this test");
}

fn landing_page(example: Example) {
    let port = example.port("web");
    let _gateway = example.start();
    for (path, status, content_type, body) in [
        ("/", 200, "text/html; charset=utf-8", "<h1>Welcome</h1>"),
        ("/health", 200, "text/plain; charset=utf-8", "ok\n"),
        ("/robots.txt", 200, "text/plain; charset=utf-8", "User-agent"),
        ("/other", 404, "text/plain; charset=utf-8", "404 Not Found"),
    ] {
        let response = get(port, "localhost", path);
        assert_eq!(
            (response.status, response.header("content-type")),
            (status, Some(content_type)),
            "{path}"
        );
        assert!(response.text().contains(body), "{path}: {}", response.text());
    }
}

fn grpc(mut example: Example) {
    let certs = Certs::new();
    let ca = certs.authority("CA");
    // Sends back what came, with the service's name in a trailer.
    let service = |name: &'static str| {
        move |mut call: Call| async move {
            let come = call.body().await;
            let mut answer = call.head(http::Response::new(()), false);
            answer.send_data(come, false).unwrap();
            answer.send_trailers(trailers(&[("grpc-status", "0"), ("x-service", name)])).unwrap();
        }
    };
    let orders = Http2Origin::plain(100, service("orders"));
    let billing = Http2Origin::tls(&certs.server(&ca, &["billing.internal"]), service("billing"));
    example
        .file("tls/ca.crt", &ca.cert)
        .pair("web", &certs.server(&ca, &["localhost"]))
        .endpoints("orders", [format!("127.0.0.1:{}", orders.port)])
        .endpoints("billing", [format!("127.0.0.1:{}", billing.port)]);
    let port = example.port("grpc");
    let _gateway = example.start();
    let client = Http2Client::tls(port, "localhost");
    for (method, service) in [("orders.Orders/List", "orders"), ("billing.Billing/Watch", "billing")] {
        let request = http::Request::post(format!("https://localhost/{method}")).header("te", "trailers");
        let mut exchange = client.send(request.body(()).unwrap(), false);
        exchange.write(message("hello"), true);
        exchange.head();
        assert_eq!(exchange.message().unwrap(), "hello", "{method}");
        assert_eq!(exchange.message(), None);
        assert_eq!(exchange.trailers().unwrap()["x-service"], service, "{method}");
    }
}

fn prefix_rewrite(mut example: Example) {
    let origin = Origin::script(echo);
    example.endpoints("app", [origin.address()]);
    let port = example.port("web");
    let _gateway = example.start();
    for (path, target) in [
        ("/api/v1/users?page=2", "/v1/users?page=2"),
        ("/api", "/"),
        ("/api/a%3Ab?x=%26", "/a%3Ab?x=%26"),
        ("/shop/cart", "/store/cart"),
        ("/v1/users/7", "/users/7/v1"),
    ] {
        assert_eq!(seen(&get(port, "localhost", path))["target"], target, "{path}");
    }
    assert_eq!(get(port, "localhost", "/apix").status, 404);
}

fn sni_only_ingress(mut example: Example) {
    let certs = Certs::new();
    let ca = certs.authority("Istio CA");
    let server = certs.server(&ca, &["shop.example.com"]);
    let ingress = tls_echo(&server, None);
    example.endpoints("istio-ingress", [ingress.address()]).file("tls/istio-ca.crt", &ca.cert);
    let port = example.port("web");
    let gateway = example.start();
    assert_eq!(seen(&get(port, "shop.example.com", "/"))["headers"]["host"], "shop.example.com");
    assert_eq!(ingress.handshakes()[0].sni.as_deref(), Some("shop.example.com"));
    assert_eq!(gateway.failure(port, "shop.example.com", "/no-sni"), (502, "tls_sni_missing".into()));
}

fn other_name(mut example: Example) {
    let certs = Certs::new();
    let ca = certs.authority("CA");
    let pairs =
        [["www.partner.example"], ["www.ssltest.com"], ["10.0.3.17"]].map(|names| certs.server(&ca, &names));
    let [partner, appliance, pod] = pairs
        .each_ref()
        .map(|pair| Origin::tls(&OriginTls { certificate: pair, clients: None, insist_on_sni: false }, echo));
    example
        .file("tls/ca.crt", &ca.cert)
        .endpoints("partner", [partner.address()])
        .endpoints("appliance", [appliance.address()])
        .endpoints("pod", [pod.address()]);
    let port = example.port("web");
    let gateway = example.start();
    for (path, origin, host, sni) in [
        ("/partner/", &partner, "www.partner.example", Some("www.partner.example")),
        ("/appliance/", &appliance, "shop.example.com", Some("shop.example.com")),
        ("/pod/", &pod, "shop.example.com", None),
    ] {
        assert_eq!(seen(&get(port, "shop.example.com", path))["headers"]["host"], host, "{path}");
        assert_eq!(origin.handshakes()[0].sni.as_deref(), sni, "{path}");
    }
    assert_eq!(gateway.failure(port, "shop.example.com", "/wrong/"), (502, "tls_name_mismatch".into()));
    let told = gateway.line("tls_name_mismatch: ");
    assert!(told.contains("`another.example`") && told.contains("`www.ssltest.com`"), "{told}");
}

fn mutual_tls(mut example: Example) {
    let certs = Certs::new();
    let (ca, clients) = (certs.authority("CA"), certs.authority("Clients"));
    let server = certs.server(&ca, &["ledger.internal"]);
    let ledger = tls_echo(&server, Some(&clients));
    example
        .file("tls/ca.crt", &ca.cert)
        .pair("gateway", &certs.client(&clients, "gateway"))
        .pair("reports", &certs.client(&clients, "reports"))
        .endpoints("ledger", [ledger.address()]);
    let port = example.port("web");
    let gateway = example.start();
    // In turns, so that a connection shared by two routes would be seen.
    for (path, client) in
        [("/", "gateway"), ("/reports", "reports"), ("/", "gateway"), ("/reports", "reports")]
    {
        let connection = seen(&get(port, "localhost", path))["connection"].as_u64();
        let shown =
            ledger.handshakes().into_iter().find(|shaken| Some(shaken.connection as u64) == connection);
        assert_eq!(shown.unwrap().client.as_deref(), Some(client), "{path}");
    }
    assert_eq!(
        gateway.failure(port, "localhost", "/nobody"),
        (502, "tls_client_certificate_required".into())
    );
}

fn retry(mut example: Example) {
    let refusing = format!("127.0.0.1:{}", ports::free());
    let busy = Origin::script(|_| Reply::new(503, "busy").into());
    let good = Origin::script(echo);
    example.endpoints("app", [refusing, busy.address(), good.address()]);
    let port = example.port("web");
    let gateway = example.start();
    // Each takes two retries at most, and the budget has ten to begin with.
    for number in 0..4 {
        assert_eq!(get(port, "localhost", &format!("/{number}")).status, 200, "GET {number}");
        let attempts = gateway.log_of(&format!("/{number}"))["attempts"].as_u64();
        assert!((1..=3).contains(&attempts.unwrap()), "{attempts:?}");
    }
    let statuses: BTreeSet<u16> =
        (0..3).map(|_| Client::plain(port).post("localhost", "/", b"once").status).collect();
    assert_eq!(statuses, BTreeSet::from([200, 503]));
    let posts = busy.count("POST") + good.count("POST");
    assert_eq!(posts, 3, "each POST reached one endpoint");
}

fn split(mut example: Example) {
    let blue = Origin::script(|_| Reply::ok("blue\n").into());
    let green = Origin::script(|_| Reply::ok("green\n").into());
    example.endpoints("blue", [blue.address()]).endpoints("green", [green.address()]);
    let port = example.port("web");
    let _gateway = example.start();
    let mut client = Client::plain(port);
    for _ in 0..500 {
        let response = client.get("localhost", "/");
        assert_eq!(response.header("x-served-by").map(|name| format!("{name}\n")), Some(response.text()));
    }
    // By chance, 500 draws fall outside of this range about once in 10^12 runs.
    let to_green = green.count("GET");
    assert!((10..=110).contains(&to_green), "{to_green} of 500 went to green");
    let canary = client.send("GET / HTTP/1.1\r\nHost: localhost\r\nX-Canary: always\r\n\r\n").response();
    assert_eq!(canary.text(), "green\n");
}

fn redirect_to_https(mut example: Example) {
    let (certs, origin) = (Certs::new(), Origin::script(echo));
    let web = certs.server(&certs.authority("CA"), &["localhost"]);
    example.pair("web", &web).endpoints("app", [origin.address()]);
    let (port, tls_port) = (example.port("web"), example.port("web-tls"));
    let _gateway = example.start();
    let plain = get(port, &format!("localhost:{port}"), "/a?b=c");
    assert_eq!((plain.status, plain.header("location")), (301, Some("https://localhost:8443/a?b=c")));
    let mut client = Client::tls(tls_port, &ClientTls::default()).unwrap();
    let old = client.get("localhost:8443", "/old/news");
    assert_eq!((old.status, old.header("location")), (308, Some("https://localhost:8443/archive/news")));
    assert_eq!(seen(&client.get("localhost:8443", "/"))["headers"]["x-forwarded-proto"], "https");
}

fn tls_listener(mut example: Example) {
    let (certs, origin) = (Certs::new(), Origin::script(echo));
    let (ca, clients) = (certs.authority("CA"), certs.authority("Clients"));
    let alice = certs.client(&clients, "alice");
    example
        .pair("shop", &certs.server(&ca, &["shop.example.com"]))
        .pair("blog", &certs.server(&ca, &["blog.example.com"]))
        .file("tls/clients-ca.crt", &clients.cert)
        .endpoints("app", [origin.address()]);
    let (port, partners) = (example.port("web-tls"), example.port("partners"));
    let _gateway = example.start();
    // The name is verified, so each host has got its own certificate.
    for host in ["shop.example.com", "blog.example.com"] {
        let tls = ClientTls { sni: Some(host), ca: Some(&ca.cert), certificate: None };
        assert_eq!(Client::tls(port, &tls).unwrap().get(host, "/").status, 200, "{host}");
        let url = format!("https://{host}:{port}/");
        let (resolve, ca) = (format!("{host}:{port}:127.0.0.1"), ca.cert.display().to_string());
        let out = curl(&[
            "--http2",
            "--resolve",
            &resolve,
            "--cacert",
            &ca,
            "-o",
            "/dev/null",
            "-w",
            "%{http_version} %{http_code}",
            &url,
        ]);
        assert_eq!(String::from_utf8_lossy(&out.stdout), "2 200", "{host}: {out:?}");
    }
    let by_alice = ClientTls { certificate: Some(&alice), ..ClientTls::default() };
    let headers = seen(&Client::tls(partners, &by_alice).unwrap().get("localhost", "/"))["headers"].clone();
    assert_eq!(headers["x-client"], "CN=alice");
    assert_eq!(headers["x-client-fingerprint"].as_str().map(str::len), Some(64), "{headers}");
    // With TLS 1.3 the refusal of a missing certificate arrives after the client's handshake.
    let refused = Client::tls(partners, &ClientTls::default()).map(|mut client| {
        let sent = client.try_send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        sent.and_then(|()| client.try_response()).map(|response| response.status)
    });
    assert!(!matches!(refused, Ok(Ok(_))), "without a certificate: {refused:?}");
}

fn headers(mut example: Example) {
    let origin = Origin::script(|request| match echo(request) {
        Answer::Reply(reply) => reply.header("server", "secret/1.0").into(),
        other => other,
    });
    example.endpoints("app", [origin.address()]);
    let port = example.port("web");
    let _gateway = example.start();
    let response = Client::plain(port)
        .send(
            "GET /a?version=2 HTTP/1.1\r\nHost: localhost:8080\r\nX-Tenant: acme\r\nCookie: session=s1\r\n\
             X-Debug: 1\r\nX-Internal-User: root\r\nX-Real-IP: 192.0.2.1\r\n\
             X-Forwarded-For: 192.0.2.2\r\n\r\n",
        )
        .response();
    let seen = seen(&response)["headers"].clone();
    for (name, value) in [
        ("x-tenant-host", "acme.internal"),
        ("x-session", "s1"),
        ("x-version", "2"),
        ("x-asked-for", "http://localhost/a"),
        ("x-price", "5$"),
        ("via", "1.1 vestibule"),
        ("x-real-ip", "192.0.2.1"),
        ("x-forwarded-for", "127.0.0.1"),
    ] {
        assert_eq!(seen[name], value, "{name}");
    }
    assert!(seen.get("x-debug").is_none() && seen.get("x-internal-user").is_none(), "{seen}");
    let id = response.header("x-request-id").unwrap();
    assert_eq!(seen["x-request-id"], id);
    assert_eq!(response.header("x-served-by").unwrap(), format!("app {}", origin.address()));
    assert_eq!(response.header("server"), None);
}

fn by_sni(mut example: Example) {
    let (certs, origin) = (Certs::new(), Origin::script(echo));
    let (ca, clients) = (certs.authority("kube CA"), certs.authority("Clients"));
    let (server, admin) = (certs.server(&ca, &["kube.example.com"]), certs.client(&clients, "admin"));
    let kube = tls_echo(&server, Some(&clients));
    example
        .pair("shop", &certs.server(&ca, &["shop.example.com"]))
        .endpoints("kube-apiserver", [format!("127.0.0.1:{}", ports::free()), kube.address()])
        .endpoints("shop", [origin.address()]);
    let port = example.port("web");
    let _gateway = example.start();
    let tls = |sni| ClientTls { sni: Some(sni), ca: Some(&ca.cert), certificate: Some(&admin) };
    let response =
        Client::tls(port, &tls("kube.example.com")).unwrap().get("kube.example.com", "/api/v1/nodes");
    assert_eq!(seen(&response)["target"], "/api/v1/nodes");
    assert_eq!(
        kube.handshakes()[0].client.as_deref(),
        Some("admin"),
        "kubectl's own certificate has arrived"
    );
    let shop = |host| Client::tls(port, &tls("shop.example.com")).unwrap().get(host, "/");
    assert_eq!(seen(&shop("shop.example.com"))["headers"]["host"], "shop.example.com");
    assert_eq!(shop("kube.example.com").status, 421);
    assert_eq!(origin.requests().len(), 1);
}

fn unix_socket(mut example: Example) {
    let socket = example.path("app.sock");
    example.endpoints("app", [format!("unix:{}", socket.display())]);
    let listener = UnixListener::bind(socket).unwrap();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        String::from_utf8(head).unwrap().to_ascii_lowercase()
    });
    let port = example.port("web");
    let _gateway = example.start();
    assert_eq!(get(port, "app.example.com", "/").text(), "hi");
    let head = serving.join().unwrap();
    assert!(head.starts_with("get / http/1.1\r\n") && head.contains("host: app.example.com\r\n"), "{head}");
}

fn dns_name(mut example: Example) {
    let origin = Origin::script(echo);
    let refusing = ports::free();
    example.endpoints("app", [format!("localhost:{}", origin.port), format!("localhost:{refusing}")]);
    let port = example.port("web");
    let gateway = example.start();
    for _ in 0..8 {
        let host = format!("localhost:{}", origin.port);
        assert_eq!(seen(&get(port, "shop.example.com", "/"))["headers"]["host"], host.as_str());
    }
    assert_eq!(gateway.failure(port, "localhost", "/nowhere"), (502, "dns_not_found".into()));
}

/// An origin that insists on SNI, and on a client certificate where a CA is given, and answers what it saw.
fn tls_echo(certificate: &Pair, clients: Option<&Authority>) -> Origin {
    let clients = clients.map(|authority| Path::to_owned(&authority.cert));
    Origin::tls(&OriginTls { certificate, clients, insist_on_sni: true }, echo)
}

/// The target, the header fields and the connection that a request came by.
pub fn echo(request: &Request) -> Answer {
    let headers: BTreeMap<&str, &str> =
        request.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    let seen = json!({ "target": request.target, "headers": headers, "connection": request.connection });
    Reply::json(&seen).into()
}
