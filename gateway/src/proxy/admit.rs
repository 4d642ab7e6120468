//! From a request's head to what becomes of it: a route, its plugins, an upstream. Nothing here reaches an upstream.
//!
//! `enter` and `question` know no session: a request that is only explained goes through them too.

use std::borrow::Cow;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, header};
use pingora_core::protocols::Digest;
use pingora_http::RequestHeader;
use pingora_http::authority::{RawTargetAuthority, raw_target_authority};
use pingora_proxy::Session;
use vestibule_plugins::Verdict;

use super::ctx::{Asked, Client, Ctx};
use super::{fail, forwarded, http10, misdirected, respond, upgrade};
use crate::diagnose::{Cause, Failure};
use crate::listener::RequestLimits;
use crate::reload::side::Side;
use crate::route;
use crate::route::normal::{PathRules, normalize};
use crate::snapshot::{Action, Listener};

/// What becomes of a request.
pub enum Next {
    /// An upstream is asked.
    Forward,
    /// The gateway has answered.
    Answered,
}

/// How long the rest of a request's body may take when its answer is complete already.
const DRAIN: Duration = Duration::from_secs(5);

/// Finds the route and runs the request side of its chain.
///
/// # Errors
/// The request cannot be served, and why: the caller writes the error reply.
pub async fn admit(session: &mut Session, ctx: &mut Ctx) -> Result<Next, Failure> {
    ctx.client = session.digest().and_then(client);
    let client =
        ctx.client.clone().ok_or_else(|| Failure::new(Cause::Internal, "a connection without a listener"))?;
    let (terms, limits) = (&client.terms, &client.listener.limits.requests);
    let last = client.heads.read() >= limits.requests_per_connection || terms.are_over();
    // The engine has looked whether the client wants to keep it: one of HTTP/1.0 has to say so.
    let keepalive = session.get_keepalive().and(client.listener.kept_seconds()).filter(|_| !last);
    session.set_keepalive(keepalive);
    session.set_read_timeout(Some(limits.body_idle));
    session.set_write_timeout(Some(client.listener.limits.send_idle));
    session.set_total_drain_timeout(Some(DRAIN));

    if terms.refuse() {
        ctx.asked.path = session.req_header().uri.path().to_owned();
        return Err(Failure::new(Cause::ClientTermsChanged, client.listener.name.as_str()));
    }
    // A listener is that of what runs, on whichever side a request is.
    let policies = misdirected::policies(ctx, &client);
    http10::prepare(session);
    take_side(session.req_header_mut(), ctx);
    enter(session.req_header_mut(), ctx)?;
    if let Some(https) = policies {
        misdirected::check(&https, &client, &ctx.asked.host)?;
    }
    let snapshot = ctx.snapshot.clone();
    let internal = || Failure::new(Cause::Internal, "a request without a route");
    let route = ctx.route.and_then(|route| snapshot.routes.get(route)).ok_or_else(internal)?;
    if let Action::Forward { targets, total_weight } = &route.action {
        ctx.target = Some(choose(targets.iter().map(|target| target.weight), *total_weight));
        if let Some(retry) = route.chain.retry() {
            retry.note_request();
        }
    }
    let head = session.req_header_mut();
    let verdict = match route.chain.waits() {
        true => route.chain.request_waiting(head, &ctx.info()).await,
        false => route.chain.request(head, &ctx.info()),
    };
    let mut is_unread = false;
    if let Verdict::Refuse(refusal) = &verdict {
        fail::note_refused(refusal, ctx);
        is_unread = !session.as_mut().is_body_empty();
        if is_unread {
            // As for the gateway's own refusals: how much of the body is still to come is anybody's guess.
            session.set_keepalive(None);
        }
    }
    match respond::answer(session.req_header(), verdict, ctx) {
        Ok(None) => return Ok(Next::Forward),
        Ok(Some(answer)) => respond::write(session, answer).await,
        Err(error) => Err(error),
    }
    .map_err(|error| Failure::new(Cause::ClientClosed, error.to_string()))?;
    // Who waits for `100 Continue` has sent nothing of it.
    if is_unread && !session.req_header().headers.contains_key(header::EXPECT) {
        fail::linger(session).await;
    }
    Ok(Next::Answered)
}

/// While a candidate is on trial, gives the request to one of the two sides.
fn take_side(head: &mut RequestHeader, ctx: &mut Ctx) {
    let Some((stage, side)) = &mut ctx.stage else { return };
    let ip = ctx.client.as_ref().and_then(|client| client.ip);
    *side = stage.choose(ip, &head.headers);
    if *side == Side::Candidate {
        ctx.snapshot = stage.candidate.clone();
    }
    // It is the tester's word to the gateway, and nobody else's.
    if let Some(header) = &stage.settings.header {
        head.remove_header(header);
    }
}

