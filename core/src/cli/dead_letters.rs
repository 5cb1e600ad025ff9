//! `evows dead-letters`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::validate::load;
use super::{Exit, Format, complain, output, print};
use crate::config::Severity;
use crate::delivery::dead_letter::{Folder, Letter};
use crate::plugin::Environment;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Count them, by sink and reason.
    List {
        #[command(flatten)]
        which: Which,
        /// How to print: `text`, or `json`, one object per line.
        #[arg(long, default_value = "text")]
        format: Format,
    },
    /// Print them, one JSON object per line.
    Show(Which),
    /// Have them sent again: by the evows that runs, within seconds, or by the next one that starts.
    Replay(Which),
}

/// Which dead letters.
#[derive(Debug, clap::Args)]
struct Which {
    /// Those of one sink.
    #[arg(long, value_name = "ID")]
    sink: Option<String>,
    /// Those given up since then: a time as in RFC 3339, or a span such as `2h`.
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Those with this reason, such as `permanent` or `retries_exhausted`.
    #[arg(long)]
    reason: Option<String>,
    /// Those of one instance.
    #[arg(long)]
    instance: Option<String>,
    /// The one with this event id.
    #[arg(long, value_name = "EVENT")]
    id: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Since(SystemTime);

/// What `list` says of one sink and reason.
struct Count {
    letters: usize,
    first: String,
    last: String,
}

pub(super) fn run(options: &Options, config: &Path, environment: &Environment) -> io::Result<Exit> {
    let which = match &options.action {
        Action::List { which, .. } | Action::Show(which) | Action::Replay(which) => which,
    };
    let checked = load(config, environment);
    let Some(config) = checked.config else {
        let errors = checked.diagnostics.iter();
        for error in errors.filter(|it| it.severity == Severity::Error) {
            output::complain(&error.message);
        }
        output::complain(&"`evows validate` shows where");
        return Ok(Exit::Config);
    };
    let sinks = config.pipeline.sinks.iter();
    let folders: Vec<(&str, Folder)> = sinks
        .filter_map(|sink| {
            let template = sink.delivery.dead_letter.as_deref()?;
            let id = &*sink.component.id;
            Some((id, Folder::new(template, id)))
        })
        .filter(|(id, _)| which.sink.as_deref().is_none_or(|wanted| wanted == *id))
        .collect();
    if folders.is_empty() {
        match &which.sink {
            Some(sink) => complain(&format_args!(
                "there is no sink `{sink}` with a `dead_letter` in the configuration"
            )),
            None => complain(&"no sink has a `dead_letter` in the configuration"),
        }
        return Ok(Exit::Usage);
    }
    let done = match &options.action {
        Action::List { format, .. } => list(&folders, which, *format)?,
        Action::Show(_) => show(&folders, which)?,
        Action::Replay(_) => replay(&folders, which)?,
    };
    Ok(if done { Exit::Clean } else { Exit::Failed })
}

fn list(folders: &[(&str, Folder)], which: &Which, format: Format) -> io::Result<bool> {
    let mut counts: BTreeMap<(String, String), Count> = BTreeMap::new();
    let read = visit(folders, which, |letter, _| {
        let key = (letter.sink.clone(), letter.reason.clone());
        let count = counts.entry(key).or_insert_with(|| Count {
            letters: 0,
            first: letter.at.clone(),
            last: String::new(),
        });
        count.letters += 1;
        count.last.clone_from(&letter.at);
        Ok(())
    })?;
    let mut text = String::new();
    for ((sink, reason), count) in counts {
        let Count {
            letters,
            first,
            last,
        } = count;
        let line = match format {
            Format::Json => json!({
                "sink": sink, "reason": reason, "letters": letters, "first": first, "last": last,
            })
            .to_string(),
            Format::Text => format!("{letters:>9}  {sink}  {reason}  {first} to {last}"),
        };
        text.push_str(&line);
        text.push('\n');
    }
    if text.is_empty() && format == Format::Text {
        text.push_str("no dead letters\n");
    }
    print(&text)?;
    Ok(read)
}

fn show(folders: &[(&str, Folder)], which: &Which) -> io::Result<bool> {
    visit(folders, which, |_, line| print(&format!("{line}\n")))
}

fn replay(folders: &[(&str, Folder)], which: &Which) -> io::Result<bool> {
    let mut done = true;
    for (sink, folder) in folders {
        match folder.send_again(|letter| which.is(letter, sink)) {
            Ok(moved) => print(&format!("{sink}: {moved} to be sent again\n"))?,
            Err(error) => {
                complain(&format_args!(
                    "cannot move dead letters of `{sink}`: {error}"
                ));
                done = false;
            }
        }
    }
    Ok(done)
}

/// Shows every letter that is wanted, with its line. `false` when some file could not be read.
fn visit(
    folders: &[(&str, Folder)],
    which: &Which,
    mut show: impl FnMut(&Letter, &str) -> io::Result<()>,
) -> io::Result<bool> {
    let mut read = true;
    for (sink, folder) in folders {
        let files = folder.files().unwrap_or_else(|error| {
            complain(&format_args!(
                "cannot look for dead letters of `{sink}`: {error}"
            ));
            read = false;
            Vec::new()
        });
        for path in files {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| {
                complain(&format_args!("cannot read {}: {error}", path.display()));
                read = false;
                String::new()
            });
            for line in text.lines() {
                match Letter::parse(line) {
                    Ok(letter) if which.is(&letter, sink) => show(&letter, line)?,
                    Ok(_) => {}
                    Err(error) => {
                        complain(&format_args!("{}: {error}", path.display()));
                        read = false;
                    }
                }
            }
        }
    }
    Ok(read)
}

// === impl Which ===

impl Which {
    fn is(&self, letter: &Letter, sink: &str) -> bool {
        let is =
            |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|it| it == value);
        let since = || {
            let Some(Since(since)) = self.since else {
                return true;
            };
            humantime::parse_rfc3339(&letter.at).is_ok_and(|at| at >= since)
        };
        // Sinks may share a file.
        letter.sink == sink
            && is(&self.reason, &letter.reason)
            && is(&self.instance, &letter.event.instance)
            && is(&self.id, &letter.event.id)
            && since()
    }
}

// === impl Since ===

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(span) = humantime::parse_duration(text.trim_start_matches('-')) {
            let span: Duration = span;
            let since = SystemTime::now().checked_sub(span);
            return Ok(Self(since.unwrap_or(SystemTime::UNIX_EPOCH)));
        }
        humantime::parse_rfc3339_weak(text).map(Self).map_err(|_| {
            "write a time such as 2026-01-31T12:00:00Z, or a span such as 2h".to_owned()
        })
    }
}
