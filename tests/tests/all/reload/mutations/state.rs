//! What a configuration is made of: the tree of its file, and the files that it names.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_yaml::Value;
use vestibule_tests::certs::{Authority, Certs, Pair};
use vestibule_tests::ports;

use super::origin;

/// How many addresses there are for listeners, and behind them for the admin endpoint.
pub const LISTENERS: usize = 6;
const ADMINS: usize = 2;

/// The name of the configuration's own file.
pub const CONFIG: &str = "gateway.yaml";

/// The addresses that a gateway may have, by their ports: those of another one correspond to them one by one.
#[derive(Clone)]
pub struct Ports(pub [u16; LISTENERS + ADMINS]);

/// What does not change: origins, authorities, and certificates to choose from.
pub struct World {
    pub ports: Ports,
    /// Two plain origins.
    pub plain: [u16; 2],
    pub tls: u16,
    pub mtls: u16,
    pub slow: u16,
    /// Nobody listens there.
    pub closed: u16,
    /// Another program has it.
    pub taken: u16,
    /// Two certificates for each of two sets of names.
    pub shown: [[Files; 2]; 2],
    /// Client certificates of the gateway: one that the origin takes, and a stranger's.
    pub own: [Files; 2],
    /// The authority of the origins, and a stranger.
    pub authorities: [Vec<u8>; 2],
    /// That of the clients, and the certificate that clients show.
    pub clients: Vec<u8>,
    pub client: Pair,
    _certs: Certs,
    _taken: TcpListener,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Files {
    pub cert: Vec<u8>,
    pub key: Vec<u8>,
}

/// One configuration.
#[derive(Clone)]
pub struct State {
    pub config: Value,
    /// By the names that `config` has for them.
    pub named: BTreeMap<String, Vec<u8>>,
    /// A line that says nothing.
    pub comment: String,
    /// Counts what was added, so that each has a name of its own.
    pub added: usize,
}

/// Every file of a configuration by its name, whatever is in it.
pub type Text = BTreeMap<String, Vec<u8>>;

impl Ports {
    pub fn free() -> Self {
        Self(std::array::from_fn(|_| ports::free()))
    }

    /// The same text with the other one's ports.
    pub fn mapped(&self, text: &str, other: &Self) -> String {
        let each = self.0.iter().zip(&other.0);
        each.fold(text.to_owned(), |text, (from, to)| text.replace(&address(*from), &address(*to)))
    }

    /// Which of them this address has.
    pub fn position(&self, text: &str) -> usize {
        let port: u16 = text.rsplit_once(':').unwrap().1.parse().unwrap();
        self.0.iter().position(|known| *known == port).unwrap()
    }

    pub fn admins(&self) -> &[u16] {
        &self.0[LISTENERS..]
    }

    pub fn listeners(&self) -> &[u16] {
        &self.0[..LISTENERS]
    }
}

pub fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

impl World {
    pub fn new() -> Self {
        let certs = Certs::new();
        let [ours, stranger, clients] = ["ours", "stranger", "clients"].map(|name| certs.authority(name));
        let server = |names: &[&str]| Files::of(&certs.server(&ours, names));
        let pem = |authority: &Authority| fs::read(&authority.cert).unwrap();
        let origin = certs.server(&ours, &["up.test"]);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            ports: Ports::free(),
            plain: [origin::plain("one"), origin::plain("two")],
            tls: origin::tls("tls", &origin, None),
            mtls: origin::tls("mtls", &origin, Some(&clients)),
            slow: origin::slow(),
            closed: ports::free(),
            taken: taken.local_addr().unwrap().port(),
            shown: [["a.test", "*.a.test"], ["b.test", "c.test"]]
                .map(|names| [server(&names), server(&names)]),
            own: [&clients, &stranger].map(|by| Files::of(&certs.client(by, "gateway"))),
            authorities: [pem(&ours), pem(&stranger)],
            clients: pem(&clients),
            client: certs.client(&clients, "client"),
            _certs: certs,
            _taken: taken,
        }
    }

