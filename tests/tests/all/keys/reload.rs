//! Keys of reloading: one gateway for each side of a case, and another file for it.

use std::time::Duration;

use vestibule_tests::client::Client;
use vestibule_tests::gateway::Gateway;
use vestibule_tests::ports;

pub const KEYS: &[&str] = &[
    "reload.stage.for",
    "reload.stage.guards",
    "reload.stage.header",
    "reload.stage.min_requests",
    "reload.stage.share",
    "reload.watch",
];

/// A gateway that answers `running`, and then a candidate that answers 500 and `candidate`.
struct Change {
    gateway: Gateway,
    port: u16,
}

impl Change {
    fn to_be(section: &str) -> (Self, String) {
        let port = ports::free();
        let yaml = |status: u16, body: &str| {
            format!(
                "version: 1\nreload: {section}\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\n\
                 routes: [{{ respond: {{ status: {status}, body: {body} }} }}]\n"
            )
        };
        (Self { gateway: Gateway::start(&yaml(200, "running")), port }, yaml(500, "candidate"))
    }

    fn staged(stage: &str) -> Self {
        let (change, yaml) = Self::to_be(&format!("{{ watch: false, stage: {{ {stage} }} }}"));
        let told = change.gateway.reload(&yaml);
        assert!(told.starts_with("signal: staged: "), "{told}");
        change
    }

    fn answer(&self, field: &str) -> String {
        let mut client = Client::plain(self.port);
        client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{field}\r\n")).response().text()
    }

    fn judged(&self) -> String {
        self.gateway.wait_for("] reload by stage: ");
        let told = self.gateway.reloads().pop().unwrap_or_default();
        told.split(": ").nth(1).unwrap_or_default().to_owned()
    }
}

#[test]
fn files_are_watched_or_not() {
    for (watch, expected) in [(true, "files: applied: "), (false, "signal: applied: ")] {
        let (change, yaml) = Change::to_be(&format!("{{ watch: {watch} }}"));
        change.gateway.replace(&yaml);
        if watch {
            change.gateway.wait_for("] reload by files: ");
        } else {
            assert!(change.gateway.stays_for(Duration::from_secs(1)));
            change.gateway.hang_up();
        }
        assert!(change.gateway.reloads()[0].starts_with(expected), "{:?}", change.gateway.reloads());
    }
}

#[test]
fn the_share_decides_who_sees_the_candidate() {
    for (share, expected) in [("100%", "candidate"), ("0.01%", "running")] {
        assert_eq!(Change::staged(&format!("share: {share}")).answer(""), expected);
    }
}

#[test]
fn the_header_of_the_file_chooses_and_no_other() {
    for (header, expected) in [("x-one", ["candidate", "running"]), ("x-two", ["running", "candidate"])] {
        let change = Change::staged(&format!("share: 0.01%, header: {header}"));
        let got = ["x-one", "x-two"].map(|name| change.answer(&format!("{name}: candidate\r\n")));
        assert_eq!(got, expected);
    }
}

#[test]
fn a_stage_lasts_as_long_as_it_says() {
    assert_eq!(Change::staged("for: 1s, min_requests: 0, guards: []").judged(), "promoted");
    let long = Change::staged("for: 1h, min_requests: 0, guards: []");
    assert!(long.gateway.stays_for(Duration::from_secs(2)));
    assert_eq!(long.gateway.reloads().len(), 1);
}

#[test]
fn the_requests_that_are_asked_for_must_have_come() {
    for (count, expected) in [(0, "promoted"), (1, "rolled_back")] {
        let stage = format!("for: 1s, share: 0.01%, guards: [], min_requests: {count}");
        assert_eq!(Change::staged(&stage).judged(), expected);
    }
}

#[test]
fn the_guards_judge() {
    for (guards, expected) in [("'error_rate < 1%'", "rolled_back"), ("'p50 < 1h'", "promoted")] {
        let change = Change::staged(&format!("for: 1s, share: 100%, min_requests: 1, guards: {guards}"));
        assert_eq!(change.answer(""), "candidate");
        assert_eq!(change.judged(), expected);
    }
}
