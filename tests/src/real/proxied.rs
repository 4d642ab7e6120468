//! Real servers that speak the PROXY protocol: one in front that sends it, and those behind that ask for it.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::program;
use crate::ports;
use crate::process::Process;

/// HAProxy, which passes bytes on to a port and tells whose they are.
pub struct Proxy {
    /// Where clients connect.
    pub port: u16,
    _process: Process,
    _folder: TempDir,
}

/// A server of plain HTTP that wants a header, and answers `SOURCE:PORT DESTINATION:PORT` out of it.
pub struct Proxied {
    /// Where proxies connect.
    pub port: u16,
    _process: Process,
    _folder: TempDir,
}

impl Proxy {
    /// `how` is HAProxy's own option, `send-proxy` say.
    pub fn to(port: u16, how: &str) -> Self {
        let own = ports::free();
        let (process, folder) = haproxy(&format!(
            "frontend front\n  mode tcp\n  bind 127.0.0.1:{own}\n  default_backend back\n\
             backend back\n  mode tcp\n  server gateway 127.0.0.1:{port} {how}\n"
        ));
        Self { port: own, _process: process, _folder: folder }
    }
}

impl Proxied {
    /// By HAProxy.
    pub fn haproxy() -> Self {
        let port = ports::free();
        let (process, folder) = haproxy(&format!(
            "frontend front\n  mode http\n  bind 127.0.0.1:{port} accept-proxy\n  \
             http-request return status 200 content-type text/plain lf-string \"%[src]:%[src_port] %[dst]:%[dst_port]\"\n"
        ));
        Self { port, _process: process, _folder: folder }
    }

    /// By nginx.
    pub fn nginx() -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), ports::free());
        // SAFETY: no arguments, cannot fail.
        let user = if unsafe { libc::geteuid() } == 0 { "user root;" } else { "" };
        let config = format!(
            "daemon off; worker_processes 1; pid nginx.pid; error_log stderr notice; {user}\n\
             events {{ worker_connections 256; }}\n\
             http {{\n  access_log off; default_type text/plain;\n  \
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; \
             scgi_temp_path scgi;\n  \
             server {{ listen 127.0.0.1:{port} proxy_protocol; location / {{ return 200 \
             '$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port'; }} }}\n}}\n"
        );
        fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let mut command = Command::new(program("nginx"));
        command.arg("-p").arg(folder.path()).args(["-c", "nginx.conf", "-e", "stderr"]);
        let process = Process::spawn("nginx", &mut command);
        process.wait_for("start worker process ");
        Self { port, _process: process, _folder: folder }
    }
}

fn haproxy(rest: &str) -> (Process, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("haproxy.cfg");
    let text = format!(
        "global\n  maxconn 200\ndefaults\n  timeout connect 20s\n  timeout client 60s\n  timeout server 60s\n{rest}"
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(program("haproxy"));
    command.arg("-W").arg("-f").arg(&config);
    let process = Process::spawn("haproxy", &mut command);
    process.wait_for("Loading success");
    (process, folder)
}
