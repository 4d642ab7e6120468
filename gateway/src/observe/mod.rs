//! What can be seen from outside: one line for each request and each passed-through connection, metrics, and what
//! came of the attempts at each endpoint.

pub mod access_log;
mod listeners;
pub mod metrics;
pub mod names;
pub mod record;
mod reloads;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub use access_log::{AccessLog, Line};
pub use listeners::{HandshakeFailure, ListenerMeter, OpenConnection, OverLimit};
pub use metrics::Metrics;
pub use record::Record;

/// Whether something may be told in the log: once a second at most, where `last` is its own.
pub fn due(last: &AtomicU64) -> bool {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    // Counted from 1, so that 0 is "never".
    let now = BEGIN.elapsed().as_secs() + 1;
    last.swap(now, Ordering::Relaxed) != now
}
