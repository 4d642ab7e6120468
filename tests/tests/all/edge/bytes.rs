//! An upstream that keeps every byte, nginx beside the gateway, and how both are spoken to byte by byte.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use vestibule_tests::ports;
use vestibule_tests::process::Process;
use vestibule_tests::real::program;

use crate::raw;

/// An upstream that keeps every byte that reaches it, and answers each whole request with `ok`.
pub struct Recorder {
    pub port: u16,
    connections: Arc<Mutex<Vec<Connection>>>,
}

#[derive(Default)]
struct Connection {
    came: Vec<u8>,
    answered: usize,
}

impl Recorder {
    pub fn start() -> Self {
        let connections: Arc<Mutex<Vec<Connection>>> = Arc::default();
        let kept = connections.clone();
        let port = raw::server(move |_, mut socket| {
            let place = {
                let mut kept = kept.lock().unwrap();
                kept.push(Connection::default());
                kept.len() - 1
            };
            let mut buffer = [0; 4096];
            loop {
                let count = socket.read(&mut buffer)?;
                if count == 0 {
                    return Ok(());
                }
                let to_answer = {
                    let connection = &mut kept.lock().unwrap()[place];
                    connection.came.extend(&buffer[..count]);
                    let whole = requests(&connection.came).len();
                    whole - std::mem::replace(&mut connection.answered, whole)
                };
                for _ in 0..to_answer {
                    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
                }
            }
        });
        Self { port, connections }
    }

    /// The requests that have come whole since the last time, each as its bytes, and forgets them.
    pub fn take(&self) -> Vec<String> {
        let connections: Vec<_> = self.connections.lock().unwrap().iter_mut().map(std::mem::take).collect();
        connections.iter().flat_map(|connection| requests(&connection.came)).collect()
    }
}

/// The whole requests at the beginning of these bytes, read to the letter.
fn requests(mut bytes: &[u8]) -> Vec<String> {
    let mut requests = Vec::new();
    while let Some(length) = whole(bytes) {
        requests.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        bytes = &bytes[length..];
    }
    requests
}

fn whole(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let value = |name: &str| {
        let line = text.split("\r\n").skip(1).find(|line| line.starts_with(&format!("{name}:")))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    if value("transfer-encoding").is_none() {
        let length = head + value("content-length").map_or(0, |length| length.parse::<usize>().unwrap());
        return (bytes.len() >= length).then_some(length);
    }
    let mut at = head;
    loop {
        let line = bytes[at..].windows(2).position(|window| window == b"\r\n")?;
        let size = String::from_utf8_lossy(&bytes[at..at + line]).into_owned();
        let size = usize::from_str_radix(&size, 16).unwrap_or_else(|e| panic!("chunk size {size:?}: {e}"));
        at += line + 2 + size + 2;
        if at > bytes.len() {
            return None;
        }
        if size == 0 {
            return Some(at);
        }
    }
}

/// A request that ends its connection, sent behind others so that whoever waits for more is not waited for.
pub const LAST: &[u8] = b"GET /last HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

/// Sends bytes, and behind the first answer `LAST`; gives every answer's status, in order.
pub fn exchange(port: u16, bytes: &[u8]) -> Vec<u16> {
    let mut client = raw::connected(port);
    let mut came = Vec::new();
    // A refusal may come, and the end of the connection, before all is sent.
    let _ = client.write_all(bytes);
    let first = answer(&mut client, &mut came);
    if first.is_ok() {
        let _ = client.write_all(LAST);
    }
    let _ = client.read_to_end(&mut came);
    statuses(&came)
}

/// Reads until there is a whole answer, which is left in `came`.
fn answer(client: &mut TcpStream, came: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while whole(came).is_none() {
        match client.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => came.extend(&buffer[..count]),
        }
    }
    Ok(())
}

/// The statuses of the answers in these bytes.
pub fn statuses(bytes: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.match_indices("HTTP/1.1 ").map(|(at, mark)| &text[at + mark.len()..]);
    lines.filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

/// nginx before an upstream, with its defaults but for how long it waits.
pub struct Proxying {
    pub port: u16,
    _process: Process,
    _folder: TempDir,
}

impl Proxying {
    pub fn start(upstream: u16) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), ports::free());
        // SAFETY: no arguments, cannot fail.
        let user = if unsafe { libc::geteuid() } == 0 { "user root;" } else { "" };
        let text = format!(
            "daemon off; worker_processes 1; pid nginx.pid; error_log stderr notice; {user}\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n  access_log off; client_header_timeout 1s; client_body_timeout 1s;\n  \
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n  \
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n  server {{ listen 127.0.0.1:{port};\n    \
             location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1; proxy_set_header Host $host; }}\n  }}\n}}\n"
        );
        fs::write(folder.path().join("nginx.conf"), text).unwrap();
        let mut command = Command::new(program("nginx"));
        command.arg("-p").arg(folder.path()).args(["-c", "nginx.conf", "-e", "stderr"]);
        let process = Process::spawn("nginx", &mut command);
        process.wait_for("start worker process ");
        Self { port, _process: process, _folder: folder }
    }
}
