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

use crate::listener;
use crate::snapshot::Admin;
use crate::snapshot::live::Live;

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
    admin: Arc<Admin>,
    socket: TcpListener,
}

impl Bound {
    /// The address that it holds.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap_or(self.admin.address)
    }
}

/// Takes the address. Within a tokio runtime.
///
/// # Errors
/// As for a listener.
pub fn bind(admin: &Arc<Admin>) -> Result<Bound, String> {
    Ok(Bound { admin: admin.clone(), socket: listener::socket("the admin endpoint", admin.address)? })
}

/// Answers until it is dropped.
pub async fn accept(bound: Bound, live: Arc<Live>) {
    let Bound { admin, socket } = bound;
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
        let (admin, live) = (admin.clone(), live.clone());
        tokio::spawn(async move {
            serve(stream, admin, live).await;
            drop(slot);
        });
    }
}

/// One request: a connection that is kept would need a limit for each of its phases, where so one is enough.
async fn serve(stream: TcpStream, admin: Arc<Admin>, live: Arc<Live>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let (head, _) = request.into_parts();
        let (admin, live) = (admin.clone(), live.clone());
        // Not on a thread that serves requests: the page of a large configuration takes milliseconds to write.
        spawn_blocking(move || pages::answer(&head, &admin, &live))
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
