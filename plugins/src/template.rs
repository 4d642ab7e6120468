//! Text with `$variables`, compiled at load and rendered for each request.
//!
//! | variable | is |
//! |---|---|
//! | `$host` | the Host of the request as it stands, without port, in lower case; in HTTP/2 the authority where there is none |
//! | `$path`, `$query` | the path as it stands, byte for byte; the query without its `?` |
//! | `$method`, `$scheme` | `GET`; `http` or `https`, as the client reached the listener |
//! | `$client_ip`, `$request_id` | the address of the client; the id that the request is logged under |
//! | `$listener`, `$route`, `$upstream`, `$config` | names from the file; the hash of the configuration |
//! | `$endpoint`, `$sni` | the endpoint that was picked, and the SNI that was sent to it: on the response only |
//! | `${header.NAME}` | the request's field; several are joined with `, ` |
//! | `${query.NAME}` | the first parameter of that name, percent-decoded (a `+` stays a plus) |
//! | `${cookie.NAME}` | the first cookie of that name |
//! | `${client_cert.NAME}` | of the client's verified certificate, several joined with `,`: `subject`, `issuer`, `common_name`, `organization`, `dns`, `uri`, `email`, `ip`, `serial`, `not_after`, `fingerprint`, `pem` (URL-escaped) |
//! | `$user` | the name that a plugin before has proven the client to have |
//! | `${jwt.NAME}` | a claim of the token that a `jwt` before has verified; `.` leads into a map, and a list is joined with `,` |
//! | `${env.NAME}` | of the gateway's environment, read once at load |
//! | `$$` | a dollar sign |
//!
//! `$host` and `${host}` are the same. What is absent is empty. Where a value may be used is for the keys to
//! say.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

use http::header::HeaderName;
use pingora_http::RequestHeader;

use crate::problem::{Path, Problem, did_you_mean};
use crate::target::Target;
use crate::{ClientCertPart, RequestInfo, claims, host};

/// A text that may vary from request to request.
#[derive(Clone)]
pub struct Template {
    /// Never two texts in a row, and no empty one.
    parts: Vec<Part>,
}

#[derive(Clone)]
enum Part {
    Text(String),
    Variable(Variable),
}

/// Where a template is rendered, which rules the variables that it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// On the request, before an endpoint is picked.
    Request,
    /// In what is sent to open the connection: the upstream's `sni` and `host`.
    Upstream,
    /// On the response.
    Response,
}

/// What a template may refer to. `${env.NAME}` is not here: it is text once the file is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table in the module doc says what each is")]
pub enum Variable {
    Host,
    Path,
    Query,
    Method,
    Scheme,
    ClientIp,
    RequestId,
    Listener,
    Route,
    Upstream,
    Endpoint,
    Sni,
    Config,
    Header(HeaderName),
    QueryParameter(String),
    Cookie(String),
    ClientCert(ClientCertPart),
    User,
    Claim(String),
}

impl Template {
    /// Compiles a text. The problem's path is the root, for the caller to move with `Problem::under`.
    pub fn parse(text: &str, scope: Scope) -> Result<Self, Problem> {
        Self::parse_with(text, scope, |name| std::env::var(name).ok())
    }

    /// The text, if it is the same for every request.
    pub fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether the text is the same for every request.
    pub fn is_static(&self) -> bool {
        self.literal().is_some()
    }

