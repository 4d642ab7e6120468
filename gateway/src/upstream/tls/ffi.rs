//! Calls of OpenSSL's that the `openssl` crate does not wrap, each behind a safe function. Nothing else.

use std::ffi::{CString, c_int, c_void};
use std::net::IpAddr;
use std::ptr;

use foreign_types_shared::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslRef};
use openssl::stack::StackRef;
use openssl::x509::store::X509StoreBuilderRef;
use openssl::x509::{X509, X509CrlRef, X509Name, X509Ref, X509StoreContextRef};
use openssl_sys as sys;

use crate::diagnose::name_text;

type CertificateCallback = unsafe extern "C" fn(ssl: *mut sys::SSL, argument: *mut c_void) -> c_int;

unsafe extern "C" {
    fn X509_STORE_add_crl(store: *mut sys::X509_STORE, crl: *mut sys::X509_CRL) -> c_int;
    fn X509_STORE_CTX_get0_untrusted(context: *const sys::X509_STORE_CTX) -> *mut sys::stack_st_X509;
    fn SSL_CTX_set_cert_cb(
        context: *mut sys::SSL_CTX,
        callback: Option<CertificateCallback>,
        argument: *mut c_void,
    );
    fn SSL_get0_peer_CA_list(ssl: *const sys::SSL) -> *const sys::stack_st_X509_NAME;
}

/// Adds a revocation list to a store.
pub fn add_crl(store: &mut X509StoreBuilderRef, crl: &X509CrlRef) -> Result<(), ErrorStack> {
    // SAFETY: both live through the call, and the store takes a reference of its own.
    match unsafe { X509_STORE_add_crl(store.as_ptr(), crl.as_ptr()) } {
        1 => Ok(()),
        _ => Err(ErrorStack::get()),
    }
}

/// The certificates as the peer sent them, leaf first.
pub fn presented(context: &X509StoreContextRef) -> Vec<X509> {
    // SAFETY: the stack belongs to the context and is only read while that is borrowed.
    let stack = unsafe { X509_STORE_CTX_get0_untrusted(context.as_ptr()) };
    if stack.is_null() {
        return Vec::new();
    }
    // SAFETY: not null, as above.
    let stack = unsafe { StackRef::<X509>::from_ptr(stack) };
    stack.iter().map(ToOwned::to_owned).collect()
}

/// The names of the CAs whose client certificates the peer says it accepts; empty where it does not say.
pub fn accepted_issuers(ssl: &SslRef) -> Vec<String> {
    // SAFETY: the stack belongs to the connection and is only read while that is borrowed.
    let stack = unsafe { SSL_get0_peer_CA_list(ssl.as_ptr()) };
    if stack.is_null() {
        return Vec::new();
    }
    // SAFETY: not null, as above; a shared reference never writes to it.
    let stack = unsafe { StackRef::<X509Name>::from_ptr(stack.cast_mut()) };
    stack.iter().map(name_text).collect()
}

/// Has `super::handshake_of` note it when the peer asks for a client certificate.
pub fn note_certificate_requests(builder: &mut SslContextBuilder) {
    unsafe extern "C" fn asked(ssl: *mut sys::SSL, _: *mut c_void) -> c_int {
        // SAFETY: OpenSSL calls this with a connection that lives.
        let ssl = unsafe { SslRef::from_ptr(ssl) };
        if let Some(handshake) = super::handshake_of(ssl) {
            handshake.note_asked();
        }
        1
    }
    // SAFETY: the function needs no argument and never unwinds.
    unsafe { SSL_CTX_set_cert_cb(builder.as_ptr(), Some(asked), ptr::null_mut()) }
}

/// Whether the certificate is one of a CA (RFC 5280 section 4.2.1.9).
pub fn is_ca(certificate: &X509Ref) -> bool {
    // SAFETY: the certificate lives through the call; OpenSSL caches what it finds under a lock of its own.
    let flags = unsafe { sys::X509_get_extension_flags(certificate.as_ptr()) };
    flags & sys::EXFLAG_CA != 0
}

/// Which parts of a certificate a DNS name is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The alternative names alone (RFC 9525 section 6.3).
    AlternativeNames,
    /// The common name too, where there is no alternative DNS name.
    CommonNameToo,
}

/// Whether the certificate is for this DNS name.
pub fn is_for_host(certificate: &X509Ref, name: &str, compare: Compare) -> bool {
    let Ok(text) = CString::new(name) else { return false };
    let flags = sys::X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS
        | match compare {
            Compare::AlternativeNames => sys::X509_CHECK_FLAG_NEVER_CHECK_SUBJECT,
            Compare::CommonNameToo => 0,
        };
    // SAFETY: both pointers live through the call; the length leaves the zero byte out, and no name is asked back.
    let matched = unsafe {
        sys::X509_check_host(certificate.as_ptr(), text.as_ptr(), name.len(), flags, ptr::null_mut())
    };
    matched == 1
}

/// Whether the certificate is for this IP address.
pub fn is_for_ip(certificate: &X509Ref, ip: IpAddr) -> bool {
    let Ok(text) = CString::new(ip.to_string()) else { return false };
    // SAFETY: both pointers live through the call; the text ends in a zero byte.
    unsafe { sys::X509_check_ip_asc(certificate.as_ptr(), text.as_ptr(), 0) == 1 }
}
