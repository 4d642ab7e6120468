//! How many retries may be spent for so many requests. Lock-free and without a clock.
//!
//! Every request pays a share of a retry in, every retry takes a whole one out. So while an upstream is down,
//! retries add that share to its load and no more, whatever `attempts` says.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::percent::Percent;

/// The price of one retry, in hundredths of a percent of a request.
const RETRY: i64 = 10_000;

/// What there is at the start, so that a quiet route may retry its first failures.
const RESERVE: i64 = 10 * RETRY;

/// What can be saved up: more would let an outage after a quiet night begin with a storm.
const CAP: i64 = 100 * RETRY;

/// An account of retries.
#[derive(Debug)]
pub struct RetryBudget {
    share: Percent,
    balance: AtomicI64,
}

impl RetryBudget {
    /// An account that takes in `share` of a retry for each request.
    pub fn new(share: Percent) -> Self {
        Self { share, balance: AtomicI64::new(RESERVE) }
    }

    /// How much of a retry each request pays in.
    pub fn share(&self) -> Percent {
        self.share
    }

    /// Pays in for one request.
    pub fn deposit(&self) {
        let deposit = i64::from(self.share.basis_points());
        // `Err` is an account that is full, the common case, which then costs one read.
        let _ = self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |balance| {
            (balance < CAP).then(|| (balance + deposit).min(CAP))
        });
    }

    /// Takes out one retry, if there is one.
    pub fn withdraw(&self) -> bool {
        self.balance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |balance| {
                (balance >= RETRY).then(|| balance - RETRY)
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(share: &str) -> RetryBudget {
        RetryBudget::new(Percent::parse(share).unwrap())
    }

    fn spend_all(budget: &RetryBudget) -> usize {
        std::iter::from_fn(|| budget.withdraw().then_some(())).count()
    }

    #[test]
    fn ten_retries_are_there_at_the_start() {
        assert_eq!(spend_all(&budget("20%")), 10);
    }

    #[test]
    fn requests_earn_their_share() {
        for (share, requests, earned) in
            [("20%", 4, 0), ("20%", 5, 1), ("20%", 100, 20), ("0.5%", 200, 1), ("100%", 7, 7)]
        {
            let budget = budget(share);
            spend_all(&budget);
            (0..requests).for_each(|_| budget.deposit());
            assert_eq!(spend_all(&budget), earned, "{share} of {requests}");
        }
    }

    #[test]
    fn a_quiet_time_saves_up_no_storm() {
        let budget = budget("100%");
        (0..100_000).for_each(|_| budget.deposit());
        assert_eq!(spend_all(&budget), 100);
    }

    #[test]
    fn threads_never_spend_more_than_there_is() {
        let budget = budget("100%");
        let spent: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| spend_all(&budget))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(spent, 10);
    }
}
