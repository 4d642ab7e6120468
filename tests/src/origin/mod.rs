//! An upstream that does as a script says: every fault that no real server produces on demand, and a record of what came.

mod answer;
mod connection;

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use openssl::ssl::{NameType, SniError, SslAcceptor, SslAlert, SslFiletype, SslMethod, SslVerifyMode};

pub use answer::{Answer, Opening, Reply, Request};

use crate::PATIENCE;
use crate::certs::Pair;

/// A running origin on 127.0.0.1. Dropping it closes its listener and all its connections.
pub struct Origin {
    /// Where it listens.
    pub port: u16,
    shared: Arc<Shared>,
}

/// A finished TLS handshake.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// Which connection.
    pub connection: usize,
    /// The name that was asked for.
    pub sni: Option<String>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// The common name of the client's certificate.
    pub client: Option<String>,
}

/// How an origin speaks TLS.
pub struct OriginTls<'a> {
    /// What it shows.
    pub certificate: &'a Pair,
    /// The CA of client certificates; where given, a client must show one.
    pub clients: Option<PathBuf>,
    /// Whether a hello without SNI is refused with alert 112.
    pub insist_on_sni: bool,
}

type Script = dyn Fn(&Request) -> Answer + Send + Sync;
type OpeningScript = dyn Fn(usize) -> Opening + Send + Sync;

struct Shared {
    script: Box<Script>,
    opening: Box<OpeningScript>,
    acceptor: Option<SslAcceptor>,
    stopped: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    sockets: Vec<TcpStream>,
    handshakes: Vec<Handshake>,
    failed_handshakes: usize,
    requests: Vec<Request>,
    open: usize,
}

impl Origin {
    /// Plain HTTP by a script.
    pub fn script(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::launch(None, Box::new(script), Box::new(|_| Opening::Serve))
    }

    /// HTTP over TLS by a script.
    pub fn tls(tls: &OriginTls, script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::launch(Some(acceptor(tls)), Box::new(script), Box::new(|_| Opening::Serve))
    }

    /// Connections met by their number before anything is read.
    pub fn opening(opening: impl Fn(usize) -> Opening + Send + Sync + 'static) -> Self {
        Self::launch(None, Box::new(|_| Reply::ok("served").into()), Box::new(opening))
    }

    /// Answers every request with what it was: JSON of method, target, version and headers.
    pub fn echo() -> Self {
        Self::script(|request| Reply::json(&request.to_json()).into())
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.shared.lock().sockets.len()
    }

    /// The handshakes that were finished, in order.
    pub fn handshakes(&self) -> Vec<Handshake> {
        self.shared.lock().handshakes.clone()
    }

    /// How many handshakes failed.
    pub fn failed_handshakes(&self) -> usize {
        self.shared.lock().failed_handshakes
    }

    /// The requests whose head has come, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// How many requests had this method.
    pub fn count(&self, method: &str) -> usize {
        self.shared.lock().requests.iter().filter(|request| request.method == method).count()
    }

    /// Waits until the record of requests is as wanted.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&[Request]) -> bool) {
        self.wait(what, |state| wanted(&state.requests));
    }

    /// Waits until no connection is open.
    pub fn wait_for_close(&self) {
        self.wait("end of all connections", |state| state.open == 0);
    }

    fn wait(&self, what: &str, wanted: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.lock();
        while !wanted(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the origin never saw: {what}; requests: {:#?}", state.requests);
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn launch(acceptor: Option<SslAcceptor>, script: Box<Script>, opening: Box<OpeningScript>) -> Self {
        // A port of the kernel's choice, bound as it is chosen.
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let stopped = AtomicBool::new(false);
        let state = Mutex::default();
        let shared = Arc::new(Shared { script, opening, acceptor, stopped, state, changed: Condvar::new() });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for (number, socket) in listener.incoming().enumerate() {
                let Ok(socket) = socket else { break };
                if accepting.stopped.load(Ordering::Acquire) {
                    break;
                }
                let shared = accepting.clone();
                {
                    let mut state = shared.lock();
                    state.sockets.push(socket.try_clone().unwrap());
                    state.open += 1;
                }
                std::thread::spawn(move || {
                    // A connection that breaks is what many tests want; what came of it is in the record.
                    let _ = connection::serve(number, &shared, socket);
                    shared.update(|state| state.open -= 1);
                });
            }
        });
        Self { port, shared }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        // Wakes the accept loop, which then sees the flag.
        let _ = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port)));
        for socket in &self.shared.lock().sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let value = change(&mut self.lock());
        self.changed.notify_all();
        value
    }
}

