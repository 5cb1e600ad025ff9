//! Harnesses for plugin authors.

mod context;
mod outlet;

pub use self::context::context;
pub use self::outlet::outlet;
