//! What people do with kubectl, done through each of the examples, and what they must not be able to do.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use vestibule_tests::client::{self, Client, ClientTls};
use vestibule_tests::process::{Pipe, Process};
use vestibule_tests::real::kubectl;

use super::through::{self, Through, refused};
use super::websocket;
use crate::example::Example;
use crate::raw::{self, connected};

#[test]
fn kubectl_through_layer_4() {
    journey(&through::l4(Example::of_file("kube-api-l4.yaml")));
}

#[test]
fn kubectl_through_layer_7_by_token() {
    journey(&through::l7_token(Example::of_file("kube-api-l7-token.yaml")));
}

#[test]
fn kubectl_through_layer_7_by_the_gateways_certificate() {
    journey(&through::l7_mtls(Example::of_file("kube-api-l7-mtls.yaml")));
}

#[test]
fn kubectl_through_layer_7_by_impersonation() {
    journey(&through::l7_impersonate(Example::of_file("kube-api-l7-impersonate.yaml")));
}

/// Everything, in a namespace of the user's own.
fn journey(through: &Through) {
    let namespace = through.name;
    through.as_admin(&["create", "namespace", namespace]);
    // The two parts of the role `edit`, which a controller would join that does not run here.
    for role in ["system:aggregate-to-edit", "system:aggregate-to-view"] {
        let name = role.replace(':', "-");
        let role = format!("--clusterrole={role}");
        through.as_admin(&["create", "rolebinding", &name, &role, through.subject, "--namespace", namespace]);
    }
    let here = Here { through, namespace };
    here.rights();
    let log = through.gateway.folder().join("pod.log");
    here.apply_and_delete();
    here.pod(&log);
    here.exec();
    here.exec_by_websocket();
    here.what_lasts(&log);
    here.proxy();
    here.large_lists();
    here.run(&["delete", "pod", "shop", "--grace-period=1"]);
}

struct Here<'a> {
    through: &'a Through,
    namespace: &'a str,
}

