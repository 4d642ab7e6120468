//! Keys of routes, their plugins and their upstreams: all in one gateway, each side of a case under a host of its own.

use std::time::{Duration, Instant};

use serde_json::Value;
use vestibule_tests::certs::Certs;
use vestibule_tests::client::{Client, Response};
use vestibule_tests::gateway::Gateway;
use vestibule_tests::origin::{Answer, Opening, Origin, OriginTls, Reply};
use vestibule_tests::ports;

use super::{Flip, flip};
use crate::quoted;

pub const KEYS: &[&str] = &[
    "plugins.body_limit.max",
    "plugins.cors.allow_credentials",
    "plugins.cors.allow_headers",
    "plugins.cors.allow_methods",
    "plugins.cors.allow_origins",
    "plugins.cors.expose_headers",
    "plugins.cors.max_age",
    "plugins.headers.request.add",
    "plugins.headers.request.remove",
    "plugins.headers.request.set",
    "plugins.headers.response.add",
    "plugins.headers.response.remove",
    "plugins.headers.response.set",
    "plugins.ip_filter.allow",
    "plugins.ip_filter.deny",
    "plugins.path_rewrite.host",
    "plugins.path_rewrite.regex",
    "plugins.path_rewrite.replace",
    "plugins.path_rewrite.replace_path",
    "plugins.path_rewrite.replace_prefix.from",
    "plugins.path_rewrite.replace_prefix.to",
    "plugins.path_rewrite.strip_prefix",
    "plugins.rate_limit.burst",
    "plugins.rate_limit.key",
    "plugins.rate_limit.max_keys",
    "plugins.rate_limit.name",
    "plugins.rate_limit.per",
    "plugins.rate_limit.requests",
    "plugins.request_id.header",
    "plugins.retry.attempts",
    "plugins.retry.backoff.base",
    "plugins.retry.backoff.max",
    "plugins.retry.budget",
    "plugins.retry.methods",
    "plugins.retry.retry_on",
    "routes.match.headers.exact",
    "routes.match.headers.present",
    "routes.match.headers.regex",
    "routes.match.hosts",
    "routes.match.listeners",
    "routes.match.methods",
    "routes.match.paths.exact",
    "routes.match.paths.prefix",
    "routes.match.paths.regex",
    "routes.match.query.exact",
    "routes.match.query.present",
    "routes.match.query.regex",
    "routes.name",
    "routes.plugins",
    "routes.redirect.host",
    "routes.redirect.path",
    "routes.redirect.port",
    "routes.redirect.replace_prefix",
    "routes.redirect.scheme",
    "routes.redirect.status",
    "routes.respond.body",
    "routes.respond.content_type",
    "routes.respond.file",
    "routes.respond.status",
    "routes.split.upstream",
    "routes.split.weight",
    "routes.timeouts.attempt",
    "routes.timeouts.idle",
    "routes.timeouts.request",
    "routes.tls.client_certificate.cert",
    "routes.tls.client_certificate.key",
    "routes.tls.sni",
    "routes.tls.verify.ca",
    "routes.tls.verify.name",
    "routes.tls.verify.names",
    "routes.trust_headers",
    "routes.upgrades",
    "routes.upstream",
    "upstreams.connect_timeout",
    "upstreams.endpoints.address",
    "upstreams.endpoints.weight",
    "upstreams.host",
    "upstreams.keepalive.idle_timeout",
    "upstreams.protocol",
    "upstreams.tls.client_certificate.cert",
    "upstreams.tls.client_certificate.key",
    "upstreams.tls.sni",
    "upstreams.tls.verify.ca",
    "upstreams.tls.verify.name",
    "upstreams.tls.verify.names",
];

