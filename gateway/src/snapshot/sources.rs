//! What a configuration was made of: every file and folder that a load looked at, and how each was before it was
//! read. What is in a file stays unknown here, but for a hash that is never shown.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use openssl::sha::{Sha256, sha256};

/// Every path that a load looked at, whether or not anything was there.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Sources(BTreeMap<(PathBuf, Names), Source>);

/// Which names of a folder count, where a folder is what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Names {
    /// None: a file is looked for.
    None,
    /// Those of the folder that `-c` names: `*.yaml`, not hidden.
    Yaml,
    /// Those of a folder of certificates: files that are not hidden.
    Visible,
}

/// Tells whether two loads read the same, secrets included. It has no `Debug`: a short secret could be guessed from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

#[derive(Clone, PartialEq, Eq)]
struct Source {
    seen: Seen,
    /// The SHA-256 of what was read, if anything was.
    content: Option<[u8; 32]>,
}

/// How a path was, by all that can be known without reading it.
#[derive(Clone, PartialEq, Eq)]
enum Seen {
    /// There is nothing, or nothing that may be looked at.
    Nothing(io::ErrorKind),
    File(Stamp),
    Folder(Result<Vec<OsString>, io::ErrorKind>),
    /// A pipe or a device: it is read once, and neither its times nor a second look would tell anything.
    Stream,
}

/// A file that was replaced has another inode, one that was written another time of change, which no program can set.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Linux takes the times of files from a clock that ticks every 10 ms at the slowest: what is written twice within a
/// tick has the same times. Twice that is more than a tick.
const GRAIN: Duration = Duration::from_millis(20);

impl Sources {
    /// Whether any of them is not as it was when it was noted. It reads no file; but it asks the file system, so it is
    /// for a thread that may wait.
    pub fn have_changed(&self) -> bool {
        self.0.iter().any(|((path, names), source)| look(path, *names) != source.seen)
    }

    /// The same paths as they are now.
    pub fn as_they_are(&self) -> Self {
        let now = self.0.iter().map(|((path, names), source)| {
            let source = Source { seen: look(path, *names), content: source.content };
            ((path.clone(), *names), source)
        });
        Self(now.collect())
    }

    /// Over the paths and all that was read of them, secrets included.
    pub fn digest(&self) -> Digest {
        let mut digest = Sha256::new();
        for ((path, _), source) in &self.0 {
            let path = path.as_os_str().as_bytes();
            digest.update(&path.len().to_be_bytes());
            digest.update(path);
            digest.update(&[source.content.is_some().into()]);
            digest.update(source.content.as_ref().map_or(&[], |content| content));
        }
        Digest(digest.finish())
    }

    /// Each path once, as it was spelt or joined to the folder of the configuration.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let mut last = None;
        let paths = self.0.keys().map(|(path, _)| path.as_path());
        paths.filter(move |path| last.replace(*path) != Some(*path))
    }

    /// What can be waited for: each path, and which names below it count.
    pub(crate) fn places(&self) -> impl Iterator<Item = (&Path, Names)> {
        let lasting = self.0.iter().filter(|(_, source)| source.seen != Seen::Stream);
        lasting.map(|((path, names), _)| (path.as_path(), *names))
    }

    /// Keeps how a path is, unless it was noted before. To be called before it is read: what changes in between is then
    /// seen later. It waits a moment where a file was written just now.
    pub(crate) fn note(&mut self, path: &Path, names: Names) {
        self.0.entry((path.to_owned(), names)).or_insert_with(|| {
            let mut seen = look(path, names);
            // Else its next change could leave no trace.
            if let Some(rest) = seen.age().and_then(|age| GRAIN.checked_sub(age)) {
                std::thread::sleep(rest);
                seen = look(path, names);
            }
            Source { seen, content: None }
        });
    }

    /// Keeps the hash of what was read of a path.
    pub(crate) fn has_read(&mut self, path: &Path, bytes: &[u8]) {
        if let Some(source) = self.0.get_mut(&(path.to_owned(), Names::None)) {
            source.content = Some(sha256(bytes));
        }
    }

    /// Adds what was noted later.
    pub(crate) fn extend(&mut self, later: Self) {
        for (key, source) in later.0 {
            self.0.entry(key).or_insert(source);
        }
    }

    /// Forgets paths: what the gateway writes itself is no source, whatever else names it.
    pub(crate) fn forget(&mut self, is_forgotten: impl Fn(&Path) -> bool) {
        self.0.retain(|(path, _), _| !is_forgotten(path));
    }
}

/// The paths alone.
impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.paths()).finish()
    }
}

