//! A configuration of the repository's own, moved to free ports and test origins and then run as it stands.
//! What any one of them shows is not known here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_yaml::Value;
use tempfile::TempDir;
use vestibule_tests::certs::Pair;
use vestibule_tests::client::{self, Response};
use vestibule_tests::gateway::{Gateway, binary};
use vestibule_tests::ports;
use vestibule_tests::process::{Pipe, Process};

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A configuration in a folder of its own, not running yet.
pub struct Example {
    yaml: Value,
    folder: TempDir,
}

/// A gateway that runs one.
pub struct Running {
    process: Process,
    _folder: TempDir,
}

impl Example {
    /// A file of `conf/examples`, every listener of it on a free port.
    pub fn of_file(name: &str) -> Self {
        let folder = repository().join("conf/examples");
        let mut example = Self::of_text(&fs::read_to_string(folder.join(name)).unwrap());
        for page in fs::read_dir(folder.join("pages")).unwrap() {
            let page = page.unwrap();
            example.file(&format!("pages/{}", page.file_name().display()), &page.path());
        }
        example
    }

    /// A configuration as it is printed in the documentation, every listener of it and its admin endpoint on a free
    /// port.
    pub fn of_text(text: &str) -> Self {
        let mut yaml: Value = serde_yaml::from_str(text).unwrap_or_else(|e| panic!("{e}:\n{text}"));
        let listeners = yaml.get_mut("listeners").and_then(Value::as_mapping_mut);
        for (_, listener) in listeners.into_iter().flatten() {
            listener["address"] = format!("127.0.0.1:{}", ports::free()).into();
        }
        if let Some(admin) = yaml.get_mut("admin") {
            admin["address"] = format!("127.0.0.1:{}", ports::free()).into();
        }
        Self { yaml, folder: tempfile::tempdir().unwrap() }
    }

    /// Where a listener is now.
    pub fn port(&self, listener: &str) -> u16 {
        port_of(&self.yaml["listeners"][listener])
    }

    /// Puts other addresses in place of an upstream's, weights and all that stands beside them kept.
    pub fn endpoints<A: AsRef<str>>(
        &mut self,
        upstream: &str,
        addresses: impl IntoIterator<Item = A>,
    ) -> &mut Self {
        let listed = self.yaml["upstreams"][upstream]["endpoints"].as_sequence_mut().unwrap();
        let mut addresses = addresses.into_iter();
        for endpoint in listed.iter_mut() {
            let address: Value = addresses.next().expect("an address for each endpoint").as_ref().into();
            match endpoint {
                Value::Mapping(map) => drop(map.insert("address".into(), address)),
                text => *text = address,
            }
        }
        assert!(addresses.next().is_none(), "more addresses than `{upstream}` has endpoints");
        self
    }

    /// Puts another value in place of one, or where there is none.
    pub fn value(
        &mut self,
        find: impl FnOnce(&mut Value) -> &mut Value,
        value: impl Into<Value>,
    ) -> &mut Self {
        *find(&mut self.yaml) = value.into();
        self
    }

    /// A file that the configuration names.
    pub fn file(&mut self, name: &str, from: &Path) -> &mut Self {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::copy(from, self.path(name)).unwrap();
        self
    }

    /// `tls/NAME.crt` and `tls/NAME.key`.
    pub fn pair(&mut self, name: &str, pair: &Pair) -> &mut Self {
        self.file(&format!("tls/{name}.crt"), &pair.cert).file(&format!("tls/{name}.key"), &pair.key)
    }

    /// A path in the configuration's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the `check` of this binary says of it.
    pub fn check(&self, program: &Path) -> Output {
        let config = self.write();
        Command::new(program).args(["check", "-c"]).arg(config).output().unwrap()
    }

    /// Runs it with the gateway's own binary.
    pub fn start(self) -> Running {
        self.start_with(&binary())
    }

    /// The same, to be reloaded.
    pub fn start_gateway(self) -> Gateway {
        self.write();
        Gateway::start_in(self.folder, "gateway.yaml", &[])
    }

    /// Runs it with another binary that takes the same arguments.
    pub fn start_with(self, program: &Path) -> Running {
        let config = self.write();
        let mut command = Command::new(program);
        command.args(["run", "-c"]).arg(config).env("RUST_LOG", "info").env_remove("RUST_BACKTRACE");
        let process = Process::spawn("gateway", &mut command);
        process.wait_for("ready: listening on");
        Running { process, _folder: self.folder }
    }

    fn write(&self) -> PathBuf {
        let path = self.path("gateway.yaml");
        fs::write(&path, serde_yaml::to_string(&self.yaml).unwrap()).unwrap();
        path
    }
}

impl Running {
    /// The line of the access log about the request to this path, come or still to come.
    pub fn log_of(&self, path: &str) -> serde_json::Value {
        self.process.find("such access-log line", |pipe, line| {
            let line: serde_json::Value = serde_json::from_str(line).ok().filter(|_| pipe == Pipe::Out)?;
            (line["path"] == path).then_some(line)
        })
    }

    /// The first line on either output that has this text.
    pub fn line(&self, text: &str) -> String {
        self.process.find(text, |_, line| line.contains(text).then(|| line.to_owned()))
    }

    /// Asks for `path` where a failure is expected; the status and the cause that the access log gives.
    pub fn failure(&self, port: u16, host: &str, path: &str) -> (u16, String) {
        let status = client::get(port, host, path).status;
        (status, self.log_of(path)["cause"].as_str().unwrap_or_default().to_owned())
    }
}

fn port_of(listener: &Value) -> u16 {
    listener["address"].as_str().and_then(|address| address.rsplit(':').next()?.parse().ok()).unwrap()
}

/// What an echoing origin has seen of a request: its target and its header fields.
pub fn seen(response: &Response) -> serde_json::Value {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}
