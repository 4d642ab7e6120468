//! `headers`: sets, adds and removes header fields on the request and on the response.
//!
//! ```yaml
//! - headers:
//!     request:
//!       remove: [x-debug, x-remote-*]      # names, or the beginning of names
//!       set:                               # replaces every field of that name
//!         x-forwarded-proto: $scheme
//!         x-real-ip: $client_ip
//!         host: ${header.x-tenant}.internal
//!       add: { via: 1.1 vestibule }        # beside those that are there
//!     response:
//!       remove: [server]
//!       set: { x-served-by: "$upstream $endpoint" }
//!       add: { vary: accept-encoding }
//! ```
//!
//! On each side the order is remove, set, add, whatever the order in the file. Values are templates;
//! `$endpoint` and `$sni` are for the response, where `${header.NAME}` is still a field of the request. A
//! value that renders to nothing removes the field in `set` and adds none in `add`. Bytes that no field may
//! carry, such as line ends out of a `${query.NAME}`, are dropped. Names go out as they are typed here. What
//! frames a message (Content-Length, Connection and their like) is the gateway's own and is refused.
//!
//! `host` may be set on the request and replaces the one Host; what renders to no host leaves it as it is.

use std::collections::BTreeMap;

use http::header::{HOST, HeaderName, HeaderValue};
use pingora_http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::field::{self, FieldName, FieldPattern, Fields};
use crate::host::{self, HostRule};
use crate::problem::{Path, Problem};
use crate::template::{Scope, Template};
use crate::text::Text;
use crate::{Build, Hooks, Plugin, RequestInfo, Setting, Verdict};

/// Changes header fields on the way in and out.
pub struct Headers {
    request: Edit,
    host: Option<HostRule>,
    response: Edit,
}

/// Which header fields to change, on the request and on the response.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeadersConfig {
    /// Changes of the request, before an endpoint is picked.
    #[serde(default)]
    request: EditConfig,
    /// Changes of the response's head.
    #[serde(default)]
    response: EditConfig,
}

/// Changes of one header section, done in the order remove, set, add.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EditConfig {
    /// Replaces every field of that name by one with this value, a template. An empty value removes the
    /// field.
    #[serde(default)]
    set: BTreeMap<String, Text>,
    /// Adds a field with this value, a template, beside those of the same name.
    #[serde(default)]
    add: BTreeMap<String, Text>,
    /// Removes every field of these names; `x-remote-*` is every name that begins so.
    #[serde(default)]
    remove: Vec<String>,
}

impl Build for Headers {
    type Config = HeadersConfig;

    fn build(config: HeadersConfig, _: &Setting<'_>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut request = config.request;
        let host = host_rule(&mut request, &mut problems);
        let request = Edit::compile(request, Scope::Request, "request", &mut problems);
        let response = Edit::compile(config.response, Scope::Response, "response", &mut problems);
        if problems.is_empty() { Ok(Self { request, host, response }) } else { Err(problems) }
    }
}

impl Plugin for Headers {
    fn hooks(&self) -> Hooks {
        Hooks {
            request: self.host.is_some() || !self.request.is_empty(),
            response: !self.response.is_empty(),
            wait: false,
        }
    }

    fn request(&self, head: &mut RequestHeader, info: &RequestInfo<'_>) -> Verdict {
        let host = self.host.as_ref().and_then(|rule| rule.render(head, info));
        for pattern in &self.request.remove {
            pattern.remove_from(head);
        }
        for (name, value) in &self.request.set {
            let value = value.render(head, info);
            set(head, name, value);
        }
        for (name, value) in &self.request.add {
            if let Some(value) = value.render(head, info) {
                head.add(name, value);
            }
        }
        // After the others, so that `$host` means the same in every one of them.
        if let Some(host) = host {
            host::replace(head, host);
        }
        Verdict::Continue
    }

