//! Where an event ended.

use super::record::{Did, Step};

/// How an event, of which these are the steps, and what was made of it ended, in a few words, each way once.
pub(crate) fn fate<'s>(steps: impl IntoIterator<Item = &'s Step>) -> String {
    let mut ends: Vec<String> = Vec::new();
    let mut held: Vec<&str> = Vec::new();
    for step in steps {
        let node = &*step.node;
        let end = match &step.did {
            Did::In(_) | Did::Skipped => continue,
            Did::Held => {
                held.push(node);
                continue;
            }
            Did::Out { unread, port, .. } => {
                release(&mut held, node);
                match port {
                    _ if !unread => continue,
                    None => format!("passed on by `{node}`, where nobody reads it"),
                    Some(port) => format!("passed on by `{node}.{port}`, which nobody reads"),
                }
            }
            Did::Discarded(reason) => {
                release(&mut held, node);
                format!("discarded by `{node}`: {reason}")
            }
            Did::Failed(reason) => {
                release(&mut held, node);
                format!("failed in `{node}`: {reason}")
            }
            Did::Delivered(_) => format!("delivered to `{node}`"),
            Did::Refused(why) => format!("refused by `{node}` ({why})"),
        };
        if !ends.contains(&end) {
            ends.push(end);
        }
    }
    let held = held
        .into_iter()
        .map(|node| format!("still held by `{node}`"));
    ends.extend(held);
    if ends.is_empty() {
        return "nobody took it".to_owned();
    }
    ends.join("; ")
}

/// The node has let go of one event.
fn release(held: &mut Vec<&str>, node: &str) {
    if let Some(at) = held.iter().position(|other| *other == node) {
        held.remove(at);
    }
}
