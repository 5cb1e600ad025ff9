//! Which channels an event goes to, as Evolution's `WEBSOCKET_*` switches decide it (contract 2.2).

pub mod both;
pub mod env;
pub mod global;
pub mod traditional;
