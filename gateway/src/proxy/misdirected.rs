//! A request by a connection that was made for a name of another client certificate policy (RFC 9110 section 15.5.20):
//! who has the certificate of one name, or none, must not get at another name by its Host alone.
//!
//! As the Kubernetes Gateway API has it: it is 421 only where another policy of the listener is the Host's. What the
//! client asked for as SNI is not compared itself, since connections of one policy may be shared by names (RFC 9113
//! section 9.1.1).

use std::sync::Arc;

use super::ctx::{Client, Ctx};
use crate::diagnose::{Cause, Failure};
use crate::snapshot::{Https, Protocol};

/// By what the request's Host is to be judged: by what the listener asks now, and not by what it asked when it accepted
/// the connection. Nothing where the listener asks the same of everybody.
pub fn policies(ctx: &Ctx, client: &Client) -> Option<Arc<Https>> {
    let all = &ctx.snapshot.listeners;
    // Found by its number, since the listener of the running configuration may be another one of the same name; or it has
    // another name now.
    let same = all.iter().find(|listener| listener.id == client.listener.id);
    let port = client.listener.address.port();
    let listener = same.or_else(|| all.iter().find(|listener| listener.address.port() == port))?;
    match &listener.protocol {
        Protocol::Https(https) if https.policies.are_several() => Some(https.clone()),
        _ => None,
    }
}

/// # Errors
/// Clients that come by the name of this Host are asked for other certificates than this one was.
pub fn check(https: &Https, client: &Client, host: &str) -> Result<(), Failure> {
    if https.policies.clients(host) == client.terms.clients() {
        return Ok(());
    }
    Err(Failure::new(Cause::MisdirectedRequest, format!("listener `{}`", client.listener.name)))
}
