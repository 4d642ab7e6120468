//! Envoy as a service mesh's ingress gateway sets it up: a filter chain chosen by SNI, no default chain, HTTP/1.0 refused.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::{Clients, program};
use crate::certs::Pair;
use crate::ports;
use crate::process::Process;

/// A running Envoy.
pub struct Envoy {
    /// The TLS listener.
    pub port: u16,
    /// The same without TLS, for HTTP/1.1 and for HTTP/2 with prior knowledge.
    pub plain_port: u16,
    process: Process,
    _folder: TempDir,
}

impl Envoy {
    /// An ingress for one name over TLS; its requests go on, plain, to a port of this machine.
    pub fn ingress(name: &str, certificate: &Pair, clients: Clients, origin: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, plain_port) = (ports::free(), ports::free());
        let config = folder.path().join("envoy.yaml");
        fs::write(&config, yaml([port, plain_port], name, certificate, clients, origin)).unwrap();
        let mut command = Command::new(program("envoy"));
        command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "info", "-c"]).arg(&config);
        let process = Process::spawn("envoy", &mut command);
        process.wait_for("starting workers");
        Self { port, plain_port, process, _folder: folder }
    }

    /// Waits for a line of its access log with this text.
    pub fn wait_for_log(&self, text: &str) {
        self.process.wait_for(text);
    }
}

fn yaml(
    [port, plain_port]: [u16; 2],
    name: &str,
    certificate: &Pair,
    clients: Clients,
    origin: u16,
) -> String {
    let clients = match clients {
        Clients::Unasked => String::new(),
        Clients::Optional(ca) => validation(&ca.display().to_string()),
        Clients::Required(ca) => {
            format!("\n          require_client_certificate: true{}", validation(&ca.display().to_string()))
        }
    };
    let http = http(name);
    let (cert, key) = (certificate.cert.display(), certificate.key.display());
    format!(
        r#"
static_resources:
  listeners:
  - name: ingress
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    listener_filters:
    - name: hello
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector
    filter_chains:
    - filter_chain_match: {{ server_names: ["{name}"] }}
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext{clients}
            alpn_protocols: [h2, http/1.1]
            tls_certificates:
            - certificate_chain: {{ filename: "{cert}" }}
              private_key: {{ filename: "{key}" }}
      filters:
{http}
  - name: plain
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {plain_port} }} }}
    filter_chains:
    - filters:
{http}
  clusters:
  - name: app
    type: STATIC
    connect_timeout: 2s
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {origin} }} }} }}
"#,
        clients = if clients.is_empty() { "\n          common_tls_context:".to_owned() } else { clients },
    )
}

/// What serves HTTP, behind either listener.
fn http(name: &str) -> String {
    format!(
        r#"      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          access_log:
          - name: lines
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
              log_format:
                text_format_source:
                  inline_string: "access %PROTOCOL% sni=%REQUESTED_SERVER_NAME% %REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% connection=%CONNECTION_ID%\n"
          upgrade_configs: [{{ upgrade_type: websocket }}]
          route_config:
            virtual_hosts:
            - name: app
              domains: ["{name}", "{name}:*"]
              routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: app }} }}]
          http_filters:
          - name: router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"#
    )
}

fn validation(ca: &str) -> String {
    format!(
        "\n          common_tls_context:\n            validation_context: {{ trusted_ca: {{ filename: \"{ca}\" }} }}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::Certs;
    use crate::client::{Client, ClientTls, curl};
    use crate::origin::Origin;

    #[test]
    fn envoy_serves_its_name_and_resets_a_hello_without_sni() {
        let certs = Certs::new();
        let ca = certs.authority("mesh");
        let app = Origin::echo();
        let envoy = Envoy::ingress(
            "app.mesh.test",
            &certs.server(&ca, &["app.mesh.test"]),
            Clients::Unasked,
            app.port,
        );

        let resolve = format!("app.mesh.test:{}:127.0.0.1", envoy.port);
        let url = format!("https://app.mesh.test:{}/", envoy.port);
        let ca_file = ca.cert.display().to_string();
        let good = curl(&[
            "--resolve",
            &resolve,
            "--cacert",
            &ca_file,
            "-w",
            "%{http_code}",
            "-o",
            "/dev/null",
            &url,
        ]);
        assert_eq!(String::from_utf8_lossy(&good.stdout), "200");
        envoy.wait_for_log("access HTTP/2 sni=app.mesh.test GET / 200");

        let url = format!("https://127.0.0.1:{}/", envoy.port);
        let bare = curl(&["-k", "-H", "Host: app.mesh.test", &url]);
        assert_eq!(bare.status.code(), Some(35), "{bare:?}");

        let old = curl(&[
            "--http1.0",
            "--resolve",
            &resolve,
            "-k",
            "-w",
            "%{http_code}",
            "-o",
            "/dev/null",
            &format!("https://app.mesh.test:{}/", envoy.port),
        ]);
        assert_eq!(String::from_utf8_lossy(&old.stdout), "426");
    }

    #[test]
    fn envoy_wants_a_client_certificate_where_told() {
        let certs = Certs::new();
        let ca = certs.authority("mesh");
        let app = Origin::echo();
        let leaf = certs.server(&ca, &["app.mesh.test"]);
        let envoy = Envoy::ingress("app.mesh.test", &leaf, Clients::Required(&ca.cert), app.port);
        let ask = |certificate| {
            let tls = ClientTls { sni: Some("app.mesh.test"), ca: Some(&ca.cert), certificate };
            let mut client = Client::tls(envoy.port, &tls).ok()?;
            client.try_send("GET / HTTP/1.1\r\nHost: app.mesh.test\r\n\r\n").ok()?;
            client.try_response().ok().map(|response| response.status)
        };
        assert_eq!(ask(None), None);
        assert_eq!(ask(Some(&certs.client(&ca, "gateway"))), Some(200));
    }
}
