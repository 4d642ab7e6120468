//! A real kube-apiserver with its etcd and a node, started by `tests/real/kube-up.sh`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;

use super::{cache, program};
use crate::certs::Pair;
use crate::ports;

/// A running API server.
pub struct Kube {
    /// Its TLS port.
    pub port: u16,
    folder: TempDir,
}

static SHARED: Mutex<Weak<Kube>> = Mutex::new(Weak::new());

impl Kube {
    /// One server for all tests that run at the same time; the last to drop it ends it.
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kube) = shared.upgrade() {
            return kube;
        }
        let kube = Arc::new(Self::start());
        *shared = Arc::downgrade(&kube);
        kube
    }

    /// A file that kube-up.sh left: `ca.crt`, `admin.crt`, `admin.key`, `alice.crt`, …
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A certificate and its key, by the name that kube-up.sh gave them.
    pub fn pair(&self, name: &str) -> Pair {
        let [cert, key, both] = ["crt", "key", "pem"].map(|kind| self.file(&format!("{name}.{kind}")));
        Pair { cert, key, both }
    }

    /// The bearer token of alice.
    pub fn token(&self) -> String {
        fs::read_to_string(self.file("token")).unwrap().trim().to_owned()
    }

    /// kubectl as the admin of the server itself.
    pub fn kubectl(&self, args: &[&str]) -> Output {
        kubectl(&self.file("admin.kubeconfig")).args(args).output().unwrap()
    }

    /// The admin's kubeconfig with another port in it.
    pub fn kubeconfig_via(&self, port: u16) -> PathBuf {
        let text = fs::read_to_string(self.file("admin.kubeconfig")).unwrap();
        let path = self.file(&format!("admin-via-{port}.kubeconfig"));
        fs::write(&path, text.replace(&format!("127.0.0.1:{}", self.port), &format!("127.0.0.1:{port}")))
            .unwrap();
        path
    }

    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = ports::free();
        let status = script("kube-up.sh")
            .arg(folder.path())
            .args([port, ports::free(), ports::free(), ports::free()].map(|port| port.to_string()))
            .status()
            .unwrap();
        assert!(status.success(), "kube-up.sh failed");
        Self { port, folder }
    }
}

impl Drop for Kube {
    fn drop(&mut self) {
        let _ = script("kube-down.sh").arg(self.folder.path()).status();
    }
}

/// kubectl with a kubeconfig, and with no cache of what another server offered.
pub fn kubectl(kubeconfig: &Path) -> Command {
    let mut command = Command::new(program("kubectl"));
    command.arg("--kubeconfig").arg(kubeconfig).arg("--cache-dir").arg(kubeconfig.with_extension("cache"));
    command
}

fn script(name: &str) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("real").join(name));
    command.env("VESTIBULE_REAL", cache());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kube_knows_its_admin_and_refuses_alice() {
        let kube = Kube::shared();
        let spaces = kube.kubectl(&["get", "namespaces", "-o", "name"]);
        assert!(String::from_utf8_lossy(&spaces.stdout).contains("namespace/kube-system"), "{spaces:?}");
        let refused = kube.kubectl(&["auth", "can-i", "list", "secrets", "--as", "alice"]);
        assert_eq!(String::from_utf8_lossy(&refused.stdout).trim(), "no");
    }
}
