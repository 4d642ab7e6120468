//! What a configuration means: for now, what is wrong with it.

pub mod problem;
