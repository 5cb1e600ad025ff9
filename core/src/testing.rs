//! Harnesses for plugin authors.
