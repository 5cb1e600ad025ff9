//! Behaviour of the graph as a whole.

mod delivery;
mod faults;
mod law;
mod parts;
