//! What core does between a queue and a sink, so that no sink has to.

pub(crate) mod retry;
pub(crate) mod worker;
