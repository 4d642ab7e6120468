//! The end-to-end harness: the real gateway binary, real counterparts, and a scripted origin for the faults that no real
//! server produces on demand. Nothing here rebuilds any part of the gateway.

// A harness that cannot go on ends the test, and the panic is its message.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod certs;
pub mod client;
pub mod gateway;
pub mod http2;
pub mod origin;
pub mod ports;
pub mod process;
pub mod real;
pub mod unanswered;

use std::time::Duration;

/// How long anything is waited for before a test is given up. Nothing that works comes near it.
pub const PATIENCE: Duration = Duration::from_secs(20);
