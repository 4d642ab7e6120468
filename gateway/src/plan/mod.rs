//! What a reload would change, told before it is done: from two described configurations to a `Plan`. Pure: no socket,
//! no file, no clock.
//!
//! Nothing is decided here that the gateway decides: what matches is asked of `route::Table`, what is the same of the
//! configuration's own types.

mod certificates;
mod changes;
mod described;
mod listeners;
mod precedence;
mod routes;
mod samples;
#[cfg(test)]
mod tests;
mod text;
mod upstreams;

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use vestibule_plugins::decode::decode;

pub use certificates::CertificateChange;
pub use changes::KeyChange;
pub use described::{Described, Unreadable};
pub use precedence::Overtaking;
pub use samples::{Detour, Spelled};
pub use text::render;

use crate::config::Config;
use described::{Secrets, yaml};

/// What would change. Its JSON is stable: keys are added, and keep their meaning.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// What is in force.
    pub old: Side,
    /// What would be.
    pub new: Side,
    /// Whether anything would change.
    pub changes: bool,
    /// What cannot change without a restart: the reload would be refused.
    pub refused: Vec<Refused>,
    /// Listeners that come, go or change, in the order of their names.
    pub listeners: Vec<Piece>,
    /// Upstreams likewise.
    pub upstreams: Vec<Piece>,
    /// Routes likewise, in the order of the new file, those that go at the end.
    pub routes: Vec<Piece>,
    /// Routes that now come before others that match the same requests.
    pub precedence: Vec<Overtaking>,
    /// Requests that would go elsewhere.
    pub requests: Requests,
    /// Certificates that come, go or are replaced.
    pub certificates: Vec<CertificateChange>,
    /// Other keys of the file that change, such as those of `admin` and of the common `plugins`.
    pub settings: Vec<KeyChange>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

/// One of the two configurations.
#[derive(Debug, Serialize)]
pub struct Side {
    /// Its hash.
    pub hash: String,
    /// The files that it was read from.
    pub files: Vec<PathBuf>,
}

/// A key that is read at start only.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// The key, and its values.
    #[serde(flatten)]
    pub key: KeyChange,
    /// Why.
    pub why: &'static str,
}

/// A listener, upstream or route that comes, goes or changes.
#[derive(Debug, Serialize)]
pub struct Piece {
    /// Its name; `routes[N]` where it has none.
    pub name: String,
    /// Its name before, where that was another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_name: Option<String>,
    /// What becomes of it.
    pub change: Change,
    /// What it is, in a few words.
    pub what: String,
    /// The keys that change.
    pub keys: Vec<KeyChange>,
    /// What that means for connections and requests.
    pub effects: Vec<String>,
}

/// What becomes of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It comes.
    Added,
    /// It goes.
    Removed,
    /// It is there before and after.
    Changed,
    /// It is the same but for its name.
    Renamed,
}

/// Requests that were tried on both.
#[derive(Debug, Default, Serialize)]
pub struct Requests {
    /// How many.
    pub tried: usize,
    /// Those that would go elsewhere, one for each way.
    pub moved: Vec<Detour>,
    /// How many ways more there are.
    pub more: usize,
}

impl Piece {
    fn new(name: &str, change: Change, what: String) -> Self {
        let (name, old_name) = (name.to_owned(), None);
        Self { name, old_name, change, what, keys: Vec::new(), effects: Vec::new() }
    }
}