    /// The variables in the order of the text, each as often as it stands there.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(variable),
            Part::Text(_) => None,
        })
    }

    /// The text for this request. A text without variables and a variable alone are borrowed where they can
    /// be. Bytes of the request that are no UTF-8 become U+FFFD; `render_bytes` keeps them.
    pub fn render<'a>(&'a self, head: &'a RequestHeader, info: &RequestInfo<'a>) -> Cow<'a, str> {
        match self.render_bytes(head, info) {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
                .into(),
        }
    }

    /// The same, byte for byte as the request has it.
    pub fn render_bytes<'a>(&'a self, head: &'a RequestHeader, info: &RequestInfo<'a>) -> Cow<'a, [u8]> {
        match self.parts.as_slice() {
            [] => Cow::Borrowed(b""),
            [Part::Text(text)] => Cow::Borrowed(text.as_bytes()),
            [Part::Variable(variable)] => variable.value(head, info),
            parts => {
                let mut rendered = Vec::with_capacity(parts.len() * 16);
                for part in parts {
                    match part {
                        Part::Text(text) => rendered.extend_from_slice(text.as_bytes()),
                        Part::Variable(variable) => rendered.extend_from_slice(&variable.value(head, info)),
                    }
                }
                rendered.into()
            }
        }
    }

    fn parse_with(text: &str, scope: Scope, env: impl Fn(&str) -> Option<String>) -> Result<Self, Problem> {
        let mut template = Self { parts: Vec::new() };
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            template.push_text(before);
            rest = if let Some(behind) = after.strip_prefix('$') {
                template.push_text("$");
                behind
            } else if let Some(braced) = after.strip_prefix('{') {
                let (name, behind) = braced.split_once('}').ok_or_else(|| unclosed(braced))?;
                match name.strip_prefix("env.") {
                    Some(name) => template.push_text(&env(name).ok_or_else(|| unset(name))?),
                    None => template.parts.push(Part::Variable(Variable::parse(name, scope)?)),
                }
                behind
            } else {
                let (name, behind) = after.split_at(bare_name(after));
                template.parts.push(Part::Variable(Variable::parse_bare(name, behind, scope)?));
                behind
            };
        }
        template.push_text(rest);
        Ok(template)
    }

    fn push_text(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(Part::Text(last)) => last.push_str(text),
            _ if text.is_empty() => {}
            _ => self.parts.push(Part::Text(text.to_owned())),
        }
    }
}

/// The text itself may be a token or come from the environment, so only the variables are shown.
impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.variables()).finish()
    }
}

/// The names that stand by themselves.
const PLAIN: [(&str, Variable); 14] = [
    ("host", Variable::Host),
    ("path", Variable::Path),
    ("query", Variable::Query),
    ("method", Variable::Method),
    ("scheme", Variable::Scheme),
    ("client_ip", Variable::ClientIp),
    ("request_id", Variable::RequestId),
    ("listener", Variable::Listener),
    ("route", Variable::Route),
    ("upstream", Variable::Upstream),
    ("endpoint", Variable::Endpoint),
    ("sni", Variable::Sni),
    ("config", Variable::Config),
    ("user", Variable::User),
];

/// The names that take another one behind a dot.
const GROUPS: [&str; 6] = ["header", "query", "cookie", "client_cert", "jwt", "env"];

impl Variable {
    /// What stands between `${` and `}`.
    fn parse(name: &str, scope: Scope) -> Result<Self, Problem> {
        let Some((group, member)) = name.split_once('.') else {
            return Self::plain(name, scope);
        };
        if member.is_empty() && GROUPS.contains(&group) {
            return Err(
                problem(format!("`${{{name}}}` lacks the name behind its dot")).hint(needs_name(group))
            );
        }
        match group {
            "header" => HeaderName::from_bytes(member.as_bytes())
                .map(Self::Header)
                .map_err(|_| problem(format!("`{member}` in `${{{name}}}` is not a header name"))),
            "query" => Ok(Self::QueryParameter(member.to_owned())),
            "cookie" => Ok(Self::Cookie(member.to_owned())),
            "jwt" => Ok(Self::Claim(member.to_owned())),
            "client_cert" => ClientCertPart::parse(member).map(Self::ClientCert).ok_or_else(|| {
                let names = ClientCertPart::ALL.map(|(name, _)| name);
                let told =
                    format!("`${{{name}}}` is not known; of `client_cert` there are {}", names.join(", "));
                problem(told).maybe(did_you_mean(member, names))
            }),
            _ => {
                let near = GROUPS.map(|group| format!("${{{group}.{member}}}"));
                Err(unknown(&format!("${{{name}}}"), near.iter().map(String::as_str)))
            }
        }
    }

    /// What stands behind a `$` alone; `behind` is the text that follows.
    fn parse_bare(name: &str, behind: &str, scope: Scope) -> Result<Self, Problem> {
        if name.is_empty() {
            return Err(
                problem("a `$` is followed by no variable's name").hint("write `$$` for a dollar sign")
            );
        }
        // `$query.version` would be the whole query and then `.version`, which nobody means.
        let member =
            behind.strip_prefix('.').map(|member| &member[..member_name(member)]).unwrap_or_default();
        if GROUPS.contains(&name) && !member.is_empty() {
            return Err(problem(format!("`${name}.{member}` needs braces"))
                .hint(format!("write `${{{name}.{member}}}`")));
        }
        Self::plain(name, scope)
    }

