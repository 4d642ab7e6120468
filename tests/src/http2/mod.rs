//! HTTP/2 as the `h2` crate speaks it: an upstream by a script, a client that streams, and bare frames for the faults
//! that no library commits.

mod client;
pub mod frames;
mod origin;

pub use client::{Exchange, Http2Client};
pub use origin::{Call, Http2Origin, send, trailers};

use bytes::{BufMut, Bytes, BytesMut};

/// A message as gRPC frames it: not compressed, its length in four bytes, itself.
pub fn message(text: &str) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(text.len() as u32);
    framed.put_slice(text.as_bytes());
    framed.freeze()
}

/// Takes the first whole message off what has come so far.
pub fn next_message(come: &mut BytesMut) -> Option<String> {
    let length = u32::from_be_bytes(come.get(1..5)?.try_into().ok()?) as usize;
    if come.len() < 5 + length {
        return None;
    }
    let framed = come.split_to(5 + length);
    Some(String::from_utf8(framed[5..].to_vec()).unwrap())
}
