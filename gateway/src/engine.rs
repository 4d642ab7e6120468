//! The engine's HTTP proxy around our hooks and our connector, ready to be fed by our own accept loops.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, ProxyServiceBuilder};

use crate::proxy::Proxy;
use crate::snapshot::Server;
use crate::upstream::Policies;
use crate::upstream::connect::UpstreamConnector;

/// What serves HTTP.
pub type Engine = HttpProxy<Proxy, UpstreamConnector>;

/// Builds it. The engine's own server is not used: its stop sleeps for a fixed time, and a bind that fails leaves the
/// process running without a listener.
pub fn engine(proxy: Proxy, server: &Server, policies: Arc<Policies>) -> Engine {
    let conf = ServerConf {
        threads: server.threads,
        // The engine multiplies it by the threads again.
        upstream_keepalive_pool_size: server.upstream_pool_size.get().div_ceil(server.threads),
        ..ServerConf::default()
    };
    let service = ProxyServiceBuilder::new(&Arc::new(conf), proxy)
        // What is handed back here are clients' sessions of a protocol of its own, and no listener of ours makes such.
        .custom(
            UpstreamConnector::new(policies, server.upstream_pool_size.get()),
            Arc::new(|_, _, _| Box::pin(std::future::ready(None))),
        )
        .build();
    // The engine offers no constructor with a connector but inside a service, which serves only sockets of its own.
    let mut service = ManuallyDrop::new(service);
    let Some(proxy) = service.app_logic_mut() else {
        unreachable!("a service that has not started holds its proxy")
    };
    // SAFETY: the value is read out once, and the service that it was in is never dropped nor used again.
    unsafe { std::ptr::read(proxy) }
}
