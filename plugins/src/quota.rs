//! How many requests each of many keys has left: a token bucket for each, in a table of bounded size. Without a clock.
//!
//! A bucket is kept as the one moment at which it will be full again (the generic cell rate algorithm, ITU-T I.371): each
//! request moves it on by the time that one token takes to come back, and none may move it further ahead than the whole
//! bucket takes. A bucket that is full is as good as none, so nothing has to be cleaned up.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Slots of a set. A key has its place in one set, by its hash, so that a request looks at these few alone.
const SLOTS: usize = 16;

/// Slots for each key that is to have one: sets fill unevenly, and at half of what they hold hardly one is full.
const SPARE: usize = 2;

/// The buckets of many keys.
pub(crate) struct Quotas {
    /// In nanoseconds: how long one token takes to come back.
    interval: u64,
    /// In nanoseconds: how long all of them take.
    capacity: u64,
    /// Keyed at random, so that no client can choose keys that share a set.
    hasher: RandomState,
    /// Made when the first key comes that belongs there.
    sets: Box<[OnceLock<Box<Set>>]>,
}

/// The buckets of a few keys, behind a lock of their own.
type Set = Mutex<[Slot; SLOTS]>;

/// One bucket; empty where its moment has passed.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// The hash of its key, in the key's stead: it is as short for every key, and says nothing of a token. That two of the
    /// sixteen keys of a set have the same is as likely as one in 2^57.
    tag: u64,
    /// In nanoseconds since the beginning: when the bucket will be full.
    full_at: u64,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It took a token: so many are left, and all of them will be back after that time.
    Passed { left: u64, full_in: Duration },
    /// There was none: the next one will be there after that time.
    Refused { wait: Duration },
}

impl Quotas {
    /// Buckets that hold `burst` tokens, of which `requests` come back in each `per`. The table holds about `keys` of them.
    /// `None` where it would take more than thirty days until a bucket is full.
    pub(crate) fn new(requests: NonZeroU32, per: Duration, burst: NonZeroU32, keys: usize) -> Option<Self> {
        // Rounded up: a token never comes back too early.
        let interval = u64::try_from(per.as_nanos().div_ceil(u128::from(requests.get()))).ok()?;
        let capacity = interval.checked_mul(u64::from(burst.get()))?;
        let sets = (keys * SPARE).div_ceil(SLOTS).max(1);
        (Duration::from_nanos(capacity) <= Duration::from_secs(30 * 86_400)).then(|| Self {
            interval,
            capacity,
            hasher: RandomState::new(),
            sets: (0..sets).map(|_| OnceLock::new()).collect(),
        })
    }

    /// Takes a token of this key's bucket. `now` counts from any one moment, the same for all calls.
    ///
    /// A key without a bucket takes the slot that owes least: an empty one, or else that of the key which would be full
    /// again first. So a newcomer always passes, and however many keys come, those that asked most are forgotten last.
    pub(crate) fn take(&self, key: &[u8], now: Duration) -> Taken {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2);
        let tag = self.hasher.hash_one(key);
        let set = (tag % self.sets.len() as u64) as usize;
        let mut slots =
            self.sets[set].get_or_init(Box::default).lock().unwrap_or_else(PoisonError::into_inner);
        let place = slots.iter().position(|slot| slot.tag == tag).unwrap_or_else(|| least(&slots));
        let slot = &mut slots[place];
        let owed_from = if slot.tag == tag { slot.full_at.max(now) } else { now };
        let full_at = owed_from.saturating_add(self.interval);
        let owed = full_at - now;
        if owed > self.capacity {
            return Taken::Refused { wait: Duration::from_nanos(owed - self.capacity) };
        }
        *slot = Slot { tag, full_at };
        Taken::Passed { left: (self.capacity - owed) / self.interval, full_in: Duration::from_nanos(owed) }
    }

    /// When the next token of a bucket comes that holds none, and will be full after that time.
    pub(crate) fn next_in(&self, full_in: Duration) -> Duration {
        (full_in + Duration::from_nanos(self.interval)).saturating_sub(Duration::from_nanos(self.capacity))
    }
}

