//! What core does between a queue and a sink, so that no sink has to.

mod breaker;
mod cargo;
pub(crate) mod dead_letter;
mod inbox;
pub(crate) mod intake;
mod lanes;
mod policy;
mod progress;
pub(crate) mod retry;
pub(crate) mod store;
pub(crate) mod worker;

pub use self::breaker::{Breaker, BreakerPolicy, Pass};
pub use self::policy::{
    BatchConfig, BatchPolicy, BreakerConfig, Delivery, DeliveryConfig, Order, RetryConfig,
};
pub use self::retry::{Jitter, RetryPolicy};