    fn response(&self, head: &mut ResponseHeader, request: &RequestHeader, info: &RequestInfo<'_>) {
        for pattern in &self.response.remove {
            pattern.remove_from(head);
        }
        for (name, value) in &self.response.set {
            set(head, name, value.render(request, info));
        }
        for (name, value) in &self.response.add {
            if let Some(value) = value.render(request, info) {
                head.add(name, value);
            }
        }
    }
}

fn set<H: Fields>(head: &mut H, name: &FieldName, value: Option<HeaderValue>) {
    match value {
        Some(value) => head.set(name, value),
        None => head.remove(&name.name),
    }
}

struct Edit {
    remove: Vec<FieldPattern>,
    set: Vec<(FieldName, FieldValue)>,
    add: Vec<(FieldName, FieldValue)>,
}

enum FieldValue {
    Fixed(HeaderValue),
    Varying(Template),
}

impl FieldValue {
    fn parse(text: &str, scope: Scope) -> Result<Self, Problem> {
        let template = Template::parse(text, scope)?;
        match template.literal() {
            None | Some("") => Ok(Self::Varying(template)),
            // The value may be a token, so the message does not repeat it.
            Some(literal) => HeaderValue::from_bytes(literal.as_bytes()).map(Self::Fixed).map_err(|_| {
                Problem::new(Path::root(), "the value has a line end or another control character")
                    .hint("a header value is one line of text")
            }),
        }
    }

    /// `None` where there is nothing to write.
    fn render(&self, head: &RequestHeader, info: &RequestInfo<'_>) -> Option<HeaderValue> {
        match self {
            Self::Fixed(value) => Some(value.clone()),
            Self::Varying(template) => field::value(template.render_bytes(head, info)),
        }
    }
}

impl Edit {
    fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    fn compile(config: EditConfig, scope: Scope, side: &str, problems: &mut Vec<Problem>) -> Self {
        let at = Path::root().key(side);
        let mut edit = Self {
            remove: Vec::new(),
            set: fields(config.set, scope, &at.key("set"), problems),
            add: fields(config.add, scope, &at.key("add"), problems),
        };
        for (index, text) in config.remove.iter().enumerate() {
            let at = at.key("remove").index(index);
            match FieldPattern::parse(text) {
                Ok(FieldPattern::Name(name)) if name == HOST && scope == Scope::Request => problems.push(
                    Problem::new(
                        at,
                        "`host` cannot be removed: a request without a Host is refused by its receiver",
                    )
                    .hint("use `set` to send another one"),
                ),
                Ok(pattern) => edit.remove.push(pattern),
                Err(problem) => problems.push(problem.under(&at)),
            }
        }
        if let Some((name, _)) =
            edit.add.iter().find(|(name, _)| name.name == HOST && scope == Scope::Request)
        {
            problems.push(
                Problem::new(
                    at.key("add").key(spelling(name)),
                    "a request has one Host, so none can be added",
                )
                .hint("use `set` to replace it"),
            );
        }
        edit
    }
}

/// Takes `host` out of the fields to set, because it must never be rendered to nothing or to no host.
fn host_rule(config: &mut EditConfig, problems: &mut Vec<Problem>) -> Option<HostRule> {
    let keys: Vec<String> =
        config.set.keys().filter(|name| name.eq_ignore_ascii_case("host")).cloned().collect();
    let mut texts = keys.iter().filter_map(|key| config.set.remove(key).map(|text| (key, text)));
    let at = Path::root().key("request").key("set");
    let (key, text) = texts.next()?;
    problems.extend(texts.map(|(key, _)| twice(at.key(key.as_str()), &HOST)));
    match HostRule::parse(&text.0) {
        Ok(rule) => Some(rule),
        Err(problem) => {
            problems.push(problem.under(&at.key(key.as_str())));
            None
        }
    }
}

