//! Where the gateway tells about itself: a listener of its own, apart from the requests' way and with limits of its own.
//!
//! What is told stands in `pages`. Nothing here may slow a request down.

mod pages;
mod upstreams;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use vestibule_plugins::{Path, Problem};

use crate::listener::sockets;
use crate::reload::Control;
use crate::snapshot::Admin;

/// Connections open at once; one more waits in the kernel's queue.
const CONNECTIONS: usize = 64;
/// How long a connection may take, from its first byte to the last one of the answer.
const WHOLE: Duration = Duration::from_secs(10);
/// How many bytes a request's head may have, and in how many fields.
const HEAD: usize = 8 * 1024;
const FIELDS: usize = 64;
/// How long accepting rests when the process has no file descriptor left.
const REST: Duration = Duration::from_millis(100);

/// An admin endpoint that holds its address.
pub struct Bound {
    asked_for: SocketAddr,
    socket: TcpListener,
}

impl Bound {
    /// The address that it holds.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap_or(self.asked_for)
    }

    /// The address that the file names.
    pub fn asked_for(&self) -> SocketAddr {
        self.asked_for
    }
}

/// Takes the address. Within a tokio runtime.
///
/// # Errors
/// As for a listener.
pub fn bind(admin: &Arc<Admin>) -> Result<Bound, Problem> {
    let at = Path::root().key("admin").key("address");
    let socket = sockets::socket(admin.address).and_then(sockets::listen);
    let socket =
        socket.map_err(|error| sockets::not_bound("the admin endpoint", admin.address, &error, at))?;
    Ok(Bound { asked_for: admin.address, socket })
}

/// Answers until it is dropped. What may be read, and by whom, is what the running snapshot says.
pub async fn accept(bound: Bound, control: Control) {
    let Bound { socket, .. } = bound;
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = slots.clone().acquire_owned().await;
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                log::warn!("the admin endpoint: a connection cannot be accepted: {error}");
                sleep(REST).await;
                continue;
            }
        };
        let control = control.clone();
        tokio::spawn(async move {
            serve(stream, control).await;
            drop(slot);
        });
    }
}

/// One request: a connection that is kept would need a limit for each of its phases, where so one is enough.
async fn serve(stream: TcpStream, control: Control) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let (head, _) = request.into_parts();
        let control = control.clone();
        // Not on a thread that serves requests: the page of a large configuration takes milliseconds to write.
        spawn_blocking(move || pages::answer(&head, &control))
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD)
        .max_headers(FIELDS)
        .serve_connection(TokioIo::new(stream), answer);
    match timeout(WHOLE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::debug!("the admin endpoint: {error}"),
        Err(_) => log::debug!("the admin endpoint: a client took longer than {WHOLE:?}"),
    }
}
