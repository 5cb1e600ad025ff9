//! Which channels an event goes to.

pub mod env;
