//! How another configuration comes in force while requests are served.

pub mod guard;
pub mod side;
pub mod stage;
pub mod watch;
