//! The example configurations of the Kubernetes API in front of a real API server, with the kubeconfig that the
//! documentation prints for each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use tempfile::TempDir;
use vestibule_tests::certs::{Certs, Pair};
use vestibule_tests::client::{Client, ClientTls};
use vestibule_tests::gateway::Gateway;
use vestibule_tests::real::{Kube, kubectl};

use crate::example::Example;
use crate::page::Page;

/// Where the gateway is asked for the API at the root, and under `/api`.
const ROOT: &str = "127.0.0.1";
const BY_PATH: &str = "localhost";

/// As the API server knows her, and by the group that her certificate and her token are of.
const ALICE: (&str, &str) = ("alice", "--group=devs");

/// A gateway before the API server, and a user who goes through it.
pub struct Through {
    /// The API server.
    pub kube: Arc<Kube>,
    /// What runs the example.
    pub gateway: Gateway,
    /// Who the API server takes the user for.
    pub user: &'static str,
    /// Who a role is bound to, as `kubectl create rolebinding` takes it.
    pub subject: &'static str,
    /// A name for the user's namespace.
    pub name: &'static str,
    /// The user's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The same for the API under a prefix.
    pub by_path: Option<PathBuf>,
    port: u16,
    certificate: Option<Pair>,
    token: Option<String>,
    _folder: TempDir,
}

/// Bytes pass through, and so does alice's certificate.
pub fn l4(mut example: Example) -> Through {
    let kube = Kube::shared();
    let dead = format!("127.0.0.1:{}", vestibule_tests::ports::free());
    example.endpoints("kube-apiserver", [dead, format!("127.0.0.1:{}", kube.port)]);
    let port = example.port("kube");
    let alice = kube.pair("alice");
    started(example, kube, "l4", ALICE, port, Some(alice), None)
}

/// Alice's token passes.
pub fn l7_token(mut example: Example) -> Through {
    let kube = Kube::shared();
    let port = before(&kube, &mut example);
    let token = kube.token();
    started(example, kube, "l7-token", ALICE, port, None, Some(token))
}

/// Alice's certificate lets her in, and the gateway shows its own.
pub fn l7_mtls(mut example: Example) -> Through {
    let kube = Kube::shared();
    let port = before(&kube, &mut example);
    example.file("tls/people-ca.crt", &kube.file("ca.crt")).pair("gateway", &kube.pair("gateway"));
    let alice = kube.pair("alice");
    let gateway = ("gateway", "--user=gateway");
    may_impersonate(&kube);
    started(example, kube, "l7-mtls", gateway, port, Some(alice), None)
}

/// Alice's certificate lets her in, and the gateway asks in her name.
pub fn l7_impersonate(mut example: Example) -> Through {
    let kube = Kube::shared();
    let port = before(&kube, &mut example);
    example.file("tls/people-ca.crt", &kube.file("ca.crt")).pair("gateway", &kube.pair("gateway"));
    let alice = kube.pair("alice");
    may_impersonate(&kube);
    started(example, kube, "l7-impersonate", ALICE, port, Some(alice), None)
}

/// Gives the gateway's user the right that the documentation names. Where the gateway asks as itself, it has it too: so a
/// client's own claim would be believed, if it arrived.
fn may_impersonate(kube: &Kube) {
    let page = Page::read("docs/kubernetes-api.md");
    let role = page.blocks().into_iter().find(|block| block.kind == "yaml role").expect("a role").text;
    let manifest = tempfile::NamedTempFile::new().unwrap();
    fs::write(&manifest, role).unwrap();
    let args = ["apply", "-f", manifest.path().to_str().unwrap()];
    ok(kube.kubectl(&args), &args);
}

/// What the examples of layer 7 have in common.
fn before(kube: &Kube, example: &mut Example) -> u16 {
    let certs = Certs::new();
    let ca = certs.authority("gateway CA");
    let own = certs.server(&ca, &[ROOT, BY_PATH]);
    example
        .endpoints("kube-apiserver", [format!("127.0.0.1:{}", kube.port)])
        .file("tls/kube-ca.crt", &kube.file("ca.crt"))
        .file("gateway-ca.crt", &ca.cert)
        .pair("kube", &own)
        .value(|yaml| &mut yaml["routes"][1]["match"]["hosts"], BY_PATH);
    example.port("kube")
}

