//! Connections that are being made: requests that come in meanwhile share one, and its outcome.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

use super::Slot;
use crate::diagnose::Failure;
use crate::upstream::peer::Wanted;
use crate::upstream::stream::Stream;

/// A connection that has been made.
pub enum Made {
    /// One that others can share, with a first stream taken.
    H2(Slot),
    /// One for a single request at a time.
    Http1(Box<Stream>),
}

impl Made {
    /// Whether it was made for what is wanted.
    pub fn serves(&self, wanted: Wanted<'_>) -> bool {
        match self {
            Self::H2(slot) => slot.standing().serves(wanted),
            Self::Http1(stream) => stream.standing().serves(wanted),
        }
    }
}

/// What those who waited for a connection learn.
#[derive(Clone)]
pub enum Landed {
    /// It is there; whoever comes first takes what was made.
    Made(Arc<Mutex<Option<Made>>>),
    /// It failed.
    Failed(Arc<Failure>),
}

type Flight = Shared<BoxFuture<'static, Landed>>;

/// The connections that are being made, by key.
#[derive(Default)]
pub struct Flights(Mutex<HashMap<u64, Vec<Boarding>>>);

struct Boarding {
    flight: WeakShared<BoxFuture<'static, Landed>>,
    seats: u32,
}

impl Flights {
    /// Joins a connection that is being made for this key and has room for one more request, or begins one by `make`.
    /// It is made for as long as anybody waits for it.
    pub fn join<F>(&self, key: u64, seats: u32, make: impl FnOnce() -> F) -> Flight
    where
        F: Future<Output = Result<Made, Failure>> + Send + 'static,
    {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have landed, and those that all have left, are forgotten here, whichever key they have.
        flights.retain(|_, boardings| {
            boardings.retain(|boarding| boarding.flight.upgrade().is_some_and(|it| it.peek().is_none()));
            !boardings.is_empty()
        });
        let boardings = flights.entry(key).or_default();
        let free = boardings.iter_mut().find(|boarding| boarding.seats > 0);
        if let Some((boarding, flight)) = free.and_then(|it| it.flight.upgrade().map(|flight| (it, flight))) {
            boarding.seats -= 1;
            return flight;
        }
        let making = make();
        let landing = async move {
            match making.await {
                Ok(made) => Landed::Made(Arc::new(Mutex::new(Some(made)))),
                Err(failure) => Landed::Failed(Arc::new(failure)),
            }
        };
        let flight = landing.boxed().shared();
        // Not polled and not dropped yet, so there is something to be referred to.
        if let Some(weak) = flight.downgrade() {
            boardings.push(Boarding { flight: weak, seats: seats.saturating_sub(1) });
        }
        flight
    }
}

impl Landed {
    /// What was made, for the first who asks.
    ///
    /// # Errors
    /// Nothing was.
    pub fn claim(self) -> Result<Option<Made>, Failure> {
        match self {
            Self::Made(made) => Ok(made.lock().unwrap_or_else(PoisonError::into_inner).take()),
            Self::Failed(failure) => Err(Failure::new(failure.cause, failure.detail.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;
    use crate::diagnose::Cause;

    #[tokio::test]
    async fn requests_that_come_at_once_share_one_attempt_and_its_outcome() {
        let flights = Flights::default();
        let begun = AtomicUsize::new(0);
        let (fail, failed) = oneshot::channel::<()>();
        let mut failed = Some(failed);
        let mut join = |key| {
            let failed = failed.take();
            flights.join(key, 3, || {
                begun.fetch_add(1, Ordering::Relaxed);
                async move {
                    if let Some(failed) = failed {
                        let _ = failed.await;
                    }
                    Err(Failure::new(Cause::ConnectRefused, "here"))
                }
            })
        };
        let (first, second, third) = (join(1), join(1), join(1));
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        let _other_key = join(2);
        assert_eq!(begun.load(Ordering::Relaxed), 2);
        let _no_seat_left = join(1);
        assert_eq!(begun.load(Ordering::Relaxed), 3);
        drop(first);
        fail.send(()).unwrap();
        for flight in [second, third] {
            assert_eq!(flight.await.claim().err().unwrap().cause, Cause::ConnectRefused);
        }
    }

    #[tokio::test]
    async fn an_attempt_that_everybody_has_left_is_given_up() {
        let flights = Flights::default();
        let (tell, told) = oneshot::channel::<()>();
        let flight = flights.join(1, 9, || async move {
            std::future::pending::<()>().await;
            drop(tell);
            Err(Failure::new(Cause::Internal, ""))
        });
        drop(flight);
        assert!(told.await.is_err());
        let next = flights.join(1, 9, || async { Err(Failure::new(Cause::ConnectRefused, "")) });
        assert_eq!(next.await.claim().err().unwrap().cause, Cause::ConnectRefused);
    }
}
