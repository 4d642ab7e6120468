//! Calls of OpenSSL's on a connection that a client opens, which the `openssl` crate does not wrap, each behind a safe
//! function. Nothing else.

use std::ffi::{c_int, c_uchar, c_uint};
use std::{ptr, slice};

use foreign_types_shared::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::ssl::{SslOptions, SslRef};
use openssl_sys as sys;

unsafe extern "C" {
    fn SSL_set_session_id_context(ssl: *mut sys::SSL, context: *const c_uchar, length: c_uint) -> c_int;
    fn SSL_set_options(ssl: *mut sys::SSL, options: u64) -> u64;
}

/// `server_name` (RFC 6066 section 3).
const SERVER_NAME: c_uint = 0;

/// The `server_name` extension as the client sent it. Within the callback of the ClientHello alone: later it is gone.
pub fn server_name(ssl: &SslRef) -> Option<&[u8]> {
    let (mut bytes, mut length) = (ptr::null(), 0);
    // SAFETY: the connection lives through the call, and both places are this function's own.
    let found = unsafe { sys::SSL_client_hello_get0_ext(ssl.as_ptr(), SERVER_NAME, &mut bytes, &mut length) };
    if found != 1 || bytes.is_null() {
        return None;
    }
    // SAFETY: the bytes are the connection's, which keeps them until its callback has returned: `ssl`, which is lent to
    // that, outlives what is made of them.
    Some(unsafe { slice::from_raw_parts(bytes, length) })
}

/// Sessions are resumed only where they were made in the same context; without one, OpenSSL keeps none of a connection
/// that asks for a certificate.
pub fn set_session_context(ssl: &mut SslRef, context: &[u8]) -> Result<(), ErrorStack> {
    let length = c_uint::try_from(context.len()).unwrap_or(c_uint::MAX);
    // SAFETY: both live through the call, which copies the bytes and refuses more than it has room for.
    match unsafe { SSL_set_session_id_context(ssl.as_ptr(), context.as_ptr(), length) } {
        1 => Ok(()),
        _ => Err(ErrorStack::get()),
    }
}

/// Sets options of one connection.
pub fn set_options(ssl: &mut SslRef, options: SslOptions) {
    // SAFETY: the connection lives through the call.
    let _ = unsafe { SSL_set_options(ssl.as_ptr(), options.bits()) };
}
