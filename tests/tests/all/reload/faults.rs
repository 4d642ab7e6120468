//! What befalls the files of a configuration in real life: the gateway watches them, clients ask all the while, and none of
//! them fails.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vestibule_tests::certs::{Authority, Certs, Pair, pin};
use vestibule_tests::client::{self, Client, ClientTls};
use vestibule_tests::gateway::{Gateway, binary};
use vestibule_tests::origin::Origin;
use vestibule_tests::process::Process;
use vestibule_tests::{PATIENCE, ports};

use crate::quoted;

#[test]
fn a_config_map_that_is_swapped_is_followed_each_time() {
    let port = ports::free();
    let routes = |body: &str| format!("version: 1\nroutes: [{{ respond: {{ body: {body} }} }}]\n");
    let folder = tempfile::tempdir().unwrap();
    let mut volume = Volume::new(&folder.path().join("mount"));
    let main = format!("version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\n");
    volume.put(&[("gateway.yaml", main.as_bytes()), ("routes.yaml", routes("blue").as_bytes())]);
    let gateway = Gateway::start_in(folder, "mount", &[]);
    let asking = Asking::start(move || Client::plain(port));
    for (number, body) in ["green", "red"].into_iter().enumerate() {
        volume.put(&[("gateway.yaml", main.as_bytes()), ("routes.yaml", routes(body).as_bytes())]);
        let told = gateway.reload_by("files", number);
        assert!(told.starts_with("applied"), "{told}");
        assert_eq!(client::get(port, "a.test", "/").text(), body);
    }
    asking.end();
    assert_eq!(gateway.reloads_by("files"), 2, "one for each swap: {}", gateway.stderr());
}

#[test]
fn a_secret_that_is_swapped_is_shown_at_the_next_handshake() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let pairs = [0, 1, 2].map(|_| certs.server(&ca, &["a.test"]));
    let port = ports::free();
    let folder = tempfile::tempdir().unwrap();
    let mut volume = Volume::new(&folder.path().join("secret"));
    volume.put_pair(&pairs[0]);
    tls_config(folder.path(), port, "secret/");
    let gateway = Gateway::start_in(folder, "gateway.yaml", &[]);
    assert_eq!(shown(port), pin(&pairs[0]));
    let mut kept = trusting(port, &ca);
    kept.get("a.test", "/");
    let trusted = ca.cert.clone();
    let asking = Asking::start(move || connected(port, &trusted));
    for (number, pair) in pairs[1..].iter().enumerate() {
        volume.put_pair(pair);
        let told = gateway.reload_by("files", number);
        assert!(told.starts_with("applied"), "{told}");
        assert_eq!(shown(port), pin(pair));
    }
    assert_eq!(
        kept.get("a.test", "/").text(),
        "hello",
        "a connection goes on with the certificate that it has"
    );
    asking.end();
    assert_eq!(gateway.reloads_by("files"), 2, "one for each swap: {}", gateway.stderr());
}

#[test]
fn a_certificate_without_its_key_is_refused_until_the_key_comes() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let [old, new] = [0, 1].map(|_| certs.server(&ca, &["a.test"]));
    let port = ports::free();
    let folder = tempfile::tempdir().unwrap();
    for (name, from) in [("tls.crt", &old.cert), ("tls.key", &old.key)] {
        fs::copy(from, folder.path().join(name)).unwrap();
    }
    tls_config(folder.path(), port, "");
    let gateway = Gateway::start_in(folder, "gateway.yaml", &[]);
    let trusted = ca.cert.clone();
    let asking = Asking::start(move || connected(port, &trusted));

    replace(&gateway.folder().join("tls.crt"), &fs::read(&new.cert).unwrap());
    let told = gateway.reload_by("files", 0);
    let running = told.rsplit("config ").next().unwrap().trim_end_matches(" goes on").to_owned();
    assert_eq!(told, format!("refused: 1 problem; nothing has changed, config {running} goes on"));
    let refusal = format!(
        "    {}:4:44  listeners.web.tls.certificates[0].key\n    \
         the key does not belong to the first certificate of `tls.crt`\n    \
         hint: the file's first certificate has to be the key's own, the rest of its chain behind it",
        gateway.config().display()
    );
    gateway.wait_for("hint: the file's first certificate");
    assert!(gateway.stderr().contains(&refusal), "{}\n{refusal}", gateway.stderr());
    assert_eq!(shown(port), pin(&old));

    replace(&gateway.folder().join("tls.key"), &fs::read(&new.key).unwrap());
    let told = gateway.reload_by("files", 1);
    assert!(told.starts_with("applied"), "{told}");
    assert_eq!(shown(port), pin(&new));
    asking.end();
}

