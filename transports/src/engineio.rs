//! Engine.IO 4, the layer below Socket.IO.

pub(crate) mod query;
pub(crate) mod refusal;
