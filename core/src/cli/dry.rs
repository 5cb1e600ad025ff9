//! `evows run --dry`.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::feed::{self, Source};
use super::output::{self, Format};
use super::{Exit, complain};
use crate::plugin::Environment;
use crate::rehearsal::{Did, Run};
use crate::{Line, Outcome, one_line};

/// How `evows run` runs; for good, without any of these.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Options {
    /// Put the events of this file through the pipeline instead, and count what becomes of them: nothing is opened, written or
    /// sent. One JSON envelope after the other; `-` is the standard input. The exit code is 1 when an event failed.
    #[arg(long, value_name = "FILE")]
    pub(super) dry: Option<PathBuf>,
    #[command(flatten)]
    pub(super) source: Source,
    /// With `--dry`: print what each sink would get, one JSON object per line; the counts then go to stderr.
    #[arg(long, requires = "dry")]
    show: bool,
    /// With `--dry`: how to count, `text` or `json`.
    #[arg(long, default_value = "text")]
    format: Format,
}

/// Says so when there is a key that means something with `--dry` alone.
pub(super) fn complain_without_file(options: &Options) -> Option<Exit> {
    let misplaced = options.source.is_set();
    misplaced.then(|| {
        complain(&"`--into` and `--every` say what is done with the events of a file: name it with `--dry FILE`");
        Exit::Usage
    })
}

/// Puts events through the pipeline, and counts.
pub(super) fn run(
    options: &Options,
    file: &Path,
    path: &Path,
    environment: &Environment,
) -> io::Result<Exit> {
    let play = match options.source.open(file, path, environment)? {
        Ok(play) => play,
        Err(exit) => return Ok(exit),
    };
    let run = match play.run(environment)? {
        Ok(run) => run,
        Err(exit) => return Ok(exit),
    };
    let counts = match options.format {
        Format::Text => as_text(&run),
        Format::Json => as_json(&run),
    };
    if options.show {
        let deliveries = deliveries(&run);
        output::print(&output::for_terminal(&deliveries))?;
        output::tell(&counts);
    } else {
        output::print(&counts)?;
    }
    Ok(feed::exit(&run))
}

/// The components of the file; those that only a run like this has are doors into filters.
fn lines(run: &Run) -> impl Iterator<Item = &Line> {
    let lines = run.report.lines.iter();
    lines.filter(|line| !line.id.contains(' '))
}

/// How many events passed a filter that was not asked.
fn skipped(run: &Run, id: &str) -> usize {
    let steps = run.recording.steps.iter();
    let skipped = steps.filter(|step| matches!(step.did, Did::Skipped) && *step.node == *id);
    skipped.count()
}

fn as_text(run: &Run) -> String {
    let ids = lines(run).map(|line| line.id.chars().count());
    let width = ids.max().unwrap_or_default();
    let mut text = String::new();
    for line in lines(run) {
        let mut parts = vec![format!("{} in", line.received)];
        if line.sent > 0 {
            parts.push(format!("{} out", line.sent));
        }
        for (outcome, reason, events) in &line.ended {
            let word = match outcome {
                Outcome::Filtered => "discarded",
                other => other.as_str(),
            };
            let reason = match *reason {
                "" => String::new(),
                reason => format!(" ({reason})"),
            };
            parts.push(format!("{events} {word}{reason}"));
        }
        let skipped = skipped(run, &line.id);
        if skipped > 0 {
            parts.push(format!(
                "{skipped} not asked: it reaches out of the process"
            ));
        }
        let (kind, id) = (line.kind, &line.id);
        // Writing to a string cannot fail.
        writeln!(text, "{kind:6}  {id:width$}  {}", parts.join(", ")).ok();
    }
    text
}

fn as_json(run: &Run) -> String {
    let objects = lines(run).map(|line| {
        let ended = line.ended.iter();
        let ended = ended.map(|(outcome, reason, events)| {
            json!({ "outcome": outcome.as_str(), "reason": reason, "events": events })
        });
        let object = json!({
            "kind": line.kind.as_str(),
            "id": &*line.id,
            "in": line.received,
            "out": line.sent,
            "skipped": skipped(run, &line.id),
            "ended": ended.collect::<Vec<_>>(),
        });
        format!("{object}\n")
    });
    objects.collect()
}

/// What the sinks got, in the order that they got it.
fn deliveries(run: &Run) -> String {
    let mut text = String::new();
    for step in &run.recording.steps {
        if let Did::Delivered(event) = &step.did {
            let envelope = one_line(event.envelope());
            let envelope = String::from_utf8_lossy(&envelope);
            let (sink, at) = (json!(&*step.node), step.at.as_millis());
            // Writing to a string cannot fail.
            writeln!(
                text,
                "{{\"sink\":{sink},\"at_ms\":{at},\"envelope\":{envelope}}}"
            )
            .ok();
        }
    }
    text
}