/// What is looked at.
#[derive(Clone, Copy)]
enum See {
    /// 200 from the route, 299 where it did not match.
    Status,
    /// A header of the request, as it reached the upstream.
    Arrived(&'static str),
    /// The `Upgrade` that reached the upstream, of a request that has one.
    Upgrade,
    /// The request target that reached the upstream.
    Target,
    /// A header of the response.
    Header(&'static str),
    Body,
    /// A header of the answer to a preflight.
    Preflight(&'static str),
    /// The status of a request with a body of five bytes.
    Posted,
    /// A value of the access log.
    Log(&'static str),
    /// The same, of the eighth of eight requests.
    Eighth(&'static str),
    /// The status of the eighth of eight requests.
    EighthStatus,
    /// The status of a second request, after forty with other queries.
    AfterOthers,
    /// Whether the answer took longer than that many milliseconds.
    Slower(u64),
    /// Which upstreams four requests went to.
    Spread,
    /// Whether two requests, 400 ms apart, went over one connection.
    Kept,
    /// The common name of the client certificate, and the SNI.
    Shown,
}

struct World {
    echo: Origin,
    busy: Origin,
    silent: Origin,
    tls: Origin,
    folder: Certs,
    ca: String,
    stranger: String,
    pairs: [String; 2],
}

impl World {
    fn new() -> Self {
        let folder = Certs::new();
        let (ca, stranger) = (folder.authority("ca"), folder.authority("stranger"));
        let leaf = folder.server(&ca, &["one.test", "two.test"]);
        let tls = OriginTls { certificate: &leaf, clients: Some(ca.cert.clone()), insist_on_sni: false };
        let pairs = ["alice", "bob"].map(|name| {
            let pair = folder.client(&ca, name);
            format!("{{ cert: {}, key: {} }}", quoted(&pair.cert), quoted(&pair.key))
        });
        Self {
            echo: Origin::echo(),
            busy: Origin::script(|_| Reply::new(503, "busy").into()),
            silent: Origin::opening(|_| Opening::Stall),
            // Closed after each answer: where two cases have the same policy, the second would share a connection.
            tls: Origin::tls(&tls, |_| Answer::ReplyAndClose(Reply::ok("over TLS"))),
            ca: quoted(&ca.cert),
            stranger: quoted(&stranger.cert),
            folder,
            pairs,
        }
    }

    /// Every case: what is seen of `GET /api/x?q=1` with `X-A: 1`. A side is the rest of a route, with its upstream
    /// `own` before a `|` where it has one of its own.
    fn flips(&self) -> Vec<(See, Flip)> {
        use See::*;
        let mut all = Vec::new();
        let mut add = |see, flip| all.push((see, flip));
        let is = |condition: &str| format!("match: {{ hosts: HOST, {condition} }}, upstream: echo");
        let mut matches = |key: &'static [&'static str], yes: &str, no: &str| {
            add(Status, flip(key, is(yes), "200", is(no), "299"));
        };
        matches(&["routes.match.paths.prefix"], "paths: [{ prefix: /api }]", "paths: [{ prefix: /ap }]");
        matches(&["routes.match.paths.exact"], "paths: [{ exact: /api/x }]", "paths: [{ exact: /api }]");
        matches(&["routes.match.paths.regex"], "paths: [{ regex: '^/a.i/' }]", "paths: [{ regex: '^/b' }]");
        matches(&["routes.match.methods"], "methods: [PUT, GET]", "methods: POST");
        matches(&["routes.match.listeners"], "listeners: [web]", "listeners: [other]");
        matches(
            &["routes.match.headers.exact"],
            "headers: { x-a: { exact: '1' } }",
            "headers: { x-a: { exact: '2' } }",
        );
        matches(
            &["routes.match.headers.regex"],
            "headers: { x-a: { regex: '[1]' } }",
            "headers: { x-a: { regex: '[2]' } }",
        );
        matches(
            &["routes.match.headers.present"],
            "headers: { x-a: { present: true } }",
            "headers: { x-a: { present: false } }",
        );
        matches(
            &["routes.match.query.exact"],
            "query: { q: { exact: '1' } }",
            "query: { q: { exact: '2' } }",
        );
        matches(
            &["routes.match.query.regex"],
            "query: { q: { regex: '[1]' } }",
            "query: { q: { regex: '[2]' } }",
        );
        matches(
            &["routes.match.query.present"],
            "query: { q: { present: true } }",
            "query: { q: { present: false } }",
        );
        let hosts = |host: &str| format!("match: {{ hosts: [{host}] }}, upstream: echo");
        add(Status, flip(&["routes.match.hosts"], hosts("HOST"), "200", hosts("elsewhere.test"), "299"));

        let plugin = |text: &str| format!("upstream: echo, plugins: [{text}]");
        let headers = |text: &str| plugin(&format!("{{ headers: {{ {text} }} }}"));
        add(
            Arrived("x-set"),
            flip(
                &["plugins.headers.request.set", "routes.plugins"],
                headers("request: { set: { x-set: one } }"),
                "one",
                headers("request: { set: { x-set: two } }"),
                "two",
            ),
        );
        add(
            Arrived("x-a"),
            flip(
                &["plugins.headers.request.add"],
                headers("request: { add: { x-a: 2 } }"),
                "1, 2",
                headers("request: { add: { x-a: 3 } }"),
                "1, 3",
            ),
        );
        add(
            Arrived("x-a"),
            flip(
                &["plugins.headers.request.remove"],
                headers("request: { remove: [x-b] }"),
                "1",
                headers("request: { remove: [x-a] }"),
                "-",
            ),
        );
        add(
            Header("x-set"),
            flip(
                &["plugins.headers.response.set"],
                headers("response: { set: { x-set: one } }"),
                "one",
                headers("response: { set: { x-set: two } }"),
                "two",
            ),
        );
        add(
            Header("x-add"),
            flip(
                &["plugins.headers.response.add"],
                headers("response: { add: { x-add: one } }"),
                "one",
                headers("response: { add: { x-add: two } }"),
                "two",
            ),
        );
        add(
            Header("content-type"),
            flip(
                &["plugins.headers.response.remove"],
                headers("response: { remove: [x-b] }"),
                "application/json",
                headers("response: { remove: [content-type] }"),
                "-",
            ),
        );
        let rewrite = |text: &str| {
            format!(
                "match: {{ hosts: [HOST], paths: [/api] }}, {}",
                plugin(&format!("{{ path_rewrite: {{ {text} }} }}"))
            )
        };
        let mut rewritten = |keys, one: &str, seen, other: &str, then| {
            add(Target, flip(keys, rewrite(one), seen, rewrite(other), then))
        };
        rewritten(
            &["plugins.path_rewrite.strip_prefix"],
            "strip_prefix: /api",
            "/x?q=1",
            "strip_prefix: /other",
            "/api/x?q=1",
        );
        rewritten(
            &["plugins.path_rewrite.replace_path"],
            "replace_path: /one",
            "/one?q=1",
            "replace_path: /two",
            "/two?q=1",
        );
        rewritten(
            &["plugins.path_rewrite.replace_prefix.from"],
            "replace_prefix: { from: /api, to: /n }",
            "/n/x?q=1",
            "replace_prefix: { from: /apx, to: /n }",
            "/api/x?q=1",
        );
        rewritten(
            &["plugins.path_rewrite.replace_prefix.to"],
            "replace_prefix: { from: /api, to: /n }",
            "/n/x?q=1",
            "replace_prefix: { from: /api, to: /m }",
            "/m/x?q=1",
        );
        rewritten(
            &["plugins.path_rewrite.regex"],
            "regex: '^/api(.*)', replace: '/r$1'",
            "/r/x?q=1",
            "regex: '^/apx(.*)', replace: '/r$1'",
            "/api/x?q=1",
        );
        rewritten(
            &["plugins.path_rewrite.replace"],
            "regex: '^/api(.*)', replace: '/r$1'",
            "/r/x?q=1",
            "regex: '^/api(.*)', replace: '/s$1'",
            "/s/x?q=1",
        );
        add(
            Arrived("host"),
            flip(
                &["plugins.path_rewrite.host"],
                rewrite("host: one.test"),
                "one.test",
                rewrite("host: two.test"),
                "two.test",
            ),
        );
        add(
            Header("x-rid"),
            flip(
                &["plugins.request_id.header"],
                plugin("{ request_id: { header: x-rid } }"),
                "set",
                plugin("{ request_id: { header: x-other } }"),
                "-",
            ),
        );

        self.passing(&mut add);

        let retry =
            |text: &str| format!("endpoints: BUSY | upstream: own, plugins: [{{ retry: {{ {text} }} }}]");
        let at_once = "retry_on: 503, backoff: { base: 1ms, max: 2ms }";
        let mut tried = |keys, one: &str, seen, other: &str, then| {
            add(Log("attempts"), flip(keys, retry(one), seen, retry(other), then))
        };
        tried(
            &["plugins.retry.attempts"],
            &format!("attempts: 2, {at_once}"),
            "2",
            &format!("attempts: 4, {at_once}"),
            "4",
        );
        tried(
            &["plugins.retry.methods"],
            &format!("{at_once}, methods: [GET]"),
            "2",
            &format!("{at_once}, methods: [PUT]"),
            "1",
        );
        tried(
            &["plugins.retry.retry_on"],
            at_once,
            "2",
            "retry_on: [502, reset], backoff: { base: 1ms, max: 2ms }",
            "1",
        );
        // Ten retries are there at the start; eight requests of three attempts want sixteen.
        let budget = |share: &str| retry(&format!("attempts: 3, budget: {share}, {at_once}"));
        add(Eighth("attempts"), flip(&["plugins.retry.budget"], budget("1%"), "1", budget("100%"), "3"));
        // Nine waits of which each is a random part of a second: that they add up to less than one and a half happens once
        // in ten thousand times.
        let backoff = |base: &str, max: &str| {
            retry(&format!("attempts: 10, retry_on: 503, backoff: {{ base: {base}, max: {max} }}"))
        };
        add(
            Slower(1500),
            flip(
                &["plugins.retry.backoff.base"],
                backoff("1s", "1s"),
                "true",
                backoff("1ms", "2ms"),
                "false",
            ),
        );
        // Doubled from 20 ms, the last waits may be 2 s long each; bounded by it, all nine last 180 ms at most.
        add(
            Slower(600),
            flip(
                &["plugins.retry.backoff.max"],
                backoff("20ms", "20ms"),
                "false",
                backoff("20ms", "2s"),
                "true",
            ),
        );

        add(
            Log("route"),
            flip(
                &["routes.name"],
                "name: NAME-one, upstream: echo",
                "one",
                "name: NAME-two, upstream: echo",
                "two",
            ),
        );
        let redirect = |text: &str| {
            format!("match: {{ hosts: HOST, paths: [/api] }}, redirect: {{ host: r.test, {text} }}")
        };
        let mut redirected = |keys, one: &str, seen, other: &str, then| {
            add(Header("location"), flip(keys, redirect(one), seen, redirect(other), then))
        };
        redirected(
            &["routes.redirect.scheme"],
            "scheme: https",
            "https://r.test/api/x?q=1",
            "scheme: http",
            "http://r.test/api/x?q=1",
        );
        redirected(
            &["routes.redirect.port"],
            "scheme: http, port: 81",
            "http://r.test:81/api/x?q=1",
            "scheme: http, port: 82",
            "http://r.test:82/api/x?q=1",
        );
        redirected(
            &["routes.redirect.path"],
            "scheme: http, path: /one",
            "http://r.test/one?q=1",
            "scheme: http, path: /two",
            "http://r.test/two?q=1",
        );
        redirected(
            &["routes.redirect.replace_prefix"],
            "scheme: http, replace_prefix: /n",
            "http://r.test/n/x?q=1",
            "scheme: http, replace_prefix: /m",
            "http://r.test/m/x?q=1",
        );
        let host = |host: &str| format!("redirect: {{ scheme: http, host: {host} }}");
        add(
            Header("location"),
            flip(
                &["routes.redirect.host"],
                host("one.test"),
                "http://one.test/api/x?q=1",
                host("two.test"),
                "http://two.test/api/x?q=1",
            ),
        );
        add(
            Status,
            flip(
                &["routes.redirect.status"],
                redirect("status: 301"),
                "301",
                redirect("status: '308'"),
                "308",
            ),
        );
        add(
            Status,
            flip(
                &["routes.respond.status"],
                "respond: { status: 410 }",
                "410",
                "respond: { status: 451 }",
                "451",
            ),
        );
        add(
            Body,
            flip(&["routes.respond.body"], "respond: { body: one }", "one", "respond: { body: two }", "two"),
        );
        add(
            Header("content-type"),
            flip(
                &["routes.respond.content_type"],
                "respond: { body: x, content_type: text/one }",
                "text/one",
                "respond: { body: x, content_type: text/two }",
                "text/two",
            ),
        );
        let page = |name: &str| {
            let path = self.folder.folder().join(name);
            std::fs::write(&path, name).unwrap();
            format!("respond: {{ file: {} }}", quoted(&path))
        };
        add(Body, flip(&["routes.respond.file"], page("one"), "one", page("two"), "two"));
        add(Log("upstream"), flip(&["routes.upstream"], "upstream: echo", "echo", "upstream: busy", "busy"));
        add(
            Log("upstream"),
            flip(
                &["routes.split.upstream"],
                "split: [{ upstream: echo }]",
                "echo",
                "split: [{ upstream: busy }]",
                "busy",
            ),
        );
        let split = |one: u32, other: u32| {
            format!("split: [{{ upstream: echo, weight: {one} }}, {{ upstream: busy, weight: {other} }}]")
        };
        add(Log("upstream"), flip(&["routes.split.weight"], split(1, 0), "echo", split(0, 1), "busy"));
        add(
            Arrived("x-remote-user"),
            flip(
                &["routes.trust_headers"],
                "upstream: echo, trust_headers: x-remote-*",
                "root",
                "upstream: echo, trust_headers: impersonate-user",
                "-",
            ),
        );
        add(
            Upgrade,
            flip(
                &["routes.upgrades"],
                "upstream: echo, upgrades: [spdy/3.1]",
                "SPDY/3.1",
                "upstream: echo, upgrades: [websocket]",
                "-",
            ),
        );

        let timeouts = |text: &str| format!("upstream: silent, timeouts: {{ {text} }}");
        for (key, name) in [
            (&["routes.timeouts.attempt"], "attempt"),
            (&["routes.timeouts.idle"], "idle"),
            (&["routes.timeouts.request"], "request"),
        ] {
            let limit = |limit: &str| timeouts(&format!("{name}: {limit}"));
            add(Slower(500), flip(key, limit("100ms"), "false", limit("700ms"), "true"));
        }
        let connect = |limit: &str| {
            format!("endpoints: SILENT, tls: {{ verify: off }}, connect_timeout: {limit} | upstream: own")
        };
        add(
            Slower(500),
            flip(&["upstreams.connect_timeout"], connect("100ms"), "false", connect("700ms"), "true"),
        );
        add(
            Status,
            flip(
                &["upstreams.endpoints.address"],
                "endpoints: { address: ECHO } | upstream: own",
                "200",
                "endpoints: { address: BUSY } | upstream: own",
                "503",
            ),
        );
        let weights = |one: u32, other: u32| {
            format!(
                "endpoints: [{{ address: ECHO, weight: {one} }}, {{ address: BUSY, weight: {other} }}] | upstream: own"
            )
        };
        add(
            Spread,
            flip(&["upstreams.endpoints.weight"], weights(3, 1), "200*3 503*1", weights(1, 3), "200*1 503*3"),
        );
        add(
            Arrived("host"),
            flip(
                &["upstreams.host"],
                "endpoints: ECHO, host: one.test | upstream: own",
                "one.test",
                "endpoints: ECHO, host: two.test | upstream: own",
                "two.test",
            ),
        );
        let keepalive =
            |limit: &str| format!("endpoints: ECHO, keepalive: {{ idle_timeout: {limit} }} | upstream: own");
        add(
            Kept,
            flip(&["upstreams.keepalive.idle_timeout"], keepalive("100ms"), "false", keepalive("5s"), "true"),
        );
        // The origin speaks HTTP/1.1 alone.
        add(
            Status,
            flip(
                &["upstreams.protocol"],
                "endpoints: ECHO, protocol: http/1.1 | upstream: own",
                "200",
                "endpoints: ECHO, protocol: h2c | upstream: own",
                "502",
            ),
        );

        let Self { ca, stranger, pairs: [alice, bob], .. } = self;
        let own = |tls: &str| format!("endpoints: TLS, tls: {{ {tls} }} | upstream: own");
        let over = |tls: &str| {
            format!(
                "endpoints: TLS, tls: {{ sni: other.test, verify: {{ ca: {stranger} }} }} | upstream: own, tls: {{ {tls} }}"
            )
        };
        for is_routes in [false, true] {
            let keys = if is_routes { ROUTE_TLS } else { UPSTREAM_TLS };
            let tls = |text: &str| if is_routes { over(text) } else { own(text) };
            let as_alice = |text: &str| tls(&format!("client_certificate: {alice}, {text}"));
            add(
                Shown,
                flip(
                    keys[0],
                    tls(&format!("sni: one.test, verify: {{ ca: {ca} }}, client_certificate: {alice}")),
                    "alice one.test",
                    tls(&format!("sni: one.test, verify: {{ ca: {ca} }}, client_certificate: {bob}")),
                    "bob one.test",
                ),
            );
            add(
                Shown,
                flip(
                    keys[1],
                    as_alice(&format!("sni: one.test, verify: {{ ca: {ca} }}")),
                    "alice one.test",
                    as_alice(&format!("sni: two.test, verify: {{ ca: {ca} }}")),
                    "alice two.test",
                ),
            );
            add(
                Log("cause"),
                flip(
                    keys[2],
                    as_alice(&format!("sni: one.test, verify: {{ ca: {ca} }}")),
                    "-",
                    as_alice(&format!("sni: one.test, verify: {{ ca: {stranger} }}")),
                    "tls_unknown_issuer",
                ),
            );
            add(
                Log("cause"),
                flip(
                    keys[3],
                    as_alice(&format!("verify: {{ ca: {ca}, name: one.test }}")),
                    "-",
                    as_alice(&format!("verify: {{ ca: {ca}, name: three.test }}")),
                    "tls_name_mismatch",
                ),
            );
            add(
                Log("cause"),
                flip(
                    keys[4],
                    as_alice(&format!("verify: {{ ca: {ca}, names: [three.test, two.test] }}")),
                    "-",
                    as_alice(&format!("verify: {{ ca: {ca}, names: [three.test] }}")),
                    "tls_name_mismatch",
                ),
            );
        }
        all
    }
}

impl World {
    /// The plugins that say who may pass, and how much.
    fn passing(&self, add: &mut impl FnMut(See, Flip)) {
        use See::*;
        let plugin = |text: &str| format!("upstream: echo, plugins: [{{ {text} }}]");
        let cors = |text: &str| plugin(&format!("cors: {{ {text} }}"));
        let listed = |text: &str| cors(&format!("allow_origins: 'https://a.test', {text}"));
        let limit = |text: &str| plugin(&format!("rate_limit: {{ {text} }}"));
        let ip_filter = |text: &str| plugin(&format!("ip_filter: {{ {text} }}"));
        for (see, keys, one, seen, other, then) in [
            (
                Posted,
                &["plugins.body_limit.max"][..],
                plugin("body_limit: { max: 5B }"),
                "200",
                plugin("body_limit: { max: 4B }"),
                "413",
            ),
            (
                Status,
                &["plugins.ip_filter.allow"],
                ip_filter("allow: 127.0.0.0/8"),
                "200",
                ip_filter("allow: 10.0.0.0/8"),
                "403",
            ),
            (
                Status,
                &["plugins.ip_filter.deny"],
                ip_filter("deny: 10.0.0.0/8"),
                "200",
                ip_filter("deny: 127.0.0.1"),
                "403",
            ),
            (
                Header("access-control-allow-origin"),
                &["plugins.cors.allow_origins"],
                cors("allow_origins: 'https://a.test'"),
                "https://a.test",
                cors("allow_origins: 'https://b.test'"),
                "-",
            ),
            (
                Header("access-control-allow-credentials"),
                &["plugins.cors.allow_credentials"],
                listed("allow_credentials: true"),
                "true",
                listed("allow_credentials: false"),
                "-",
            ),
            (
                Header("access-control-expose-headers"),
                &["plugins.cors.expose_headers"],
                listed("expose_headers: x-one"),
                "x-one",
                listed("expose_headers: [x-one, x-two]"),
                "x-one, x-two",
            ),
            (
                Preflight("access-control-allow-methods"),
                &["plugins.cors.allow_methods"],
                listed("allow_methods: PUT"),
                "PUT",
                listed("allow_methods: '*'"),
                "*",
            ),
            (
                Preflight("access-control-allow-headers"),
                &["plugins.cors.allow_headers"],
                listed("allow_headers: x-one"),
                "x-one",
                listed("allow_headers: [x-one, x-two]"),
                "x-one, x-two",
            ),
            (
                Preflight("access-control-max-age"),
                &["plugins.cors.max_age"],
                listed("max_age: 1m"),
                "60",
                listed("max_age: 1h"),
                "3600",
            ),
            (
                Header("ratelimit-policy"),
                &["plugins.rate_limit.requests", "plugins.rate_limit.per", "plugins.rate_limit.name"],
                limit("requests: 5, per: 1h, name: one"),
                "\"one\";q=5;w=3600",
                limit("requests: 6, per: 2h, name: two"),
                "\"two\";q=6;w=7200",
            ),
            (
                EighthStatus,
                &["plugins.rate_limit.burst"],
                limit("requests: 1, per: 1h, burst: 7"),
                "429",
                limit("requests: 1, per: 1h, burst: 8"),
                "200",
            ),
            (
                EighthStatus,
                &["plugins.rate_limit.key"],
                limit("requests: 1, per: 1h, key: $client_ip"),
                "429",
                limit("requests: 1, per: 1h, key: $request_id"),
                "200",
            ),
            (
                AfterOthers,
                &["plugins.rate_limit.max_keys"],
                limit("requests: 1, per: 1h, key: '${query.q}', max_keys: 1"),
                "200",
                limit("requests: 1, per: 1h, key: '${query.q}', max_keys: 1000"),
                "429",
            ),
        ] {
            add(see, flip(keys, one, seen, other, then));
        }
    }
}

const UPSTREAM_TLS: [&[&str]; 5] = [
    &["upstreams.tls.client_certificate.cert", "upstreams.tls.client_certificate.key"],
    &["upstreams.tls.sni"],
    &["upstreams.tls.verify.ca"],
    &["upstreams.tls.verify.name"],
    &["upstreams.tls.verify.names"],
];
const ROUTE_TLS: [&[&str]; 5] = [
    &["routes.tls.client_certificate.cert", "routes.tls.client_certificate.key"],
    &["routes.tls.sni"],
    &["routes.tls.verify.ca"],
    &["routes.tls.verify.name"],
    &["routes.tls.verify.names"],
];

#[test]
fn each_key_of_a_route_and_of_an_upstream_makes_a_difference() {
    let world = World::new();
    let flips = world.flips();
    let covered: std::collections::BTreeSet<_> =
        flips.iter().flat_map(|(_, flip)| flip.keys).copied().collect();
    assert_eq!(covered, KEYS.iter().copied().collect(), "the table and the list of its keys differ");

    let (port, other) = (ports::free(), ports::free());
    let mut yaml = format!(
        "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\" }}, other: {{ address: \"127.0.0.1:{other}\" }} }}\n"
    );
    let (mut upstreams, mut routes) = (
        String::from(
            "upstreams:\n  echo: { endpoints: ECHO }\n  busy: { endpoints: BUSY }\n  silent: { endpoints: SILENT }\n",
        ),
        String::from("routes:\n"),
    );
    for (number, (_, flip)) in flips.iter().enumerate() {
        for (side, (text, _)) in flip.sides.iter().enumerate() {
            let (host, name) = (host(number, side), format!("n{number}-{side}"));
            let (own, route) = text.split_once(" | ").unwrap_or(("", text));
            if !own.is_empty() {
                upstreams += &format!("  {name}: {{ {own} }}\n");
            }
            let route = route.replace("upstream: own", &format!("upstream: {name}"));
            let route = route.replace("HOST", &host).replace("NAME", &name);
            let matched =
                if route.contains("match:") { "" } else { &format!("match: {{ hosts: {host} }}, ") };
            routes += &format!("  - {{ {matched}{route} }}\n");
        }
    }
    routes += "  - { respond: { status: 299 } }\n";
    yaml += &(upstreams + &routes);
    for (word, origin) in
        [("ECHO", &world.echo), ("BUSY", &world.busy), ("SILENT", &world.silent), ("TLS", &world.tls)]
    {
        yaml = yaml.replace(&format!(": {word}"), &format!(": \"{}\"", origin.address()));
    }
    let gateway = Gateway::start(&yaml);

    let mut wrong = Vec::new();
    for (number, (see, flip)) in flips.iter().enumerate() {
        for (side, (text, expected)) in flip.sides.iter().enumerate() {
            let seen = seen(*see, text, &host(number, side), port, &gateway, &world);
            // Route names are the case's own.
            let seen = seen.strip_prefix(&format!("n{number}-{side}-")).unwrap_or(&seen);
            if seen != *expected {
                wrong.push(format!("{:?}: expected {expected}, saw {seen}, by: {text}", flip.keys));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn host(number: usize, side: usize) -> String {
    format!("n{number}-{side}.test")
}

fn seen(see: See, case: &str, host: &str, port: u16, gateway: &Gateway, world: &World) -> String {
    let ask = || {
        let upgrade = match see {
            See::Upgrade => "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n",
            _ => "",
        };
        let request = format!(
            "GET /api/x?q=1 HTTP/1.1\r\nHost: {host}\r\nX-A: 1\r\nX-Remote-User: root\r\nOrigin: https://a.test\r\n{upgrade}\r\n"
        );
        Client::plain(port)
            .send(request)
            .try_response()
            .unwrap_or_else(|e| panic!("no answer by {case}: {e}"))
    };
    let line = |number: usize| {
        let before = std::cell::Cell::new(1);
        gateway.log_line(|line| line["host"] == host && before.replace(before.get() + 1) == number)
    };
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let header = |response: &Response, name: &str| match response.header(name) {
        Some(id) if id.len() == 32 => "set".to_owned(),
        value => value.unwrap_or("-").to_owned(),
    };
    let begun = Instant::now();
    let response = ask();
    match see {
        See::Status => response.status.to_string(),
        See::Arrived(name) => text(&response.json()["headers"][name]),
        See::Upgrade => text(&response.json()["headers"]["upgrade"]),
        See::Target => text(&response.json()["target"]),
        See::Header(name) => header(&response, name),
        See::Body => response.text(),
        See::Preflight(name) => {
            let asked = "Origin: https://a.test\r\nAccess-Control-Request-Method: PUT\r\n";
            let request = format!("OPTIONS /api/x HTTP/1.1\r\nHost: {host}\r\n{asked}\r\n");
            header(&Client::plain(port).send(request).response(), name)
        }
        See::Posted => Client::plain(port).post(host, "/api/x", b"12345").status.to_string(),
        See::Log(key) => text(&line(1)[key]),
        See::Eighth(key) => {
            (0..7).for_each(|_| drop(ask()));
            text(&line(8)[key])
        }
        See::EighthStatus => {
            (0..6).for_each(|_| drop(ask()));
            ask().status.to_string()
        }
        See::AfterOthers => {
            for other in 0..40 {
                Client::plain(port).get(host, &format!("/api/x?q=other-{other}"));
            }
            ask().status.to_string()
        }
        See::Slower(millis) => (begun.elapsed() > Duration::from_millis(millis)).to_string(),
        See::Spread => {
            let all = [response.status, ask().status, ask().status, ask().status];
            let count = |status| all.iter().filter(|seen| **seen == status).count();
            format!("200*{} 503*{}", count(200), count(503))
        }
        See::Kept => {
            // The time for which the connection is idle, which is what the key is about.
            std::thread::sleep(Duration::from_millis(400));
            (ask().json()["connection"] == response.json()["connection"]).to_string()
        }
        See::Shown => {
            assert_eq!(response.status, 200, "{}", line(1));
            let last = world.tls.handshakes().pop().expect("no handshake");
            format!("{} {}", last.client.unwrap_or_default(), last.sni.unwrap_or_default())
        }
    }
}
