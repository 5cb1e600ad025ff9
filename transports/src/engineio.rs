//! Engine.IO 4, the layer below Socket.IO.

pub mod packet;
pub mod payload;
pub(crate) mod query;
pub(crate) mod refusal;
