//! Where events are passed, changed or discarded.

pub mod events;
#[cfg(feature = "jq")]
mod jq;
#[cfg(feature = "jq")]
pub mod map;
#[cfg(feature = "jq")]
pub mod route;
#[cfg(feature = "jq")]
pub mod r#where;
