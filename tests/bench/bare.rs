//! The least that Pingora's own parts can do: one fixed peer, its own connector, no route, no plugin, no log.
//!
//! `bare PLAIN-PORT TLS-PORT H2-PORT PLAIN-ORIGIN TLS-ORIGIN H2-ORIGIN CA CERT KEY NAME` listens on the ports of the
//! loopback; `run.py` starts it. It shares the gateway's allocator, so that the difference is the gateway's own work.

use std::sync::Arc;

use async_trait::async_trait;
use openssl::pkey::PKey;
use openssl::x509::X509;
use pingora_core::Result;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::CertKey;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Bare(HttpPeer);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.0.clone()))
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [plain_port, tls_port, h2_port, plain_origin, tls_origin, h2_origin, ca, certificate, key, name] =
        arguments.as_slice()
    else {
        panic!("PLAIN-PORT TLS-PORT H2-PORT PLAIN-ORIGIN TLS-ORIGIN H2-ORIGIN CA CERT KEY NAME");
    };
    let read = |path: &str| std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let certificate = X509::from_pem(&read(certificate)).unwrap();
    let key = PKey::private_key_from_pem(&read(key)).unwrap();
    let identity = Arc::new(CertKey::new(vec![certificate], key));
    let trusted: Arc<Box<[X509]>> = Arc::new(X509::stack_from_pem(&read(ca)).unwrap().into_boxed_slice());
    let tls = |origin: &str| {
        let mut peer = HttpPeer::new(origin, true, name.clone());
        peer.client_cert_key = Some(identity.clone());
        peer.options.ca = Some(trusted.clone());
        peer
    };
    let mut h2 = tls(h2_origin);
    h2.options.set_http_version(2, 2);
    h2.options.max_h2_streams = 100;

    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: 512, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let plain = HttpPeer::new(plain_origin, false, String::new());
    for (port, peer) in [(plain_port, plain), (tls_port, tls(tls_origin)), (h2_port, h2)] {
        let mut service = http_proxy_service(&server.configuration, Bare(peer));
        service.add_tcp(&format!("127.0.0.1:{port}"));
        server.add_service(service);
    }
    server.run_forever();
}
