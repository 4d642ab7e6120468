//! What can be seen from outside: one line for each request and each passed-through connection.

pub mod access_log;

pub use access_log::{AccessLog, Line};