    fn plain(name: &str, scope: Scope) -> Result<Self, Problem> {
        let Some((_, variable)) = PLAIN.iter().find(|(known, _)| *known == name) else {
            if GROUPS.contains(&name) {
                return Err(problem(format!("`${name}` needs a name of its own")).hint(needs_name(name)));
            }
            let given = format!("${name}");
            let near = PLAIN.map(|(known, _)| format!("${known}"));
            let unknown = unknown(&given, near.iter().map(String::as_str));
            let glued = PLAIN.iter().find_map(|(known, _)| Some((known, name.strip_prefix(known)?)));
            return Err(match glued {
                Some((known, tail)) if unknown.hint.is_none() => {
                    unknown.hint(format!("write `${{{known}}}{tail}` to end the name there"))
                }
                _ => unknown,
            });
        };
        if scope != Scope::Response && matches!(variable, Self::Endpoint | Self::Sni) {
            return Err(problem(format!(
                "`${name}` is known only once an endpoint has been picked; use it on the response"
            )));
        }
        Ok(variable.clone())
    }

    fn value<'a>(&'a self, head: &'a RequestHeader, info: &RequestInfo<'a>) -> Cow<'a, [u8]> {
        let text = match self {
            Self::Host => return host::of(head),
            Self::Path => return path(head).into(),
            Self::Query => return query(head).into(),
            Self::ClientIp => return client_ip(info).into(),
            Self::Header(name) => return header(head, name),
            Self::QueryParameter(name) => return query_parameter(query(head), name.as_bytes()),
            Self::Cookie(name) => return cookie(head, name.as_bytes()).into(),
            Self::ClientCert(part) => return client_cert(*part, info),
            Self::Claim(name) => return claim(name, info),
            Self::User => info.identity.user().unwrap_or_default(),
            Self::Method => head.method.as_str(),
            Self::Scheme => info.scheme,
            Self::RequestId => info.request_id,
            Self::Listener => info.listener,
            Self::Route => info.route,
            Self::Upstream => info.upstream,
            Self::Endpoint => info.endpoint.unwrap_or_default(),
            Self::Sni => info.sni.unwrap_or_default(),
            Self::Config => info.config,
        };
        text.as_bytes().into()
    }
}

fn path(head: &RequestHeader) -> &[u8] {
    Target::of(head).map_or(head.uri.path().as_bytes(), |target| target.path())
}

fn query(head: &RequestHeader) -> &[u8] {
    Target::of(head).and_then(|target| target.query()).unwrap_or_default()
}

fn client_ip(info: &RequestInfo<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    if let Some(ip) = info.client_ip {
        // Writing to a Vec cannot fail.
        let _ = write!(text, "{ip}");
    }
    text
}

fn claim<'a>(name: &str, info: &RequestInfo<'a>) -> Cow<'a, [u8]> {
    match info.identity.claims().and_then(|given| claims::find(given, name)).and_then(claims::text) {
        None => Cow::Borrowed(b""),
        Some(Cow::Borrowed(text)) => text.as_bytes().into(),
        Some(Cow::Owned(text)) => text.into_bytes().into(),
    }
}

fn client_cert<'a>(part: ClientCertPart, info: &RequestInfo<'a>) -> Cow<'a, [u8]> {
    match info.client_certificate.map(|certificate| part.of(certificate)) {
        None => Cow::Borrowed(b""),
        Some(Cow::Borrowed(text)) => text.as_bytes().into(),
        Some(Cow::Owned(text)) => text.into_bytes().into(),
    }
}

fn header<'a>(head: &'a RequestHeader, name: &HeaderName) -> Cow<'a, [u8]> {
    let mut values = head.headers.get_all(name).iter().map(|value| value.as_bytes());
    let first = values.next().unwrap_or_default();
    let mut joined = Cow::Borrowed(first);
    for value in values {
        let joined = joined.to_mut();
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(value);
    }
    joined
}

fn query_parameter<'a>(query: &'a [u8], name: &[u8]) -> Cow<'a, [u8]> {
    query
        .split(|byte| *byte == b'&')
        .find_map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let given = percent_decoded(halves.next()?);
            (*given == *name).then(|| percent_decoded(halves.next().unwrap_or_default()))
        })
        .unwrap_or_default()
}

