//! What `retry` decides, as tables. Beside its file because there are many.

use super::*;
use crate::testing::{plugin, plugins_of_doc, refusal, told};

const FIRST: Attempt<'static> = Attempt {
    number: 1,
    method: &Method::GET,
    outcome: Outcome::Reset,
    sent: Sent::Something,
    body: Body::Replayable,
    connection: Connection::New,
    jitter: 1.0,
};

fn with_policy<T>(config: &str, then: impl FnOnce(&RetryPolicy) -> T) -> T {
    let plugin = plugin("retry", config).unwrap_or_else(|problems| panic!("{config}: {}", told(&problems)));
    then(plugin.retry().unwrap())
}

fn decided(config: &str, attempt: Attempt<'_>) -> Result<u128, Reason> {
    with_policy(config, |policy| match policy.decide(&attempt) {
        Decision::Again { after } => Ok(after.as_millis()),
        Decision::GiveUp(reason) => Err(reason),
    })
}

#[test]
fn the_yaml_of_the_module_doc_loads() {
    let plugins = plugins_of_doc(include_str!("retry.rs"));
    let attempts: Vec<u32> = plugins.iter().map(|plugin| plugin.retry().unwrap().attempts()).collect();
    assert_eq!(attempts, [3, 2]);
}

#[test]
fn only_what_is_named_is_retried() {
    use Outcome::{ConnectFailure, Reset, Status, Timeout};
    for (config, again, not_asked) in [
        ("{}", &[ConnectFailure, Reset][..], &[Timeout, Status(503), Status(502)][..]),
        ("{ retry_on: [] }", &[], &[ConnectFailure, Reset, Timeout, Status(503)]),
        ("{ retry_on: timeout }", &[Timeout], &[ConnectFailure, Reset]),
        ("{ retry_on: [503, '429'] }", &[Status(503), Status(429)], &[Status(502), Status(200), Reset]),
        ("{ retry_on: 5xx }", &[Status(500), Status(599)], &[Status(499), Status(200)]),
        ("{ retry_on: [4XX, reset] }", &[Status(400), Status(499), Reset], &[Status(500)]),
    ] {
        for outcome in again {
            assert!(decided(config, Attempt { outcome: *outcome, ..FIRST }).is_ok(), "{config} {outcome:?}");
        }
        for outcome in not_asked {
            let decided = decided(config, Attempt { outcome: *outcome, ..FIRST });
            assert_eq!(decided, Err(Reason::NotAsked), "{config} {outcome:?}");
        }
    }
}

#[test]
fn a_status_is_retryable_where_the_file_names_it() {
    with_policy("{ retry_on: [503, 4xx] }", |policy| {
        for (status, retryable) in
            [(200, false), (399, false), (404, true), (500, false), (503, true), (504, false)]
        {
            assert_eq!(policy.is_retryable_status(status), retryable, "{status}");
        }
    });
}

#[test]
fn attempts_count_the_first() {
    for (config, number, again) in [
        ("{}", 1, true),
        ("{}", 2, false),
        ("{ attempts: 1 }", 1, false),
        ("{ attempts: 3 }", 2, true),
        ("{ attempts: 3 }", 3, false),
        ("{ attempts: 10 }", 9, true),
    ] {
        let decided = decided(config, Attempt { number, ..FIRST });
        assert_eq!(decided.err(), (!again).then_some(Reason::AttemptsUsed), "{config} after {number}");
    }
}

#[test]
fn a_method_outside_the_list_is_never_repeated_once_it_may_have_arrived() {
    let all = "retry_on: [connect_failure, reset, timeout, 5xx]";
    for connection in [Connection::New, Connection::Reused] {
        for outcome in [Outcome::ConnectFailure, Outcome::Reset, Outcome::Timeout, Outcome::Status(503)] {
            for (methods, method, safe) in [
                ("", Method::POST, false),
                ("", Method::PATCH, false),
                ("", Method::CONNECT, false),
                ("", Method::from_bytes(b"PURGE").unwrap(), false),
                ("", Method::GET, true),
                ("", Method::HEAD, true),
                ("", Method::OPTIONS, true),
                ("", Method::TRACE, true),
                ("", Method::PUT, true),
                ("", Method::DELETE, true),
                (", methods: [POST]", Method::POST, true),
                (", methods: POST", Method::GET, false),
                (", methods: []", Method::GET, false),
            ] {
                let config = format!("{{ attempts: 3, {all}{methods} }}");
                let attempt = Attempt { method: &method, outcome, connection, ..FIRST };
                let expected = (!safe).then_some(Reason::NotIdempotent);
                assert_eq!(decided(&config, attempt).err(), expected, "{config} {method} {outcome:?}");
                // A response is proof that the request arrived, whatever was noted.
                let unsent = Attempt { sent: Sent::Nothing, ..attempt };
                let expected = expected.filter(|_| matches!(outcome, Outcome::Status(_)));
                assert_eq!(decided(&config, unsent).err(), expected, "unsent {config} {method} {outcome:?}");
            }
        }
    }
}

