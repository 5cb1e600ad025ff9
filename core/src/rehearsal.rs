//! A configuration's pipeline with other ends: what is put in is given, and what comes out is kept.
//!
//! The filters are the real ones, built from the file's keys, and run in the real topology behind the real queues and
//! deliveries. In place of each source there is an open end to put events in, and in place of each sink one that takes
//! all. No port is opened, nothing is written, and the time is virtual: it stands still while anything can be done, and
//! then jumps to the next thing that waits for it. So an hour takes a moment, and the same run ends the same each time.

mod diff;
mod drive;
mod ends;
mod fate;
mod judge;
mod observer;
#[cfg(feature = "jq")]
mod program;
mod record;
#[cfg(test)]
mod tests;
mod visible;

pub(crate) use self::diff::{Style, unified};
pub(crate) use self::drive::{Fed, Rehearsal, Run};
pub(crate) use self::fate::{fate, time};
pub(crate) use self::judge::{Failure, judge};
pub(crate) use self::record::{Did, Step};
pub(crate) use self::visible::visible;