/// Compares; `now` is when certificates are judged.
///
/// # Errors
/// One of them is not a configuration of this version.
pub fn plan(old: &Described, new: &Described, now: Timestamp) -> Result<Plan, Unreadable> {
    let (old_tree, new_tree, secrets) = Described::trees(old, new);
    let before = Half { described: old, tree: old_tree, config: old.config(old_tree)? };
    let after = Half { described: new, tree: new_tree, config: new.config(new_tree)? };

    let refused = section("server", &before, &after);
    let refused: Vec<Refused> =
        refused.into_iter().map(|key| Refused { key, why: "needs a restart" }).collect();
    let listeners = listeners::compare(&before, &after);
    let upstreams = upstreams::compare(&before, &after);
    let pairs = routes::pairs(&before, &after);
    let mut routes = routes::compare(&before, &after, &pairs);
    let (tables, mut notes) = samples::tables(&before, &after);
    let tried = samples::samples(&before, &after, &tables, &pairs);
    let precedence = precedence::overtakings(&tables, &routes::names(&after.config), &pairs, &tried);
    let requests = samples::detours(&before, &after, &tables, &pairs, &tried);
    let certificates = certificates::compare(old, new, now);
    let mut settings = Vec::new();
    for name in sections(&before, &after) {
        settings.extend(section(&name, &before, &after));
    }
    if routes::are_reordered(&pairs) {
        notes.push(match (precedence.is_empty(), routes.is_empty()) {
            (true, _) => {
                "the routes stand in another order, which no request that was tried tells".to_owned()
            }
            (false, _) => "the routes stand in another order".to_owned(),
        });
    }
    // A route may answer otherwise by nothing that stands in its own lines.
    routes.retain(|it| it.change != Change::Changed || !it.keys.is_empty() || !it.effects.is_empty());
    let changes = before.config != after.config
        || old.bodies != new.bodies
        || old.policies != new.policies
        || old.clients != new.clients
        || !certificates.is_empty();
    if !changes && old.hash != new.hash {
        let unseen = match secrets {
            Secrets::Hidden if is_any_redacted(old_tree) || is_any_redacted(new_tree) => {
                "values that are not told, "
            }
            _ => "",
        };
        notes.push(format!(
            "the files differ in {unseen}comments, spelling, the order of keys, or what stands in a key or another file \
             that they name"
        ));
    }
    let side = |of: &Described| Side { hash: of.hash.clone(), files: of.files.clone() };
    Ok(Plan {
        old: side(old),
        new: side(new),
        changes,
        refused,
        listeners,
        upstreams,
        routes,
        precedence,
        requests,
        certificates,
        settings,
        notes,
    })
}

/// One side of the comparison.
struct Half<'a> {
    described: &'a Described,
    /// As it is compared.
    tree: &'a Value,
    config: Config,
}

impl Half<'_> {
    /// What stands under a name of a section.
    fn piece(&self, section: &str, name: &str) -> Option<&Value> {
        self.tree.get(section)?.get(name)
    }
}

/// The keys of a section that change.
fn section(name: &str, old: &Half<'_>, new: &Half<'_>) -> Vec<KeyChange> {
    let read = |value: Option<&Value>| {
        let mut sections = Map::from_iter([("version".to_owned(), 1.into())]);
        sections.extend(value.map(|value| (name.to_owned(), value.clone())));
        match decode::<Config>(&yaml(&Value::Object(sections))) {
            (config, problems) if problems.is_empty() => config,
            _ => None,
        }
    };
    let mut found = changes::changes(old.tree.get(name), new.tree.get(name), &read);
    for change in &mut found {
        let is_nested = !change.key.is_empty() && !change.key.starts_with('[');
        change.key = format!("{name}{}{}", if is_nested { "." } else { "" }, change.key);
    }
    found
}

/// The sections that nothing else looks at.
fn sections(old: &Half<'_>, new: &Half<'_>) -> BTreeSet<String> {
    let keys =
        |half: &Half<'_>| half.tree.as_object().map(|it| it.keys().cloned().collect()).unwrap_or_default();
    let all: BTreeSet<String> = keys(old);
    let mut all: BTreeSet<String> = all.into_iter().chain::<BTreeSet<String>>(keys(new)).collect();
    all.retain(|name| !matches!(name.as_str(), "version" | "server" | "listeners" | "upstreams" | "routes"));
    all
}

fn is_any_redacted(tree: &Value) -> bool {
    tree.to_string().contains(crate::config::redact::REDACTED)
}