#[test]
fn a_body_that_is_lost_is_not_repeated() {
    for outcome in [Outcome::ConnectFailure, Outcome::Reset] {
        for sent in [Sent::Nothing, Sent::Something] {
            for connection in [Connection::New, Connection::Reused] {
                let attempt = Attempt { outcome, sent, connection, body: Body::Consumed, ..FIRST };
                assert_eq!(decided("{}", attempt), Err(Reason::BodyConsumed), "{outcome:?} {sent:?}");
            }
        }
    }
}

#[test]
fn the_wait_doubles_up_to_its_most_and_jitter_takes_a_part() {
    for (config, number, jitter, wait) in [
        ("{ attempts: 10 }", 1, 1.0, 25),
        ("{ attempts: 10 }", 2, 1.0, 50),
        ("{ attempts: 10 }", 4, 1.0, 200),
        ("{ attempts: 10 }", 5, 1.0, 250),
        ("{ attempts: 10 }", 9, 1.0, 250),
        ("{ attempts: 10 }", 2, 0.5, 25),
        ("{ attempts: 10 }", 9, 0.0, 0),
        ("{ attempts: 10 }", 9, -1.0, 0),
        ("{ attempts: 10 }", 9, f64::NAN, 0),
        ("{ attempts: 10 }", 9, f64::INFINITY, 250),
        ("{ attempts: 10, backoff: { base: 1s } }", 9, 1.0, 10_000),
        ("{ attempts: 10, backoff: { max: 30ms } }", 2, 1.0, 30),
        ("{ attempts: 10, backoff: { base: 0s } }", 5, 1.0, 0),
        ("{ attempts: 10, backoff: { base: 1h, max: 2h } }", 5, 1.0, 7_200_000),
    ] {
        let decided = decided(config, Attempt { number, jitter, ..FIRST });
        assert_eq!(decided, Ok(wait), "{config} after {number} by {jitter}");
    }
}

#[test]
fn a_reset_on_a_reused_connection_is_worth_a_try_at_once_in_every_policy() {
    let stale = Attempt { connection: Connection::Reused, ..FIRST };
    for (config, number, expected) in [
        ("{ attempts: 1 }", 1, Ok(0)),
        ("{ attempts: 1 }", 2, Ok(0)),
        ("{ attempts: 1 }", 3, Err(Reason::AttemptsUsed)),
        ("{ attempts: 5 }", 4, Ok(0)),
        ("{ attempts: 5 }", 5, Err(Reason::AttemptsUsed)),
        ("{ retry_on: 503 }", 1, Ok(0)),
    ] {
        assert_eq!(decided(config, Attempt { number, ..stale }), expected, "{config} after {number}");
    }
}

#[test]
fn a_route_without_rules_retries_only_on_stale_connections() {
    let policy = RetryPolicy::stale_connection();
    let stale = Attempt { connection: Connection::Reused, ..FIRST };
    let again = Decision::Again { after: Duration::ZERO };
    for (attempt, expected) in [
        (stale, again),
        (Attempt { number: 2, ..stale }, again),
        (Attempt { number: 3, ..stale }, Decision::GiveUp(Reason::AttemptsUsed)),
        (Attempt { method: &Method::POST, ..stale }, Decision::GiveUp(Reason::NotIdempotent)),
        (Attempt { method: &Method::POST, sent: Sent::Nothing, ..stale }, again),
        (Attempt { body: Body::Consumed, ..stale }, Decision::GiveUp(Reason::BodyConsumed)),
        (FIRST, Decision::GiveUp(Reason::NotAsked)),
        (
            Attempt { outcome: Outcome::ConnectFailure, sent: Sent::Nothing, ..stale },
            Decision::GiveUp(Reason::NotAsked),
        ),
        (Attempt { outcome: Outcome::Timeout, ..stale }, Decision::GiveUp(Reason::NotAsked)),
        (Attempt { outcome: Outcome::Status(503), ..stale }, Decision::GiveUp(Reason::NotAsked)),
    ] {
        assert_eq!(policy.decide(&attempt), expected, "{attempt:?}");
    }
    assert!((100..=599).all(|status| !policy.is_retryable_status(status)));
}

