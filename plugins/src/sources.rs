//! Where events enter.

pub mod generator;
pub mod stdin;
pub mod webhook;
