//! What each side of a stage has answered: counted on a request's way, by atomics alone, and read as figures.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use histogram::{AtomicHistogram, Config, Histogram};
use serde::Serialize;

use super::guard::Quantile;

/// The two snapshots that answer during a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The one that was in force already.
    Running,
    /// The one that is tried.
    Candidate,
}

impl Side {
    /// As a tester's header and the admin endpoint spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Candidate => "candidate",
        }
    }

    /// The side of this name.
    pub fn named(name: &[u8]) -> Option<Self> {
        [Self::Running, Self::Candidate].into_iter().find(|side| side.name().as_bytes() == name)
    }
}

/// What came of a request, as far as it tells of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A status below 500; or none, since the client went away first.
    Good,
    /// A status from 500, or none, and not by the client's doing.
    Failed,
}

/// 1 in 128, less than 1%, between a latency and the bound that is told of it; 2^42 ns are 73 minutes.
const LATENCIES: Config = match Config::new(7, 42) {
    Ok(config) => config,
    Err(_) => panic!("both powers are within the bounds that the crate gives"),
};
const LONGEST: u64 = (1 << 42) - 1;

/// Counts the answers of one side. Of fixed size, about 37 KiB.
#[derive(Debug)]
pub struct Answers {
    /// In nanoseconds.
    latencies: AtomicHistogram,
    failed: AtomicU64,
}

impl Answers {
    /// Nothing is counted as yet.
    pub fn new() -> Self {
        Self { latencies: AtomicHistogram::with_config(&LATENCIES), failed: AtomicU64::new(0) }
    }

    /// A request is over. Takes no lock and allocates nothing.
    ///
    /// The latency of a failed one counts too: a candidate that fails slowly is slow.
    pub fn note(&self, answer: Answer, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(LONGEST).min(LONGEST);
        // It fails for a value beyond the longest one only.
        let _ = self.latencies.increment(nanos);
        if answer == Answer::Failed {
            // So that whoever sees this failure sees the request above, and never more failures than requests.
            self.failed.fetch_add(1, Ordering::Release);
        }
    }

    /// What was counted up to now.
    pub fn figures(&self) -> Figures {
        let failed = self.failed.load(Ordering::Acquire);
        let latencies = self.latencies.load();
        Figures { requests: latencies.into_iter().map(|bucket| bucket.count()).sum(), failed, latencies }
    }
}

impl Default for Answers {
    fn default() -> Self {
        Self::new()
    }
}

/// What one side had answered at one moment.
#[derive(Clone, Debug)]
pub struct Figures {
    /// All of them.
    pub requests: u64,
    /// Those that failed; never more than all.
    pub failed: u64,
    latencies: Histogram,
}

impl Figures {
    /// The latency that this share of the requests did not exceed: an upper bound, less than 1% above what was
    /// measured, by the nearest rank. `None` where there was no request.
    pub fn quantile(&self, quantile: Quantile) -> Option<Duration> {
        // It fails for a fraction that is not between 0 and 1 only.
        let bucket = self.latencies.quantile_bucket(quantile.fraction()).ok().flatten()?;
        Some(Duration::from_nanos(bucket.end()))
    }

    /// The share of the requests that failed, as `5.09%`; digits beyond the second are cut off. `None` where there was
    /// no request.
    pub fn error_rate(&self) -> Option<String> {
        let basis_points = (u128::from(self.failed) * 10_000).checked_div(u128::from(self.requests))?;
        Some(match basis_points {
            0 if self.failed > 0 => "less than 0.01%".to_owned(),
            _ => format!("{}%", basis_points as f64 / 100.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_above_what_was_measured_by_less_than_one_percent() {
        let mut nanos = 10_000;
        while nanos <= 3_600_000_000_000 {
            let answers = Answers::new();
            answers.note(Answer::Good, Duration::from_nanos(nanos));
            let bound = answers.figures().quantile(Quantile::P99).unwrap().as_nanos() as u64;
            assert!((nanos..=nanos + nanos / 100).contains(&bound), "{nanos}: {bound}");
            nanos += nanos / 7 + 1;
        }
    }

    #[test]
    fn what_is_beyond_the_longest_latency_counts_as_that() {
        let answers = Answers::new();
        answers.note(Answer::Failed, Duration::MAX);
        answers.note(Answer::Good, Duration::ZERO);
        let figures = answers.figures();
        assert_eq!((figures.requests, figures.failed), (2, 1));
        assert_eq!(figures.quantile(Quantile::P50), Some(Duration::ZERO));
        assert_eq!(figures.quantile(Quantile::P99), Some(Duration::from_nanos(LONGEST)));
    }

    #[test]
    fn a_quantile_is_that_of_the_nearest_rank() {
        let answers = Answers::new();
        (1..=1000).for_each(|number| answers.note(Answer::Good, Duration::from_millis(number)));
        let figures = answers.figures();
        for (quantile, expected) in
            [(Quantile::P50, 500), (Quantile::P90, 900), (Quantile::P95, 950), (Quantile::P99, 990)]
        {
            let bound = figures.quantile(quantile).unwrap();
            let exact = Duration::from_millis(expected);
            assert!(exact <= bound && bound <= exact.mul_f64(1.01), "{}: {bound:?}", quantile.name());
        }
        assert_eq!(Answers::new().figures().quantile(Quantile::P50), None);
    }

    #[test]
    fn an_error_rate_is_told_with_two_decimals() {
        for (failed, good, told) in [
            (0, 0, None),
            (0, 7, Some("0%")),
            (7, 0, Some("100%")),
            (1, 99, Some("1%")),
            (21, 391, Some("5.09%")),
            (1, 2, Some("33.33%")),
            (1, 20_000, Some("less than 0.01%")),
        ] {
            let answers = Answers::new();
            (0..failed).for_each(|_| answers.note(Answer::Failed, Duration::ZERO));
            (0..good).for_each(|_| answers.note(Answer::Good, Duration::ZERO));
            assert_eq!(answers.figures().error_rate().as_deref(), told, "{failed} of {}", failed + good);
        }
    }

    #[test]
    fn threads_that_count_at_once_lose_nothing_and_no_failure_comes_before_its_request() {
        let answers = Answers::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..20_000 {
                        answers.note(Answer::Failed, Duration::from_micros(number));
                    }
                });
            }
            for _ in 0..200 {
                let figures = answers.figures();
                assert!(figures.failed <= figures.requests, "{} of {}", figures.failed, figures.requests);
            }
        });
        let figures = answers.figures();
        assert_eq!((figures.requests, figures.failed), (80_000, 80_000));
    }

    #[test]
    fn a_side_has_one_name() {
        assert_eq!(Side::named(b"candidate"), Some(Side::Candidate));
        assert_eq!(Side::named(b"running"), Some(Side::Running));
        for other in [&b"Candidate"[..], b"", b"candidate ", b"1"] {
            assert_eq!(Side::named(other), None);
        }
    }
}
