//! Behaviour of the graph as a whole.

mod faults;
mod law;
mod parts;
