//! Harnesses for plugin authors.

mod context;
mod outlet;
mod shared;

pub use self::context::context;
pub use self::outlet::outlet;
pub use self::shared::shared;