/// RFC 6265 5.2: the pairs of all Cookie fields, of which HTTP/2 may send several.
fn cookie<'a>(head: &'a RequestHeader, name: &[u8]) -> &'a [u8] {
    head.headers
        .get_all(http::header::COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .find_map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let given = halves.next()?.trim_ascii();
            let value = halves.next()?.trim_ascii();
            (given == name).then_some(value)
        })
        .unwrap_or_default()
}

/// A `%` without two hex digits behind it stays as it is.
pub(crate) fn percent_decoded(encoded: &[u8]) -> Cow<'_, [u8]> {
    if !encoded.contains(&b'%') {
        return encoded.into();
    }
    let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        let escape = match (first, behind) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escape {
            Some((high, low)) => {
                decoded.push(high << 4 | low);
                rest = &behind[2..];
            }
            None => decoded.push(*first),
        }
    }
    decoded.into()
}

fn bare_name(text: &str) -> usize {
    match text.bytes().next() {
        Some(first) if first.is_ascii_alphabetic() || first == b'_' => {
            text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()
        }
        _ => 0,
    }
}

fn member_name(text: &str) -> usize {
    text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')).count()
}

fn problem(message: impl Into<String>) -> Problem {
    Problem::new(Path::root(), message)
}

fn unclosed(braced: &str) -> Problem {
    let name =
        &braced[..braced.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"_-.".contains(b)).count()];
    problem(format!("`${{{name}` has no closing brace"))
        .hint(format!("write `${{{name}}}`, or `$$` for a dollar sign"))
}

fn unset(name: &str) -> Problem {
    problem(format!("`${{env.{name}}}` is not set in the gateway's environment, or is no UTF-8"))
        .hint(format!("set `{name}` before the gateway starts"))
}

fn needs_name(group: &str) -> String {
    match group {
        "client_cert" => "write `${client_cert.NAME}` with one of subject, uri, dns and so on".to_owned(),
        "env" => "write `${env.NAME}` with the name of an environment variable".to_owned(),
        _ => format!("write `${{{group}.NAME}}` with the name that you mean"),
    }
}

fn unknown<'a>(given: &str, near: impl IntoIterator<Item = &'a str>) -> Problem {
    let plain = PLAIN.map(|(name, _)| format!("${name}")).join(", ");
    problem(format!(
        "no variable is named `{given}`; there are {plain}, ${{header.NAME}}, ${{query.NAME}}, ${{cookie.NAME}}, \
         ${{client_cert.NAME}}, ${{jwt.NAME}} and ${{env.NAME}}"
    ))
    .maybe(did_you_mean(given, near))
}

