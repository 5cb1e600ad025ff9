//! Where events enter.

pub mod file;
pub mod generator;
pub mod stdin;
pub mod webhook;
