//! Answers to clients of HTTP/1.0, who know neither chunks nor interim answers. RFC 9112 section 6.1: none is sent to
//! them. A body without a length ends with the connection.

use std::any::Any;

use async_trait::async_trait;
use http::{Method, StatusCode, Version, header};
use pingora_core::Result;
use pingora_core::modules::http::{HttpModule, HttpModuleBuilder, HttpModules, Module};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

/// Has the request, if it is one of HTTP/1.0, answered so.
pub fn prepare(session: &mut Session) {
    if session.req_header().version != Version::HTTP_10 {
        return;
    }
    session.as_downstream_mut().set_ignore_info_resp(true);
    // The engine chunks an answer of an HTTP/2 upstream behind `response_filter`; its modules come after that.
    let mut modules = HttpModules::new();
    modules.add_module(Box::new(Whole));
    session.downstream_modules_ctx = modules.build_ctx();
}

/// Has the connection closed behind an answer that nothing else ends.
pub fn close_behind(session: &mut Session, response: &ResponseHeader) {
    if session.req_header().version != Version::HTTP_10 || response.status.is_informational() {
        return;
    }
    let bodiless = session.req_header().method == Method::HEAD
        || matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !bodiless && !response.headers.contains_key(header::CONTENT_LENGTH) {
        session.set_keepalive(None);
    }
}

/// Takes the chunks away.
struct Whole;

#[async_trait]
impl HttpModule for Whole {
    async fn response_header_filter(&mut self, response: &mut ResponseHeader, _: bool) -> Result<()> {
        response.remove_header(&header::TRANSFER_ENCODING);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl HttpModuleBuilder for Whole {
    fn init(&self) -> Module {
        Box::new(Whole)
    }
}
