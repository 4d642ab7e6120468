//! Vestibule, a programmable edge gateway.

pub mod config;
pub mod route;
pub mod snapshot;
