//! Turns an attempt that failed into "again" or "give up". Pure: no clock, no chance, no I/O.
//!
//! The proxy owns the loop; `retry` says what may be typed.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::Method;

use crate::percent::Percent;
use crate::retry_budget::RetryBudget;

/// Which attempts are made again, and how fast.
#[derive(Debug)]
pub struct RetryPolicy {
    pub(crate) attempts: u32,
    pub(crate) connect_failure: Asked,
    pub(crate) reset: Asked,
    pub(crate) timeout: Asked,
    pub(crate) statuses: Vec<RangeInclusive<u16>>,
    pub(crate) methods: Cow<'static, [Method]>,
    pub(crate) backoff: Backoff,
    pub(crate) budget: Option<RetryBudget>,
}

/// Whether the file asks to retry on an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Yes,
    No,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub(crate) base: Duration,
    pub(crate) max: Duration,
}

/// An attempt that failed, or that was answered with a status that may be worth another.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// 1 for the first.
    pub number: u32,
    /// The method of the request.
    pub method: &'a Method,
    /// How it went.
    pub outcome: Outcome,
    /// Whether the upstream may have seen any of it.
    pub sent: Sent,
    /// Whether the request's body can be sent again.
    pub body: Body,
    /// What it was sent on.
    pub connection: Connection,
    /// A random number from 0 to 1, from which the wait is made.
    pub jitter: f64,
}

/// How an attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No connection, or no TLS on it.
    ConnectFailure,
    /// The connection broke before the head of a response.
    Reset,
    /// The upstream was silent for too long.
    Timeout,
    /// The upstream answered with this status.
    Status(u16),
}

/// Whether bytes of the request may have reached an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Certainly none.
    Nothing,
    /// Perhaps some.
    Something,
}

/// Whether the body of the request is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none, none of it has been read, or all that has been read is kept.
    Replayable,
    /// Some of it was read and is lost.
    Consumed,
}

/// Where the connection of an attempt came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It was opened for this attempt.
    New,
    /// It had been kept open after an earlier request.
    Reused,
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Another one, after this wait.
    Again {
        /// How long to wait first.
        after: Duration,
    },
    /// The client gets this outcome.
    GiveUp(Reason),
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `retry_on` does not name the outcome.
    NotAsked,
    /// `attempts` have been made.
    AttemptsUsed,
    /// The upstream may have acted on the request, and `methods` does not name its method.
    NotIdempotent,
    /// The request's body cannot be sent again.
    BodyConsumed,
    /// `budget` is spent.
    BudgetSpent,
}

/// RFC 9110 9.2.2: the safe methods, PUT and DELETE.
pub(crate) const IDEMPOTENT: [Method; 6] =
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE];

/// How many attempts a request may take whose reused connections turn out to be closed.
const STALE_ATTEMPTS: u32 = 3;

static STALE_CONNECTION: RetryPolicy = RetryPolicy {
    attempts: 1,
    connect_failure: Asked::No,
    reset: Asked::No,
    timeout: Asked::No,
    statuses: Vec::new(),
    methods: Cow::Borrowed(&IDEMPOTENT),
    backoff: Backoff { base: Duration::ZERO, max: Duration::ZERO },
    budget: None,
};

