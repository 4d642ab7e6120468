//! The folders in which a change of the sources would show, and inotify on them.
//!
//! A file is watched by its folder, and so is each symbolic link on its way: a file that is replaced, as editors do it,
//! or a link that is, as Kubernetes does it, is another file of which a watch on the old one would never hear.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{ErrorKind, Event, EventHandler, RecommendedWatcher, RecursiveMode, Watcher};

use super::Shared;
use crate::snapshot::Sources;
use crate::snapshot::sources::Names;

/// How inotify is had; tests have it fail.
pub type Open = fn(Handler) -> notify::Result<RecommendedWatcher>;

/// As the system gives it.
pub fn open(handler: Handler) -> notify::Result<RecommendedWatcher> {
    RecommendedWatcher::new(handler, notify::Config::default())
}

/// As many links on a path's way the kernel follows (`ELOOP`, path_resolution(7)).
const MOST_LINKS: usize = 40;
/// What still changes after so many walks is found by the next look.
const MOST_WALKS: usize = 8;

/// The folders that are watched.
pub struct Folders {
    shared: Arc<Shared>,
    inotify: Option<RecommendedWatcher>,
    /// By device and inode: another folder may have taken the name of one that is watched.
    watched: HashMap<PathBuf, (u64, u64)>,
    /// How late a change is found without inotify.
    look: Duration,
    has_warned: bool,
}

impl Folders {
    /// Watches none as yet.
    pub fn new(shared: Arc<Shared>, open: Open, look: Duration) -> Self {
        let opened = open(Handler(shared.clone()));
        let mut folders = Self { shared, inotify: None, watched: HashMap::new(), look, has_warned: false };
        match opened {
            Ok(inotify) => folders.inotify = Some(inotify),
            Err(error) => folders.warn(&error),
        }
        folders
    }

    /// Watches what these sources need, and nothing else.
    pub fn follow(&mut self, sources: &Sources) {
        if self.inotify.is_none() {
            return;
        }
        for _ in 0..MOST_WALKS {
            // What came or went between the walk and the watch nobody told of, so the way is walked again.
            if !self.watch(Needed::by(sources)) {
                break;
            }
        }
    }

    /// Whether any folder is watched that was not before, or is gone that was there.
    fn watch(&mut self, needed: Needed) -> bool {
        let folders: Vec<PathBuf> = needed.0.keys().cloned().collect();
        let gone: Vec<PathBuf> =
            self.watched.keys().filter(|it| !needed.0.contains_key(*it)).cloned().collect();
        let lost = {
            let interest = &mut self.shared.state().interest;
            interest.needed = needed;
            std::mem::take(&mut interest.lost)
        };
        for folder in gone.iter().chain(&lost) {
            self.unwatch(folder);
        }
        let mut has_new = false;
        for folder in folders {
            let Ok(found) = fs::metadata(&folder) else {
                has_new = true;
                continue;
            };
            if self.watched.get(&folder) != Some(&identity(&found)) {
                self.unwatch(&folder);
                has_new |= self.watch_one(folder, &found);
            }
        }
        has_new
    }

    fn watch_one(&mut self, folder: PathBuf, found: &Metadata) -> bool {
        let Some(inotify) = &mut self.inotify else { return false };
        // notify unwraps where its own thread is gone, as it is from the start where the system gave none.
        let watching = AssertUnwindSafe(|| inotify.watch(&folder, RecursiveMode::NonRecursive));
        match catch_unwind(watching) {
            Ok(Ok(())) => {
                self.watched.insert(folder, identity(found));
                true
            }
            Ok(Err(error)) => {
                let is_gone = matches!(error.kind, ErrorKind::PathNotFound);
                if !is_gone {
                    self.warn(&error);
                }
                is_gone
            }
            Err(_) => {
                self.inotify = None;
                self.warn(&notify::Error::generic("its thread is gone"));
                false
            }
        }
    }

    fn unwatch(&mut self, folder: &Path) {
        if self.watched.remove(folder).is_some()
            && let Some(inotify) = &mut self.inotify
        {
            // An error is that the kernel ended the watch already, as it does when a folder is deleted.
            let unwatching = AssertUnwindSafe(|| inotify.unwatch(folder));
            if catch_unwind(unwatching).is_err() {
                self.inotify = None;
                self.warn(&notify::Error::generic("its thread is gone"));
            }
        }
    }

    /// Once, however many folders it is about.
    fn warn(&mut self, error: &notify::Error) {
        if !std::mem::replace(&mut self.has_warned, true) {
            log::warn!("{}", in_plain_words(error, self.look));
        }
    }
}

/// The folders that are needed, and in each the names that matter.
#[derive(Default)]
pub struct Needed(HashMap<PathBuf, Wanted>);

#[derive(Default)]
struct Wanted {
    /// Just these.
    names: HashSet<OsString>,
    /// And all of these kinds.
    listed: BTreeSet<Names>,
}

impl Needed {
    fn by(sources: &Sources) -> Self {
        let mut needed = Self::default();
        for (path, names) in sources.places() {
            needed.add(path, names);
        }
        needed
    }

