//! `rate_limit`: who asks too often is told so, and a reload gives nobody a new quota.

use http::Request;
use vestibule_tests::client::{self, Client};
use vestibule_tests::gateway::Gateway;
use vestibule_tests::http2::Http2Client;
use vestibule_tests::origin::{Origin, Reply};
use vestibule_tests::ports;

use super::Doors;

/// A quota that does not come back while a test runs, however slow.
const HOURLY: &str =
    "{ rate_limit: { key: '${header.x-key}', requests: 1, per: 10h, burst: 2, name: hourly } }";

#[test]
fn a_quota_is_one_for_both_protocols_and_told_in_every_answer() {
    let origin = Origin::script(|_| Reply::ok("served").into());
    let doors = Doors::start(&origin, HOURLY);
    let http1 = |path: &str| {
        Client::plain(doors.plain)
            .send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nX-Key: a\r\n\r\n"))
            .response()
    };
    let http2 = |path: &str, key: &str| {
        let request = Request::get(format!("https://a.test{path}")).header("x-key", key).body(()).unwrap();
        Http2Client::tls(doors.tls, "a.test").send(request, true).response()
    };
    let first = http1("/1");
    assert_eq!((first.status, first.header("ratelimit")), (200, Some("\"hourly\";r=1;t=36000")));
    assert_eq!(first.header("ratelimit-policy"), Some("\"hourly\";q=1;w=36000"));
    let second = http2("/2", "a");
    assert_eq!(second.status, 200);
    assert!(second.header("ratelimit").unwrap().starts_with("\"hourly\";r=0;t="), "{second:?}");
    for (path, refused) in [("/3", http1("/3")), ("/4", http2("/4", "a"))] {
        assert_eq!(refused.status, 429, "{path}");
        let wait = refused.header("retry-after").unwrap();
        // How much of the ten hours is over is the machine's affair.
        assert!(wait.parse::<u32>().is_ok_and(|wait| (1..=36_000).contains(&wait)), "{wait}");
        assert_eq!(refused.header("ratelimit"), Some(&*format!("\"hourly\";r=0;t={wait}")));
        assert!(refused.text().starts_with("429 Too Many Requests\nrequest id: "), "{}", refused.text());
        assert_eq!(doors.cause(path), "rate_limited");
    }
    assert_eq!(http2("/5", "b").status, 200);
    assert_eq!(origin.requests().len(), 3);
}

#[test]
fn many_at_once_share_one_quota_exactly() {
    let origin = Origin::script(|_| Reply::ok("served").into());
    let doors = Doors::start(&origin, "{ rate_limit: { requests: 1, per: 24h, burst: 25 } }");
    let port = doors.plain;
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(move || {
                    let mut client = Client::plain(port);
                    (0..10).map(|_| client.get("a.test", "/").status).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let count = |status: u16| statuses.iter().filter(|seen| **seen == status).count();
    assert_eq!((count(200), count(429)), (25, 55));
    assert_eq!(origin.requests().len(), 25);
}

#[test]
fn a_reload_gives_no_new_quota_but_where_it_is_another_one() {
    let port = ports::free();
    let yaml = |body: &str, name: &str| {
        format!(
            "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\nroutes:\n  - {{ name: a, respond: {{ body: \
             {body} }}, plugins: [{{ rate_limit: {{ requests: 1, per: 24h, name: {name} }} }}] }}\n"
        )
    };
    let gateway = Gateway::start(&yaml("one", "first"));
    let ask = || client::get(port, "a.test", "/").status;
    assert_eq!([ask(), ask()], [200, 429]);
    let told = gateway.reload(&yaml("two", "first"));
    assert!(told.starts_with("signal: applied: "), "{told}");
    assert_eq!(ask(), 429);
    let told = gateway.reload(&yaml("two", "other"));
    assert!(told.starts_with("signal: applied: "), "{told}");
    assert_eq!([ask(), ask()], [200, 429]);
}
