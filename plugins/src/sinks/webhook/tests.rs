//! The sink against servers that the tests run, with the real lifecycle.

mod network;
mod outcomes;
mod plan;
mod requests;
mod rig;
