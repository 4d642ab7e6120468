//! Builds the plugins of one file, and takes over those that an earlier one had: the same keys at the same owner, the
//! same content of the files that the build read, the same upstreams that it asked for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use openssl::sha::sha256;
use serde_yaml::Value;
use vestibule_plugins::{Path, Plugin, Problem, Registry, Setting, outbound};

use super::files::Files;
use super::kept::{FIRST_SWEEP, Kept, Owner};
use super::outbound::{CallerDefinition, Upstreams};
use crate::config::PluginConfig;

/// Builds the plugins of one file.
pub struct Plugins<'a> {
    /// Known plugins.
    pub registry: &'a Registry,
    /// What earlier snapshots had.
    pub kept: &'a Kept,
    /// What plugins may read.
    pub files: &'a Files<'a>,
    /// What plugins may ask.
    pub upstreams: &'a Upstreams<'a>,
    /// How many there were of each definition, numbered 0.
    pub equal: RefCell<HashMap<PluginDefinition, usize>>,
}

/// Where a plugin stands, as its `Setting` tells it.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The route's name, or its place in the file; `None` for every route.
    pub route: Option<&'a str>,
    /// Whether every path of the route is a prefix.
    pub matches_by_prefix: bool,
}

/// All that a plugin is built of in the file's own words, and which of several equal ones it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PluginDefinition {
    owner: Owner,
    name: String,
    config: Value,
    matches_by_prefix: bool,
    number: usize,
}

/// Those of earlier snapshots, none of which is kept alive here.
#[derive(Default)]
pub struct KeptPlugins(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    /// Several of one definition where a file of theirs has changed, and both are in use.
    built: HashMap<PluginDefinition, Vec<Built>>,
    /// At so many, those that nobody holds are taken out.
    sweep_at: usize,
}

struct Built {
    plugin: Weak<dyn Plugin>,
    used: Vec<Used>,
}

/// What a build asked for, and got.
#[derive(Clone, PartialEq, Eq)]
enum Used {
    File { path: PathBuf, is_secret: bool, content: [u8; 32] },
    Upstream { name: String, definition: CallerDefinition },
}

impl Plugins<'_> {
    /// The plugin, in the state in which it is if there is one.
    ///
    /// # Errors
    /// Every problem; their paths start at the plugin's own map.
    pub fn build(
        &self,
        owner: &Owner,
        plugin: &PluginConfig,
        place: Place<'_>,
    ) -> Result<Arc<dyn Plugin>, Vec<Problem>> {
        let PluginConfig { name, config } = plugin;
        // The owner stands for the name of the route, which for one without a name is its place in the file.
        let Place { route, matches_by_prefix } = place;
        let mut definition = PluginDefinition {
            owner: owner.clone(),
            name: name.clone(),
            config: config.clone(),
            matches_by_prefix,
            number: 0,
        };
        {
            let mut equal = self.equal.borrow_mut();
            let count = equal.entry(definition.clone()).or_default();
            definition.number = *count;
            *count += 1;
        }
        // A panic while a plugin is built leaves the index without it.
        let mut entries = self.kept.plugins.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plugin) = entries.find(&definition, |used| self.is_as_it_was(used)) {
            return Ok(plugin);
        }
        let asked = Asked { plugins: self, used: RefCell::default() };
        let setting = Setting { route, matches_by_prefix, files: &asked, outbound: &asked };
        let plugin = self.registry.build(name, config, &setting)?;
        entries.insert(definition, Built { plugin: Arc::downgrade(&plugin), used: asked.used.into_inner() });
        Ok(plugin)
    }

    /// Whether what a build got is what it would get now. To look is to use: the file stays a source, the upstream stays
    /// used.
    fn is_as_it_was(&self, used: &Used) -> bool {
        let root = Path::root();
        match used {
            Used::File { path, is_secret, content } => {
                let bytes = match is_secret {
                    true => self.files.secret(path, &root),
                    false => self.files.bytes(path, &root),
                };
                bytes.is_ok_and(|bytes| sha256(&bytes) == *content)
            }
            Used::Upstream { name, definition } => {
                self.upstreams.caller(name, &root).is_ok_and(|(present, _)| present == *definition)
            }
        }
    }
}

impl Entries {
    fn find(
        &self,
        definition: &PluginDefinition,
        is_as_it_was: impl Fn(&Used) -> bool,
    ) -> Option<Arc<dyn Plugin>> {
        self.built.get(definition)?.iter().find_map(|built| {
            let plugin = built.plugin.upgrade()?;
            built.used.iter().all(&is_as_it_was).then_some(plugin)
        })
    }

