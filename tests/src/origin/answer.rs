//! What a script is given, and what it can answer.

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;

/// What is done with a new connection before a byte of it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Serve it.
    Serve,
    /// Reset it.
    Reset,
    /// Keep it open and say nothing, not even a TLS hello.
    Stall,
    /// Speak first, then listen until the other side leaves.
    Speak(&'static [u8]),
}

/// What is done with one request. The script is asked as soon as the head is there.
pub enum Answer {
    /// Read the body, then answer; the connection stays open.
    Reply(Reply),
    /// Read the body, answer, then close.
    ReplyAndClose(Reply),
    /// Answer without reading the body, then close.
    Early(Reply),
    /// Reset the connection without reading the body.
    ResetAfterHead,
    /// Read the body, then reset the connection.
    ResetAfterBody,
    /// Read the body, then close in order without a byte of answer.
    Close,
    /// Never answer.
    Stall,
    /// Read the body, then send just these bytes; the connection stays open.
    Raw(Vec<u8>),
    /// Read the body, then answer chunked: one chunk for each message, ended when the sender is dropped.
    Stream(Receiver<Vec<u8>>),
    /// Answer chunked, without waiting for the body: each piece of it goes back as it comes.
    Duplex,
    /// Answer once the other side has finished sending for good, then close.
    AfterEnd(Reply),
    /// 101 for any `Upgrade`, then every byte comes back.
    Upgrade,
}

/// A response.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Which connection, counted from 0.
    pub connection: usize,
    /// Which request of the origin, counted from 0.
    pub number: usize,
    /// The method.
    pub method: String,
    /// The request target, byte for byte.
    pub target: String,
    /// `HTTP/1.1`, say.
    pub version: String,
    /// In order, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// What has come of the body, decoded.
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub complete: bool,
}

impl Reply {
    /// 200 with a text.
    pub fn ok(body: &str) -> Self {
        Self::new(200, body)
    }

    /// Any status with a text.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// 200 with JSON.
    pub fn json(value: &serde_json::Value) -> Self {
        Self::ok(&value.to_string()).header("content-type", "application/json")
    }

    /// One header more.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut bytes = format!("{head}content-length: {}\r\n\r\n", self.body.len()).into_bytes();
        bytes.extend(&self.body);
        bytes
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Answer::Reply(reply)
    }
}

impl Request {
    /// The first header of this name, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        let mut headers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, value) in &self.headers {
            headers.entry(name).or_default().push(value);
        }
        let headers: BTreeMap<&str, String> = headers.into_iter().map(|(n, v)| (n, v.join(", "))).collect();
        serde_json::json!({
            "method": self.method, "target": self.target, "version": self.version, "headers": headers,
            "connection": self.connection,
        })
    }
}
