//! What a plugin may ask of the gateway around it: files while it is built, upstreams of the file later on.
//!
//! The gateway does the reading and the sending; nothing here opens a file or a socket.

use std::fmt;
use std::future::Future;
use std::path::Path as FilePath;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};

use crate::problem::{Path, Problem};

/// The files that a configuration names; their paths start at its own folder. What is read here is a source: the
/// gateway loads anew once it changes, and builds the plugin anew.
pub trait Files {
    /// The bytes of a file; `at` is the key that names it.
    ///
    /// # Errors
    /// It cannot be read, and why.
    fn bytes(&self, file: &FilePath, at: &Path) -> Result<Vec<u8>, Problem>;

    /// The same for what nobody may guess from the configuration's hash: passwords, keys, tokens.
    ///
    /// # Errors
    /// It cannot be read, and why.
    fn secret(&self, file: &FilePath, at: &Path) -> Result<Vec<u8>, Problem>;
}

/// The upstreams of the file.
pub trait Outbound {
    /// The upstream of this name, to be asked once the plugin is in force; `at` is the key that names it.
    ///
    /// # Errors
    /// There is none of this name, or it cannot be asked by a plugin.
    fn upstream(&self, name: &str, at: &Path) -> Result<Arc<dyn Upstream>, Problem>;
}

/// An upstream as a plugin asks it: by HTTP/1.1, with the upstream's own TLS, balance and connect timeout, and with
/// connections that are kept for as long as the upstream's `keepalive` says.
pub trait Upstream: Send + Sync {
    /// The name in the file.
    fn name(&self) -> &str;

    /// Sends a request whose target is a path and a query. The Host is written by the gateway: the upstream's own.
    fn ask(&self, request: Request<Bytes>, limits: Limits) -> Asking<'_>;
}

/// What an upstream answers, once it does.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Unanswered>> + Send + 'a>>;

/// How far a plugin's request may go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long all of it may take.
    pub timeout: Duration,
    /// How many bytes the answer's body may have.
    pub body: usize,
}

/// Why there is no answer, in words for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered(pub String);

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unanswered {}
