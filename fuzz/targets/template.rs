//! Any text as a template, rendered for any request. The first line is the template, the second the request's target, and
//! each further one a header field.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pingora_http::RequestHeader;
use vestibule_plugins::{Identity, RequestInfo, Scope, Template};

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Some(Ok(text)) = lines.next().map(std::str::from_utf8) else { return };
    let target = lines.next().filter(|target| !target.is_empty()).unwrap_or(b"/");
    let Ok(mut head) = RequestHeader::build("GET", target, None) else { return };
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        if let (Ok(name), Ok(value)) = (
            http::HeaderName::from_bytes(&line[..colon]),
            http::HeaderValue::from_bytes(line[colon + 1..].trim_ascii()),
        ) {
            let _ = head.append_header(name, value);
        }
    }
    let identity = Identity::new();
    let info = RequestInfo {
        scheme: "https",
        client_ip: Some(std::net::Ipv4Addr::LOCALHOST.into()),
        request_id: "0123abcd",
        listener: "web",
        route: "api",
        upstream: "api",
        matched_prefix: None,
        endpoint: Some("127.0.0.1:1"),
        sni: None,
        config: "c0ffee",
        identity: &identity,
        client_certificate: None,
    };
    for scope in [Scope::Request, Scope::Upstream, Scope::Response] {
        match Template::parse(text, scope) {
            Ok(template) => {
                let rendered = template.render_bytes(&head, &info);
                if let Some(literal) = template.literal() {
                    assert_eq!(literal.as_bytes(), &*rendered, "a text is what it renders to");
                    assert_eq!(template.variables().count(), 0);
                }
                assert_eq!(String::from_utf8_lossy(&rendered), template.render(&head, &info));
            }
            Err(problem) => assert!(!problem.message.is_empty(), "refused without a word"),
        }
    }
    // Whatever a text is, it can be written as a template.
    let escaped = text.replace('$', "$$");
    let template = Template::parse(&escaped, Scope::Request).expect("a text without variables");
    assert_eq!(template.literal(), Some(text));
});