/// Brings the head into its normal form, finds the route by it, and puts the gateway's own word in place of what the
/// client says of itself. `ctx` holds the client already, and then the route.
///
/// # Errors
/// The request is not legal, or no route takes it.
pub fn enter(head: &mut RequestHeader, ctx: &mut Ctx) -> Result<(), Failure> {
    // Told in the access log even of a request that goes no further.
    ctx.asked.path = head.uri.path().to_owned();
    let internal = || Failure::new(Cause::Internal, "a request without a listener");
    let client = ctx.client.as_ref().ok_or_else(internal)?;
    // As it is in the request's snapshot: its connection may be older.
    let present = ctx.snapshot.listeners.iter().find(|it| it.id == client.listener.id);
    let listener = present.unwrap_or(&client.listener);
    within(head, &listener.limits.requests)?;
    let host = to_origin_form(head)?;
    ctx.asked.host = host_name(host.to_str().unwrap_or_default()).to_ascii_lowercase();
    // Over HTTP/2, and by mistake over HTTP/1.1, a client may ask for what its SNI has not.
    if let Some(upstream) = client.listener.passed_on_to(&ctx.asked.host) {
        let asked = &ctx.asked.host;
        let told = format!("who asks for `{asked}` by SNI is passed through to `{}`", upstream.name);
        return Err(Failure::new(Cause::HostPassedThrough, told));
    }
    ctx.asked.path = one_spelling(head, &listener.paths)?;
    let found = ctx.snapshot.table.find(&question(head, &ctx.asked, &client.listener));
    let found = found.ok_or_else(|| Failure::new(Cause::NoRoute, ""))?;
    ctx.route = Some(found.rule);
    ctx.prefix = found.prefix_len;
    let route = &ctx.snapshot.routes[found.rule];
    ctx.deadline = route.timeouts.request.map(|limit| ctx.started + limit);
    forwarded::rewrite(head, host, client, &route.trusted)?;
    upgrade::allow(head, &route.upgrades);
    Ok(())
}

/// What of a request decides its route; its head in normal form.
pub fn question<'a>(head: &'a RequestHeader, asked: &'a Asked, listener: &Listener) -> route::Request<'a> {
    route::Request {
        host: &asked.host,
        path: &asked.path,
        query: head.uri.query(),
        method: &head.method,
        headers: &head.headers,
        listener: listener.id,
    }
}

/// The connection that a request came by, which its listener left with the stream.
fn client(digest: &Digest) -> Option<Arc<Client>> {
    let data = digest.proxy_digest.as_ref()?.user_data.as_ref()?;
    data.downcast_ref::<Arc<Client>>().cloned()
}

/// The limits that HTTP/2 has in common with HTTP/1.1, of which the listener has checked them before.
fn within(head: &RequestHeader, limits: &RequestLimits) -> Result<(), Failure> {
    if head.headers.len() > limits.headers {
        return Err(Failure::new(Cause::HeadTooLarge, format!("{} fields", head.headers.len())));
    }
    match head.raw_path().len() {
        length if length > limits.url => Err(Failure::new(Cause::UrlTooLong, format!("{length} bytes"))),
        _ => Ok(()),
    }
}

/// Makes HTTP/2 and absolute-form requests look like the common ones, a path and a Host, so that what is matched, what
/// plugins see and what is sent are the same; and returns the Host. RFC 9112 section 3.2: without one it is a 400, and
/// as there is nothing to find a route by, so it is in HTTP/1.0.
fn to_origin_form(head: &mut RequestHeader) -> Result<HeaderValue, Failure> {
    let invalid = |what: &str| Failure::new(Cause::RequestInvalid, what);
    // The engine keeps an HTTP/2 authority in the URI, and that of an absolute-form target in the raw target alone.
    let target = match (head.uri.authority(), raw_target_authority(head.raw_path())) {
        (Some(authority), _) => Some((
            authority.as_str().as_bytes().to_owned(),
            head.uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes().to_owned(),
        )),
        (None, RawTargetAuthority::Absolute { authority, path_and_query, .. }) => {
            Some((authority.to_owned(), path_and_query.to_owned()))
        }
        (None, RawTargetAuthority::None) => None,
        (None, RawTargetAuthority::AmbiguousAuthority) => return Err(invalid("the target's host")),
    };
    if head.headers.get_all(header::HOST).iter().nth(1).is_some() {
        return Err(invalid("several Hosts"));
    }
    if let Some((authority, path)) = target {
        // RFC 9112 section 3.2.2 has it win over a Host that differs. Who sends two means to be taken for both.
        if head.headers.get(header::HOST).is_some_and(|host| host.as_bytes() != authority) {
            return Err(invalid("a Host that is not the target's"));
        }
        let host = HeaderValue::from_bytes(&authority).map_err(|_| invalid("the target's host"))?;
        let path = match path.first() {
            None => Cow::Borrowed(&b"/"[..]),
            Some(b'?') => Cow::Owned([b"/", path.as_slice()].concat()),
            Some(_) => Cow::Borrowed(path.as_slice()),
        };
        head.set_raw_path(&path).map_err(|_| invalid("the target"))?;
        head.insert_header(header::HOST, host).map_err(|_| invalid("the target's host"))?;
    }
    let host = head.headers.get(header::HOST).ok_or_else(|| invalid("no Host"))?;
    if is_host(host.as_bytes()) {
        Ok(host.clone())
    } else {
        Err(invalid("a Host that is no name or address, with a port or without"))
    }
}