fn started(
    example: Example,
    kube: Arc<Kube>,
    name: &'static str,
    (user, subject): (&'static str, &'static str),
    port: u16,
    certificate: Option<Pair>,
    token: Option<String>,
) -> Through {
    let folder = tempfile::tempdir().unwrap();
    let gateway_ca = example.path("gateway-ca.crt");
    if gateway_ca.exists() {
        fs::copy(gateway_ca, folder.path().join("gateway-ca.crt")).unwrap();
    }
    for (from, to) in [
        ("ca.crt", "kube-ca.crt"),
        ("alice.crt", "alice.crt"),
        ("alice.key", "alice.key"),
        ("token", "alice.token"),
    ] {
        fs::copy(kube.file(from), folder.path().join(to)).unwrap();
    }
    let page = Page::read("docs/kubernetes-api.md");
    let kind = format!("yaml kubeconfig {name}");
    let printed = page.blocks().into_iter().find(|block| block.kind == kind).expect("a kubeconfig").text;
    let write = |name: &str, server: String| {
        let line = printed.lines().find(|line| line.contains("server: https://")).expect("a server");
        let path = folder.path().join(name);
        let indent = line.split("server:").next().unwrap();
        fs::write(&path, printed.replace(line, &format!("{indent}server: {server}"))).unwrap();
        path
    };
    let kubeconfig = write("kubeconfig", format!("https://{ROOT}:{port}"));
    let by_path = (name != "l4").then(|| write("by-path", format!("https://{BY_PATH}:{port}/api")));
    let gateway = example.start_gateway();
    Through {
        kube,
        gateway,
        user,
        subject,
        name,
        kubeconfig,
        by_path,
        port,
        certificate,
        token,
        _folder: folder,
    }
}

impl Through {
    /// kubectl as the user.
    pub fn kubectl(&self) -> Command {
        kubectl(&self.kubeconfig)
    }

    /// What kubectl prints, which must succeed.
    pub fn run(&self, args: &[&str]) -> String {
        ok(self.kubectl().args(args).output().unwrap(), args)
    }

    /// The same as the administrator of the cluster, and past the gateway.
    pub fn as_admin(&self, args: &[&str]) -> String {
        ok(self.kube.kubectl(args), args)
    }

    /// A connection to the gateway that shows what the user has to show.
    pub fn connection(&self) -> Client {
        let sni = (self.name == "l4").then_some("kubernetes");
        let tls = ClientTls { sni, certificate: self.certificate.as_ref(), ..ClientTls::default() };
        Client::tls(self.port, &tls).unwrap()
    }

    /// The header fields that say where a bare request goes, and as whom.
    pub fn fields(&self) -> String {
        let token =
            self.token.iter().map(|token| format!("Authorization: Bearer {token}\r\n")).collect::<String>();
        format!("Host: {ROOT}\r\n{token}")
    }

    /// Puts a changed configuration in force.
    pub fn reload(&self) {
        let text = fs::read_to_string(self.gateway.config()).unwrap();
        let mut yaml: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        let spare = yaml["upstreams"]["kube-apiserver"].clone();
        let count = yaml["upstreams"].as_mapping().unwrap().len();
        yaml["upstreams"][format!("spare-{count}").as_str()] = spare;
        let told = self.gateway.reload(&serde_yaml::to_string(&yaml).unwrap());
        assert!(told.contains("applied"), "{told}");
    }

    /// The least that an example has to do: the API server answers, to the user that is meant.
    pub fn answers(&self) {
        assert!(self.run(&["version"]).contains("v1.20.2"));
        for kubeconfig in [Some(&self.kubeconfig), self.by_path.as_ref()].into_iter().flatten() {
            let refused = refused(kubeconfig, &["get", "secrets", "--namespace", "kube-system"]);
            assert!(refused.contains(&format!("User \"{}\" cannot list", self.user)), "{refused}");
        }
    }
}

/// What kubectl says of what it may not do.
pub fn refused(kubeconfig: &Path, args: &[&str]) -> String {
    let output = kubectl(kubeconfig).args(args).output().unwrap();
    assert!(!output.status.success(), "{args:?} was allowed: {}", text(&output));
    text(&output)
}

pub fn ok(output: Output, args: &[&str]) -> String {
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