impl Problem {
    fn maybe(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{INFO, get, told};
    use crate::{ClientCertificate, Identity};

    fn env(name: &str) -> Option<String> {
        (name == "TOKEN").then(|| "s3cret$host".to_owned())
    }

    fn parse(text: &str) -> Result<Template, String> {
        Template::parse_with(text, Scope::Response, env).map_err(|problem| told(&[problem]))
    }

    fn refusal(text: &str) -> String {
        parse(text).unwrap_err()
    }

    #[test]
    fn every_variable_renders() {
        let certificate = ClientCertificate {
            subject: "CN=alice,O=devs".into(),
            common_name: Some("alice".into()),
            organizations: vec!["devs".into(), "ops".into()],
            dns_names: vec!["a.test".into()],
            uris: vec!["spiffe://a.test/x".into()],
            emails: vec!["a@a.test".into(), "b@a.test".into()],
            ips: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            issuer: "CN=ca".into(),
            serial: "0a".into(),
            not_after: "2030-01-01T00:00:00Z".into(),
            fingerprint: "ab12".into(),
            pem: "-----BEGIN%20".into(),
        };
        let identity = Identity::new();
        identity.set_user("alice".into());
        let claims = serde_json::json!({ "sub": "7", "realm_access": { "roles": ["dev", "ops"] } });
        identity.set_claims(claims.as_object().unwrap().clone());
        let info = RequestInfo {
            identity: &identity,
            endpoint: Some("10.0.0.9:443"),
            sni: Some("up.example"),
            client_certificate: Some(&certificate),
            ..INFO
        };
        let mut head = get("/a%2Fb/?v=1%20x&v=2&e%6Dpty=&flag&p=a+b%zz");
        for (name, value) in [
            ("X-One", "1"),
            ("x-many", "a"),
            ("X-Many", "b"),
            ("Cookie", "a=1; sid=\"x=y\""),
            ("Cookie", "b=2"),
        ] {
            head.append_header(name, value).unwrap();
        }
        for (text, rendered) in [
            ("", ""),
            ("plain", "plain"),
            ("$host", "shop.example"),
            ("${host}", "shop.example"),
            ("$path", "/a%2Fb/"),
            ("$query", "v=1%20x&v=2&e%6Dpty=&flag&p=a+b%zz"),
            ("$method", "GET"),
            ("$scheme", "https"),
            ("$client_ip", "192.0.2.7"),
            ("$request_id", "0123abcd"),
            ("$listener", "web-tls"),
            ("$route", "kube-api"),
            ("$upstream", "kube-apiserver"),
            ("$endpoint", "10.0.0.9:443"),
            ("$sni", "up.example"),
            ("$config", "c0ffee"),
            ("${header.X-ONE}", "1"),
            ("${header.x-many}", "a, b"),
            ("${header.absent}", ""),
            ("${query.v}", "1 x"),
            ("${query.empty}", ""),
            ("${query.flag}", ""),
            ("${query.p}", "a+b%zz"),
            ("${query.absent}", ""),
            ("${cookie.a}", "1"),
            ("${cookie.sid}", "\"x=y\""),
            ("${cookie.b}", "2"),
            ("${cookie.absent}", ""),
            ("${client_cert.subject}", "CN=alice,O=devs"),
            ("${client_cert.fingerprint}", "ab12"),
            ("${client_cert.common_name}", "alice"),
            ("${client_cert.organization}", "devs,ops"),
            ("${client_cert.dns}", "a.test"),
            ("${client_cert.uri}", "spiffe://a.test/x"),
            ("${client_cert.email}", "a@a.test,b@a.test"),
            ("${client_cert.ip}", "192.0.2.1,2001:db8::1"),
            ("${client_cert.issuer}", "CN=ca"),
            ("${client_cert.serial}", "0a"),
            ("${client_cert.not_after}", "2030-01-01T00:00:00Z"),
            ("${client_cert.pem}", "-----BEGIN%20"),
            ("$user", "alice"),
            ("${jwt.sub}", "7"),
            ("${jwt.realm_access.roles}", "dev,ops"),
            ("${jwt.absent}", ""),
            ("Bearer ${env.TOKEN}", "Bearer s3cret$host"),
            ("$$", "$"),
            ("$$host", "$host"),
            ("$$$host$$", "$shop.example$"),
            ("<${host}:$scheme>$host-$host", "<shop.example:https>shop.example-shop.example"),
            ("{$host}", "{shop.example}"),
            ("$host.internal", "shop.example.internal"),
        ] {
            assert_eq!(parse(text).unwrap().render(&head, &info), rendered, "{text}");
        }
    }

    #[test]
    fn what_is_absent_is_empty() {
        let head = RequestHeader::build("GET", b"/", None).unwrap();
        let info = RequestInfo { client_ip: None, ..INFO };
        for text in [
            "$host",
            "$query",
            "$client_ip",
            "$endpoint",
            "$sni",
            "${client_cert.subject}",
            "${client_cert.common_name}",
            "${client_cert.ip}",
            "$user",
            "${jwt.sub}",
        ] {
            assert_eq!(parse(text).unwrap().render(&head, &info), "", "{text}");
        }
    }

    #[test]
    fn the_host_of_http2_is_its_authority() {
        let (parts, ()) = http::Request::get("https://Shop.example:8443/a").body(()).unwrap().into_parts();
        let head = RequestHeader::from(parts);
        assert_eq!(parse("$host$path").unwrap().render(&head, &INFO), "shop.example/a");
    }

    #[test]
    fn bytes_of_the_request_are_kept() {
        let mut head = get(b"/\xff");
        head.insert_header("x-latin", &b"caf\xe9"[..]).unwrap();
        let template = parse("$path ${header.x-latin}").unwrap();
        assert_eq!(template.render_bytes(&head, &INFO), &b"/\xff caf\xe9"[..]);
        assert_eq!(template.render(&head, &INFO), "/\u{fffd} caf\u{fffd}");
    }

    #[test]
    fn static_text_and_a_variable_alone_are_borrowed() {
        let mut head = get("/a?b");
        head.insert_header("Host", "shop.example").unwrap();
        for text in ["plain", "$$", "$host", "$path", "$query", "$route", "${header.host}", "${query.b}"] {
            let template = parse(text).unwrap();
            assert!(matches!(template.render(&head, &INFO), Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn a_template_tells_whether_it_varies_and_by_what() {
        for (text, literal, variables) in [
            ("", Some(""), vec![]),
            ("a$$b", Some("a$b"), vec![]),
            ("${env.TOKEN}", Some("s3cret$host"), vec![]),
            ("$host", None, vec![Variable::Host]),
            ("$sni$host", None, vec![Variable::Sni, Variable::Host]),
            ("x${query.a}", None, vec![Variable::QueryParameter("a".into())]),
        ] {
            let template = parse(text).unwrap();
            assert_eq!(template.literal(), literal, "{text}");
            assert_eq!(template.is_static(), literal.is_some(), "{text}");
            assert!(template.variables().eq(&variables), "{text}");
        }
    }

    #[test]
    fn an_unknown_variable_is_refused_with_the_nearest_and_all() {
        assert_eq!(
            refusal("$hots"),
            ": no variable is named `$hots`; there are $host, $path, $query, $method, $scheme, $client_ip, \
             $request_id, $listener, $route, $upstream, $endpoint, $sni, $config, $user, ${header.NAME}, ${query.NAME}, \
             ${cookie.NAME}, ${client_cert.NAME}, ${jwt.NAME} and ${env.NAME} \
             (did you mean `$host`?)"
        );
        for (text, hint) in [
            ("${Host}", "(did you mean `$host`?)"),
            ("$clientip", "(did you mean `$client_ip`?)"),
            ("$hostname", "(write `${host}name` to end the name there)"),
            ("${headers.x-a}", "(did you mean `${header.x-a}`?)"),
            ("${client_cert.subjekt}", "(did you mean `subject`?)"),
            ("${header}", "(write `${header.NAME}` with the name that you mean)"),
            ("$cookie", "(write `${cookie.NAME}` with the name that you mean)"),
            ("${query.}", "(write `${query.NAME}` with the name that you mean)"),
            ("$header.x-a", "(write `${header.x-a}`)"),
            ("$query.version", "(write `${query.version}`)"),
            ("${host", "(write `${host}`, or `$$` for a dollar sign)"),
        ] {
            assert!(refusal(text).ends_with(hint), "{text}: {}", refusal(text));
        }
        assert!(refusal("${header.a b}").contains("`a b` in `${header.a b}` is not a header name"));
        assert!(refusal("${}").contains("no variable is named"));
    }

    #[test]
    fn a_lone_dollar_sign_is_refused() {
        for text in ["$", "a$", "$ 5", "$1", "$/x", "$-"] {
            assert_eq!(
                refusal(text),
                ": a `$` is followed by no variable's name (write `$$` for a dollar sign)",
                "{text}"
            );
        }
    }

    #[test]
    fn an_unset_environment_variable_is_named() {
        assert_eq!(
            refusal("${env.NOT_SET}"),
            ": `${env.NOT_SET}` is not set in the gateway's environment, or is no UTF-8 \
             (set `NOT_SET` before the gateway starts)"
        );
        assert!(Template::parse("${env.PATH}", Scope::Request).unwrap().is_static());
    }

    #[test]
    fn endpoint_and_sni_are_for_the_response() {
        for scope in [Scope::Request, Scope::Upstream] {
            for text in ["$endpoint", "${sni}"] {
                let refused = Template::parse(text, scope).unwrap_err();
                assert!(
                    refused
                        .message
                        .ends_with("is known only once an endpoint has been picked; use it on the response"),
                    "{text}"
                );
            }
            assert!(Template::parse("$host", scope).is_ok());
        }
    }

    #[test]
    fn a_debug_print_shows_no_text() {
        let shown = format!("{:?}", parse("Bearer ${env.TOKEN} $host").unwrap());
        assert_eq!(shown, "[Host]");
    }
}