#[test]
fn a_file_that_is_truncated_or_gone_changes_nothing_and_its_return_does() {
    let port = ports::free();
    let folder = tempfile::tempdir().unwrap();
    let text = |body: &str| {
        format!(
            "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\nroutes:\n  \
             - {{ match: {{ paths: [/page] }}, respond: {{ file: page.html }} }}\n  - {{ respond: {{ body: {body} }} }}\n"
        )
    };
    fs::write(folder.path().join("page.html"), "first").unwrap();
    fs::write(folder.path().join("gateway.yaml"), text("one")).unwrap();
    let gateway = Gateway::start_in(folder, "gateway.yaml", &[]);
    let asking = Asking::start(move || Client::plain(port));
    let (config, page) = (gateway.config(), gateway.folder().join("page.html"));
    let mut seen = 0;
    let mut check = |what: &str, change: &dyn Fn(), outcome: &str, bodies: [&str; 2]| {
        change();
        let told = gateway.reload_by("files", seen);
        seen += 1;
        assert!(told.starts_with(outcome), "{what}: {told}");
        let got = ["/", "/page"].map(|path| client::get(port, "a.test", path).text());
        assert_eq!(got, bodies, "{what}");
    };
    let write = |path: &Path, text: &str| fs::write(path, text).unwrap();
    let whole = text("two");
    check("truncated in place", &|| write(&config, &whole[..whole.len() - 9]), "refused", ["one", "first"]);
    check("the rest of it", &|| write(&config, &whole), "applied", ["two", "first"]);
    check("emptied", &|| write(&config, ""), "refused", ["two", "first"]);
    check("gone", &|| fs::remove_file(&config).unwrap(), "refused", ["two", "first"]);
    check("as it was", &|| write(&config, &whole), "unchanged", ["two", "first"]);
    check("gone again", &|| fs::remove_file(&config).unwrap(), "refused", ["two", "first"]);
    check("made anew", &|| write(&config, &text("three")), "applied", ["three", "first"]);
    check("a page gone", &|| fs::remove_file(&page).unwrap(), "refused", ["three", "first"]);
    check("a page made anew", &|| replace(&page, b"second"), "applied", ["three", "second"]);
    asking.end();
    assert_eq!(gateway.reloads_by("files"), seen, "{}", gateway.stderr());
}

#[test]
fn an_access_log_on_a_full_disk_harms_neither_requests_nor_reloads() {
    let port = ports::free();
    let folder = tempfile::tempdir().unwrap();
    let text = |body: &str| {
        format!(
            "version: 1\naccess_log: {{ path: /dev/full }}\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\n\
             routes: [{{ respond: {{ body: {body} }} }}]\n"
        )
    };
    fs::write(folder.path().join("gateway.yaml"), text("one")).unwrap();
    let gateway = Gateway::start_in(folder, "gateway.yaml", &[]);
    let asking = Asking::start(move || Client::plain(port));
    replace(&gateway.config(), text("two").as_bytes());
    assert!(gateway.reload_by("files", 0).starts_with("applied"), "{}", gateway.stderr());
    assert_eq!(client::get(port, "a.test", "/").text(), "two");
    assert!(gateway.hang_up().starts_with("signal: unchanged"), "{}", gateway.stderr());
    asking.end();
    assert!(gateway.stop().success(), "{}", gateway.stderr());
}

