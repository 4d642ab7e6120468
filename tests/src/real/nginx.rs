//! nginx as an upstream that tells what it saw of TLS: in its answers and in its log.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::{Clients, program};
use crate::certs::Pair;
use crate::ports;
use crate::process::Process;

/// A running nginx.
pub struct Nginx {
    /// The TLS listener: `/` reports in JSON, `/close` too and then closes, `/1k` has 1024 bytes.
    pub port: u16,
    /// The same without TLS.
    pub plain_port: u16,
    /// The TLS listener again, with HTTP/2 besides HTTP/1.1.
    pub h2_port: u16,
    process: Process,
    folder: TempDir,
}

/// How it speaks TLS.
pub struct NginxTls<'a> {
    /// What it shows.
    pub certificate: &'a Pair,
    /// Whether clients show one.
    pub clients: Clients<'a>,
    /// The one version spoken, `1.2` or `1.3`; both where absent.
    pub version: Option<&'a str>,
}

impl<'a> NginxTls<'a> {
    /// Any version, and no client certificate asked for.
    pub fn new(certificate: &'a Pair) -> Self {
        Self { certificate, clients: Clients::Unasked, version: None }
    }
}

impl Nginx {
    /// One worker, sessions resumable by ticket and by cache.
    pub fn start(tls: &NginxTls) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, plain_port, h2_port) = (ports::free(), ports::free(), ports::free());
        fs::write(folder.path().join("nginx.conf"), config(tls, [port, plain_port, h2_port])).unwrap();
        fs::write(folder.path().join("1k"), "k".repeat(1024)).unwrap();
        let mut command = Command::new(program("nginx"));
        command.arg("-p").arg(folder.path()).args(["-c", "nginx.conf", "-e", "stderr"]);
        let process = Process::spawn("nginx", &mut command);
        process.wait_for("start worker process ");
        Self { port, plain_port, h2_port, process, folder }
    }

    /// Ends it and gives its log: one object for each request, as `/` reports it.
    pub fn into_log(self) -> Vec<Value> {
        self.process.stop();
        let text = fs::read_to_string(self.folder.path().join("access.log")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// What it has told so far of its connections, failed handshakes among it, for which it has the level `info`.
    pub fn told(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("error.log")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Where the log is.
    pub fn log_file(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }
}

fn config(tls: &NginxTls, [port, plain_port, h2_port]: [u16; 3]) -> String {
    let clients = match tls.clients {
        Clients::Unasked => String::new(),
        Clients::Optional(ca) => {
            format!("ssl_client_certificate {}; ssl_verify_client optional;", ca.display())
        }
        Clients::Required(ca) => format!("ssl_client_certificate {}; ssl_verify_client on;", ca.display()),
    };
    // SAFETY: no arguments, cannot fail.
    let user = if unsafe { libc::geteuid() } == 0 { "user root;" } else { "" };
    let report = r#"{"connection":"$connection","request":"$connection_requests","sni":"$ssl_server_name","resumed":"$ssl_session_reused","client":"$ssl_client_s_dn","host":"$http_host","protocol":"$server_protocol","tls":"$ssl_protocol","cipher":"$ssl_cipher","curve":"$ssl_curve","uri":"$request_uri","status":"$status","port":"$server_port","version":"$http_x_version"}"#;
    format!(
        r#"
daemon off; worker_processes 1; pid nginx.pid; error_log stderr notice; error_log error.log info; {user}
events {{ worker_connections 1024; }}
http {{
  log_format report escape=json '{report}';
  access_log access.log report;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  keepalive_requests 10000000; keepalive_timeout 75s;
  ssl_protocols {versions}; ssl_session_cache shared:sessions:1m; ssl_session_tickets on;
  default_type application/json;
  server {{
    listen 127.0.0.1:{port} ssl;
    listen 127.0.0.1:{plain_port};
    listen 127.0.0.1:{h2_port} ssl http2;
    ssl_certificate {cert}; ssl_certificate_key {key}; {clients}
    location / {{ return 200 '{report}'; }}
    location = /close {{ keepalive_timeout 0; return 200 '{report}'; }}
    location = /1k {{ root .; default_type text/plain; }}
  }}
}}
"#,
        cert = tls.certificate.cert.display(),
        key = tls.certificate.key.display(),
        versions = tls.version.map_or("TLSv1.2 TLSv1.3".into(), |version| format!("TLSv{version}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::Certs;
    use crate::client::{Client, ClientTls, curl};

    #[test]
    fn nginx_reports_the_sni_the_session_and_the_connection() {
        let certs = Certs::new();
        let ca = certs.authority("ca");
        let nginx = Nginx::start(&NginxTls::new(&certs.server(&ca, &["a.test"])));
        let tls = ClientTls { sni: Some("a.test"), ca: Some(&ca.cert), certificate: None };
        let mut client = Client::tls(nginx.port, &tls).unwrap();
        let (first, second) = (client.get("a.test", "/").json(), client.get("a.test", "/").json());
        assert_eq!(
            (&first["sni"], &first["resumed"], &first["request"]),
            (&"a.test".into(), &".".into(), &"1".into())
        );
        assert_eq!((&second["connection"], &second["request"]), (&first["connection"], &"2".into()));
        assert_eq!(client.get("a.test", "/1k").body.len(), 1024);
        drop(client);
        assert_eq!(nginx.into_log().len(), 3);
    }

    #[test]
    fn nginx_reports_a_resumed_session() {
        let certs = Certs::new();
        let ca = certs.authority("ca");
        let nginx = Nginx::start(&NginxTls::new(&certs.server(&ca, &["a.test"])));
        // One curl run keeps the session of its first connection for its second.
        let url = format!("https://a.test:{}/close", nginx.port);
        let resolve = format!("a.test:{}:127.0.0.1", nginx.port);
        curl(&["-k", "--resolve", &resolve, &url, &url]);
        let resumed: Vec<Value> = nginx.into_log().into_iter().map(|line| line["resumed"].clone()).collect();
        assert_eq!(resumed, [".", "r"]);
    }

    #[test]
    fn nginx_names_the_client_and_refuses_who_has_no_certificate() {
        let certs = Certs::new();
        let ca = certs.authority("ca");
        let certificate = certs.server(&ca, &["a.test"]);
        let nginx =
            Nginx::start(&NginxTls { clients: Clients::Required(&ca.cert), ..NginxTls::new(&certificate) });
        let me = certs.client(&ca, "me");
        let ask = |certificate| {
            let tls = ClientTls { sni: Some("a.test"), ca: Some(&ca.cert), certificate };
            Client::tls(nginx.port, &tls).unwrap().get("a.test", "/")
        };
        assert_eq!(ask(None).status, 400);
        assert_eq!(ask(Some(&me)).json()["client"], "CN=me");
    }
}