impl RetryPolicy {
    /// The rules of a route that has no `retry`: only a reset on a reused connection is worth another
    /// attempt.
    pub fn stale_connection() -> &'static Self {
        &STALE_CONNECTION
    }

    /// How many attempts a request may take, the first included.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How long the waits between all attempts are together at most, where an attempt that took too long is made
    /// again; none where it is not, so that attempts never add up to many times their timeout.
    pub fn waits_after_timeouts(&self) -> Option<Duration> {
        let waits = (1..self.attempts).map(|number| self.backoff.after(number, 1.0));
        let may_repeat = self.timeout == Asked::Yes && self.attempts > 1;
        may_repeat.then(|| waits.fold(Duration::ZERO, Duration::saturating_add))
    }

    /// What is worth another attempt, as the file spells it.
    pub fn retry_on(&self) -> Vec<String> {
        let failures =
            [("connect_failure", self.connect_failure), ("reset", self.reset), ("timeout", self.timeout)];
        let asked =
            failures.iter().filter(|(_, asked)| *asked == Asked::Yes).map(|(name, _)| (*name).to_owned());
        let statuses = self.statuses.iter().map(|range| match range.start() == range.end() {
            true => range.start().to_string(),
            false => format!("{}xx", range.start() / 100),
        });
        asked.chain(statuses).collect()
    }

    /// The methods that are safe to send twice.
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// The longest wait before the second attempt, and the longest of all.
    pub fn backoff(&self) -> (Duration, Duration) {
        (self.backoff.base, self.backoff.max)
    }

    /// How many retries there may be for the requests that come in; `None` is no bound.
    pub fn budget(&self) -> Option<Percent> {
        self.budget.as_ref().map(RetryBudget::share)
    }

    /// Counts a request in; the proxy calls it once a request, before the first attempt.
    pub fn note_request(&self) {
        if let Some(budget) = &self.budget {
            budget.deposit();
        }
    }

    /// Whether `decide` may answer this status with `Again`, so that it need not be asked about each 200.
    pub fn is_retryable_status(&self, status: u16) -> bool {
        self.statuses.iter().any(|range| range.contains(&status))
    }

    /// What follows this attempt. Takes from the budget only where the answer is `Again`.
    pub fn decide(&self, attempt: &Attempt<'_>) -> Decision {
        let stale = attempt.outcome == Outcome::Reset && attempt.connection == Connection::Reused;
        let attempts = if stale { self.attempts.max(STALE_ATTEMPTS) } else { self.attempts };
        if !stale && !self.asks_for(attempt.outcome) {
            return Decision::GiveUp(Reason::NotAsked);
        }
        if attempt.number >= attempts {
            return Decision::GiveUp(Reason::AttemptsUsed);
        }
        if may_have_arrived(attempt) && !self.methods.contains(attempt.method) {
            return Decision::GiveUp(Reason::NotIdempotent);
        }
        if attempt.body == Body::Consumed {
            return Decision::GiveUp(Reason::BodyConsumed);
        }
        if self.budget.as_ref().is_some_and(|budget| !budget.withdraw()) {
            return Decision::GiveUp(Reason::BudgetSpent);
        }
        let after = if stale { Duration::ZERO } else { self.backoff.after(attempt.number, attempt.jitter) };
        Decision::Again { after }
    }

    fn asks_for(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::ConnectFailure => self.connect_failure == Asked::Yes,
            Outcome::Reset => self.reset == Asked::Yes,
            Outcome::Timeout => self.timeout == Asked::Yes,
            Outcome::Status(status) => self.is_retryable_status(status),
        }
    }
}

/// Whoever answers has been asked, whatever was noted of the bytes.
fn may_have_arrived(attempt: &Attempt<'_>) -> bool {
    attempt.sent == Sent::Something || matches!(attempt.outcome, Outcome::Status(_))
}

impl Backoff {
    fn after(self, number: u32, jitter: f64) -> Duration {
        let doublings = number.saturating_sub(1).min(16);
        let longest = self.base.saturating_mul(1 << doublings).min(self.max);
        // Not a number would panic in `mul_f64`; it becomes no wait.
        longest.mul_f64(if jitter > 0.0 { jitter.min(1.0) } else { 0.0 })
    }
}

impl Reason {
    /// For a log line or an explanation.
    pub fn text(self) -> &'static str {
        match self {
            Self::NotAsked => "the retry rules do not name this outcome",
            Self::AttemptsUsed => "all attempts are used",
            Self::NotIdempotent => "the upstream may have acted on it, and its method is not safe to repeat",
            Self::BodyConsumed => "the request's body can not be sent again",
            Self::BudgetSpent => "the retry budget is spent",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