impl Names {
    /// Those that a folder holds, in their order. Links are followed: Kubernetes mounts each file of a ConfigMap as one.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(self, folder: &Path) -> io::Result<Vec<OsString>> {
        if self == Self::None {
            return Ok(Vec::new());
        }
        let names: io::Result<Vec<_>> =
            fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name())).collect();
        let mut names = names?;
        names.retain(|name| {
            let path = folder.join(name);
            self.include(name) && if self == Self::Yaml { !path.is_dir() } else { path.is_file() }
        });
        names.sort();
        Ok(names)
    }

    /// Whether a file of this name would be among them.
    pub fn include(self, name: &OsStr) -> bool {
        let is_visible = !name.as_bytes().starts_with(b".");
        match self {
            Self::None => false,
            Self::Yaml => is_visible && Path::new(name).extension().is_some_and(|end| end == "yaml"),
            Self::Visible => is_visible,
        }
    }
}

impl Seen {
    /// How long ago a file changed; nothing where its clock is ahead of ours.
    fn age(&self) -> Option<Duration> {
        let Self::File(Stamp { changed: (seconds, nanoseconds), .. }) = self else { return None };
        let since = Duration::new((*seconds).try_into().ok()?, (*nanoseconds).try_into().ok()?);
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + since).ok()
    }
}