    /// Walks as the kernel would. The folders that it names have no link in them, as the kernel's events have none.
    fn add(&mut self, path: &Path, listed: Names) {
        let Ok(path) = std::path::absolute(path) else { return };
        let mut at = PathBuf::from("/");
        let mut rest: Vec<OsString> = reversed(&path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            match fs::symlink_metadata(&next) {
                Ok(found) if found.is_dir() => at = next,
                Ok(found) if found.is_symlink() && links < MOST_LINKS => {
                    links += 1;
                    self.folder(&at).names.insert(name);
                    let Ok(target) = fs::read_link(&next) else { return };
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    rest.extend(reversed(&target));
                }
                // A file; or nothing, and then the nearest folder above tells when there is something.
                _ => {
                    self.folder(&at).names.insert(name);
                    return;
                }
            }
        }
        self.folder(&at).listed.insert(listed);
    }

    fn folder(&mut self, folder: &Path) -> &mut Wanted {
        self.0.entry(folder.to_owned()).or_default()
    }

    fn includes(&self, path: &Path) -> bool {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
        self.0.get(folder).is_some_and(|wanted| wanted.includes(name))
    }
}

impl Wanted {
    fn includes(&self, name: &OsStr) -> bool {
        self.names.contains(name) || self.listed.iter().any(|names| names.include(name))
    }
}

/// What inotify's thread is to tell of.
#[derive(Default)]
pub struct Interest {
    needed: Needed,
    /// Watched folders that were deleted or moved, and their watches with them.
    lost: HashSet<PathBuf>,
}

/// Takes the kernel's events, on inotify's own thread.
pub struct Handler(Arc<Shared>);

impl EventHandler for Handler {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        let mut state = self.0.state();
        if state.interest.has_part_in(event) {
            state.touched = Some(Instant::now());
            drop(state);
            self.0.wake.notify_one();
        }
    }
}

impl Interest {
    /// Notes which watches an event ended, and tells whether the sources may have changed. An access log beside them is
    /// written all the time, and is no reason to look.
    fn has_part_in(&mut self, event: notify::Result<Event>) -> bool {
        let Ok(event) = event else { return true };
        if event.need_rescan() {
            // Events were dropped, those that tell of a folder's end perhaps among them.
            self.lost.extend(self.needed.0.keys().cloned());
            return true;
        }
        if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)) {
            return false;
        }
        let ends = matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
        let mut has_part = false;
        for path in &event.paths {
            let is_watched = self.needed.0.contains_key(path);
            if is_watched && ends {
                // notify drops its watches below such a folder too.
                let below = self.needed.0.keys().filter(|folder| folder.starts_with(path));
                self.lost.extend(below.cloned());
            }
            has_part |= is_watched || self.needed.includes(path);
        }
        has_part
    }
}

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// The names of a path, the last one first.
fn reversed(path: &Path) -> Vec<OsString> {
    let names = path.components().filter(|it| matches!(it, Component::Normal(_) | Component::ParentDir));
    names.rev().map(|it| it.as_os_str().to_owned()).collect()
}

fn in_plain_words(error: &notify::Error, look: Duration) -> String {
    let limit = match &error.kind {
        ErrorKind::MaxFilesWatch => Some("fs.inotify.max_user_watches"),
        ErrorKind::Io(error) if error.raw_os_error() == Some(EMFILE) => Some("fs.inotify.max_user_instances"),
        _ => None,
    };
    let why = match (&error.kind, error.paths.first()) {
        (ErrorKind::MaxFilesWatch, _) => "it watches as many folders as it may".to_owned(),
        (ErrorKind::Io(error), Some(folder)) => format!("`{}`: {error}", folder.display()),
        _ => error.to_string(),
    };
    let warning = format!(
        "the system does not tell of every file that changes ({why}): a change may take {look:?} to be noticed"
    );
    match limit {
        Some(limit) => {
            format!("{warning}; `sysctl {limit}` tells the limit, `sysctl -w {limit}=N` raises it")
        }
        None => warning,
    }
}

/// What inotify_init(2) says when its user has as many instances as allowed.
const EMFILE: i32 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_changes_may_be_late_is_told_with_what_helps() {
        let look = Duration::from_secs(5);
        for (error, expected) in [
            (
                notify::Error::new(ErrorKind::MaxFilesWatch).add_path("/etc".into()),
                "the system does not tell of every file that changes (it watches as many folders as it may): a change \
                 may take 5s to be noticed; `sysctl fs.inotify.max_user_watches` tells the limit, \
                 `sysctl -w fs.inotify.max_user_watches=N` raises it",
            ),
            (
                notify::Error::io(std::io::Error::from_raw_os_error(EMFILE)),
                "the system does not tell of every file that changes (Too many open files (os error 24)): a change \
                 may take 5s to be noticed; `sysctl fs.inotify.max_user_instances` tells the limit, \
                 `sysctl -w fs.inotify.max_user_instances=N` raises it",
            ),
            (
                notify::Error::io(std::io::Error::from_raw_os_error(13)).add_path("/etc".into()),
                "the system does not tell of every file that changes (`/etc`: Permission denied (os error 13)): a \
                 change may take 5s to be noticed",
            ),
        ] {
            assert_eq!(in_plain_words(&error, look), expected);
        }
    }
}