    fn insert(&mut self, definition: PluginDefinition, plugin: Built) {
        if self.built.len() >= self.sweep_at {
            self.built.retain(|_, built| built.iter().any(Built::is_held));
            self.sweep_at = FIRST_SWEEP.max(2 * self.built.len());
        }
        let built = self.built.entry(definition).or_default();
        built.retain(Built::is_held);
        built.push(plugin);
    }
}

impl Built {
    fn is_held(&self) -> bool {
        self.plugin.strong_count() > 0
    }
}

/// What one build asks for, noted.
struct Asked<'a> {
    plugins: &'a Plugins<'a>,
    used: RefCell<Vec<Used>>,
}

impl Asked<'_> {
    fn note(&self, file: &FilePath, is_secret: bool, bytes: &[u8]) {
        let used = Used::File { path: file.to_owned(), is_secret, content: sha256(bytes) };
        self.used.borrow_mut().push(used);
    }
}

impl outbound::Files for Asked<'_> {
    fn bytes(&self, file: &FilePath, at: &Path) -> Result<Vec<u8>, Problem> {
        let bytes = self.plugins.files.bytes(file, at)?;
        self.note(file, false, &bytes);
        Ok(bytes)
    }

    fn secret(&self, file: &FilePath, at: &Path) -> Result<Vec<u8>, Problem> {
        let bytes = self.plugins.files.secret(file, at)?;
        self.note(file, true, &bytes);
        Ok(bytes)
    }
}

impl outbound::Outbound for Asked<'_> {
    fn upstream(&self, name: &str, at: &Path) -> Result<Arc<dyn outbound::Upstream>, Problem> {
        let (definition, caller) = self.plugins.upstreams.caller(name, at)?;
        self.used.borrow_mut().push(Used::Upstream { name: name.to_owned(), definition });
        Ok(caller)
    }
}

#[cfg(test)]
impl KeptPlugins {
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap().built.len()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::snapshot::{Snapshot, Workshop, load};

    const ENDPOINTS: &str = "['127.0.0.1:2']";

    fn plugin(snapshot: &Snapshot, route: usize) -> *const () {
        let link = snapshot.routes[route].chain.links().next().unwrap();
        Arc::as_ptr(&link.plugin).cast()
    }

    #[test]
    fn a_plugin_is_built_anew_where_a_file_or_an_upstream_of_its_differs() {
        let folder = tempfile::tempdir().unwrap();
        let (workshop, path) = (Workshop::new(Registry::builtin()), folder.path().join("gateway.yaml"));
        let loaded = |key: &str, auth: &str, comment: &str| {
            fs::write(folder.path().join("keys"), format!("shop:{}\n", key.repeat(64))).unwrap();
            let yaml = format!(
                "version: 1\nlisteners: {{ web: {{ address: '127.0.0.1:0' }} }}\n\
                 upstreams: {{ auth: {{ {auth} }}, other: {{ endpoints: {ENDPOINTS} }} }}\nroutes:\n\
                 - {{ match: {{ paths: /a }}, respond: {{}}, plugins: [api_key: {{ header: x-key, keys_file: keys }}] }}\n\
                 - {{ match: {{ paths: /b }}, respond: {{}}, plugins: [forward_auth: {{ upstream: auth, path: /v }}] }}\n\
                 {comment}"
            );
            fs::write(&path, yaml).unwrap();
            load(&path, &workshop).unwrap()
        };
        let plain = format!("endpoints: {ENDPOINTS}");
        let first = loaded("0", &plain, "");
        let check = |next: &Snapshot, is_same: [bool; 2]| {
            let same = [0, 1].map(|route| plugin(&first, route) == plugin(next, route));
            assert_eq!(same, is_same);
        };
        check(&loaded("0", &plain, "# the same\n"), [true, true]);
        check(&loaded("1", &plain, ""), [false, true]);
        check(&loaded("0", &format!("{plain}, host: a.test"), ""), [true, false]);
        check(&loaded("0", &format!("{plain}, tls: {{ verify: off }}"), ""), [true, false]);
        check(&loaded("0", &plain, "# back, and the first is still held\n"), [true, true]);
        assert_eq!(first.warnings.count(), 1, "what a plugin asks is used, and the other is not");
    }
}
