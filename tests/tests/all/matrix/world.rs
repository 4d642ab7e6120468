//! What the rows are about: certificates of every kind, and servers with one fault each.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vestibule_tests::certs::{Authority, Certs, Pair, pin};
use vestibule_tests::origin::{Answer, Opening, Origin, Reply};
use vestibule_tests::ports;
use vestibule_tests::real::{Clients, Kube, Program, Server, ServerTls, Version};
use vestibule_tests::unanswered::Unanswered;

use crate::quoted;

/// The name that every server serves and every request asks for.
pub const NAME: &str = "app.test";

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Nginx,
    HaProxy,
    Envoy,
    OpenSsl,
    /// A kube-apiserver, which is Go's `net/http`.
    Go,
    /// What no real server does when told.
    Scripted,
}

/// What is spoken inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    One,
    Two,
}

/// What it is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is wrong with it.
    None,
    ShowsExpired,
    ShowsNotYetValid,
    ShowsSelfSigned,
    /// An intermediate has signed its certificate, and is sent along.
    ShowsIntermediate,
    /// The same, not sent.
    OmitsIntermediate,
    /// The root is sent too.
    ShowsRoot,
    /// The certificate is on the CA's list.
    ShowsRevoked,
    /// No other SNI than the name.
    StrictSni,
    /// A client certificate by the CA is required, and no other SNI served.
    WantsCertificateStrictly,
    /// A client certificate by the CA is required.
    WantsCertificate,
    /// No other cipher than this one.
    OneCipher(&'static str),
    /// No other curve than this one.
    OneCurve(&'static str),
    /// ALPN agrees on nothing but h2.
    H2Alone,
    /// The port without TLS.
    PlainPort,
    /// The port for HTTP/2 without TLS.
    H2cPort,
    /// A name that is none.
    Unresolved,
    /// A port that nobody listens on.
    Refused,
    /// An address that drops what comes.
    Unanswered,
    /// Accepts and says nothing.
    Silent,
    /// Reads the request and says nothing.
    NeverAnswers,
    /// Closes a kept connection as the next request comes.
    ClosesIdle,
}

/// A running counterpart.
pub struct Running {
    /// Where it is, as `endpoints` has it.
    pub endpoint: String,
    _keeps: Keeps,
}

/// Ends when dropped.
enum Keeps {
    Server(#[allow(dead_code)] Server),
    Kube(#[allow(dead_code)] Arc<Kube>),
    Origin(#[allow(dead_code)] Origin),
    Unanswered(#[allow(dead_code)] Unanswered),
    Nothing,
}

/// Certificates by the name of their fault.
pub struct World {
    ca: Authority,
    good: Pair,
    expired: Pair,
    not_yet_valid: Pair,
    self_signed: Pair,
    intermediate: Pair,
    alone: Pair,
    with_root: Pair,
    revoked: Pair,
    _certs: Certs,
    /// What stands in angle brackets in a row, and what it stands for.
    files: Vec<(&'static str, String)>,
}

impl World {
    pub fn new() -> Self {
        let certs = Certs::new();
        let (ca, other) = (certs.authority("ca"), certs.authority("other"));
        let between = certs.intermediate("between", &ca);
        let good = certs.server(&ca, &[NAME]);
        let self_signed = certs.self_signed(&[NAME]);
        let intermediate = certs.server(&between, &[NAME]);
        let revoked = certs.server(&ca, &[NAME]);
        let joined = |name: &str, files: &[&Path]| {
            let path = certs.folder().join(name);
            let texts: Vec<_> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
            fs::write(&path, texts.concat()).unwrap();
            path
        };
        let lists = [certs.crl(&ca, &[&revoked]), certs.crl_until(&ca, &[], 2025), certs.crl(&other, &[])];
        let both = joined("both.crt", &[&ca.cert, &other.cert]);
        let shown = |pair: &Pair| format!("{{ cert: {}, key: {} }}", quoted(&pair.cert), quoted(&pair.key));
        let path = |path: &PathBuf| quoted(path);
        let files = vec![
            ("<ca>", path(&ca.cert)),
            ("<other>", path(&other.cert)),
            ("<both>", path(&both)),
            ("<between>", path(&between.cert)),
            ("<self-signed>", path(&self_signed.cert)),
            ("<list>", path(&lists[0])),
            ("<old-list>", path(&lists[1])),
            ("<list-of-other>", path(&lists[2])),
            ("<me>", shown(&certs.client(&ca, "me"))),
            ("<stranger>", shown(&certs.client(&other, "stranger"))),
            ("<expired-me>", shown(&certs.expired_client(&ca, "late"))),
            ("<pin>", format!("{:?}", pin(&good))),
            ("<pin-of-another>", format!("{:?}", pin(&self_signed))),
        ];
        Self {
            expired: certs.expired(&ca, &[NAME]),
            not_yet_valid: certs.not_yet_valid(&ca, &[NAME]),
            alone: certs.with_chain(&intermediate, &[]),
            with_root: certs.with_chain(&intermediate, &[&between.cert, &ca.cert]),
            _certs: certs,
            ca,
            good,
            self_signed,
            intermediate,
            revoked,
            files,
        }
    }

    /// A row's YAML with the paths of this world in it.
    pub fn fill(&self, yaml: &str) -> String {
        let filled = self.files.iter().fold(yaml.to_owned(), |yaml, (mark, file)| yaml.replace(mark, file));
        assert!(!filled.contains('<'), "unknown mark: {filled}");
        filled
    }

    /// A counterpart with this fault.
    pub fn start(&self, peer: Peer, version: Version, http: Http, fault: Fault) -> Running {
        let program = match peer {
            Peer::Nginx => Program::Nginx,
            Peer::HaProxy => Program::HaProxy,
            Peer::Envoy => Program::Envoy,
            Peer::OpenSsl => Program::OpenSsl,
            Peer::Go => {
                let kube = Kube::shared();
                return Running { endpoint: local(kube.port), _keeps: Keeps::Kube(kube) };
            }
            Peer::Scripted => return scripted(fault),
        };
        let mut tls = ServerTls::new(NAME, self.shown(fault), version);
        tls.h2 = http == Http::Two;
        match fault {
            Fault::StrictSni => tls.strict_sni = true,
            Fault::WantsCertificateStrictly => {
                tls.clients = Clients::Required(&self.ca.cert);
                tls.strict_sni = true;
            }
            Fault::WantsCertificate => tls.clients = Clients::Required(&self.ca.cert),
            Fault::OneCipher(cipher) => tls.cipher = Some(cipher),
            Fault::OneCurve(curve) => tls.curve = Some(curve),
            Fault::H2Alone => tls.h2_only = true,
            _ => {}
        }
        let server = Server::start(program, &tls);
        let port = match fault {
            Fault::PlainPort => server.plain_port,
            Fault::H2cPort => server.h2c_port,
            _ => server.port,
        };
        Running { endpoint: local(port), _keeps: Keeps::Server(server) }
    }

    fn shown(&self, fault: Fault) -> &Pair {
        match fault {
            Fault::ShowsExpired => &self.expired,
            Fault::ShowsNotYetValid => &self.not_yet_valid,
            Fault::ShowsSelfSigned => &self.self_signed,
            Fault::ShowsIntermediate => &self.intermediate,
            Fault::OmitsIntermediate => &self.alone,
            Fault::ShowsRoot => &self.with_root,
            Fault::ShowsRevoked => &self.revoked,
            _ => &self.good,
        }
    }
}

fn scripted(fault: Fault) -> Running {
    let origin = match fault {
        Fault::Unresolved => {
            return Running { endpoint: "no-such-name.invalid:443".to_owned(), _keeps: Keeps::Nothing };
        }
        Fault::Refused => return Running { endpoint: local(ports::free()), _keeps: Keeps::Nothing },
        Fault::Unanswered => {
            let unanswered = Unanswered::new();
            return Running { endpoint: local(unanswered.port), _keeps: Keeps::Unanswered(unanswered) };
        }
        Fault::Silent => Origin::opening(|_| Opening::Stall),
        Fault::NeverAnswers => Origin::script(|_| Answer::Stall),
        Fault::ClosesIdle => Origin::script(|request| match (request.target.as_str(), request.connection) {
            ("/again", 0) => Answer::Close,
            _ => Reply::ok("served").into(),
        }),
        other => panic!("no script for {other:?}"),
    };
    Running { endpoint: origin.address(), _keeps: Keeps::Origin(origin) }
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
