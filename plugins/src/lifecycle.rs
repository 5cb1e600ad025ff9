//! Which instances exist, and what they are set to receive.

pub mod evolution;