impl Here<'_> {
    fn run(&self, args: &[&str]) -> String {
        self.through.run(&[&["--namespace", self.namespace], args].concat())
    }

    /// A kubectl that goes on.
    fn spawn(&self, args: &[&str]) -> Process {
        let mut command = self.through.kubectl();
        Process::spawn("kubectl", command.args(["--namespace", self.namespace]).args(args))
    }

    fn manifest(&self, name: &str, object: &Value) -> String {
        let path = self.through.gateway.folder().join(name);
        fs::write(&path, object.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The user may do in the namespace what the role says, nothing elsewhere, and not more by saying so.
    fn rights(&self) {
        let user = self.through.user;
        let may = |args: &[&str]| {
            let output = self.through.kubectl().args(["auth", "can-i"]).args(args).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(may(&["create", "pods/exec", "--namespace", self.namespace]), "yes");
        assert_eq!(may(&["list", "secrets", "--namespace", "kube-system"]), "no");
        assert!(self.run(&["auth", "can-i", "--list"]).contains("pods/portforward"));

        let secrets = ["get", "secrets", "--namespace", "kube-system"];
        for kubeconfig in
            [Some(&self.through.kubeconfig), self.through.by_path.as_ref()].into_iter().flatten()
        {
            assert!(refused(kubeconfig, &secrets).contains(&format!("User \"{user}\" cannot list")));
            let claim = [&secrets[..], &["--as", "admin", "--as-group", "system:masters"]].concat();
            let told = refused(kubeconfig, &claim);
            assert!(
                told.contains("Forbidden") && told.contains(&format!("User \"{user}\" cannot")),
                "{told}"
            );
        }
        for claim in [
            "Impersonate-User: admin",
            "Impersonate-User: admin\r\nImpersonate-Group: system:masters\r\nImpersonate-Extra-Scopes: all",
            "X-Remote-User: admin\r\nX-Remote-Group: system:masters",
            "Connection: Impersonate-Group\r\nimpersonate-user: admin\r\nImpersonate-Group: system:masters",
        ] {
            let fields = self.through.fields();
            let request =
                format!("GET /api/v1/namespaces/kube-system/secrets HTTP/1.1\r\n{fields}{claim}\r\n\r\n");
            let answer = self.through.connection().send(request).response();
            assert_eq!(answer.status, 403, "{claim}: {}", answer.text());
            assert!(
                answer.text().contains(&format!("User \\\"{user}\\\" cannot")),
                "{claim}: {}",
                answer.text()
            );
        }
    }

    fn apply_and_delete(&self) {
        for value in ["one", "two"] {
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "settings" }, "data": { "value": value }
            });
            let manifest = self.manifest("settings.json", &object);
            assert!(self.run(&["apply", "-f", &manifest]).contains("configmap/settings"));
            assert_eq!(self.run(&["get", "configmap", "settings", "-o", "jsonpath={.data.value}"]), value);
        }
        self.run(&["delete", "configmap", "settings"]);
        assert_eq!(self.run(&["get", "configmap", "settings", "--ignore-not-found"]), "");
    }

    /// A pod that says whatever is written to its log.
    fn pod(&self, log: &Path) {
        let say = format!("touch {0}; exec tail -n +1 -f {0}", log.display());
        let object = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "shop" },
            "spec": {
                "nodeName": "node",
                "containers": [{ "name": "main", "image": "none", "command": ["sh", "-c", say] }]
            }
        });
        let manifest = self.manifest("pod.json", &object);
        self.run(&["apply", "-f", &manifest]);
        self.run(&["wait", "--for=condition=Ready", "pod/shop", "--timeout=120s"]);
    }

    fn exec_with(&self, kubeconfig: &Path, stdin: &[u8], script: &str) -> Output {
        let mut exec = kubectl(kubeconfig);
        exec.args(["--namespace", self.namespace, "exec", "-i", "shop", "--", "sh", "-c", script]);
        let mut exec =
            exec.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut pipe = exec.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // A command that ends before it has read all closes this.
            scope.spawn(move || pipe.write_all(stdin));
            exec.wait_with_output().unwrap()
        })
    }

    /// By SPDY/3.1, which kubectl speaks. Each command reads its input to the end first: one that ends while its client still
    /// says something may lose its output between the API server and the node, where no gateway is.
    fn exec(&self) {
        for kubeconfig in
            [Some(&self.through.kubeconfig), self.through.by_path.as_ref()].into_iter().flatten()
        {
            let stdin: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
            let echoed = self.exec_with(kubeconfig, &stdin, "cat");
            assert!(echoed.status.success() && echoed.stdout == stdin, "{}", text(&echoed.stderr));
            let failed = self.exec_with(kubeconfig, b"all", "cat; echo err >&2; exit 7");
            assert_eq!((failed.status.code(), &*text(&failed.stdout)), (Some(7), "all"));
            assert!(text(&failed.stderr).contains("err\n"), "{}", text(&failed.stderr));
            let large = self.exec_with(kubeconfig, b"", "cat; head -c 5000000 /dev/zero");
            assert!(large.status.success() && large.stdout.len() == 5_000_000, "{}", text(&large.stderr));
        }
    }

    fn exec_by_websocket(&self) {
        let pod = format!("/api/v1/namespaces/{}/pods/shop", self.namespace);
        let exec = |command: &[&str], stdin: &[u8]| {
            websocket::exec(self.through.connection(), &self.through.fields(), &pod, command, stdin)
        };
        let stdin = vec![b'x'; 200_000];
        let echoed = exec(&["head", "-c", "200000"], &stdin);
        assert_eq!(echoed.status["status"], "Success", "{}", echoed.status);
        assert!(echoed.stdout == stdin);
        let failed = exec(&["sh", "-c", "echo err >&2; exit 7"], b"");
        assert_eq!(failed.status["details"]["causes"][0]["message"], "7", "{}", failed.status);
        assert_eq!(text(&failed.stderr), "err\n");
        assert_eq!(exec(&["head", "-c", "2000000", "/dev/zero"], b"").stdout.len(), 2_000_000);
    }

    /// A watch, a log, a command and a forwarded port, all of which a reload leaves alone.
    fn what_lasts(&self, log: &Path) {
        let watch = self.spawn(&["get", "configmaps", "-w", "-o", "name"]);
        let logs = self.spawn(&["logs", "-f", "shop"]);
        let mut shell = self.through.kubectl();
        shell.args(["--namespace", self.namespace, "exec", "-i", "shop", "--", "cat"]);
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut input, mut output) =
            (shell.stdin.take().unwrap(), BufReader::new(shell.stdout.take().unwrap()));

        let echo = raw::server(|_, mut socket| {
            let mut back = socket.try_clone()?;
            io::copy(&mut socket, &mut back).map(|_| ())
        });
        let forward = self.spawn(&["port-forward", "pod/shop", &format!(":{echo}")]);
        let port = port_in(&forward, "Forwarding from 127.0.0.1:");
        let mut forwarded = connected(port);

        for round in ["before", "after"] {
            let name = format!("watched-{round}");
            self.run(&["create", "configmap", &name]);
            let line = format!("configmap/{name}");
            watch.find(&line, |pipe, told| (pipe == Pipe::Out && told == line).then_some(()));

            let append = format!("cat; echo {round} >> {}", log.display());
            assert!(self.exec_with(&self.through.kubeconfig, b"", &append).status.success());
            logs.find(round, |pipe, told| (pipe == Pipe::Out && told == round).then_some(()));

            writeln!(input, "{round}").unwrap();
            let mut told = String::new();
            output.read_line(&mut told).unwrap();
            assert_eq!(told.trim(), round);

            echoes(&mut forwarded, 1_000_000);
            // And a new connection through the same forwarding.
            echoes(&mut connected(port), 1000);
            if round == "before" {
                self.through.reload();
            }
        }
        drop(input);
        assert!(shell.wait().unwrap().success());
    }

    fn proxy(&self) {
        let proxy = self.spawn(&["proxy", "--port=0"]);
        let port = port_in(&proxy, "Starting to serve on 127.0.0.1:");
        let path = format!("/api/v1/namespaces/{}/pods/shop", self.namespace);
        let answer = client::get(port, "127.0.0.1", &path);
        assert_eq!((answer.status, &answer.json()["metadata"]["name"]), (200, &"shop".into()));
    }

    /// 500 objects of 10 KiB: 5 MB in one answer, in parts, and as a watch.
    fn large_lists(&self) {
        let admin = self.through.kube.pair("admin");
        let tls = ClientTls { certificate: Some(&admin), ..ClientTls::default() };
        let mut direct = Client::tls(self.through.kube.port, &tls).unwrap();
        let path = format!("/api/v1/namespaces/{}/configmaps", self.namespace);
        for number in 0..500 {
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "data": { "value": "x".repeat(10 * 1024) },
                "metadata": { "name": format!("large-{number:03}"), "labels": { "size": "large" } }
            });
            let object = object.to_string();
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: kubernetes\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                object.len()
            );
            let made = direct.send(head).send(object).response();
            assert_eq!(made.status, 201, "{}", made.text());
        }
        let large = ["get", "configmaps", "-l", "size=large"];
        let whole: Value =
            serde_json::from_str(&self.run(&[&large[..], &["-o", "json", "--chunk-size=0"]].concat()))
                .unwrap();
        let items = whole["items"].as_array().unwrap();
        assert_eq!(items.len(), 500);
        assert!(items.iter().all(|item| item["data"]["value"].as_str().map(str::len) == Some(10 * 1024)));
        let names = self.run(&[&large[..], &["-o", "name", "--chunk-size=70"]].concat());
        assert_eq!(names.lines().count(), 500);
        let watch = self.spawn(&[&large[..], &["-w", "-o", "name"]].concat());
        watch.find("the last of them", |_, line| (line == "configmap/large-499").then_some(()));
        assert_eq!(watch.count(|pipe, line| pipe == Pipe::Out && line.starts_with("configmap/large-")), 500);
        let deleted = self.run(&["delete", "configmap", "large-000", "-o", "name"]);
        assert_eq!(deleted.trim(), "configmap/large-000");
        watch.find("the deletion", |_, line| (line == "configmap/large-000").then_some(()));
    }
}

/// Sends so many bytes and gets them back.
fn echoes(stream: &mut TcpStream, count: usize) {
    let bytes: Vec<u8> = (0..count).map(|number| (number % 253) as u8).collect();
    let mut writer = stream.try_clone().unwrap();
    let mut back = vec![0; count];
    std::thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&bytes).unwrap());
        stream.read_exact(&mut back).unwrap();
    });
    assert!(back == bytes, "other bytes came back");
}

/// The port that a kubectl prints behind this text.
fn port_in(kubectl: &Process, before: &str) -> u16 {
    kubectl.find(before, |_, line| {
        let digits: String = line.split_once(before)?.1.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