#[test]
fn a_spent_budget_ends_retrying_and_requests_fill_it() {
    with_policy("{ budget: 20% }", |policy| {
        let again = |policy: &RetryPolicy| matches!(policy.decide(&FIRST), Decision::Again { .. });
        // What is given up for another reason costs nothing.
        let refused = Attempt { method: &Method::POST, ..FIRST };
        (0..100).for_each(|_| assert_eq!(policy.decide(&refused), Decision::GiveUp(Reason::NotIdempotent)));
        assert_eq!((0..100).filter(|_| again(policy)).count(), 10);
        assert_eq!(policy.decide(&FIRST), Decision::GiveUp(Reason::BudgetSpent));
        (0..5).for_each(|_| policy.note_request());
        assert!(again(policy));
        assert!(!again(policy));
    });
}

#[test]
fn what_cannot_be_a_policy_is_refused() {
    for (config, told) in [
        ("{ attempts: 0 }", "attempts: `0` attempts; 1 to 10 are allowed (the first try counts"),
        ("{ attempts: 11 }", "attempts: `11` attempts; 1 to 10 are allowed"),
        (
            "{ retry_on: [connect-failure] }",
            "retry_on[0]: `connect-failure` is nothing to retry on; there are `connect_failure`, `reset`, `timeout`, a \
             status from 400 to 599, `4xx` and `5xx` (did you mean `connect_failure`?)",
        ),
        ("{ retry_on: [reset, 200] }", "retry_on[1]: `200` is nothing to retry on"),
        ("{ retry_on: 3xx }", "retry_on[0]: `3xx` is nothing to retry on"),
        ("{ retry_on: [600] }", "retry_on[0]: `600` is nothing to retry on"),
        (
            "{ methods: [get] }",
            "methods[0]: `get` is no method that is in use; case counts in a method (write `GET`)",
        ),
        ("{ methods: [GET, 'a b'] }", "methods[1]: `a b` is not a method"),
        ("{ backoff: { base: 1s, max: 500ms } }", "backoff: `base` is 1s, more than `max`, which is 500ms"),
        ("{ backoff: { base: 25 } }", "`25` has no unit; write `25s` for seconds or `25ms` for milliseconds"),
        ("{ backoff: { bse: 25ms } }", "unknown key `bse`"),
        ("{ budget: 0% }", "budget: a budget of `0%` allows no retry (write `attempts: 1`"),
        ("{ budget: 20 }", "`20` is not a share"),
        ("{ attemps: 3 }", "unknown key `attemps`"),
    ] {
        let refused = refusal("retry", config);
        assert!(refused.contains(told), "{config}: {refused}");
    }
    let all = refusal("retry", "{ attempts: 0, retry_on: [a, b], methods: [c], budget: 0% }");
    assert_eq!(all.lines().count(), 5, "{all}");
}

#[test]
fn every_reason_says_something_else() {
    let reasons = [
        Reason::NotAsked,
        Reason::AttemptsUsed,
        Reason::NotIdempotent,
        Reason::BodyConsumed,
        Reason::BudgetSpent,
    ];
    let texts: std::collections::BTreeSet<String> = reasons.iter().map(Reason::to_string).collect();
    assert_eq!(texts.len(), reasons.len());
}

#[test]
fn rules_are_told_as_the_file_spells_them() {
    let rules = plugin(
        "retry",
        "{ attempts: 3, retry_on: [503, reset, connect_failure, 5XX], methods: POST, backoff: { base: 10ms }, budget: 12.5% }",
    )
    .unwrap();
    let policy = rules.retry().unwrap();
    assert_eq!(policy.retry_on(), ["connect_failure", "reset", "503", "5xx"]);
    assert_eq!(policy.methods(), [Method::POST]);
    assert_eq!(policy.backoff(), (Duration::from_millis(10), Duration::from_millis(100)));
    assert_eq!(policy.budget().unwrap().to_string(), "12.5%");
    assert!(RetryPolicy::stale_connection().retry_on().is_empty());
}
