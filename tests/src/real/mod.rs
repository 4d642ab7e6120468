//! Real counterparts, each with its config in a temporary folder, ready when `start` returns and gone when dropped.
//!
//! `tests/real/setup.sh` puts the programs into the cache folder; nothing is looked for elsewhere.

mod envoy;
mod haproxy;
mod kube;
mod nginx;
mod proxied;
mod server;
mod wrk;

use std::path::{Path, PathBuf};

pub use envoy::Envoy;
pub use haproxy::HaProxy;
pub use kube::{Kube, kubectl};
pub use nginx::{Nginx, NginxTls};
pub use proxied::{Proxied, Proxy};
pub use server::{Program, Server, ServerTls, Version};
pub use wrk::{Load, wrk};

/// Whether a TLS server asks for a client certificate.
#[derive(Clone, Copy)]
pub enum Clients<'a> {
    /// It does not ask.
    Unasked,
    /// It asks, checks against this CA, and serves who has none as well.
    Optional(&'a Path),
    /// It refuses who has none by this CA.
    Required(&'a Path),
}

/// Where a program of the cache is.
pub fn program(name: &str) -> PathBuf {
    let path = cache().join("bin").join(name);
    assert!(path.exists(), "no {name} at {}: run `tests/real/setup.sh` first", path.display());
    path
}

/// The cache folder of `tests/real/setup.sh`.
pub fn cache() -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // Relative to the top of the repository, where the script is run too.
    top.join(std::env::var_os("VESTIBULE_REAL").unwrap_or_else(|| ".cache/real".into()))
}