#[test]
fn a_config_that_was_cut_off_by_a_full_disk_is_refused_and_mended_when_there_is_room() {
    let disk = tempfile::tempdir().unwrap();
    let port = ports::free();
    // In brackets: wherever it is cut off, it is broken.
    let text = |body: &str, routes: usize| {
        let routes: String = (0..routes)
            .map(|number| format!("  {{ match: {{ paths: [/{number}] }}, respond: {{ body: {body} }} }},\n"))
            .collect();
        format!(
            "{{ version: 1, access_log: {{ path: access.log }}, listeners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }},\n\
             routes: [\n{routes}  {{ respond: {{ body: {body} }} }} ] }}\n"
        )
    };
    // A small disk of its own, which only the gateway and what looks through its eyes can see.
    let script = "mount -t tmpfs -o size=128k none \"$1\" && cd \"$1\" && printf %s \"$2\" > gateway.yaml && \
                  exec \"$3\" run -c \"$1/gateway.yaml\"";
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-ec", script, "sh"]).arg(disk.path()).arg(text("one", 0)).arg(binary());
    let process = Process::spawn("vestibule on a small disk", command.env("RUST_LOG", "info"));
    process.wait_for("ready: listening on");
    let seen = PathBuf::from(format!("/proc/{}/root{}", process.pid(), disk.path().display()));
    let asking = Asking::start(move || Client::plain(port));

    let filler = fs::File::create(seen.join("filler")).unwrap();
    let full = std::iter::repeat_with(|| (&filler).write_all(&[0; 1024])).find_map(Result::err).unwrap();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let cut_off = fs::write(seen.join("gateway.yaml"), text("two", 400)).unwrap_err();
    assert_eq!(cut_off.kind(), std::io::ErrorKind::StorageFull);
    process.wait_for("reload by files: refused: ");
    assert_eq!(client::get(port, "a.test", "/").text(), "one");

    drop(filler);
    fs::remove_file(seen.join("filler")).unwrap();
    fs::write(seen.join("gateway.yaml"), text("two", 400)).unwrap();
    process.wait_for("reload by files: applied: ");
    assert_eq!(client::get(port, "a.test", "/399").text(), "two");
    asking.end();
    client::get(port, "a.test", "/last");
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(seen.join("access.log")).unwrap().contains("/last") {
        assert!(Instant::now() < deadline, "the access log does not go on where there is room again");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(process.stop().success());
}

#[test]
fn a_thousand_reloads_leave_nothing_behind() {
    const WARM: usize = 100;
    const ALL: usize = 1000;
    /// 13 KB for each reload, where a snapshot has ten times that; so much comes and goes with the allocator.
    const MORE_KB: u64 = 12 * 1024;
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let origins = [Origin::echo(), Origin::echo()];
    let [web, tls, other] = [0; 3].map(|_| ports::free());
    let folder = tempfile::tempdir().unwrap();
    let config = |number: usize| {
        let pair = certs.server(&ca, &["a.test"]);
        let listener = format!("  other: {{ address: \"127.0.0.1:{other}\" }}\n").repeat(number);
        let routes: String = (0..50).map(|route| format!("  - {{ match: {{ paths: [/{number}/{route}] }}, upstream: two, plugins: [retry: {{ attempts: 3, budget: {}% }}] }}\n", number + 20)).collect();
        format!(
            "version: 1\naccess_log: {{ format: none }}\nlisteners:\n  web: {{ address: \"127.0.0.1:{web}\" }}\n{listener}  \
             tls: {{ address: \"127.0.0.1:{tls}\", tls: {{ certificates: [{{ cert: {}, key: {} }}] }} }}\n\
             upstreams:\n  one: {{ endpoints: [\"{}\"] }}\n  two: {{ endpoints: [\"{}\"], tls: {{ verify: {{ ca: {} }} }} }}\n\
             plugins: [headers: {{ response: {{ set: {{ x-number: \"{number}\" }} }} }}, request_id: {{}}]\nroutes:\n{routes}  - upstream: one\n",
            quoted(&pair.cert),
            quoted(&pair.key),
            origins[number].address(),
            origins[1 - number].address(),
            quoted(&ca.cert),
        )
    };
    let names = ["even.yaml", "odd.yaml"];
    for (number, name) in names.into_iter().enumerate() {
        fs::write(folder.path().join(name), config(number)).unwrap();
    }
    link(folder.path(), "gateway.yaml", names[0]);
    let gateway = Gateway::start_in(folder, "gateway.yaml", &[]);
    let trusted = ca.cert.clone();
    let askings =
        [Asking::start(move || Client::plain(web)), Asking::start(move || connected(tls, &trusted))];
    let mut warm = None;
    for number in 1..=ALL {
        link(gateway.folder(), "gateway.yaml", names[number % 2]);
        gateway.signal(libc::SIGHUP);
        let told = gateway.reload_by("signal", number - 1);
        // The watch may have been first.
        assert!(!told.starts_with("refused"), "reload {number}: {told}");
        takes_connections(other, number % 2 == 1);
        if number == WARM {
            warm = Some(Size::of(&gateway));
        }
    }
    askings.into_iter().for_each(Asking::end);
    let (warm, all) = (warm.unwrap(), Size::of(&gateway));
    assert_eq!(gateway.stderr().matches(": applied: ").count(), ALL, "each once");
    eprintln!("after {WARM} reloads: {warm:?}; after {ALL}: {all:?}");
    assert!(all.resident_kb < warm.resident_kb + MORE_KB, "{warm:?} has become {all:?}");
    // What clients and upstreams have open comes and goes.
    assert!(all.descriptors <= warm.descriptors + 8, "{warm:?} has become {all:?}");
    assert!(all.threads <= warm.threads + 4, "{warm:?} has become {all:?}");
}

#[test]
fn without_watching_a_changed_file_waits_for_a_signal() {
    let port = ports::free();
    let folder = tempfile::tempdir().unwrap();
    let text = |body: &str| {
        format!(
            "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\nroutes: [{{ respond: {{ body: {body} }} }}]\n"
        )
    };
    fs::write(folder.path().join("gateway.yaml"), text("one")).unwrap();
    let gateway = Gateway::start_in(folder, "gateway.yaml", &["--no-watch"]);
    replace(&gateway.config(), text("two").as_bytes());
    // The watch tells of a change after 150 ms of quiet.
    assert!(gateway.stays_for(Duration::from_millis(700)));
    assert_eq!((gateway.reloads_by("files"), client::get(port, "a.test", "/").text().as_str()), (0, "one"));
    assert!(gateway.hang_up().starts_with("signal: applied"), "{}", gateway.stderr());
    assert_eq!(client::get(port, "a.test", "/").text(), "two");
}

#[test]
fn sigterm_in_the_middle_of_a_reload_ends_the_process_in_time() {
    let port = ports::free();
    let folder = tempfile::tempdir().unwrap();
    let text = |more: &str| {
        format!(
            "version: 1\nserver: {{ drain_timeout: 1s }}\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\n\
             routes: [{{ respond: {{ body: one }} }}{more}]\n"
        )
    };
    fs::write(folder.path().join("gateway.yaml"), text("")).unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let gateway = Gateway::start_in(folder, "gateway.yaml", &["--no-watch"]);
    replace(&gateway.config(), text(", { match: { paths: [/pipe] }, respond: { file: pipe } }").as_bytes());
    gateway.signal(libc::SIGHUP);
    // It can be opened once somebody reads it; and nothing is ever written, as by a disk that is gone.
    let deadline = Instant::now() + PATIENCE;
    let _pipe = loop {
        let opened = fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&pipe);
        if let Ok(pipe) = opened {
            break pipe;
        }
        assert!(Instant::now() < deadline, "nobody reads the pipe");
        thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(client::get(port, "a.test", "/").text(), "one", "requests do not wait for it");
    let began = Instant::now();
    gateway.signal(libc::SIGTERM);
    assert!(gateway.wait().success(), "{}", gateway.stderr());
    assert!(began.elapsed() < Duration::from_secs(3), "it took {:?}", began.elapsed());
}

/// A folder as Kubernetes mounts a ConfigMap or a Secret: its names are links into `..data`, which is a link itself.
struct Volume {
    folder: PathBuf,
    version: usize,
}

impl Volume {
    fn new(folder: &Path) -> Self {
        fs::create_dir(folder).unwrap();
        Self { folder: folder.to_owned(), version: 0 }
    }

    /// Swaps what is there for these files, by one rename, and deletes what was there.
    fn put(&mut self, files: &[(&str, &[u8])]) {
        let before = self.folder.join(format!("..{}", self.version));
        self.version += 1;
        let name = format!("..{}", self.version);
        fs::create_dir(self.folder.join(&name)).unwrap();
        for (file, bytes) in files {
            fs::write(self.folder.join(&name).join(file), bytes).unwrap();
        }
        link(&self.folder, "..data", &name);
        for (file, _) in files {
            if !self.folder.join(file).is_symlink() {
                symlink(Path::new("..data").join(file), self.folder.join(file)).unwrap();
            }
        }
        let _ = fs::remove_dir_all(before);
    }

    fn put_pair(&mut self, pair: &Pair) {
        let [cert, key] = [&pair.cert, &pair.key].map(|path| fs::read(path).unwrap());
        self.put(&[("tls.crt", &cert), ("tls.key", &key)]);
    }
}

/// Between two rounds of a client that asks all the while.
const PAUSE: Duration = Duration::from_millis(20);

/// A client that asks all the while, once on each connection and then many times on one.
struct Asking {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<usize, String>>,
}

impl Asking {
    fn start(connect: impl Fn() -> Client + Send + 'static) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let until = is_over.clone();
        let mut kept = connect();
        let thread = thread::spawn(move || {
            let mut asked = 0;
            while !until.load(Ordering::Acquire) {
                let mut new = connect();
                for client in [&mut kept, &mut new] {
                    client
                        .try_send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
                        .map_err(|e| format!("{asked}: {e}"))?;
                    let response = client.try_response().map_err(|e| format!("{asked}: {e}"))?;
                    if response.status != 200 || response.header("connection") == Some("close") {
                        return Err(format!("{asked}: {response:?}"));
                    }
                    asked += 1;
                }
                thread::sleep(PAUSE);
            }
            Ok(asked)
        });
        Self { is_over, thread }
    }

    /// Panics where any request failed.
    fn end(self) {
        self.is_over.store(true, Ordering::Release);
        let asked = self.thread.join().unwrap().unwrap_or_else(|failed| panic!("a request failed: {failed}"));
        assert!(asked > 1, "hardly anything was asked");
    }
}

/// How much of the machine a process has.
#[derive(Debug)]
struct Size {
    resident_kb: u64,
    descriptors: usize,
    threads: u64,
}

impl Size {
    /// As soon as it is quiet: the smallest of a second.
    fn of(gateway: &Gateway) -> Self {
        let measured = (0..10).map(|_| {
            gateway.stays_for(Duration::from_millis(100));
            let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
            let number = |key: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
                line.split_whitespace().next().unwrap().parse().unwrap()
            };
            let descriptors = fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count();
            Self { resident_kb: number("VmRSS:"), descriptors, threads: number("Threads:") }
        });
        measured.min_by_key(|size| size.resident_kb).unwrap()
    }
}

