//! `evows trace`.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::Exit;
use super::feed::{self, Source};
use super::output::{self, Format};
use crate::Event;
use crate::plugin::Environment;
use crate::rehearsal::{Did, Fed, Step, Style, fate, time, unified, visible};

/// Lines around a change.
const CONTEXT: usize = 1;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// A file with an envelope, or with several, one JSON object after the other; `-` is the standard input.
    file: PathBuf,
    #[command(flatten)]
    source: Source,
    /// How to report: `text`, or `json`, one object per event and line.
    #[arg(long, default_value = "text")]
    format: Format,
}

/// The way of one event.
struct Way<'r> {
    fed: &'r Fed,
    steps: Vec<&'r Step>,
}

/// Shows the way of each event through the pipeline.
pub(super) fn run(options: &Options, path: &Path, environment: &Environment) -> io::Result<Exit> {
    let play = match options.source.open(&options.file, path, environment)? {
        Ok(play) => play,
        Err(exit) => return Ok(exit),
    };
    let run = match play.run(environment)? {
        Ok(run) => run,
        Err(exit) => return Ok(exit),
    };
    let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let style = if coloured {
        Style::Coloured
    } else {
        Style::Plain
    };
    let mut events = run.recording.by_event();
    for (index, fed) in run.fed.iter().enumerate() {
        let steps = events.remove(&fed.id).unwrap_or_default();
        let way = Way { fed, steps };
        let gap = if index > 0 { "\n" } else { "" };
        output::print(&match options.format {
            Format::Json => output::for_terminal(&way.as_json()).into_owned(),
            Format::Text => format!("{gap}{}", way.as_text(style)),
        })?;
    }
    Ok(feed::exit(&run))
}

// === impl Way ===

impl Way<'_> {
    fn as_text(&self, style: Style) -> String {
        let Fed {
            name,
            instance,
            into,
            at,
            ..
        } = self.fed;
        let nodes = self.steps.iter().map(|step| step.node.len());
        let width = nodes.max().unwrap_or_default().max(into.len());
        let several = self.steps.iter().any(|step| step.number > 1);
        let mut text = format!("{} of {}\n", visible(name), visible(instance));
        // Writing to a string cannot fail.
        writeln!(text, "  {into:width$}  {:>8}  it is put in", time(*at)).ok();
        for (index, step) in self.steps.iter().enumerate() {
            let Some(what) = what(&step.did) else {
                continue;
            };
            let change = self.change(index);
            let changed = if change.is_some() { "changed and " } else { "" };
            let stop = if step.stopping { ", at the stop" } else { "" };
            let (node, at) = (&step.node, time(step.at));
            let number = match step.number {
                number if several => format!("#{number} "),
                _ => String::new(),
            };
            writeln!(
                text,
                "  {node:width$}  {at:>8}  {number}{changed}{what}{stop}"
            )
            .ok();
            if let Some((before, after)) = change {
                let indent = width + 14;
                for line in unified(&before, &after, CONTEXT, style).lines() {
                    writeln!(text, "{:indent$}{line}", "").ok();
                }
            }
        }
        let fate = fate(self.steps.iter().copied());
        writeln!(text, "  = {}", visible(&fate)).ok();
        text
    }

    fn as_json(&self) -> String {
        let steps = self.steps.iter().enumerate().filter_map(|(index, step)| {
            let (word, port, reason) = match &step.did {
                Did::In(_) => return None,
                Did::Out { port, unread, .. } => {
                    let reason = unread.then(|| "unconnected".to_owned());
                    ("passed_on", port.as_deref(), reason)
                }
                Did::Discarded(reason) => ("discarded", None, Some((*reason).to_owned())),
                Did::Failed(reason) => ("failed", None, Some((*reason).to_owned())),
                Did::Held => ("held", None, None),
                Did::Skipped => ("skipped", None, None),
                Did::Delivered(_) => ("delivered", None, None),
                Did::Refused(why) => ("refused", None, Some(why.clone())),
            };
            let change = self.change(index).map(|(_, after)| after);
            Some(json!({
                "node": &*step.node,
                "at_ms": millis(step.at),
                "number": step.number,
                "stopping": step.stopping,
                "did": word,
                "port": port,
                "reason": reason,
                "changed_to": change,
            }))
        });
        let object = json!({
            "event": self.fed.name,
            "instance": self.fed.instance,
            "into": &*self.fed.into,
            "at_ms": millis(self.fed.at),
            "steps": steps.collect::<Vec<_>>(),
            "outcome": self.fed.outcome.as_str(),
        });
        format!("{object}\n")
    }

    /// What the node made of the envelope, if that is another one.
    fn change(&self, index: usize) -> Option<(Value, Value)> {
        let step = self.steps.get(index)?;
        let Did::Out { event, .. } = &step.did else {
            return None;
        };
        let earlier = self.steps.iter().take(index).rev();
        let mut came = earlier.filter_map(|other| match &other.did {
            Did::In(event) if other.node == step.node => Some((other.number, event)),
            _ => None,
        });
        // What a filter makes itself did not come in.
        let itself = came.clone().find(|(number, _)| *number == step.number);
        let (_, before) = itself.or_else(|| came.next())?;
        (before.envelope() != event.envelope()).then(|| (json(before), json(event)))
    }
}

/// What happened, in words; nothing for what goes without saying.
fn what(did: &Did) -> Option<String> {
    Some(match did {
        Did::In(_) => return None,
        Did::Out { port, unread, .. } => {
            let port = port.as_ref();
            let port = port.map(|port| format!(" through `{port}`"));
            let unread = if *unread {
                ", which nobody reads: it is discarded as unconnected"
            } else {
                ""
            };
            format!("passed on{}{unread}", port.unwrap_or_default())
        }
        Did::Discarded(reason) => format!("discarded: {reason}"),
        Did::Failed(reason) => format!("failed: {reason}"),
        Did::Held => "held".to_owned(),
        Did::Skipped => "not asked, for it reaches out of the process".to_owned(),
        Did::Delivered(_) => "delivered".to_owned(),
        Did::Refused(why) => format!("refused: {}", visible(why)),
    })
}

fn json(event: &Event) -> Value {
    Value::Object(event.document().clone())
}

fn millis(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}