fn least(slots: &[Slot; SLOTS]) -> usize {
    (0..SLOTS).min_by_key(|place| slots[*place].full_at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(requests: u32, per: Duration, burst: u32, keys: usize) -> Quotas {
        let count = |n| NonZeroU32::new(n).unwrap();
        Quotas::new(count(requests), per, count(burst), keys).unwrap()
    }

    fn passed(taken: Taken) -> bool {
        matches!(taken, Taken::Passed { .. })
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_at_once_and_then_one_for_each_interval() {
        let quotas = quotas(2, SECOND, 3, 10);
        let at = Duration::from_millis;
        let full = |millis| at(millis);
        for (now, expected) in [
            (0, Taken::Passed { left: 2, full_in: full(500) }),
            (0, Taken::Passed { left: 1, full_in: full(1000) }),
            (100, Taken::Passed { left: 0, full_in: full(1400) }),
            (100, Taken::Refused { wait: at(400) }),
            (499, Taken::Refused { wait: at(1) }),
            (500, Taken::Passed { left: 0, full_in: full(1500) }),
            (500, Taken::Refused { wait: at(500) }),
            // A long time later there is the burst and no more.
            (100_000, Taken::Passed { left: 2, full_in: full(500) }),
        ] {
            assert_eq!(quotas.take(b"a", at(now)), expected, "at {now} ms");
        }
    }

    #[test]
    fn each_key_has_its_own() {
        let quotas = quotas(1, SECOND, 1, 1000);
        for round in 0..2 {
            for key in 0..100u32 {
                assert_eq!(passed(quotas.take(&key.to_be_bytes(), Duration::ZERO)), round == 0, "{key}");
            }
        }
    }

    /// The one promise: whatever comes when, in each span of time no more than the burst and what came back in it pass.
    #[test]
    fn never_more_than_the_burst_and_what_came_back_pass() {
        let mut seed = 11u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..200 {
            let (requests, burst) = (1 + random(50) as u32, 1 + random(20) as u32);
            let per = Duration::from_millis(1 + random(5000));
            let quotas = quotas(requests, per, burst, 16);
            let (mut now, mut times) = (Duration::ZERO, Vec::new());
            for _ in 0..400 {
                now += Duration::from_micros(random(2 * per.as_micros() as u64 / u64::from(requests) + 2));
                if passed(quotas.take(b"a", now)) {
                    times.push(now);
                }
            }
            for (first, begin) in times.iter().enumerate() {
                for (last, end) in times.iter().enumerate().skip(first) {
                    let came_back = (*end - *begin).as_secs_f64() * f64::from(requests) / per.as_secs_f64();
                    let count = (last - first + 1) as f64;
                    assert!(
                        count <= f64::from(burst) + came_back + 1e-6,
                        "{count} in {:?} by {requests} in {per:?} and {burst} at once",
                        *end - *begin
                    );
                }
            }
            assert!(times.len() >= burst as usize, "fewer than the burst passed");
        }
    }

    #[test]
    fn threads_never_take_more_than_there_is() {
        let quotas = quotas(1, Duration::from_secs(3600), 100, 10);
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..100).filter(|_| passed(quotas.take(b"a", SECOND))).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 100);
    }

    #[test]
    fn when_the_table_is_full_newcomers_pass_and_who_asked_most_is_not_forgotten() {
        let quotas = quotas(1, Duration::from_secs(60), 10, 1);
        assert_eq!(quotas.sets.len(), 1);
        for _ in 0..10 {
            assert!(passed(quotas.take(b"greedy", Duration::ZERO)));
        }
        for key in 0..10_000u32 {
            assert!(passed(quotas.take(&key.to_be_bytes(), Duration::ZERO)), "{key}");
        }
        assert_eq!(quotas.take(b"greedy", Duration::ZERO), Taken::Refused { wait: Duration::from_secs(60) });
    }

    #[test]
    fn the_table_holds_the_keys_that_it_is_made_for() {
        let quotas = quotas(1, Duration::from_secs(3600), 1, 10_000);
        for key in 0..10_000u32 {
            quotas.take(&key.to_be_bytes(), Duration::ZERO);
        }
        let forgotten = (0..10_000u32).filter(|key| passed(quotas.take(&key.to_be_bytes(), SECOND))).count();
        assert!(forgotten < 200, "{forgotten} of 10000");
    }

    #[test]
    fn what_takes_longer_than_a_month_to_come_back_is_none() {
        let count = |n| NonZeroU32::new(n).unwrap();
        let day = Duration::from_secs(86_400);
        assert!(Quotas::new(count(1), day, count(30), 1).is_some());
        assert!(Quotas::new(count(1), day, count(31), 1).is_none());
        assert!(Quotas::new(count(1), day, count(u32::MAX), 1).is_none());
    }
}
