//! Harnesses for plugin authors.

mod outlet;

pub use self::outlet::outlet;