fn acceptor(tls: &OriginTls) -> SslAcceptor {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    builder.set_certificate_chain_file(&tls.certificate.cert).unwrap();
    builder.set_private_key_file(&tls.certificate.key, SslFiletype::PEM).unwrap();
    builder.set_session_id_context(b"origin").unwrap();
    if let Some(clients) = &tls.clients {
        builder.set_ca_file(clients).unwrap();
        builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    }
    if tls.insist_on_sni {
        // OpenSSL asks this for every hello, with or without the extension.
        builder.set_servername_callback(|ssl, alert| match ssl.servername(NameType::HOST_NAME) {
            Some(_) => Ok(()),
            None => {
                *alert = SslAlert::UNRECOGNIZED_NAME;
                Err(SniError::ALERT_FATAL)
            }
        });
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::certs::Certs;
    use crate::client::{Client, ClientTls};
    use crate::ports;

    /// What a client sees of a request to a scripted origin.
    fn outcome(origin: &Origin) -> io::Result<u16> {
        let mut client = Client::plain(origin.port);
        client.try_send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")?;
        client.try_response().map(|response| response.status)
    }

    #[test]
    fn each_fault_is_seen_for_what_it_is() {
        let check = |name: &str, origin: Origin, expected: Result<u16, io::ErrorKind>| {
            assert_eq!(outcome(&origin).map_err(|e| e.kind()), expected, "{name}");
        };
        use io::ErrorKind::{ConnectionReset, UnexpectedEof};
        check("reset before reading", Origin::opening(|_| Opening::Reset), Err(ConnectionReset));
        check("reset after the head", Origin::script(|_| Answer::ResetAfterHead), Err(ConnectionReset));
        check("reset after the body", Origin::script(|_| Answer::ResetAfterBody), Err(ConnectionReset));
        check("close", Origin::script(|_| Answer::Close), Err(UnexpectedEof));
        check("early", Origin::script(|_| Answer::Early(Reply::new(413, "no"))), Ok(413));
        check("reply", Origin::script(|_| Reply::new(503, "busy").into()), Ok(503));
        check(
            "raw",
            Origin::script(|_| Answer::Raw(b"HTTP/1.1 299 Odd\r\ncontent-length: 0\r\n\r\n".to_vec())),
            Ok(299),
        );
    }

    #[test]
    fn a_port_without_listener_refuses() {
        let error = TcpStream::connect(("127.0.0.1", ports::free())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn what_came_is_on_record() {
        let origin = Origin::echo();
        let mut client = Client::plain(origin.port);
        client.send("PUT /a?b=%2F HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
        assert_eq!(client.response().json()["target"], "/a?b=%2F");
        client.get("h", "/again");
        let requests = origin.requests();
        assert_eq!((requests[0].body.as_slice(), requests[0].complete), (b"abc".as_slice(), true));
        assert_eq!((requests[1].connection, origin.connections()), (0, 1));
    }

    #[test]
    fn a_stream_is_sent_chunk_by_chunk() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let receiver = Mutex::new(Some(receiver));
        let origin = Origin::script(move |_| Answer::Stream(receiver.lock().unwrap().take().unwrap()));
        let mut client = Client::plain(origin.port);
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").head();
        for word in ["one", "two"] {
            sender.send(word.into()).unwrap();
            assert_eq!(client.chunk().unwrap(), word.as_bytes());
        }
        drop(sender);
        assert!(client.chunk().unwrap().is_empty());
    }

    #[test]
    fn a_duplex_answer_returns_each_piece_at_once() {
        let origin = Origin::script(|_| Answer::Duplex);
        let mut client = Client::plain(origin.port);
        client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc").head();
        assert_eq!(client.chunk().unwrap(), b"abc");
        assert_eq!(client.send("def").chunk().unwrap(), b"def");
        assert!(client.chunk().unwrap().is_empty());
    }

    #[test]
    fn an_origin_can_speak_first_and_can_wait_for_the_end() {
        let first = Origin::opening(|_| Opening::Speak(b"220 mail\r\n"));
        assert_eq!(Client::plain(first.port).exactly(10).unwrap(), b"220 mail\r\n");
        let last = Origin::script(|_| Answer::AfterEnd(Reply::ok("late")));
        let mut client = Client::plain(last.port);
        client.send("GET / HTTP/1.1\r\n\r\n").finish_sending();
        assert_eq!(client.response().text(), "late");
    }

    #[test]
    fn an_upgrade_echoes() {
        let origin = Origin::script(|_| Answer::Upgrade);
        let mut client = Client::plain(origin.port);
        client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(client.head().status, 101);
        assert_eq!(client.send("ping").exactly(4).unwrap(), b"ping");
    }

    #[test]
    fn tls_is_on_record_and_can_insist() {
        let certs = Certs::new();
        let ca = certs.authority("ca");
        let certificate = certs.server(&ca, &["a.test"]);
        let me = certs.client(&ca, "me");
        let tls =
            OriginTls { certificate: &certificate, clients: Some(ca.cert.clone()), insist_on_sni: true };
        let origin = Origin::tls(&tls, |_| Reply::ok("in").into());

        let full = ClientTls { sni: Some("a.test"), ca: Some(&ca.cert), certificate: Some(&me) };
        assert_eq!(Client::tls(origin.port, &full).unwrap().get("a.test", "/").text(), "in");
        let handshake = origin.handshakes().remove(0);
        assert_eq!((handshake.sni.as_deref(), handshake.client.as_deref()), (Some("a.test"), Some("me")));

        let bare = ClientTls { sni: None, ca: None, certificate: Some(&me) };
        let refused = format!("{:?}", Client::tls(origin.port, &bare).err());
        assert!(refused.contains("unrecognized name"), "{refused}");
        let nobody = ClientTls { sni: Some("a.test"), ca: None, certificate: None };
        let mut client = Client::tls(origin.port, &nobody).unwrap();
        assert!(client.try_response().is_err(), "TLS 1.3 tells of the missing certificate at the first read");
    }
}
