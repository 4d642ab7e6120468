//! Another configuration while requests are served: what changes, what goes on, and what is refused.

mod connections;
mod faults;
mod listeners;
mod load;
mod mutations;
mod page;
mod state;
mod trial;
