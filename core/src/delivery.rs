//! What core does between a queue and a sink, so that no sink has to.
