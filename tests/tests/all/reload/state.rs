//! What a reload does not touch goes on where it was, wherever in the file it stands.

use vestibule_tests::certs::Certs;
use vestibule_tests::client;
use vestibule_tests::gateway::Gateway;
use vestibule_tests::origin::{Answer, Origin, Reply};
use vestibule_tests::ports;
use vestibule_tests::real::{Clients, Nginx, NginxTls};

use crate::quoted;

#[test]
fn turns_counts_and_retry_budgets_go_on_though_the_file_is_turned_round() {
    let [a, b] = ["a", "b"].map(|name| Origin::script(move |_| Answer::Reply(Reply::ok(name))));
    let failing = Origin::script(|_| Answer::ResetAfterBody);
    let [web, admin] = [ports::free(), ports::free()];
    let yaml = |upstreams: [&str; 2], routes: [&str; 2]| {
        format!(
            "version: 1\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\nlisteners: {{ web: {{ address: \"127.0.0.1:{web}\" }} }}\n\
             upstreams:\n{}\n{}\nroutes:\n{}\n{}\n",
            upstreams[0], upstreams[1], routes[0], routes[1]
        )
    };
    let (a, b) = (a.address(), b.address());
    let turns = format!("  turns: {{ endpoints: [\"{a}\", \"{b}\"] }}");
    let broken = format!("  broken: {{ endpoints: [\"{}\"] }}", failing.address());
    let to_turns = "  - { name: turns, upstream: turns }";
    let to_broken = "  - { name: broken, match: { paths: /broken }, upstream: broken, plugins: [{ retry: { attempts: 10, backoff: { base: 1ms }, retry_on: reset, budget: 1% } }] }";
    let gateway = Gateway::start(&yaml([&turns, &broken], [to_turns, to_broken]));
    let ask = |path: &str| client::get(web, "a.test", path).text();
    let first = ask("/");
    // The retries that there may be at first are used up, and there is none for the requests after that.
    let mut before = failing.requests().len();
    while {
        ask("/broken");
        let tries = failing.requests().len() - before;
        before += tries;
        tries > 1
    } {}

    let told = gateway.reload(&yaml(
        [&broken, &turns],
        [to_broken, "  - { name: new, match: { paths: /new }, respond: { body: new } }\n  - { upstream: turns, name: turns }"],
    ));
    assert!(told.starts_with("signal: applied: "), "{told}");
    assert_eq!(ask("/new"), "new");
    assert_ne!(ask("/"), first, "the turn is the other endpoint's");
    assert_eq!(ask("/"), first);
    ask("/broken");
    assert_eq!(failing.requests().len() - before, 1, "a reload gives no retries");
    let metrics = client::get(admin, "localhost", "/metrics").text();
    let counted = "vestibule_requests_total{code=\"200\",listener=\"web\",route=\"turns\"} 3";
    assert!(metrics.contains(counted), "{metrics}");
    let record = client::get(admin, "localhost", "/upstreams").json();
    let turns = record["upstreams"].as_array().unwrap().iter().find(|it| it["name"] == "turns").unwrap();
    assert_eq!(
        (&turns["endpoints"][0]["successes"], &turns["endpoints"][1]["successes"]),
        (&2.into(), &1.into())
    );
}

#[test]
fn a_reload_warns_as_a_start_does_though_the_snapshot_before_used_the_upstream() {
    let web = ports::free();
    let yaml = |route: &str| {
        format!(
            "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{web}\" }} }}\n\
             upstreams: {{ app: {{ endpoints: [\"127.0.0.1:1\"] }} }}\nroutes: [{{ {route} }}]\n"
        )
    };
    let gateway = Gateway::start(&yaml("upstream: app"));
    gateway.reload(&yaml("respond: { body: x }"));
    gateway.wait_for("upstreams.app: nothing leads to the upstream `app`");
}

#[test]
fn an_upstream_that_stays_the_same_keeps_its_connections() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let nginx = Nginx::start(&NginxTls {
        clients: Clients::Unasked,
        ..NginxTls::new(&certs.server(&ca, &["a.test"]))
    });
    let web = ports::free();
    let yaml = |more: &str| {
        format!(
            "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{web}\" }} }}\nupstreams: {{ app: {{ endpoints: [\"127.0.0.1:{}\"], \
             host: a.test, tls: {{ verify: {{ ca: {} }} }} }} }}\nroutes:\n{more}  - {{ upstream: app }}\n",
            nginx.port,
            quoted(&ca.cert)
        )
    };
    let gateway = Gateway::start(&yaml(""));
    let connection = || client::get(web, "a.test", "/").json()["connection"].clone();
    let first = connection();
    for number in 0..5 {
        gateway.reload(&yaml(&format!("  - {{ match: {{ paths: /{number} }}, respond: {{ body: x }} }}\n")));
        assert_eq!(connection(), first, "after reload {number}");
    }
}

#[test]
fn a_snapshot_that_is_left_is_not_kept_for_ever() {
    let web = ports::free();
    let yaml = |number: usize| {
        format!(
            "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{web}\" }} }}\nroutes: [{{ respond: {{ body: \"{number} {}\" }} }}]\n",
            "x".repeat(1 << 20)
        )
    };
    let gateway = Gateway::start(&yaml(0));
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    };
    for number in 1..10 {
        gateway.reload(&yaml(number));
    }
    let before = resident();
    for number in 10..60 {
        gateway.reload(&yaml(number));
        // One request on each, so that one which kept its snapshot would show.
        assert!(client::get(web, "a.test", "/").text().starts_with(&format!("{number} ")));
    }
    let after = resident();
    assert!(after < before + 25, "{before} MiB after 10 reloads of 1 MiB each, {after} MiB after 50 more");
}