fn fields(
    config: BTreeMap<String, Text>,
    scope: Scope,
    at: &Path,
    problems: &mut Vec<Problem>,
) -> Vec<(FieldName, FieldValue)> {
    let mut fields: Vec<(FieldName, FieldValue)> = Vec::new();
    for (text, value) in config {
        let at = at.key(text.as_str());
        let name = FieldName::parse(&text).map_err(|problem| problem.under(&at));
        let value = FieldValue::parse(&value.0, scope).map_err(|problem| problem.under(&at));
        match (name, value) {
            (Ok(name), Ok(_)) if fields.iter().any(|(earlier, _)| earlier.name == name.name) => {
                problems.push(twice(at, &name.name));
            }
            (Ok(name), Ok(value)) => fields.push((name, value)),
            (name, value) => problems.extend(name.err().into_iter().chain(value.err())),
        }
    }
    fields
}

fn twice(at: Path, name: &HeaderName) -> Problem {
    Problem::new(at, format!("`{name}` is given twice; header names are the same in upper and lower case"))
}

fn spelling(name: &FieldName) -> String {
    name.name.as_str().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{INFO, get, plugin, plugins_of_doc, refusal};

    fn lines(headers: &http::HeaderMap) -> Vec<String> {
        let line =
            |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
        let mut lines: Vec<String> = headers.iter().map(line).collect();
        lines.sort();
        lines
    }

    /// The request that comes of these fields and this `request:` edit.
    fn requested(edit: &str, target: &str, fields: &[(&'static str, &'static str)]) -> Vec<String> {
        let plugin = plugin("headers", &format!("{{ request: {edit} }}")).unwrap();
        let mut head = get(target);
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        assert!(matches!(plugin.request(&mut head, &INFO), Verdict::Continue));
        lines(&head.headers)
    }

    #[test]
    fn the_yaml_of_the_module_doc_loads() {
        let plugin = plugins_of_doc(include_str!("headers.rs")).remove(0);
        let mut head = get("/");
        for (name, value) in
            [("X-Tenant", "blue"), ("X-Debug", "1"), ("X-Remote-User", "root"), ("Via", "1.0 a")]
        {
            head.append_header(name, value).unwrap();
        }
        plugin.request(&mut head, &INFO);
        assert_eq!(
            lines(&head.headers),
            [
                "host: blue.internal",
                "via: 1.0 a",
                "via: 1.1 vestibule",
                "x-forwarded-proto: https",
                "x-real-ip: 192.0.2.7",
                "x-tenant: blue",
            ]
        );
        let mut response = ResponseHeader::build(200, None).unwrap();
        response.append_header("Server", "nginx").unwrap();
        response.append_header("Vary", "origin").unwrap();
        let info = RequestInfo { endpoint: Some("10.0.0.9:443"), ..INFO };
        plugin.response(&mut response, &head, &info);
        let expected = ["vary: accept-encoding", "vary: origin", "x-served-by: kube-apiserver 10.0.0.9:443"];
        assert_eq!(lines(&response.headers), expected);
    }

    #[test]
    fn removing_comes_first_and_adding_last() {
        for (edit, fields, left) in [
            (
                "{ add: { a: '2' }, set: { a: '1' }, remove: [a] }",
                &[("a", "0"), ("A", "0")][..],
                &["a: 1", "a: 2"][..],
            ),
            ("{ add: { a: 2 }, remove: [A] }", &[("a", "0")], &["a: 2"]),
            ("{ set: { A: true } }", &[("a", "0"), ("a", "1")], &["a: true"]),
            (
                "{ set: { a: '${header.a}!' }, remove: [b*] }",
                &[("a", "0"), ("b1", ""), ("b2", "")],
                &["a: 0!"],
            ),
            ("{ set: { a: '' } }", &[("a", "0")], &[]),
            ("{ set: { a: '${query.x}' }, add: { b: '${query.x}' } }", &[("a", "0"), ("b", "1")], &["b: 1"]),
        ] {
            let mut expected = left.to_vec();
            expected.push("host: Shop.Example:8443");
            assert_eq!(requested(edit, "/", fields), expected, "{edit}");
        }
    }

    #[test]
    fn a_value_that_is_no_header_value_does_not_break_the_request() {
        let edit = "{ set: { a: '<${query.x}>', b: '${query.x}' } }";
        let target = "/?x=1%0d%0aX-Evil:%20yes%00";
        assert_eq!(
            requested(edit, target, &[]),
            ["a: <1X-Evil: yes>", "b: 1X-Evil: yes", "host: Shop.Example:8443"]
        );
    }

    #[test]
    fn the_one_host_is_replaced_or_kept() {
        for (template, target, host) in [
            ("blue.example", "/", "blue.example"),
            ("'${query.t}.$host'", "/?t=a", "a.shop.example"),
            ("'${query.t}'", "/", "Shop.Example:8443"),
            ("'${query.t}'", "/?t=a%20b", "Shop.Example:8443"),
        ] {
            let edit = format!("{{ set: {{ HOST: {template}, was: $host }} }}");
            assert_eq!(
                requested(&edit, target, &[]),
                [format!("host: {host}"), "was: shop.example".to_owned()]
            );
        }
    }

    #[test]
    fn only_the_sides_that_change_something_are_called() {
        for (config, request, response) in [
            ("{}", false, false),
            ("{ request: {}, response: { remove: [a] } }", false, true),
            ("{ request: { add: { a: b } } }", true, false),
            ("{ request: { set: { host: a } } }", true, false),
        ] {
            let hooks = plugin("headers", config).unwrap().hooks();
            assert_eq!(hooks, Hooks { request, response, wait: false }, "{config}");
        }
    }

    #[test]
    fn every_bad_name_and_value_is_told() {
        assert_eq!(
            refusal(
                "headers",
                "{ request: { set: { x y: 1, a: $endpoint, host: 'a b' }, remove: [a, te, x-*-y, host], add: { Host: b } },
                   response: { set: { content-length: 1, A: 1, a: \"x\\ny\" } } }"
            ),
            "request.set.host: `a b` is not a host; write a name or an address, with a port if need be\n\
             request.set.a: `$endpoint` is known only once an endpoint has been picked; use it on the response\n\
             request.set.x y: `x y` is not a header name; it may have letters, digits and `-`, as in `x-served-by` \
             (did you mean `x-y`?)\n\
             request.remove[1]: `te` cannot be changed: the gateway writes it \
             (leave it out; it is kept right on both sides by itself)\n\
             request.remove[2]: `x-*-y` has its `*` in the wrong place; one may stand at the end of a name, as in \
             `x-remote-*`\n\
             request.remove[3]: `host` cannot be removed: a request without a Host is refused by its receiver \
             (use `set` to send another one)\n\
             request.add.host: a request has one Host, so none can be added (use `set` to replace it)\n\
             response.set.a: the value has a line end or another control character \
             (a header value is one line of text)\n\
             response.set.content-length: `content-length` cannot be changed: the gateway writes it \
             (leave it out; it is kept right on both sides by itself)"
        );
        for (config, told) in [
            ("{ request: { set: { A: 1, a: 2 } } }", "request.set.a: `a` is given twice"),
            ("{ request: { set: { Host: a, host: b } } }", "request.set.host: `host` is given twice"),
            ("{ request: { sett: {} } }", "unknown key `sett`"),
        ] {
            assert!(refusal("headers", config).contains(told), "{config}: {}", refusal("headers", config));
        }
    }

    #[test]
    fn names_keep_the_case_that_they_were_typed_in() {
        let plugin =
            plugin("headers", "{ request: { set: { X-Forwarded-Proto: $scheme, host: a } } }").unwrap();
        let mut head = get("/");
        plugin.request(&mut head, &INFO);
        let mut wire = Vec::new();
        head.header_to_h1_wire(&mut wire);
        assert_eq!(String::from_utf8(wire).unwrap(), "Host: a\r\nX-Forwarded-Proto: https\r\n");
    }
}
