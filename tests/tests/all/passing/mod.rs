//! Which requests may pass, and how many and how large: the plugins that say so, as clients see them.

mod body_limit;
mod cors;
mod ip_filter;
mod rate_limit;

use vestibule_tests::certs::Certs;
use vestibule_tests::gateway::Gateway;
use vestibule_tests::origin::Origin;
use vestibule_tests::ports;

use crate::quoted;

/// A gateway with a plain listener and one of TLS, whose one route has these plugins.
struct Doors {
    gateway: Gateway,
    /// Looked at by the gateway for as long as it runs.
    _certs: Certs,
    /// HTTP/1.1.
    plain: u16,
    /// HTTP/2, for `a.test`.
    tls: u16,
}

impl Doors {
    fn start(origin: &Origin, plugins: &str) -> Self {
        Self::to(&format!("endpoints: \"{}\"", origin.address()), plugins)
    }

    fn to(upstream: &str, plugins: &str) -> Self {
        let (certs, plain, tls) = (Certs::new(), ports::free(), ports::free());
        let pair = certs.server(&certs.authority("ca"), &["a.test"]);
        let (cert, key) = (quoted(&pair.cert), quoted(&pair.key));
        let gateway = Gateway::start(&format!(
            "version: 1\nlisteners:\n  plain: {{ address: \"127.0.0.1:{plain}\" }}\n  tls: {{ address: \"127.0.0.1:{tls}\", \
             tls: {{ certificates: [{{ cert: {cert}, key: {key} }}] }} }}\nupstreams: {{ origin: {{ {upstream} }} }}\n\
             routes: [{{ name: only, upstream: origin, plugins: [{plugins}] }}]\n"
        ));
        Self { gateway, _certs: certs, plain, tls }
    }

    /// The cause that stands in the access log for this path.
    fn cause(&self, path: &str) -> String {
        let line = self.gateway.log_of(path);
        assert_eq!(line["route"], "only", "{line}");
        line["cause"].as_str().unwrap_or("-").to_owned()
    }
}
