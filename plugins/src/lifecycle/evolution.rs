//! The registry of instances.
