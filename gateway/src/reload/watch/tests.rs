//! Real files and real inotify; where inotify is not what is shown, there is none.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::time::timeout;
use vestibule_plugins::Registry;

use super::*;
use crate::snapshot::{Workshop, load_noting};

/// A look never comes, so what is told was told by the kernel.
const BY_INOTIFY: Pace = Pace { look: Duration::from_secs(3600), ..PACE };

/// Between two steps of a test nothing takes so long, however busy the machine is.
const LONG: Duration = Duration::from_millis(300);

const GOOD: &str = "version: 1\nlisteners: { web: { address: '127.0.0.1:0' } }\n\
                    routes: [{ name: a, respond: { status: 200, file: page.html } }]\n";

fn sources(path: &Path) -> Sources {
    load_noting(path, &Workshop::new(Registry::builtin())).1
}

/// A watch on what a load of this path looks at, and the path.
struct Scene {
    watch: Watch,
    path: PathBuf,
    pace: Pace,
}

impl Scene {
    fn new(path: impl Into<PathBuf>) -> Self {
        Self::with(path, BY_INOTIFY, folders::open)
    }

    fn with(path: impl Into<PathBuf>, pace: Pace, open: Open) -> Self {
        let path = path.into();
        let watch = Watch::with(&sources(&path), pace, open).unwrap();
        Self { watch, path, pace }
    }

    /// What the reload does: it waits, loads, and follows what it looked at.
    async fn tells(&mut self, of: &str) {
        let told = timeout(Duration::from_secs(20), self.watch.changed()).await;
        told.unwrap_or_else(|_| panic!("{of}: not told"));
        self.watch.follow(&sources(&self.path));
    }

    /// In all it takes longer than two times of quiet, and no step as long as one.
    async fn writes_in_steps(&mut self, file: &Path) {
        for length in 0..8 {
            fs::write(file, &GOOD[..length * GOOD.len() / 7]).unwrap();
            tokio::time::sleep(LONG / 3).await;
            assert!(!self.watch.told.has_changed().unwrap(), "told of step {length}");
        }
    }

    async fn tells_nothing(&mut self, of: &str) {
        // A change that is noticed now is told of after one or two times of quiet.
        let told = timeout(self.pace.quiet.min(LONG) * 3, self.watch.changed()).await;
        assert!(told.is_err(), "{of}: told");
    }
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new~");
    fs::write(&new, text).unwrap();
    fs::rename(&new, file).unwrap();
}

#[tokio::test]
async fn each_way_to_save_a_file_is_told_of_once() {
    let folder = folder(&[("gateway.yaml", GOOD), ("page.html", "1")]);
    for name in ["gateway.yaml", "page.html"] {
        let file = folder.path().join(name);
        let mut scene = Scene::new(folder.path().join("gateway.yaml"));
        scene.tells_nothing("no change").await;

        fs::write(&file, "version: 1\n").unwrap();
        scene.tells("a write").await;
        replace(&file, GOOD);
        scene.tells("an atomic rename").await;
        fs::rename(&file, folder.path().join("backup")).unwrap();
        fs::write(&file, "version: 1\n").unwrap();
        scene.tells("a backup and a new file").await;
        fs::remove_file(&file).unwrap();
        scene.tells("a removal").await;
        fs::write(&file, GOOD).unwrap();
        scene.tells("a new file").await;
        scene.tells_nothing("no further change").await;
    }
}

#[tokio::test]
async fn a_file_that_is_written_in_steps_is_told_of_when_it_is_whole() {
    let folder = folder(&[("gateway.yaml", GOOD)]);
    let file = folder.path().join("gateway.yaml");
    let mut scene = Scene::with(&file, Pace { quiet: LONG, most: LONG * 100, ..BY_INOTIFY }, folders::open);
    scene.writes_in_steps(&file).await;
    scene.tells("the writes").await;
    scene.tells_nothing("the same writes").await;
}

#[tokio::test]
async fn what_is_never_quiet_is_told_of_all_the_same() {
    let folder = folder(&[("gateway.yaml", GOOD)]);
    let file = folder.path().join("gateway.yaml");
    let pace = Pace { most: PACE.quiet * 3, ..BY_INOTIFY };
    let mut scene = Scene::with(&file, pace, folders::open);
    let writing = tokio::spawn(async move {
        for number in 0.. {
            fs::write(&file, format!("{GOOD}# {number}\n")).unwrap();
            tokio::time::sleep(PACE.quiet / 5).await;
        }
    });
    scene.tells("the first writes").await;
    scene.tells("the next writes").await;
    assert!(!writing.is_finished());
    writing.abort();
}

