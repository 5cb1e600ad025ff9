//! Where an event ended.

use std::fmt::Write as _;
use std::time::Duration;

use super::record::{Did, Step};
use crate::config::Period;

/// How many times are told of one end.
const TIMES: usize = 4;

/// One way that an event ended, once or more often.
struct End<'s> {
    number: usize,
    /// What happened where, and why: the times stand between the two.
    what: String,
    why: String,
    times: Vec<String>,
    node: &'s str,
    /// Whether the node may let go of it.
    held: bool,
}

/// How an event, of which these are the steps, and what was made of it ended, in a few words, each way once. What a filter made
/// of it is told apart by numbers, where there is anything.
pub(crate) fn fate<'s>(steps: impl IntoIterator<Item = &'s Step>) -> String {
    let mut ends: Vec<End<'s>> = Vec::new();
    let mut last = 1;
    for step in steps {
        last = last.max(step.number);
        if is_let_go(&step.did) {
            release(&mut ends, step);
        }
        let Some((what, why)) = end(step) else {
            continue;
        };
        let same =
            |end: &&mut End<'_>| end.number == step.number && end.what == what && end.why == why;
        let at = if step.stopping {
            "the stop".to_owned()
        } else {
            time(step.at)
        };
        match ends.iter_mut().find(same) {
            Some(end) => end.times.push(at),
            None => ends.push(End {
                number: step.number,
                what,
                why,
                times: vec![at],
                node: &step.node,
                held: matches!(step.did, Did::Held),
            }),
        }
    }
    // What is still held ends last.
    ends.sort_by_key(|end| (end.number, end.held));
    if ends.is_empty() {
        return "nobody took it".to_owned();
    }
    let told = ends.iter().map(|end| end.tell(last > 1));
    told.collect::<Vec<_>>().join("; ")
}

/// A virtual time, to the millisecond.
pub(crate) fn time(at: Duration) -> String {
    let millis = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
    Period(Duration::from_millis(millis)).to_string()
}

/// Whether an event went somewhere else than where it was expected.
pub(super) fn is_dead_end(did: &Did) -> bool {
    match did {
        Did::Discarded(_) | Did::Failed(_) => true,
        Did::Out { unread, .. } => *unread,
        Did::In(_) | Did::Held | Did::Skipped | Did::Delivered(_) | Did::Refused(_) => false,
    }
}

/// What an end is, and why, when a step is one.
fn end(step: &Step) -> Option<(String, String)> {
    let node = &*step.node;
    let (what, why) = match &step.did {
        Did::Held => (format!("still held by `{node}`"), String::new()),
        Did::In(_) | Did::Skipped | Did::Out { unread: false, .. } => return None,
        Did::Out { port: None, .. } => (
            format!("passed on by `{node}`"),
            ", where nobody reads it".to_owned(),
        ),
        Did::Out {
            port: Some(port), ..
        } => (
            format!("passed on by `{node}.{port}`"),
            ", which nobody reads".to_owned(),
        ),
        Did::Discarded(reason) => (format!("discarded by `{node}`"), format!(": {reason}")),
        Did::Failed(reason) => (format!("failed in `{node}`"), format!(": {reason}")),
        Did::Delivered(_) => (format!("delivered to `{node}`"), String::new()),
        Did::Refused(why) => (format!("refused by `{node}`"), format!(" ({why})")),
    };
    Some((what, why))
}

fn is_let_go(did: &Did) -> bool {
    matches!(did, Did::Out { .. } | Did::Discarded(_) | Did::Failed(_))
}

/// The node has let go of one event: of this one, or of one that it made this one of.
fn release(ends: &mut Vec<End<'_>>, step: &Step) {
    let held = |end: &End<'_>| end.held && end.node == &*step.node;
    let itself = ends
        .iter()
        .position(|end| held(end) && end.number == step.number);
    let Some(at) = itself.or_else(|| ends.iter().position(held)) else {
        return;
    };
    if let Some(end) = ends.get_mut(at)
        && end.times.len() > 1
    {
        end.times.remove(0);
        return;
    }
    ends.remove(at);
}

// === impl End ===

impl End<'_> {
    fn tell(&self, numbered: bool) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail, here and below.
        if numbered {
            write!(text, "#{} ", self.number).ok();
        }
        let word = if self.held { "since" } else { "at" };
        write!(text, "{} {word} ", self.what).ok();
        let mut times: Vec<(&String, usize)> = Vec::new();
        for at in &self.times {
            match times.last_mut().filter(|(last, _)| last == &at) {
                Some((_, count)) => *count += 1,
                None => times.push((at, 1)),
            }
        }
        for (index, (at, count)) in times.iter().take(TIMES).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(text, "{comma}{at}").ok();
            if *count > 1 {
                write!(text, " ({count} times)").ok();
            }
        }
        if times.len() > TIMES {
            write!(text, " and {} times more", times.len() - TIMES).ok();
        }
        text + &self.why
    }
}
