//! The access log: a line is made where the request ends and written by a thread of its own.
//!
//! No request waits for a disk: when the writer is behind by more than the queue holds, lines are dropped and counted.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use serde::Serialize;

use crate::config::{AccessLogConfig, AccessLogFormat, AccessLogPath};

/// Lines that may wait for the writer.
const QUEUE: usize = 16 * 1024;

/// How long the writer rests between batches: what a line may be late by. The queue holds what comes in that time at
/// over a million requests a second.
const REST: Duration = Duration::from_millis(10);

/// Where lines go.
pub struct AccessLog {
    queue: ArcSwapOption<Queue>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What a line has to pass on its way to the writer.
struct Queue {
    format: AccessLogFormat,
    lines: SyncSender<String>,
    dropped: Arc<AtomicU64>,
}

/// One request or one passed-through connection. What has nothing to say is absent.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(default)]
pub struct Line<'a> {
    /// When it began, RFC 3339 in UTC.
    pub time: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    /// The id that the client was told.
    pub request_id: &'a str,
    /// The listener's name.
    pub listener: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The client's address.
    pub client_ip: Option<std::net::IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// As the client sent it.
    pub method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// As the client sent it, without the port.
    pub host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// As the client sent it, without the query, which may hold secrets.
    pub path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// As the client got it.
    pub status: Option<u16>,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// From the request's head read to the answer's last byte written.
    pub duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The route's name.
    pub route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The upstream's name.
    pub upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The address of the last attempt.
    pub endpoint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// How many tries there were.
    pub attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The status of the last answer that an upstream gave.
    pub upstream_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// From the begin of the last attempt to its answer's head.
    pub upstream_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The SNI that was sent.
    pub sni: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The version of TLS towards the upstream.
    pub tls_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// Whether the upstream connection resumed an earlier session.
    pub tls_resumed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// Why the last failed attempt failed: a code of the diagnosis table.
    pub cause: Option<&'a str>,
    /// The hash of the configuration.
    pub config: &'a str,
}

impl AccessLog {
    /// Lines go nowhere until it is replaced.
    pub fn nowhere() -> Self {
        Self { queue: ArcSwapOption::empty(), writer: Mutex::new(None) }
    }

    /// Opens the file, if it is one, and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread can be started.
    pub fn open(config: &AccessLogConfig) -> io::Result<Self> {
        if config.format == AccessLogFormat::None {
            return Ok(Self::nowhere());
        }
        let out: Box<dyn Write + Send> = match &config.path {
            AccessLogPath::Stdout => Box::new(io::stdout()),
            AccessLogPath::Stderr => Box::new(io::stderr()),
            AccessLogPath::File(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        };
        let dropped = Arc::new(AtomicU64::new(0));
        let (sender, lines) = sync_channel(QUEUE);
        let queue = Queue { format: config.format, lines: sender, dropped: dropped.clone() };
        let writer = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write(&lines, out, &dropped))?;
        Ok(Self { queue: ArcSwapOption::from_pointee(queue), writer: Mutex::new(Some(writer)) })
    }

    /// Whether a line would go anywhere.
    pub fn is_on(&self) -> bool {
        self.queue.load().is_some()
    }

    /// Queues a line; never waits.
    pub fn write(&self, line: &Line<'_>) {
        let queue = self.queue.load();
        let Some(queue) = queue.as_deref() else { return };
        let text = match queue.format {
            AccessLogFormat::Text => text(line),
            _ => serde_json::to_string(line).unwrap_or_default() + "\n",
        };
        if queue.lines.try_send(text).is_err() {
            queue.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends the lines from now on where `other` sends them. Those that are queued already are written where they were
    /// to go: what is returned waits for that.
    pub fn replace(&self, other: Self) -> impl FnOnce() + Send + use<> {
        let queue = self.queue.swap(other.queue.swap(None));
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = other.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *writer, new.take());
        move || {
            // The writer ends when the last sender is gone.
            drop(queue);
            if let Some(writer) = old {
                let _ = writer.join();
            }
        }
    }

    /// Writes what is queued and ends the writer.
    pub fn close(&self) {
        // The writer ends when the last sender is gone.
        self.queue.store(None);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }
}

/// The time now, as a line has it.
pub fn now() -> String {
    told(Timestamp::now())
}

/// This time, as a line has it.
pub fn told(time: Timestamp) -> String {
    format!("{time:.3}")
}

fn write(lines: &Receiver<String>, out: Box<dyn Write + Send>, dropped: &AtomicU64) {
    let mut out = BufWriter::with_capacity(64 * 1024, out);
    while let Ok(line) = lines.recv() {
        let mut failed = out.write_all(line.as_bytes()).is_err();
        while let Ok(line) = lines.try_recv() {
            failed |= out.write_all(line.as_bytes()).is_err();
        }
        failed |= out.flush().is_err();
        // A writer that waits has to be woken for each line, at the cost of the thread that serves requests; one
        // that rests finds many lines at once.
        std::thread::sleep(REST);
        let lost = dropped.swap(0, Ordering::Relaxed);
        if failed || lost > 0 {
            log::warn!(
                "access log: {lost} lines dropped, {}",
                if failed { "and it cannot be written" } else { "it is too slow" }
            );
        }
    }
}

/// `TIME CLIENT "METHOD HOST PATH" STATUS BYTES MS key=value…`
fn text(line: &Line<'_>) -> String {
    let mut text = format!("{} ", line.time);
    // Writing to a String cannot fail.
    let _ = match line.client_ip {
        Some(ip) => write!(text, "{ip} "),
        None => write!(text, "- "),
    };
    let words =
        [line.method, line.host, line.path].map(|word| word.unwrap_or("-").escape_debug().to_string());
    let _ = write!(text, "\"{}\" ", words.join(" "));
    let _ = match line.status {
        Some(status) => write!(text, "{status} "),
        None => write!(text, "- "),
    };
    let _ = write!(text, "{} {:.3}ms listener={}", line.bytes_out, line.duration_ms, line.listener);
    let attempts = line.attempts.map(|attempts| attempts.to_string());
    let upstream_status = line.upstream_status.map(|status| status.to_string());
    let pairs = [
        ("route", line.route),
        ("upstream", line.upstream),
        ("endpoint", line.endpoint),
        ("attempts", attempts.as_deref()),
        ("upstream_status", upstream_status.as_deref()),
        ("sni", line.sni),
        ("cause", line.cause),
        ("request_id", Some(line.request_id).filter(|id| !id.is_empty())),
        ("config", Some(line.config)),
    ];
    for (key, value) in pairs {
        if let Some(value) = value {
            let _ = write!(text, " {key}={value}");
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_nothing_to_say_is_absent() {
        let line = Line {
            time: "T".into(),
            listener: "web",
            status: Some(404),
            config: "c0ffee",
            ..Line::default()
        };
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"time":"T","listener":"web","status":404,"bytes_in":0,"bytes_out":0,"duration_ms":0.0,"config":"c0ffee"}"#
        );
    }

    #[test]
    fn a_text_line_cannot_be_broken_by_what_a_client_sends() {
        let line = Line { method: Some("GET"), host: Some("a\nb"), path: Some("/\"x"), ..Line::default() };
        let text = text(&line);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(r#""GET a\nb /\"x""#), "{text}");
    }

    #[test]
    fn lines_reach_the_file_before_close_returns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let config =
            AccessLogConfig { format: AccessLogFormat::Json, path: AccessLogPath::File(path.clone()) };
        let log = AccessLog::open(&config).unwrap();
        for _ in 0..100 {
            log.write(&Line { listener: "web", ..Line::default() });
        }
        log.close();
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 100);
    }
}