/// Whether it is one. RFC 9110 section 7.2, but for names with escapes or punctuation, of which there are none.
fn is_host(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    };
    let is_port =
        port.bytes().all(|byte| byte.is_ascii_digit()) && (port.is_empty() || port.parse::<u16>().is_ok());
    let is_name = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
        }
    };
    is_name && is_port && !name.is_empty()
}

/// Gives the path its one spelling, by which it is matched, checked and sent, and returns it.
fn one_spelling(head: &mut RequestHeader, rules: &PathRules) -> Result<String, Failure> {
    let target = head.raw_path();
    // RFC 9112 section 3.2.4: it asks of the server as a whole.
    if target == b"*" && head.method == Method::OPTIONS {
        return Ok("*".to_owned());
    }
    let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    let (path, query) = target.split_at(end);
    let invalid = |what: String| Failure::new(Cause::RequestInvalid, what);
    let normal = normalize(path, rules).map_err(|fault| invalid(fault.to_string()))?;
    let text = String::from_utf8_lossy(&normal).into_owned();
    if let Cow::Owned(normal) = normal {
        let target = [&normal, query].concat();
        head.set_raw_path(&target).map_err(|_| invalid("the target".to_owned()))?;
    }
    Ok(text)
}

/// A Host without its port.
pub fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        // An IPv6 address keeps its colons, and its brackets.
        Some((name, port)) if !port.contains(']') && port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    }
}

/// One of the targets, each as often as its weight says.
fn choose(weights: impl Iterator<Item = u32>, total: u32) -> usize {
    let mut left = if total > 1 { fastrand::u32(..total) } else { 0 };
    for (position, weight) in weights.enumerate() {
        if left < weight {
            return position;
        }
        left -= weight;
    }
    0
}

/// When a request that begins now must be over.
pub fn deadline(limit: Option<Duration>) -> Option<Instant> {
    limit.map(|limit| Instant::now() + limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_loses_its_port_and_nothing_else() {
        for (host, name) in [
            ("a.test", "a.test"),
            ("a.test:80", "a.test"),
            ("a.test:", "a.test"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("127.0.0.1:8080", "127.0.0.1"),
            ("", ""),
            (":80", ""),
        ] {
            assert_eq!(host_name(host), name, "{host}");
        }
    }

    #[test]
    fn weights_decide_how_often() {
        let count = (0..10_000).filter(|_| choose([90, 10].into_iter(), 100) == 1).count();
        assert!((700..1300).contains(&count), "{count} of 10000 by a weight of 10 in 100");
        assert!((0..1000).all(|_| choose([0, 5].into_iter(), 5) == 1), "a weight of 0 gets nothing");
    }

    #[test]
    fn an_absolute_target_becomes_a_path_and_a_host() {
        for by_uri in [false, true] {
            let mut head = RequestHeader::build("GET", b"http://a.test:81/x?y=1", None).unwrap();
            if by_uri {
                head.set_uri(http::Uri::from_static("https://a.test:81/x?y=1"));
            }
            head.insert_header("host", "other.test").unwrap();
            assert_eq!(to_origin_form(&mut head.clone()).unwrap_err().cause, Cause::RequestInvalid);
            head.insert_header("host", "a.test:81").unwrap();
            assert_eq!(to_origin_form(&mut head).unwrap(), "a.test:81");
            assert_eq!(head.uri, "/x?y=1");
            assert_eq!(head.raw_path(), b"/x?y=1");
            assert_eq!(head.headers["host"], "a.test:81");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_a_port() {
        for host in [
            "a.test",
            "A_b-c.test.",
            "a.test:80",
            "a.test:",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:65535",
            "localhost",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":80",
            "a b",
            "a@b",
            "a/b",
            "a\\b",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:-1",
            "a:+1",
            "a,b",
            "a;b",
            "[::1",
            "::1",
            "[::1]x",
            "[::g]",
            "[::1%25lo]",
            "a%2eb",
            "a?b",
            "ü.test",
            "[a]",
            "a\0",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn a_request_without_a_host_is_refused() {
        for host in [None, Some(""), Some(":80")] {
            let mut head = RequestHeader::build("GET", b"/", None).unwrap();
            if let Some(host) = host {
                head.insert_header("host", host).unwrap();
            }
            assert_eq!(to_origin_form(&mut head).unwrap_err().cause, Cause::RequestInvalid, "{host:?}");
        }
    }
}