/// As the kubelet changes a ConfigMap that is mounted: `AtomicWriter` of Kubernetes.
fn swap(volume: &Path, version: &str, text: &str) {
    let old = fs::read_link(volume.join("..data")).ok();
    fs::create_dir(volume.join(version)).unwrap();
    fs::write(volume.join(version).join("routes.yaml"), text).unwrap();
    symlink(version, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    match old {
        Some(old) => fs::remove_dir_all(volume.join(old)).unwrap(),
        None => symlink("..data/routes.yaml", volume.join("routes.yaml")).unwrap(),
    }
}

#[tokio::test]
async fn a_config_map_that_is_swapped_is_told_of_each_time() {
    for names_the_folder in [false, true] {
        let volume = folder(&[]);
        swap(volume.path(), "..2026_11_21.1", GOOD);
        let path = volume.path().join("routes.yaml");
        let mut scene = Scene::new(if names_the_folder { volume.path().to_owned() } else { path });
        for version in 2..5 {
            swap(volume.path(), &format!("..2026_11_21.{version}"), GOOD);
            scene.tells("a swap").await;
        }
        scene.tells_nothing("no further swap").await;
    }
}

#[tokio::test]
async fn a_link_to_another_folder_is_followed_on_its_whole_way() {
    let base = folder(&[]);
    for colour in ["blue", "green"] {
        fs::create_dir(base.path().join(colour)).unwrap();
        fs::write(base.path().join(colour).join("gateway.yaml"), GOOD).unwrap();
    }
    fs::create_dir(base.path().join("links")).unwrap();
    symlink("../blue", base.path().join("links/live")).unwrap();
    let mut scene = Scene::new(base.path().join("links/live/gateway.yaml"));
    fs::write(base.path().join("green/gateway.yaml"), "version: 1\n").unwrap();
    scene.tells_nothing("what the link does not lead to").await;
    symlink(base.path().join("green"), base.path().join("links/next")).unwrap();
    fs::rename(base.path().join("links/next"), base.path().join("links/live")).unwrap();
    scene.tells("the link").await;
    fs::write(base.path().join("green/gateway.yaml"), GOOD).unwrap();
    scene.tells("what the link leads to").await;
}

#[tokio::test]
async fn a_folder_that_is_deleted_and_made_again_is_found_again() {
    let base = folder(&[]);
    let conf = base.path().join("deep/conf");
    let make = |text: &str| {
        fs::create_dir_all(&conf).unwrap();
        fs::write(conf.join("gateway.yaml"), text).unwrap();
    };
    make(GOOD);
    let mut scene = Scene::new(conf.join("gateway.yaml"));
    for _ in 0..2 {
        fs::remove_dir_all(base.path().join("deep")).unwrap();
        scene.tells("the folder's end").await;
        make(GOOD);
        scene.tells("the new folder").await;
        fs::write(conf.join("gateway.yaml"), "version: 1\n").unwrap();
        scene.tells("a write in the new folder").await;
        // At once, so that a new folder may have the inode of the old one.
        fs::remove_dir_all(&conf).unwrap();
        make("version: 1\n");
        scene.tells("a new folder at once").await;
        replace(&conf.join("gateway.yaml"), GOOD);
        scene.tells("a file in the folder that came at once").await;
        // And another one by its name.
        fs::rename(&conf, base.path().join("old")).unwrap();
        make("version: 1\n");
        scene.tells("another folder in its place").await;
        replace(&conf.join("gateway.yaml"), GOOD);
        scene.tells("a file in the other folder").await;
        fs::remove_dir_all(base.path().join("old")).unwrap();
        scene.tells_nothing("the folder that was moved away").await;
    }
}

#[tokio::test]
async fn a_folder_of_files_is_told_of_when_one_comes_or_goes() {
    let base = folder(&[("a.yaml", GOOD)]);
    let mut scene = Scene::new(base.path());
    for name in ["notes.txt", ".hidden.yaml", "b.yml"] {
        fs::write(base.path().join(name), "version: 1\n").unwrap();
    }
    scene.tells_nothing("what is not read").await;
    fs::write(base.path().join("b.yaml"), "version: 1\n").unwrap();
    scene.tells("a new file").await;
    fs::write(base.path().join("b.yaml"), "version: 1\n\n").unwrap();
    scene.tells("a change of the new file").await;
    fs::rename(base.path().join("b.yaml"), base.path().join("b.yaml~")).unwrap();
    scene.tells("a file that went").await;
}

#[tokio::test]
async fn what_the_file_names_is_followed_wherever_it_lies() {
    let tls = folder(&[
        ("web.crt", "1"),
        ("web.key", "ENCRYPTED"),
        ("clients.crt", "1"),
        ("gw.pass", "1"),
        ("token", "1"),
    ]);
    fs::create_dir(tls.path().join("cas")).unwrap();
    fs::write(tls.path().join("cas/a.crt"), "1").unwrap();
    let at = tls.path().display();
    let text = format!(
        "version: 1\nadmin: {{ address: '127.0.0.1:0', token_file: {at}/token }}\n\
         listeners: {{ web: {{ address: '127.0.0.1:0', tls: {{\n\
         \x20 certificates: [{{ cert: {at}/web.crt, key: {at}/web.key, password_file: {at}/gw.pass }}],\n\
         \x20 client_certificate: {{ ca: {at}/clients.crt }} }} }} }}\n\
         upstreams: {{ a: {{ endpoints: 'a:1', tls: {{ verify: {{ ca: {at}/cas, crl: {at}/list.crl }} }} }} }}\n"
    );
    let base = folder(&[("gateway.yaml", &text)]);
    // It is refused each time, for the files hold no PEM; and it is not told of again for that.
    let mut scene = Scene::new(base.path().join("gateway.yaml"));
    for name in
        ["gw.pass", "web.crt", "web.key", "clients.crt", "token", "cas/a.crt", "cas/b.crt", "list.crl"]
    {
        fs::write(tls.path().join(name), "2").unwrap();
        scene.tells(name).await;
    }
    fs::write(tls.path().join("cas/.hidden"), "2").unwrap();
    fs::write(tls.path().join("unrelated.crt"), "2").unwrap();
    scene.tells_nothing("what is not named").await;
}

#[tokio::test]
async fn what_the_gateway_writes_beside_its_files_wakes_nobody() {
    let text = "version: 1\naccess_log: { path: access.log }\n";
    let folder = folder(&[("gateway.yaml", text), ("access.log", "")]);
    // The first event that matters begins a wait for quiet, which here never ends: the next one can be seen to lie there.
    let never = Duration::from_secs(3600);
    let pace = Pace { quiet: never, most: never, look: never };
    let mut scene = Scene::with(folder.path().join("gateway.yaml"), pace, folders::open);
    let is_touched = |scene: &Scene| scene.watch.shared.state().touched.is_some();
    for _ in 0..1000 {
        fs::write(folder.path().join("access.log"), "a line\n").unwrap();
    }
    scene.tells_nothing("a log").await;
    assert!(!is_touched(&scene));
    let begun = Instant::now();
    while !is_touched(&scene) {
        assert!(begun.elapsed() < Duration::from_secs(20), "a source is written, and nobody wakes");
        fs::write(folder.path().join("gateway.yaml"), GOOD).unwrap();
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_changed_before_it_was_followed_is_told_of() {
    let folder = folder(&[("gateway.yaml", GOOD)]);
    let file = folder.path().join("gateway.yaml");
    let before = sources(&file);
    fs::write(&file, "version: 1\n").unwrap();
    let mut watch = Watch::with(&before, BY_INOTIFY, folders::open).unwrap();
    timeout(Duration::from_secs(20), watch.changed()).await.unwrap();
    // The load that follows read the new file: what was told before is no news.
    fs::write(&file, GOOD).unwrap();
    tokio::time::sleep(PACE.quiet * 2).await;
    watch.follow(&sources(&file));
    assert!(timeout(PACE.quiet * 3, watch.changed()).await.is_err());
}

#[tokio::test]
async fn without_inotify_a_look_finds_what_changed() {
    let pace = Pace { quiet: LONG, most: LONG * 100, look: Duration::from_millis(20) };
    let folder = folder(&[("gateway.yaml", GOOD), ("page.html", "1")]);
    let none: Open = |_| Err(notify::Error::new(notify::ErrorKind::MaxFilesWatch));
    let mut scene = Scene::with(folder.path().join("gateway.yaml"), pace, none);
    scene.tells_nothing("no change").await;
    fs::write(folder.path().join("page.html"), "2").unwrap();
    scene.tells("a write").await;
    let file = scene.path.clone();
    scene.writes_in_steps(&file).await;
    scene.tells("writes in steps").await;
    scene.tells_nothing("the same steps").await;
}

#[tokio::test]
async fn a_watch_that_is_dropped_ends_its_thread() {
    let folder = folder(&[("gateway.yaml", GOOD)]);
    let scene = Scene::new(folder.path().join("gateway.yaml"));
    let (shared, mut told) = (scene.watch.shared.clone(), scene.watch.told.clone());
    drop(scene);
    assert!(timeout(Duration::from_secs(20), told.changed()).await.unwrap().is_err());
    assert!(shared.state().is_over);
}
