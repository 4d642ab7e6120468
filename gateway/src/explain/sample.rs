//! A request as a person types it: a method, an address, header fields. Made into one that could have come in, or
//! refused in words.

use std::sync::Arc;

use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method};
use pingora_http::RequestHeader;
use vestibule_plugins::problem::did_you_mean;
use vestibule_plugins::{Path, Problem, Segment};

use crate::proxy::admit::host_name;
use crate::snapshot::{Listener, PassThrough, Protocol, Snapshot};

/// A request that could have come in.
pub struct Sample {
    /// Where it comes in.
    pub listener: Arc<Listener>,
    head: RequestHeader,
}

/// A request as it was typed.
#[derive(Clone, Copy, Debug)]
pub struct Typed<'a> {
    /// Such as `GET`.
    pub method: &'a str,
    /// `https://host:port/path?query`, or `/path?query`.
    pub url: &'a str,
    /// Names and values.
    pub headers: &'a [(String, String)],
    /// The listener's name, where the URL does not tell it.
    pub listener: Option<&'a str>,
}

/// Takes `NAME: VALUE` apart.
///
/// # Errors
/// There is no colon.
pub fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| {
        format!("`{text}` is not a header field: write `NAME: VALUE`, as in `x-canary: always`")
    })?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// The last key of a path.
pub fn last(path: &Path) -> String {
    match path.0.last() {
        Some(Segment::Key(key)) => key.clone(),
        _ => path.to_string(),
    }
}

impl Typed<'_> {
    /// The request, at a listener of the snapshot's.
    ///
    /// # Errors
    /// Every problem, under `request`, `headers.NAME` or `listener`.
    pub fn sample(&self, snapshot: &Snapshot) -> Result<Sample, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut keep = |problem: Problem| problems.push(problem);
        let method = method(self.method).map_err(&mut keep).ok();
        let address = address(self.url).map_err(&mut keep).ok();
        let fields: Vec<_> =
            self.headers.iter().filter_map(|field| checked(field).map_err(&mut keep).ok()).collect();
        let hosts = self.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host")).count();
        if hosts > 1 {
            keep(Problem::new(at_header("host"), "a request has one Host, and this has more"));
        }
        if address.as_ref().is_some_and(|address| address.authority.is_none()) && hosts == 0 {
            keep(Problem::new(at_request(), format!("`{}` names no host", self.url)).hint(
                "write it whole, as in `https://shop.example/path`, or add a header `Host: shop.example`",
            ));
        }
        let listener = match (self.listener, &address) {
            (Some(name), _) => named(name, address.as_ref(), snapshot).map_err(&mut keep).ok(),
            (None, Some(address)) => chosen(address, snapshot).map_err(&mut keep).ok(),
            (None, None) => None,
        };
        let built = match (method, address, listener) {
            (Some(method), Some(address), Some(listener)) if problems.is_empty() => {
                built(method, &address, &fields).map(|head| Sample { listener, head })
            }
            _ => return Err(problems),
        };
        built.map_err(|error| vec![Problem::new(at_request(), format!("no such request can be: {error}"))])
    }
}

impl Sample {
    /// Its head, as the engine would have read it.
    pub fn head(&self) -> RequestHeader {
        self.head.clone()
    }
}

fn at_request() -> Path {
    Path::root().key("request")
}

fn at_header(name: &str) -> Path {
    Path::root().key("headers").key(name)
}

fn built(
    method: Method,
    address: &Address<'_>,
    fields: &[(String, HeaderValue)],
) -> Result<RequestHeader, Box<pingora_core::Error>> {
    let mut head = RequestHeader::build(method, address.target.as_bytes(), Some(fields.len() + 1))?;
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.append_header("Host", address.host())?;
    }
    for (name, value) in fields {
        head.append_header(name.clone(), value.clone())?;
    }
    Ok(head)
}

fn method(text: &str) -> Result<Method, Problem> {
    let upper = text.to_ascii_uppercase();
    let problem = |message: String| Problem::new(at_request(), message);
    match Method::from_bytes(text.as_bytes()) {
        Ok(Method::CONNECT) => Err(problem("the gateway refuses CONNECT with 405 before any route".into())),
        Ok(method) if text == upper => Ok(method),
        Ok(_) => Err(problem(format!("`{text}` is not a method that is in use; case counts in a method"))
            .hint(format!("write `{upper}`"))),
        Err(_) => Err(problem(format!("`{}` is not a method, such as `GET`", text.escape_debug()))),
    }
}

fn checked((name, value): &(String, String)) -> Result<(String, HeaderValue), Problem> {
    let problem = |message: String| Problem::new(at_header(name), message);
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        problem(format!("`{}` is not a header name", name.escape_debug()))
            .hint("it may have letters, digits and `-`, as in `x-canary`")
    })?;
    let value = HeaderValue::from_str(value).map_err(|_| {
        problem("the value has a line end or another character that no header can carry".into())
    })?;
    Ok((name.clone(), value))
}

/// A URL taken apart, byte for byte.
struct Address<'a> {
    scheme: Option<&'static str>,
    authority: Option<Authority>,
    target: std::borrow::Cow<'a, str>,
}

impl Address<'_> {
    /// The Host that a client sends: the port is left out where it is the scheme's own.
    fn host(&self) -> String {
        let Some(authority) = &self.authority else { return String::new() };
        match authority.port_u16() == Some(self.own_port()) {
            true => host_name(authority.as_str()).to_owned(),
            false => authority.to_string(),
        }
    }

    fn own_port(&self) -> u16 {
        if self.scheme == Some("https") { 443 } else { 80 }
    }

    fn port(&self) -> Option<u16> {
        let authority = self.authority.as_ref()?;
        Some(authority.port_u16().unwrap_or_else(|| self.own_port()))
    }
}

