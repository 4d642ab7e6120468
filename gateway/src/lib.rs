//! Vestibule, a programmable edge gateway.

pub mod route;
