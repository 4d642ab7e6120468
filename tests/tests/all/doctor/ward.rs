//! What the doctor's tests are about: configurations in folders of their own, and the servers that they lead to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use vestibule_tests::certs::{Authority, Certs, Pair};
use vestibule_tests::client::{self, Response};
use vestibule_tests::gateway::binary;
use vestibule_tests::ports;
use vestibule_tests::process::Process;
use vestibule_tests::real::{Nginx, NginxTls, program};

pub const NAME: &str = "app.test";

/// A configuration in a folder of its own, with copies of the files that it names.
pub struct Patient {
    pub folder: TempDir,
    pub port: u16,
}

impl Patient {
    /// The rest of a file: `upstreams:` and `routes:`, with paths relative to its folder.
    pub fn new(rest: &str, files: &[(&str, &Path)]) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), ports::free());
        let yaml = format!("version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\n{rest}\n");
        fs::write(folder.path().join("gateway.yaml"), yaml).unwrap();
        let patient = Self { folder, port };
        for (name, from) in files {
            patient.put(name, &fs::read(from).unwrap());
        }
        patient
    }

    /// One upstream with this `tls` block, and one route to it for `NAME`.
    pub fn at(port: u16, tls: &str, files: &[(&str, &Path)]) -> Self {
        let rest = format!(
            "upstreams:\n  app:\n    endpoints: [\"127.0.0.1:{port}\"]\n    {tls}\nroutes:\n  - name: front\n    match: {{ hosts: [{NAME}] }}\n    upstream: app\n"
        );
        Self::new(&rest, files)
    }

    pub fn put(&self, name: impl AsRef<Path>, bytes: &[u8]) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("gateway.yaml")
    }

    /// What the doctor says, and its exit code.
    pub fn examined(&self, arguments: &[&str]) -> (Value, i32) {
        let mut command = Command::new(binary());
        command.args(["doctor", "--format", "json", "-c", "gateway.yaml"]).args(arguments);
        let out = command.current_dir(&self.folder).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {out:?}"));
        (report, out.status.code().unwrap())
    }

    /// Its one finding.
    pub fn finding(&self) -> Value {
        let (report, code) = self.examined(&[]);
        let targets = report["targets"].as_array().unwrap();
        assert_eq!(targets.len(), 1, "{report:#}");
        assert_eq!(
            code,
            ["good", "warning", "bad"].iter().position(|it| report["verdict"] == *it).unwrap() as i32
        );
        targets[0].clone()
    }

    /// Makes the changes and saves the files that a fix is of.
    pub fn follow(&self, finding: &Value) {
        let fix = &finding["fix"];
        assert_eq!(fix["tried"], true, "{finding:#}");
        for save in fix["save"].as_array().unwrap() {
            self.put(save["file"].as_str().unwrap(), save["pem"].as_str().unwrap().as_bytes());
        }
        let changes = fix["changes"].as_array().unwrap();
        assert!(!changes.is_empty(), "{finding:#}");
        for change in changes {
            self.put(change["file"].as_str().unwrap(), change["after"].as_str().unwrap().as_bytes());
        }
    }

    /// What a client gets through the gateway with the file as it is now.
    pub fn asked(&self) -> Response {
        let mut command = Command::new(binary());
        command.args(["run", "-c"]).arg(self.file()).env("RUST_LOG", "info");
        let gateway = Process::spawn("vestibule", &mut command);
        gateway.wait_for("ready: listening on");
        client::get(self.port, NAME, "/")
    }

    /// It fails with this cause, a fix is found, and with the fix a request gets through.
    pub fn is_mended_of(&self, code: &str) -> Value {
        assert_ne!(self.asked().status, 200, "nothing is wrong with it");
        let finding = self.finding();
        assert_eq!(finding["code"], code, "{finding:#}");
        assert_eq!(finding["verdict"], "bad", "{finding:#}");
        self.follow(&finding);
        let text = fs::read_to_string(self.file()).unwrap();
        let answer = self.asked();
        assert_eq!(answer.status, 200, "{text}\n{}", answer.text());
        let again = self.finding();
        assert_ne!(again["verdict"], "bad", "{text}\n{again:#}");
        finding
    }
}

pub struct Ward {
    pub certs: Certs,
    pub ca: Authority,
    pub leaf: Pair,
}

impl Ward {
    pub fn new() -> Self {
        let certs = Certs::new();
        let ca = certs.authority("ca");
        let leaf = certs.server(&ca, &[NAME]);
        Self { certs, ca, leaf }
    }

    pub fn nginx(&self, certificate: &Pair) -> Nginx {
        Nginx::start(&NginxTls::new(certificate))
    }

    pub fn ca(&self) -> (&'static str, &Path) {
        ("tls/ca.crt", &self.ca.cert)
    }
}

pub fn changed(finding: &Value) -> String {
    finding["fix"]["changes"][0]["diff"].as_str().unwrap_or_default().to_owned()
}

pub fn words(finding: &Value) -> String {
    finding["fix"]["words"].to_string()
}

/// `openssl s_server`, which answers each GET with 200.
pub fn s_server(pair: &Pair, arguments: &[&str]) -> (u16, Process) {
    let port = ports::free();
    let mut command = Command::new(program("openssl"));
    command.args(["s_server", "-www", "-accept", &format!("127.0.0.1:{port}")]);
    command.arg("-cert").arg(&pair.cert).arg("-key").arg(&pair.key).args(arguments);
    let process = Process::spawn("s_server", &mut command);
    process.wait_for("ACCEPT");
    (port, process)
}
