//! What nginx, HAProxy and `openssl s_server` are told, for one description. Nothing here starts anything.

use std::fs;
use std::path::Path;

use super::super::Clients;
use super::{ServerTls, Version};
use crate::certs::Pair;

/// Everything that is not limited.
impl<'a> ServerTls<'a> {
    /// Serves whoever asks, by one version.
    pub fn new(name: &'a str, certificate: &'a Pair, version: Version) -> Self {
        let (clients, strict_sni, h2, h2_only) = (Clients::Unasked, false, false, false);
        Self { name, certificate, clients, version, cipher: None, curve: None, strict_sni, h2, h2_only }
    }
}

pub(super) fn nginx([port, plain_port, h2c_port]: [u16; 3], tls: &ServerTls) -> String {
    let name = tls.name;
    let version = if tls.version == Version::Tls12 { "TLSv1.2" } else { "TLSv1.3" };
    let cipher = tls.cipher.map(|cipher| match tls.version {
        Version::Tls12 => format!("ssl_ciphers {cipher};"),
        Version::Tls13 => format!("ssl_conf_command Ciphersuites {cipher};"),
    });
    let curve = tls.curve.map(|curve| format!("ssl_ecdh_curve {curve};"));
    let clients = match tls.clients {
        Clients::Unasked => String::new(),
        Clients::Optional(ca) => {
            format!("ssl_client_certificate {}; ssl_verify_client optional;", ca.display())
        }
        Clients::Required(ca) => format!("ssl_client_certificate {}; ssl_verify_client on;", ca.display()),
    };
    let h2 = if tls.h2 { " http2" } else { "" };
    let others = match tls.strict_sni {
        true => {
            format!("server {{ listen 127.0.0.1:{port} ssl{h2} default_server; ssl_reject_handshake on; }}")
        }
        false => String::new(),
    };
    // SAFETY: no arguments, cannot fail.
    let user = if unsafe { libc::geteuid() } == 0 { "user root;" } else { "" };
    format!(
        r#"
daemon off; worker_processes 1; pid nginx.pid; error_log stderr notice; {user}
events {{ worker_connections 256; }}
http {{
  access_log off; default_type text/plain;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  ssl_protocols {version}; {cipher} {curve} {clients}
  {others}
  server {{
    server_name {name};
    listen 127.0.0.1:{port} ssl{h2}; listen 127.0.0.1:{plain_port}; listen 127.0.0.1:{h2c_port} http2;
    ssl_certificate {cert}; ssl_certificate_key {key};
    location / {{ return 200 "served"; }}
    location = /421 {{ return 421; }}
    location = /426 {{ return 426; }}
  }}
}}
"#,
        cipher = cipher.unwrap_or_default(),
        curve = curve.unwrap_or_default(),
        cert = tls.certificate.cert.display(),
        key = tls.certificate.key.display(),
    )
}

pub(super) fn haproxy([port, plain_port, h2c_port]: [u16; 3], tls: &ServerTls) -> String {
    let version = if tls.version == Version::Tls12 { "TLSv1.2" } else { "TLSv1.3" };
    let mut bind =
        format!("crt {} ssl-min-ver {version} ssl-max-ver {version}", tls.certificate.both.display());
    if let Some(cipher) = tls.cipher {
        let key = if tls.version == Version::Tls12 { "ciphers" } else { "ciphersuites" };
        bind += &format!(" {key} {cipher}");
    }
    if let Some(curve) = tls.curve {
        bind += &format!(" curves {curve}");
    }
    if tls.strict_sni {
        bind += " strict-sni";
    }
    if tls.h2 {
        bind += " alpn h2,http/1.1";
    }
    match tls.clients {
        Clients::Unasked => {}
        Clients::Optional(ca) => bind += &format!(" ca-file {} verify optional", ca.display()),
        Clients::Required(ca) => bind += &format!(" ca-file {} verify required", ca.display()),
    }
    format!(
        "global\n  maxconn 200\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         frontend ingress\n  bind 127.0.0.1:{port} ssl {bind}\n  bind 127.0.0.1:{plain_port}\n  \
         bind 127.0.0.1:{h2c_port} proto h2\n  \
         http-request return status 421 content-type text/plain string told if {{ path /421 }}\n  \
         http-request return status 426 content-type text/plain string told if {{ path /426 }}\n  \
         http-request return status 200 content-type text/plain string served\n"
    )
}

/// The arguments of `openssl s_server`.
pub(super) fn openssl(folder: &Path, port: u16, tls: &ServerTls) -> Vec<String> {
    let pair = tls.certificate;
    let (cert, key) = (pair.cert.display().to_string(), pair.key.display().to_string());
    let version = if tls.version == Version::Tls12 { "-tls1_2" } else { "-tls1_3" };
    let accept = format!("127.0.0.1:{port}");
    let mut arguments = vec!["-www", "-accept", &accept, version, "-cert", &cert, "-key", &key];
    // It takes no more than the first certificate of the file.
    let text = fs::read_to_string(&pair.cert).unwrap();
    let chain = text.split_inclusive("-----END CERTIFICATE-----\n").skip(1).collect::<String>();
    let chain_file = folder.join("chain.pem");
    fs::write(&chain_file, &chain).unwrap();
    let chain_file = chain_file.display().to_string();
    if !chain.is_empty() {
        arguments.extend(["-cert_chain", &chain_file]);
    }
    if let Some(cipher) = tls.cipher {
        let key = if tls.version == Version::Tls12 { "-cipher" } else { "-ciphersuites" };
        arguments.extend([key, cipher]);
    }
    if let Some(curve) = tls.curve {
        arguments.extend(["-groups", curve]);
    }
    if tls.strict_sni {
        arguments.extend(["-servername", tls.name, "-servername_fatal", "-cert2", &cert, "-key2", &key]);
    }
    if tls.h2_only {
        arguments.extend(["-alpn", "h2"]);
    }
    let ca = match tls.clients {
        Clients::Unasked => None,
        Clients::Optional(ca) => Some(("-verify", ca.display().to_string())),
        Clients::Required(ca) => Some(("-Verify", ca.display().to_string())),
    };
    if let Some((verify, ca)) = &ca {
        arguments.extend([verify, "3", "-verify_return_error", "-CAfile", ca]);
    }
    arguments.into_iter().map(str::to_owned).collect()
}
