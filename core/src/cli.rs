//! The command line.

mod exit;

pub use self::exit::Exit;
