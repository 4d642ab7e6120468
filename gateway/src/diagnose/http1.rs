//! The errors of hyper, which speaks HTTP/1 where the gateway itself asks.

use std::error::Error as StdError;

use super::{Cause, Failure};

/// The cause of a failed exchange: what the connection itself knows, where it knows better.
pub fn of_http1(error: &(dyn StdError + 'static)) -> Failure {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(failure) = inner.and_then(|inner| inner.downcast_ref::<Failure>()) {
            return Failure::new(failure.cause, failure.detail.clone());
        }
        words = format!("{words}: {error}");
        next = error.source();
    }
    let cause = match error.downcast_ref::<hyper::Error>() {
        Some(error) if error.is_parse() => Cause::UpstreamInvalidResponse,
        _ => Cause::UpstreamReset,
    };
    Failure::new(cause, words)
}
