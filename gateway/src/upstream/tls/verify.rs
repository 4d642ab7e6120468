//! What OpenSSL asks while it verifies an upstream's certificate.

use openssl::x509::{X509, X509StoreContext, X509StoreContextRef, X509VerifyResult};

use super::ffi::{self, Compare};
use super::settings::Pin;
use super::{Handshake, handshake_of};

/// Why a certificate was refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// By which of OpenSSL's rules, `PIN_MISMATCH` among them.
    pub result: X509VerifyResult,
    /// The certificate of the chain that is at fault.
    pub certificate: X509,
    /// How far up the chain it stands; 0 is the upstream's own.
    pub depth: u32,
}

/// `X509_V_ERR_HOSTNAME_MISMATCH`.
pub const HOSTNAME_MISMATCH: i32 = 62;
/// `X509_V_ERR_APPLICATION_VERIFICATION`: used for pins alone.
pub const PIN_MISMATCH: i32 = 50;

/// Called by OpenSSL for each certificate of the chain, the leaf last, and for each thing that is wrong.
pub fn verify(is_good: bool, context: &mut X509StoreContextRef) -> bool {
    let own = match is_good {
        true => own_rules(context),
        false => None,
    };
    if let Some(code) = own {
        // SAFETY: both are values of `X509_V_ERR_…` that the type knows.
        context.set_error(unsafe { X509VerifyResult::from_raw(code) });
    }
    note(context, is_good && own.is_none());
    is_good && own.is_none()
}

/// Called in the stead of `verify` where nothing is verified: it only looks.
pub fn look(_: bool, context: &mut X509StoreContextRef) -> bool {
    note(context, true);
    true
}

/// What OpenSSL does not check: that the leaf is for one of the names, and that its key is one of the pins.
fn own_rules(context: &X509StoreContextRef) -> Option<i32> {
    if context.error_depth() != 0 {
        return None;
    }
    // Without the handshake's own notes there is nothing to compare with, so nothing satisfies.
    let Some((handshake, leaf)) = handshake(context).zip(context.current_cert()) else {
        return Some(HOSTNAME_MISMATCH);
    };
    let checks = &handshake.checks;
    let compare = if checks.common_name { Compare::CommonNameToo } else { Compare::AlternativeNames };
    if !handshake.names.iter().any(|name| name.is_in(leaf, compare)) {
        return Some(HOSTNAME_MISMATCH);
    }
    let is_pinned = || Pin::of(leaf).is_ok_and(|pin| checks.pins.contains(&pin));
    (!checks.pins.is_empty() && !is_pinned()).then_some(PIN_MISMATCH)
}

/// OpenSSL gives a refused chain to nobody else, and the diagnosis names what it holds.
fn note(context: &X509StoreContextRef, is_good: bool) {
    let Some(handshake) = handshake(context) else { return };
    handshake.presented.get_or_init(|| {
        let presented = ffi::presented(context);
        match (presented.is_empty(), context.current_cert()) {
            (true, Some(certificate)) => vec![certificate.to_owned()],
            _ => presented,
        }
    });
    if let (false, Some(certificate)) = (is_good, context.current_cert()) {
        handshake.refused.get_or_init(|| Refused {
            result: context.error(),
            certificate: certificate.to_owned(),
            depth: context.error_depth(),
        });
    }
}

fn handshake(context: &X509StoreContextRef) -> Option<&Handshake> {
    handshake_of(context.ex_data(X509StoreContext::ssl_idx().ok()?)?)
}
