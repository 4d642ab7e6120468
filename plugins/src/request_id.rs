//! `request_id`: tells the upstream and the client the id under which the request is logged.
//!
//! ```yaml
//! - request_id: { header: x-request-id }   # the default
//! - request_id: {}
//! ```
//!
//! The id is the gateway's own; one that came with the request is replaced.

use http::header::HOST;
use pingora_http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::field::{self, FieldName, Fields};
use crate::problem::{Path, Problem};
use crate::{Build, Hooks, Plugin, RequestInfo, Setting, Verdict};

/// Writes the request's id into a header, upstream and downstream.
pub struct RequestId {
    header: FieldName,
}

/// In which header the request's id goes to the upstream and to the client.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestIdConfig {
    /// The header's name.
    #[serde(default = "default_header")]
    header: String,
}

fn default_header() -> String {
    "x-request-id".to_owned()
}

impl Build for RequestId {
    type Config = RequestIdConfig;

    fn build(config: RequestIdConfig, _: &Setting<'_>) -> Result<Self, Vec<Problem>> {
        let at = Path::root().key("header");
        let header = FieldName::parse(&config.header).map_err(|problem| vec![problem.under(&at)])?;
        if header.name == HOST {
            return Err(vec![Problem::new(at, "`host` says which host is asked, so it cannot carry the id")]);
        }
        Ok(Self { header })
    }
}

impl Plugin for RequestId {
    fn hooks(&self) -> Hooks {
        Hooks { request: true, response: true, wait: false }
    }

    fn request(&self, head: &mut RequestHeader, info: &RequestInfo<'_>) -> Verdict {
        self.write(head, info);
        Verdict::Continue
    }

    fn response(&self, head: &mut ResponseHeader, _: &RequestHeader, info: &RequestInfo<'_>) {
        self.write(head, info);
    }
}

impl RequestId {
    fn write<H: Fields>(&self, head: &mut H, info: &RequestInfo<'_>) {
        if let Some(id) = field::value(info.request_id.as_bytes().into()) {
            head.set(&self.header, id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{INFO, get, plugin, plugins_of_doc, refusal};

    #[test]
    fn the_yaml_of_the_module_doc_loads() {
        assert_eq!(plugins_of_doc(include_str!("request_id.rs")).len(), 2);
    }

    #[test]
    fn the_id_goes_both_ways_and_replaces_what_came() {
        for (config, header) in
            [("{}", "x-request-id"), ("null", "x-request-id"), ("{ header: X-Trace }", "x-trace")]
        {
            let plugin = plugin("request_id", config).unwrap();
            let mut head = get("/");
            head.append_header(header, "forged").unwrap();
            assert!(matches!(plugin.request(&mut head, &INFO), Verdict::Continue));
            let mut response = ResponseHeader::build(200, None).unwrap();
            plugin.response(&mut response, &head, &INFO);
            for headers in [&head.headers, &response.headers] {
                assert!(headers.get_all(header).iter().eq(["0123abcd"]), "{config}");
            }
        }
    }

    #[test]
    fn a_header_that_cannot_carry_it_is_refused() {
        for (config, told) in [
            ("{ header: x id }", "header: `x id` is not a header name"),
            ("{ header: Connection }", "header: `Connection` cannot be changed"),
            ("{ header: Host }", "header: `host` says which host is asked"),
            ("{ headr: x }", "unknown key `headr`"),
        ] {
            assert!(
                refusal("request_id", config).contains(told),
                "{config}: {}",
                refusal("request_id", config)
            );
        }
    }
}
