//! HAProxy with `strict-sni`: a hello without SNI, or with one that no certificate has, gets alert 112.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::{Clients, program};
use crate::certs::Pair;
use crate::ports;
use crate::process::Process;

/// A running HAProxy.
pub struct HaProxy {
    /// The TLS listener.
    pub port: u16,
    _process: Process,
    _folder: TempDir,
}

impl HaProxy {
    /// Answers by itself: 426 to HTTP/1.0, else 200 with the SNI and the client certificate's subject.
    pub fn strict_sni(certificate: &Pair, clients: Clients) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = ports::free();
        let verify = match clients {
            Clients::Unasked => String::new(),
            Clients::Optional(ca) => format!("ca-file {} verify optional", ca.display()),
            Clients::Required(ca) => format!("ca-file {} verify required", ca.display()),
        };
        let config = folder.path().join("haproxy.cfg");
        let text = format!(
            "global\n  maxconn 200\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
             frontend ingress\n  bind 127.0.0.1:{port} ssl crt {} strict-sni alpn h2,http/1.1 {verify}\n  \
             http-request return status 426 if HTTP_1.0\n  \
             http-request return status 200 content-type text/plain lf-string \
             \"sni=%[ssl_fc_sni] client=%[ssl_c_s_dn(cn)] resumed=%[ssl_fc_is_resumed]\"\n",
            certificate.both.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(program("haproxy"));
        command.arg("-W").arg("-f").arg(&config);
        let process = Process::spawn("haproxy", &mut command);
        process.wait_for("Loading success");
        Self { port, _process: process, _folder: folder }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::Certs;
    use crate::client::{Client, ClientTls};

    #[test]
    fn haproxy_sends_alert_112_where_no_sni_came() {
        let certs = Certs::new();
        let ca = certs.authority("ca");
        let haproxy = HaProxy::strict_sni(&certs.server(&ca, &["app.test"]), Clients::Unasked);
        let tls = |sni| ClientTls { sni, ca: None, certificate: None };

        let refused =
            Client::tls(haproxy.port, &tls(None)).err().expect("a handshake without SNI went through");
        assert!(format!("{refused:?}").contains("unrecognized name"), "{refused:?}");
        let refused =
            Client::tls(haproxy.port, &tls(Some("other.test"))).err().expect("another name went through");
        assert!(format!("{refused:?}").contains("unrecognized name"), "{refused:?}");

        let answer = Client::tls(haproxy.port, &tls(Some("app.test"))).unwrap().get("app.test", "/");
        assert_eq!(
            (answer.status, answer.text().starts_with("sni=app.test ")),
            (200, true),
            "{}",
            answer.text()
        );
    }

    #[test]
    fn haproxy_tells_of_a_missing_client_certificate_at_the_first_read() {
        let certs = Certs::new();
        let ca = certs.authority("ca");
        let haproxy = HaProxy::strict_sni(&certs.server(&ca, &["app.test"]), Clients::Required(&ca.cert));
        let me = certs.client(&ca, "me");
        let tls = |certificate| ClientTls { sni: Some("app.test"), ca: Some(&ca.cert), certificate };

        let mut nobody = Client::tls(haproxy.port, &tls(None)).unwrap();
        let refused = nobody.try_response().unwrap_err();
        assert!(refused.to_string().contains("certificate required"), "{refused:?}");
        let answer = Client::tls(haproxy.port, &tls(Some(&me))).unwrap().get("app.test", "/");
        assert!(answer.text().contains("client=me "), "{}", answer.text());
    }
}
