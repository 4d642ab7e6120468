//! How another configuration comes in force while requests are served: who may ask for it, what is tried first, and how it
//! is taken back. What it takes to serve another snapshot is `server`'s affair.

pub mod control;
pub mod entry;
pub mod guard;
mod keeper;
pub mod side;
pub mod stage;
pub mod watch;

pub use control::{Change, Control, How, Readiness};
pub use keeper::{Keeper, Watching};
