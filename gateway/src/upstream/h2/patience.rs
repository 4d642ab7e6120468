//! How long one stream waits: for its own limit at each step, and never past the deadline of its attempt.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::diagnose::{Cause, Failure};
use crate::upstream::origin::Origin;

/// The waits of one direction of a stream.
pub struct Patience {
    origin: Arc<Origin>,
    /// Each wait, unless it is boundless.
    limit: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    since: Option<Instant>,
}

impl Patience {
    /// Bounded by the deadline that is set on `origin`, and by `limit` at each wait.
    pub fn new(origin: Arc<Origin>, limit: Option<Duration>) -> Self {
        Self { origin, limit, timer: None, since: None }
    }

    /// Sets how long each wait may take.
    pub fn set_limit(&mut self, limit: Option<Duration>) {
        self.limit = limit;
    }

    /// When the last wait began that did not end at once.
    pub fn waiting_since(&self) -> Option<std::time::Instant> {
        self.since.map(Instant::into_std)
    }

    /// Waits for what `poll` gives.
    ///
    /// # Errors
    /// It took too long, or the exchange is broken off.
    pub async fn wait<T>(&mut self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Result<T, Failure> {
        let mut begun = None;
        std::future::poll_fn(move |cx| {
            if let Poll::Ready(done) = poll(cx) {
                return Poll::Ready(Ok(done));
            }
            if let Some(failure) = self.origin.broken_off(cx.waker()) {
                return Poll::Ready(Err(Failure::new(failure.cause, failure.detail.clone())));
            }
            // The clock is read only once there is something to wait for.
            let begun = *begun.get_or_insert_with(Instant::now);
            self.since = Some(begun);
            self.poll_over(self.limit.map(|limit| begun + limit), cx).map(Err)
        })
        .await
    }

    fn poll_over(&mut self, until: Option<Instant>, cx: &mut Context<'_>) -> Poll<Failure> {
        loop {
            let deadline = self.origin.deadline().map(Instant::from);
            let Some(end) = [until, deadline].into_iter().flatten().min() else { return Poll::Pending };
            // A timer that was set for an earlier wait may go off early; it is then set anew. So no wait that ends in
            // time, which is nearly every one, touches the runtime's timers.
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
            if timer.deadline() > end {
                timer.as_mut().reset(end);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if timer.deadline() >= end {
                let what = match deadline.is_some_and(|deadline| deadline <= end) {
                    true => "`timeouts` of the route are over".to_owned(),
                    false => format!("not a byte in {:?}", self.limit.unwrap_or_default()),
                };
                self.timer = None;
                return Poll::Ready(Failure::new(Cause::UpstreamTimeout, what));
            }
            timer.as_mut().reset(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_the_whole_limit_and_all_of_them_one_deadline() {
        let origin = Arc::new(Origin::new());
        let mut patience = Patience::new(origin.clone(), Some(Duration::from_secs(10)));
        for _ in 0..3 {
            let mut due = Box::pin(tokio::time::sleep(Duration::from_secs(9)));
            patience.wait(|cx| due.as_mut().poll(cx)).await.unwrap();
        }
        let begun = Instant::now();
        let failure = patience.wait(|_| Poll::<()>::Pending).await.unwrap_err();
        assert_eq!(failure.cause, Cause::UpstreamTimeout);
        assert_eq!(begun.elapsed().as_secs(), 10, "{failure}");

        origin.arm(std::time::Instant::now() + Duration::from_secs(2));
        let begun = Instant::now();
        let failure = patience.wait(|_| Poll::<()>::Pending).await.unwrap_err();
        assert!(begun.elapsed() <= Duration::from_secs(3), "{:?}: {failure}", begun.elapsed());
    }
}
