//! Where events enter.

pub mod stdin;
pub mod webhook;