fn address(url: &str) -> Result<Address<'_>, Problem> {
    let problem = |message: String| Problem::new(at_request(), message);
    if let Some(letter) = url.chars().find(|letter| !letter.is_ascii_graphic()) {
        let mended: String = letter.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
        return Err(problem(format!("a URL has no `{}`", letter.escape_debug()))
            .hint(format!("write `{mended}` for it")));
    }
    if let Some((sent, _)) = url.split_once('#') {
        return Err(
            problem("no client sends what stands behind a `#`".into()).hint(format!("write `{sent}`"))
        );
    }
    if url.starts_with('/') || url == "*" {
        return Ok(Address { scheme: None, authority: None, target: url.into() });
    }
    let scheme = |text: &str| ["http", "https"].into_iter().find(|known| text.eq_ignore_ascii_case(known));
    let Some((Some(scheme), rest)) = url.split_once("://").map(|(text, rest)| (scheme(text), rest)) else {
        return Err(problem(format!(
            "`{url}` is neither `http://HOST/PATH`, `https://HOST/PATH` nor `/PATH`"
        )));
    };
    let (host, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let authority = Authority::try_from(host).ok().filter(|it| !it.host().is_empty() && !host.contains('@'));
    let authority =
        authority.ok_or_else(|| problem(format!("`{host}` is not a host: write a name or an address")))?;
    let target = match target.starts_with('/') {
        true => target.into(),
        false => format!("/{target}").into(),
    };
    Ok(Address { scheme: Some(scheme), authority: Some(authority), target })
}

fn named(name: &str, address: Option<&Address<'_>>, snapshot: &Snapshot) -> Result<Arc<Listener>, Problem> {
    let at = Path::root().key("listener");
    let Some(listener) = snapshot.listeners.iter().find(|listener| listener.name == name) else {
        let problem = Problem::new(at, format!("no listener is named `{name}`"));
        let names = serving(snapshot).map(|listener| listener.name.as_str());
        return Err(match did_you_mean(name, names) {
            Some(hint) => problem.hint(hint),
            None => problem.hint(format!("there are {}", listed(serving(snapshot)))),
        });
    };
    match &listener.protocol {
        Protocol::Udp { .. } => Err(Problem::new(
            at,
            format!("the listener `{name}` passes datagrams through, so no route applies to it"),
        )),
        Protocol::Tcp(pass) => Err(Problem::new(
            at,
            format!("the listener `{name}` passes bytes through, so no route applies to it"),
        )
        .hint(passed_through(pass, address.and_then(|address| address.authority.as_ref())))),
        _ => Ok(listener.clone()),
    }
}

/// Where a client goes that asks a `tcp` listener for this host.
fn passed_through(pass: &PassThrough, asked: Option<&Authority>) -> String {
    let host = asked.map(|authority| authority.host()).unwrap_or_default();
    match (pass.by_sni.find(host), &pass.upstream) {
        (Some(upstream), _) => {
            format!("who asks for `{host}` by SNI goes to the upstream `{}`", upstream.name)
        }
        (None, Some(upstream)) if pass.by_sni.is_empty() => {
            format!("what comes in there goes to the upstream `{}`", upstream.name)
        }
        (None, Some(upstream)) => {
            format!("no name of its `by_sni` is `{host}`, so it goes to the upstream `{}`", upstream.name)
        }
        (None, None) => format!("no name of its `by_sni` is `{host}`, so its clients are closed"),
    }
}

/// The one listener that the URL can mean: the only one of its scheme, or of these the only one at its port.
fn chosen(address: &Address<'_>, snapshot: &Snapshot) -> Result<Arc<Listener>, Problem> {
    let is_scheme = |it: &&Arc<Listener>| address.scheme.is_none_or(|scheme| it.scheme() == scheme);
    let at_port = |it: &&Arc<Listener>| address.port() == Some(it.address.port());
    let of_scheme: Vec<_> = serving(snapshot).filter(is_scheme).collect();
    let of_port: Vec<_> = of_scheme.iter().copied().filter(at_port).collect();
    match (of_scheme.as_slice(), of_port.as_slice()) {
        _ if serving(snapshot).next().is_none() => {
            Err(Problem::new(at_request(), "no listener of the configuration serves HTTP"))
        }
        ([one], _) | (_, [one]) => Ok((*one).clone()),
        (of_scheme, _) => {
            let scheme = address.scheme.map(|scheme| format!("{scheme} ")).unwrap_or_default();
            let count = if of_scheme.is_empty() { "no" } else { "more than one" };
            Err(Problem::new(at_request(), format!("{count} {scheme}listener could take this")).hint(
                format!(
                    "name it by `--listener`, or `listener` in a file of cases; there are {}",
                    listed(serving(snapshot))
                ),
            ))
        }
    }
}

fn serving(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Listener>> {
    snapshot
        .listeners
        .iter()
        .filter(|listener| matches!(listener.protocol, Protocol::Http | Protocol::Https(_)))
}

fn listed<'a>(listeners: impl Iterator<Item = &'a Arc<Listener>>) -> String {
    let told: Vec<_> =
        listeners.map(|it| format!("`{}` ({}://{})", it.name, it.scheme(), it.address)).collect();
    if told.is_empty() { "none that serve HTTP".into() } else { told.join(", ") }
}
