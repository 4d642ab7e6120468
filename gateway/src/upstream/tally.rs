//! What came of an attempt, counted once: in the upstream's metrics, and in the record of the endpoint that it went to.

use jiff::Timestamp;

use super::{Pick, Upstream};
use crate::diagnose::{Cause, Failure};

impl Upstream {
    /// An attempt that did not fail.
    pub fn attempt_succeeded(&self, pick: &Pick, time: Timestamp) {
        self.meter.answered();
        pick.endpoint.record.succeeded(time);
    }

    /// An attempt that failed; `pick` is absent where it got to no endpoint.
    pub fn attempt_failed(&self, pick: Option<&Pick>, failure: &Failure) {
        self.meter.failed(failure.cause);
        // It says nothing of the endpoint, and would hide what does.
        if failure.cause == Cause::ClientClosed {
            return;
        }
        let record = pick.map_or(&self.unplaced, |pick| &pick.endpoint.record);
        record.failed(failure, pick.map(|pick| pick.address.text.clone()), Timestamp::now());
    }
}
