//! Events from a file, for commands that put them into a pipeline that only plays.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::validate;
use super::{Exit, complain, output};
use crate::config::{Config, Feed, envelopes, suggest};
use crate::plugin::Environment;
use crate::rehearsal::{Rehearsal, Run};

/// What is put in, and where.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Source {
    /// Where the events are put in: a source or a filter. The only source by default.
    #[arg(long, value_name = "NODE")]
    into: Option<String>,
    /// The time between two events, such as `100ms`. It is virtual: nobody waits for it.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    every: Duration,
}

/// A sound configuration, and what is put into it.
pub(super) struct Play {
    config: Config,
    feeds: Vec<Feed>,
}

/// How a command ends that has shown this run.
pub(super) fn exit(run: &Run) -> Exit {
    if run.has_failed() {
        Exit::Failed
    } else {
        Exit::Clean
    }
}

// === impl Play ===

impl Play {
    /// Puts all of it through. Events pass a filter that reaches out of the process.
    pub(super) fn run(&self, environment: &Environment) -> io::Result<Result<Run, Exit>> {
        let rehearsal = Rehearsal {
            config: &self.config,
            environment,
            mocks: &[],
            feeds: &self.feeds,
            until: None,
            skips: true,
        };
        let run = rehearsal.run()?;
        Ok(run.map_err(|error| {
            complain(&error);
            error.exit()
        }))
    }
}

// === impl Source ===

impl Source {
    /// Whether anything was asked for.
    pub(super) fn is_set(&self) -> bool {
        self.into.is_some() || !self.every.is_zero()
    }

    /// Reads the configuration and the events of `file`, `-` being the standard input. What is wrong is said, and the exit code
    /// given back.
    pub(super) fn open(
        &self,
        file: &Path,
        path: &Path,
        environment: &Environment,
    ) -> io::Result<Result<Play, Exit>> {
        let mut checked = validate::load(path, environment);
        checked.build(path, environment)?;
        output::show(&checked.diagnostics, &checked.text);
        let Some(config) = checked.config else {
            return Ok(Err(Exit::Config));
        };
        let into: Arc<str> = match self.into(&config) {
            Ok(into) => into.into(),
            Err(message) => {
                complain(&message);
                return Ok(Err(Exit::Usage));
            }
        };
        let read = read(file).and_then(|text| match envelopes(&text)?.as_slice() {
            [] => Err("there is no event in it: write an envelope, such as {\"event\":\"call\",\"instance\":\"shop\"}".to_owned()),
            some => Ok(some.to_vec()),
        });
        let envelopes = match read {
            Ok(envelopes) => envelopes,
            Err(why) => {
                complain(&format_args!("{}: {why}", file.display()));
                return Ok(Err(Exit::Failed));
            }
        };
        let feeds = envelopes.into_iter().zip(0..);
        let feeds = feeds.map(|(envelope, index)| Feed {
            into: Arc::clone(&into),
            envelope,
            at: self.every.saturating_mul(index),
        });
        let feeds = feeds.collect();
        Ok(Ok(Play { config, feeds }))
    }

    /// Where events are put in; the error says what to write.
    fn into(&self, config: &Config) -> Result<String, String> {
        let pipeline = &config.pipeline;
        let sources: Vec<&str> = pipeline.sources.iter().map(|it| &*it.id).collect();
        let Some(name) = &self.into else {
            return match sources.as_slice() {
                [only] => Ok((*only).to_owned()),
                all => Err(format!(
                    "there are several sources: say with --into which one gets the events: {}",
                    all.join(", ")
                )),
            };
        };
        let filters = pipeline.filters.iter().map(|node| &*node.component.id);
        let known: Vec<&str> = sources.into_iter().chain(filters).collect();
        if known.contains(&name.as_str()) {
            return Ok(name.clone());
        }
        let help = match suggest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it can be {}", known.join(", ")),
        };
        Err(format!("there is no source or filter `{name}`: {help}"))
    }
}

fn read(file: &Path) -> Result<String, String> {
    let read = if file == "-" {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    read.map_err(|error| format!("cannot be read: {error}"))
}