fn look(path: &Path, names: Names) -> Seen {
    match fs::metadata(path) {
        Err(error) => Seen::Nothing(error.kind()),
        Ok(found) if found.is_dir() => Seen::Folder(names.list(path).map_err(|error| error.kind())),
        Ok(found) if found.is_file() => Seen::File(Stamp::of(&found)),
        Ok(_) => Seen::Stream,
    }
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;
    use vestibule_plugins::Registry;

    use super::*;
    use crate::config;
    use crate::snapshot::{Snapshot, Workshop, compile, load_noting};

    const YAML: &str = "version: 1\naccess_log: { path: cas/access.log }\n\
        admin: { address: '127.0.0.1:1', token_file: token }\n\
        listeners: { web: { address: '127.0.0.1:0', tls: { certificates: [{ cert: web.crt, key: web.key }] } } }\n\
        upstreams: { a: { endpoints: 'a:1', tls: { key_log: cas/keys.log, verify: { ca: cas } } } }\n\
        routes: [{ name: a, upstream: a }, { name: b, match: { paths: /b }, respond: { file: page.html } }]\n";

    fn certificate(folder: &Path, name: &str) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(folder.join(format!("{name}.crt")), made.cert.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
    }

    fn scene() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        fs::create_dir(at.join("cas")).unwrap();
        for (name, text) in
            [("gateway.yaml", YAML), ("token", "secret\n"), ("page.html", "1"), ("cas/keys.log", "")]
        {
            fs::write(at.join(name), text).unwrap();
        }
        certificate(at, "web");
        certificate(&at.join("cas"), "ca");
        folder
    }

    fn workshop() -> Workshop {
        Workshop::new(Registry::builtin())
    }

    fn load(folder: &Path) -> (Snapshot, Sources) {
        let (loaded, sources) = load_noting(&folder.join("gateway.yaml"), &workshop());
        (loaded.unwrap(), sources)
    }

    #[test]
    fn all_that_was_looked_at_is_a_source_and_nothing_that_is_written() {
        let folder = scene();
        fs::write(folder.path().join("cas/access.log"), "a line\n").unwrap();
        let (_, sources) = load(folder.path());
        let paths: Vec<_> = sources.paths().map(|path| path.strip_prefix(folder.path()).unwrap()).collect();
        let expected =
            ["cas", "cas/ca.crt", "cas/ca.key", "gateway.yaml", "page.html", "token", "web.crt", "web.key"];
        assert_eq!(paths, expected.map(Path::new));
        assert!(!sources.have_changed());
        fs::write(folder.path().join("cas/access.log"), "another line\n").unwrap();
        fs::write(folder.path().join("cas/keys.log"), "a key\n").unwrap();
        assert!(!sources.have_changed());
        assert!(!format!("{sources:?}").contains("content"));
    }

    #[test]
    fn a_load_that_is_refused_tells_what_it_looked_at() {
        let folder = scene();
        let refused = |path: &str| {
            let (loaded, sources) = load_noting(&folder.path().join(path), &workshop());
            assert!(loaded.is_err(), "{path}");
            assert!(!sources.have_changed());
            sources
        };
        let absent = refused("absent.yaml");
        assert_eq!(absent.paths().collect::<Vec<_>>(), [folder.path().join("absent.yaml")]);
        fs::write(folder.path().join("absent.yaml"), "routes: [}").unwrap();
        assert!(absent.have_changed());
        let broken = refused("absent.yaml");
        assert_eq!(broken.paths().count(), 1);

        fs::remove_file(folder.path().join("page.html")).unwrap();
        let incomplete = refused("gateway.yaml");
        assert_eq!(incomplete.paths().count(), 8);
        fs::write(folder.path().join("page.html"), "1").unwrap();
        assert!(incomplete.have_changed());

        let empty = refused("cas");
        fs::write(folder.path().join("cas/a.yaml"), YAML).unwrap();
        assert!(empty.have_changed());
    }

    #[test]
    fn a_change_is_seen_however_small_and_however_soon() {
        let folder = scene();
        let at = |name: &str| folder.path().join(name);
        let check = |what: &str, change: &dyn Fn()| {
            let (_, sources) = load_noting(&at("gateway.yaml"), &workshop());
            change();
            assert!(sources.have_changed(), "{what}");
            assert!(!sources.as_they_are().have_changed(), "{what}");
        };
        for number in 0..20 {
            check("other text of the same length", &|| {
                fs::write(at("page.html"), (number % 10).to_string()).unwrap()
            });
        }
        check("a secret", &|| fs::write(at("token"), "secres\n").unwrap());
        check("a copy in its place", &|| {
            fs::copy(at("page.html"), at("copy")).unwrap();
            fs::rename(at("copy"), at("page.html")).unwrap();
        });
        check("a new CA", &|| fs::write(at("cas/new.crt"), "").unwrap());
        check("a CA that went", &|| fs::remove_file(at("cas/new.crt")).unwrap());
        check("a link in its place", &|| {
            fs::rename(at("page.html"), at("target")).unwrap();
            symlink("absent", at("page.html")).unwrap();
        });
        check("what the link leads to", &|| fs::write(at("absent"), "1").unwrap());
        check("a folder in its place", &|| {
            fs::remove_file(at("token")).unwrap();
            fs::create_dir(at("token")).unwrap();
        });
    }

    #[test]
    fn a_file_is_noted_when_its_next_change_must_show() {
        let folder = scene();
        let file = folder.path().join("page.html");
        fs::write(&file, "2").unwrap();
        Sources::default().note(&file, Names::None);
        assert!(look(&file, Names::None).age().unwrap() >= GRAIN);
    }

    #[test]
    fn the_hash_tells_of_what_is_named_but_not_of_passwords_and_tokens() {
        let folder = scene();
        let at = |name: &str| folder.path().join(name);
        let (first, sources) = load(folder.path());
        let before = (first.hash.clone(), sources.digest());
        assert_eq!(before.0.len(), 12);
        let check = |name: &str, text: &str, is_told: bool| {
            let old = fs::read(at(name)).unwrap();
            fs::write(at(name), text).unwrap();
            let (snapshot, sources) = load(folder.path());
            assert_eq!(snapshot.hash != before.0, is_told, "{name}");
            assert!(sources.digest() != before.1, "{name}");
            fs::write(at(name), old).unwrap();
        };
        check("page.html", "2", true);
        check("token", "another", false);
        check("cas/ca.crt", &fs::read_to_string(at("web.crt")).unwrap(), true);
        check("gateway.yaml", &format!("{YAML}# more\n"), true);
        let (again, sources) = load(folder.path());
        assert!((again.hash, sources.digest()) == before);

        fs::write(at("cas/keys.log"), "a key\n").unwrap();
        let (again, sources) = load(folder.path());
        assert!((again.hash, sources.digest()) == before, "what the gateway writes is no part of it");
        certificate(folder.path(), "web");
        let (rotated, _) = load(folder.path());
        assert_ne!(rotated.hash, before.0);
    }

    #[test]
    fn every_way_to_compile_gives_the_same_hash() {
        let folder = scene();
        let path = folder.path().join("gateway.yaml");
        let (snapshot, _) = load(folder.path());
        let mut loaded = config::load(&path).unwrap();
        assert_eq!(compile(&loaded, &workshop()).unwrap().hash, snapshot.hash);
        // As `doctor` asks each upstream, whether or not a route uses it: files are read in another order.
        loaded.config.routes.rotate_left(1);
        assert_eq!(compile(&loaded, &workshop()).unwrap().hash, snapshot.hash);

        fs::write(&path, "version: 1\nadmin: { address: '127.0.0.1:1', token_file: token }\nlisteners: { web: { address: '127.0.0.1:0' } }\n").unwrap();
        let (plain, _) = load(folder.path());
        assert_eq!(plain.hash, config::load(&path).unwrap().document.hash(), "only a secret is named");
    }
}
