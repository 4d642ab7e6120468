//! Vestibule, a programmable edge gateway: the library that its binary, its tests and third-party binaries share.

pub mod admin;
mod cli;
pub mod config;
pub mod diagnose;
pub mod doctor;
mod engine;
pub mod explain;
pub mod listener;
pub mod observe;
pub mod plan;
pub mod proxy;
pub mod reload;
pub mod route;
pub mod server;
pub mod snapshot;
mod tunnel;
pub mod upstream;

pub use cli::main;
pub use vestibule_plugins as plugins;
