//! Harnesses for plugin authors.

mod shared;

pub use self::shared::shared;
