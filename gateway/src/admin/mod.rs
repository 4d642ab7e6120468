//! Where the gateway tells about itself and is told what to do: a listener of its own, apart from the requests' way and
//! with limits of its own.
//!
//! What there is stands in `operations`, who may ask for it in `gate`. Nothing here may slow a request down.

mod asked;
mod causes;
mod certificates;
mod gate;
mod openapi;
mod operations;
mod problem;
mod reloads;
mod routes;
mod running;
mod upstreams;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;
use vestibule_plugins::{Path, Problem};

use crate::listener::sockets;
use crate::reload::Control;
use crate::snapshot::Admin;

/// Connections open at once; one more waits in the kernel's queue.
const CONNECTIONS: usize = 64;
/// How long a request may take to arrive, once its connection is there, and then its answer to leave. What it takes to
/// compile a large configuration lies between the two.
const MOVING: Duration = Duration::from_secs(10);
/// How many bytes a request's head may have, and in how many fields.
const HEAD: usize = 8 * 1024;
const FIELDS: usize = 64;
/// How long accepting rests when the process has no file descriptor left.
const REST: Duration = Duration::from_millis(100);

/// An admin endpoint that holds its address. Nobody can connect to it as yet.
pub struct Bound {
    address: SocketAddr,
    socket: TcpSocket,
}

/// The same, with clients waiting.
pub struct Listening {
    address: SocketAddr,
    socket: TcpListener,
}

/// Takes the address. Within a tokio runtime.
///
/// # Errors
/// As for a listener.
pub fn bind(admin: &Admin) -> Result<Bound, Problem> {
    let address = admin.address;
    let socket = sockets::socket(address).map_err(|error| not_bound(address, &error))?;
    Ok(Bound { address, socket })
}

impl Bound {
    /// Lets clients connect.
    ///
    /// # Errors
    /// Another program has taken the address meanwhile.
    pub fn listen(self) -> Result<Listening, Problem> {
        let Self { address, socket } = self;
        let socket = sockets::listen(socket).map_err(|error| not_bound(address, &error))?;
        Ok(Listening { address, socket })
    }
}

impl Listening {
    /// The address that the file names.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients find it: the port is the one that the system chose, where the file left that to it.
    pub fn found_at(&self) -> SocketAddr {
        self.socket.local_addr().unwrap_or(self.address)
    }
}

fn not_bound(address: SocketAddr, error: &std::io::Error) -> Problem {
    let at = Path::root().key("admin").key("address");
    sockets::not_bound("the admin endpoint", address, error, at)
}

/// Answers until it is dropped. Who may ask is what the running snapshot says at that moment.
pub async fn accept(listening: Listening, control: Control) {
    let Listening { address, socket } = listening;
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
            serve(stream, address, control).await;
            drop(slot);
        });
    }
}

/// What a connection waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The client, to send its request.
    Arriving,
    /// The gateway, to do what is asked.
    Working,
    /// The client, to take the answer.
    Leaving,
}

/// One request: a connection that is kept would need a limit for each of its waits for the next one.
async fn serve(stream: TcpStream, address: SocketAddr, control: Control) {
    let (phase, mut now) = watch::channel(Phase::Arriving);
    let answer = service_fn(|request: Request<Incoming>| {
        let (control, phase) = (control.clone(), phase.clone());
        async move {
            let request = asked::read(request).await;
            phase.send_replace(Phase::Working);
            let response = operations::answer(request, address, control).await;
            phase.send_replace(Phase::Leaving);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .keep_alive(false)
            .max_buf_size(HEAD)
            .max_headers(FIELDS)
            .serve_connection(TokioIo::new(stream), answer)
    );
    loop {
        let is_moving = *now.borrow_and_update() != Phase::Working;
        let done = tokio::select! {
            done = &mut connection => done,
            // The next phase has its own time.
            _ = now.changed() => continue,
            () = sleep(MOVING), if is_moving => {
                return log::debug!("the admin endpoint: a client took longer than {MOVING:?}");
            }
        };
        if let Err(error) = done {
            log::debug!("the admin endpoint: {error}");
        }
        return;
    }
}