    /// Where all begins.
    pub fn first(&self) -> State {
        let Self { plain: [one, two], tls, mtls, slow, .. } = self;
        let [web, second, secure, raw, ..] = self.ports.0;
        let admin = self.ports.admins()[0];
        let config = yaml(&format!(
            r#"
version: 1
access_log: {{ format: none }}
server: {{ threads: 1 }}
reload: {{ watch: false }}
admin: {{ address: "127.0.0.1:{admin}" }}
listeners:
  web: {{ address: "127.0.0.1:{web}" }}
  second: {{ address: "127.0.0.1:{second}" }}
  secure: {{ address: "127.0.0.1:{secure}", tls: {{ certificates: [{{ cert: a.crt, key: a.key }}, {{ cert: b.crt, key: b.key }}] }} }}
  raw: {{ address: "127.0.0.1:{raw}", tcp: {{ upstream: one }} }}
upstreams:
  one: {{ endpoints: ["127.0.0.1:{one}"] }}
  two: {{ endpoints: ["127.0.0.1:{two}"], host: two.test }}
  pool: {{ endpoints: [{{ address: "127.0.0.1:{one}", weight: 1 }}, {{ address: "127.0.0.1:{two}", weight: 2 }}] }}
  tls: {{ endpoints: ["127.0.0.1:{tls}"], host: up.test, tls: {{ verify: {{ ca: up.crt }} }} }}
  mtls: {{ endpoints: ["127.0.0.1:{mtls}"], host: up.test, tls: {{ verify: {{ ca: up.crt }}, client_certificate: {{ cert: own.crt, key: own.key }} }} }}
  slow: {{ endpoints: ["127.0.0.1:{slow}"] }}
plugins:
  - headers: {{ response: {{ set: {{ x-config: $config, x-route: "$route at $listener", x-endpoint: "$upstream $endpoint" }} }} }}
  - request_id: {{}}
routes:
  - {{ name: slow, match: {{ paths: [/slow] }}, upstream: slow, timeouts: {{ request: 30ms }} }}
  - {{ name: pool, match: {{ paths: [/pool] }}, upstream: pool }}
  - {{ name: tls, match: {{ paths: [/tls] }}, upstream: tls }}
  - {{ name: mtls, match: {{ paths: [/mtls] }}, upstream: mtls }}
  - {{ name: page, match: {{ paths: [/page] }}, respond: {{ file: page.html, content_type: text/html }} }}
  - {{ name: api, match: {{ paths: [/api] }}, upstream: one, plugins: [{{ path_rewrite: {{ strip_prefix: /api }} }}] }}
  - {{ name: b, match: {{ hosts: [b.test] }}, upstream: two }}
  - {{ match: {{ paths: [{{ exact: /x }}] }}, respond: {{ status: 418, body: tea }} }}
"#
        ));
        let [a, b] = &self.shown;
        let mut named = BTreeMap::from([
            ("page.html".to_owned(), b"<p>1</p>\n".to_vec()),
            ("up.crt".to_owned(), self.authorities[0].clone()),
            ("clients.crt".to_owned(), self.clients.clone()),
            ("token".to_owned(), b"token-1\n".to_vec()),
        ]);
        for (name, files) in [("a", &a[0]), ("b", &b[0]), ("own", &self.own[0])] {
            put(&mut named, name, files);
        }
        State { config, named, comment: String::new(), added: 0 }
    }
}

impl Files {
    fn of(pair: &Pair) -> Self {
        Self { cert: fs::read(&pair.cert).unwrap(), key: fs::read(&pair.key).unwrap() }
    }
}

impl State {
    /// As the files that a gateway reads.
    pub fn text(&self) -> Text {
        let config = self.comment.clone() + &serde_yaml::to_string(&self.config).unwrap();
        let named = self.named.iter().filter(|(name, _)| config.contains(name.as_str()));
        let mut text: Text = named.map(|(name, bytes)| (name.clone(), bytes.clone())).collect();
        text.insert(CONFIG.to_owned(), config.into_bytes());
        text
    }

    pub fn is_watched(&self) -> bool {
        self.config["reload"]["watch"].as_bool().unwrap()
    }
}

/// A certificate and its key by the stem of their names.
pub fn put(named: &mut BTreeMap<String, Vec<u8>>, stem: &str, files: &Files) {
    named.insert(format!("{stem}.crt"), files.cert.clone());
    named.insert(format!("{stem}.key"), files.key.clone());
}

/// Makes the folder hold these files and no others. Each is replaced at once, as careful programs do.
pub fn write(folder: &Path, text: &Text) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if !text.contains_key(entry.file_name().to_str().unwrap()) {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    for (name, bytes) in text {
        let path = folder.join(name);
        if fs::read(&path).ok().as_ref() != Some(bytes) {
            let aside = folder.join(".aside");
            fs::write(&aside, bytes).unwrap();
            // As a key is kept, so that nothing warns of it.
            fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)).unwrap();
            fs::rename(&aside, &path).unwrap();
        }
    }
}

/// A piece of a configuration.
pub fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}
