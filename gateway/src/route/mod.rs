//! Which route a request takes: rules, their precedence, and the table that finds the best one.
//! Knows no YAML, no upstream and no socket: a rule is known by its index in the list that the table was
//! made from.
//!
//! Precedence follows the Kubernetes Gateway API; `Rank` is the whole of it. Every request goes through
//! `Table::find`, and `Table::scan` says in a few lines what `find` must answer.

mod host;
mod names;
pub mod normal;
mod path;
mod query;
mod rank;
mod rule;
mod shadow;
mod table;
mod text;

pub use host::HostPattern;
pub(crate) use host::comparable;
pub use names::Names;
pub use path::PathPattern;
pub use rank::{ConditionRank, HostRank, MethodRank, PathRank, Rank, RankPart};
pub use rule::{ListenerId, Match, Miss, Request, Rule};
pub use shadow::Shadows;
pub use table::Table;
pub use text::TextPattern;
