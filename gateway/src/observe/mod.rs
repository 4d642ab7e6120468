//! What can be seen from outside: one line for each request and each passed-through connection, metrics, and what
//! came of the attempts at each endpoint.

pub mod access_log;
mod listeners;
pub mod metrics;
pub mod names;
pub mod record;
mod reloads;

pub use access_log::{AccessLog, Line};
pub use listeners::{HandshakeFailure, ListenerMeter, OpenConnection};
pub use metrics::Metrics;
pub use record::Record;
