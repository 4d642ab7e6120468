//! Vestibule, a programmable edge gateway.

pub mod config;
pub mod diagnose;
pub mod route;
pub mod snapshot;
pub mod upstream;
