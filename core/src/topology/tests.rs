//! Behaviour of the graph as a whole.
