//! Behaviour of the graph as a whole.

mod awaited;
mod delivery;
mod faults;
mod law;
mod parts;
mod replace;
mod ticks;
