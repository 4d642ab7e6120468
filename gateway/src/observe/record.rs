//! What came of the attempts at one endpoint: counts, and the last failure as a person wants to read it.
//!
//! Of a fixed size, however many attempts there are; noting a success takes no lock and allocates nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;

use crate::diagnose::{Cause, Failure};

/// More of a failure's particulars is cut.
const LONGEST_DETAIL: usize = 1024;

/// One endpoint's attempts.
#[derive(Debug)]
pub struct Record {
    successes: AtomicU64,
    /// In milliseconds since 1970; 0 is never.
    last_success: AtomicI64,
    failures: [AtomicU64; Cause::COUNT],
    last_failure: ArcSwapOption<LastFailure>,
}

/// The failure that came last.
#[derive(Debug)]
pub struct LastFailure {
    /// The row of the table.
    pub cause: Cause,
    /// What is particular to it.
    pub detail: String,
    /// The address that was tried, if it came so far.
    pub address: Option<Arc<str>>,
    /// When.
    pub time: Timestamp,
}

impl Record {
    /// An attempt did not fail.
    pub fn succeeded(&self, time: Timestamp) {
        self.successes.fetch_add(1, Ordering::Relaxed);
        self.last_success.store(time.as_millisecond(), Ordering::Relaxed);
    }

    /// An attempt failed.
    pub fn failed(&self, failure: &Failure, address: Option<Arc<str>>, time: Timestamp) {
        let Failure { cause, detail } = failure;
        self.failures[*cause as usize].fetch_add(1, Ordering::Relaxed);
        let detail = detail[..detail.floor_char_boundary(LONGEST_DETAIL)].to_owned();
        self.last_failure.store(Some(Arc::new(LastFailure { cause: *cause, detail, address, time })));
    }

    /// How many attempts did not fail.
    pub fn successes(&self) -> u64 {
        self.successes.load(Ordering::Relaxed)
    }

    /// When one last did not.
    pub fn last_success(&self) -> Option<Timestamp> {
        let time = self.last_success.load(Ordering::Relaxed);
        Timestamp::from_millisecond(time).ok().filter(|_| time != 0)
    }

    /// How many failed by each cause by which any did.
    pub fn failures(&self) -> impl Iterator<Item = (Cause, u64)> {
        let counts = self.failures.iter().map(|count| count.load(Ordering::Relaxed));
        Cause::ALL.iter().copied().zip(counts).filter(|(_, count)| *count > 0)
    }

    /// The failure that came last.
    pub fn last_failure(&self) -> Option<Arc<LastFailure>> {
        self.last_failure.load_full()
    }
}

impl Default for Record {
    fn default() -> Self {
        Self {
            successes: AtomicU64::new(0),
            last_success: AtomicI64::new(0),
            failures: [const { AtomicU64::new(0) }; Cause::COUNT],
            last_failure: ArcSwapOption::empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_counted_and_the_last_one_is_kept() {
        let record = Record::default();
        assert!(record.failures().next().is_none() && record.last_success().is_none());
        let time = Timestamp::from_second(1_000_000_000).unwrap();
        for cause in [Cause::TlsExpired, Cause::ConnectRefused, Cause::TlsExpired] {
            record.failed(&Failure::new(cause, "x"), None, time);
        }
        record.succeeded(time);
        let failures: Vec<_> = record.failures().collect();
        assert_eq!(failures, [(Cause::ConnectRefused, 1), (Cause::TlsExpired, 2)]);
        assert_eq!(record.last_failure().unwrap().cause, Cause::TlsExpired);
        assert_eq!((record.successes(), record.last_success()), (1, Some(time)));
    }

    #[test]
    fn a_long_detail_is_cut_between_two_characters() {
        let record = Record::default();
        let detail = "é".repeat(10_000) + "x";
        for start in [0, 1] {
            let detail = if start == 0 { detail.clone() } else { format!("x{detail}") };
            record.failed(&Failure::new(Cause::Internal, detail), None, Timestamp::UNIX_EPOCH);
            let kept = record.last_failure().unwrap().detail.len();
            assert_eq!(kept, LONGEST_DETAIL - start);
        }
    }
}
