//! Connections to upstreams when the policies in force change, in a whole gateway that is its own upstream: how many
//! there are is what its second listener counts.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use vestibule_plugins::Registry;

use crate::observe::Metrics;
use crate::reload::{Keeper, Watching};
use crate::snapshot::{Workshop, load_noting};
use crate::upstream::Policies;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_go_with_their_policy_and_no_request_with_them() {
    for protocol in ["http/1.1", "h2", "auto"] {
        let gateway = Gateway::start(protocol).await;
        let keys = gateway.keeper.control().live().pin().policy_keys();
        assert_eq!(keys.len(), if protocol == "auto" { 2 } else { 1 });
        gateway.policies.put_in_force(&keys);
        gateway.ask().await;
        gateway.ask().await;
        gateway.has_connections(1).await;
        assert_eq!(gateway.handshakes(), 1, "{protocol}: kept");

        gateway.policies.put_in_force(&HashSet::new());
        gateway.has_connections(0).await;
        // As requests do that began under an earlier snapshot; many at once, since HTTP/2 would share.
        let asked: Vec<_> = (0..20)
            .map(|_| {
                let gateway = gateway.clone();
                tokio::spawn(async move { gateway.ask().await })
            })
            .collect();
        for asked in asked {
            asked.await.unwrap();
        }
        gateway.has_connections(0).await;
        assert_eq!(gateway.handshakes(), 21, "{protocol}: one for each");

        gateway.policies.put_in_force(&keys);
        gateway.ask().await;
        gateway.ask().await;
        gateway.has_connections(1).await;
        assert_eq!(gateway.handshakes(), 22, "{protocol}: kept again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_while_policies_come_and_go() {
    for protocol in ["http/1.1", "h2", "auto"] {
        let gateway = Gateway::start(protocol).await;
        let keys = gateway.keeper.control().live().pin().policy_keys();
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let gateway = gateway.clone();
                tokio::spawn(async move {
                    for _ in 0..50 {
                        gateway.ask().await;
                    }
                })
            })
            .collect();
        let (mut in_force, none) = (true, HashSet::new());
        while clients.iter().any(|client| !client.is_finished()) {
            in_force = !in_force;
            gateway.policies.put_in_force(if in_force { &keys } else { &none });
            sleep(Duration::from_millis(2)).await;
        }
        for client in clients {
            client.await.unwrap();
        }
        gateway.policies.put_in_force(&HashSet::new());
        gateway.has_connections(0).await;
    }
}

#[derive(Clone)]
struct Gateway {
    address: SocketAddr,
    policies: Arc<Policies>,
    metrics: Arc<Metrics>,
    keeper: Arc<Keeper>,
    _folder: Arc<tempfile::TempDir>,
}

impl Gateway {
    async fn start(protocol: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("cert"), certificate.pem()).unwrap();
        std::fs::write(folder.path().join("key"), key.serialize_pem()).unwrap();
        let [web, origin] = [free_address().await, free_address().await];
        let yaml = format!(
            "version: 1\naccess_log: {{ format: none }}\n\
             listeners:\n\
             \x20 web: {{ address: \"{web}\" }}\n\
             \x20 origin: {{ address: \"{origin}\", tls: {{ certificates: [{{ cert: cert, key: key }}] }} }}\n\
             upstreams: {{ u: {{ endpoints: [\"{origin}\"], protocol: {protocol}, tls: {{ verify: false }} }} }}\n\
             routes:\n\
             \x20 - {{ match: {{ listeners: web }}, upstream: u }}\n\
             \x20 - {{ match: {{ listeners: origin }}, respond: {{ body: whole }} }}\n"
        );
        let file = folder.path().join("gateway.yaml");
        std::fs::write(&file, yaml).unwrap();
        let workshop = Arc::new(Workshop::new(Registry::builtin()));
        let (policies, metrics) = (workshop.policies.clone(), workshop.metrics.clone());
        let (snapshot, sources) = load_noting(&file, &workshop);
        let first = (snapshot.unwrap_or_else(|it| panic!("{it}")), sources);
        let keeper = Keeper::start(file, first, workshop, Watching::Never).await.unwrap();
        Self { address: web, policies, metrics, keeper: Arc::new(keeper), _folder: Arc::new(folder) }
    }

    /// One request, which is answered.
    async fn ask(&self) {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        client
            .write_all(b"POST / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("whole"), "{answer}");
    }

    async fn has_connections(&self, count: usize) {
        let line = format!("vestibule_open_connections{{listener=\"origin\"}} {count}\n");
        let there = async {
            while !self.metrics.encode().contains(&line) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        // Well below the time after which an idle connection is closed anyway.
        timeout(Duration::from_secs(10), there).await.unwrap_or_else(|_| panic!("{}", self.metrics.encode()));
    }

    /// How many connections to the upstream have been made.
    fn handshakes(&self) -> u64 {
        let text = self.metrics.encode();
        let counts = text.lines().filter(|line| {
            line.starts_with("vestibule_tls_handshakes_total") && line.contains("upstream=\"u\"")
        });
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