/// A configuration of one TLS listener, whose certificate is in this folder below.
fn tls_config(folder: &Path, port: u16, below: &str) {
    let text = format!(
        "version: 1\nlisteners:\n  web: {{ address: \"127.0.0.1:{port}\",\n    tls: {{ certificates: [{{ cert: {below}tls.crt, key: {below}tls.key }}] }} }}\n\
         routes: [{{ respond: {{ body: hello }} }}]\n"
    );
    fs::write(folder.join("gateway.yaml"), text).unwrap();
}

/// The pin of the certificate of the next handshake.
fn shown(port: u16) -> String {
    Client::tls(port, &ClientTls::default()).unwrap().peer_pin().unwrap()
}

/// Waits until somebody listens there, or nobody does: an address is let go of a moment after the reload.
fn takes_connections(port: u16, wanted: bool) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_ok() != wanted {
        assert!(Instant::now() < deadline, "port {port}: {}", !wanted);
        thread::sleep(Duration::from_millis(1));
    }
}

fn trusting(port: u16, ca: &Authority) -> Client {
    connected(port, &ca.cert)
}

fn connected(port: u16, ca: &Path) -> Client {
    Client::tls(port, &ClientTls { sni: Some("a.test"), ca: Some(ca), certificate: None }).unwrap()
}

/// Replaces a file at once, as careful programs do.
fn replace(path: &Path, bytes: &[u8]) {
    let mut aside = OsString::from(path);
    aside.push(".new");
    fs::write(&aside, bytes).unwrap();
    fs::rename(&aside, path).unwrap();
}

/// Makes the name in the folder a link to this target, at once.
fn link(folder: &Path, name: &str, target: &str) {
    let aside = folder.join("..aside");
    symlink(target, &aside).unwrap();
    fs::rename(&aside, folder.join(name)).unwrap();
}
