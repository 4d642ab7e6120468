//! HTTP/2 to upstreams: connections that many requests share, and the one stream that each request has on one.
//!
//! How a connection comes about is `upstream::connect`'s; which requests are made again is the retry rules'.

mod body;
mod connection;
mod failure;
mod flight;
mod patience;
mod pool;
mod request;
mod session;

pub use connection::{Facts, Slot, establish};
pub use failure::{Unserved, misplaced, of_stream, unserved};
pub use flight::{Flights, Made};
pub use pool::Pool;
pub use session::Session;

/// Streams on one connection, however many more the upstream may allow.
const MAX_STREAMS: u32 = 100;
/// How much of one answer is taken in ahead of its client.
const STREAM_WINDOW: u32 = 512 * 1024;
/// Enough for every stream's window, so that no slow client stops the answers of the others.
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;
/// How much of one request's body waits in memory for the connection to take it.
const SEND_BUFFER: usize = 256 * 1024;
/// The largest frame taken; the smallest maximum that there is (RFC 9113 section 4.2).
const MAX_FRAME: u32 = 16 * 1024;
/// The largest head of an answer, its trailers included.
const MAX_HEAD: u32 = 256 * 1024;
