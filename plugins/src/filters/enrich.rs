//! Adds what is known about a value in the envelope: from a table, or from an HTTP service.
//!
//! ```toml
//! [filters.customer]
//! type = "enrich"
//! inputs = ["evolution"]
//! key = "data.key.remoteJid"
//! target = "data.customer"
//! http = { url = "https://crm.example.com/contacts/{key}" }
//! ```
//!
//! The text, number or boolean at `key` is looked up, and what is found is put at `target`, as the filter `set` does it: objects
//! are made on the way, and where something else is in the way nothing is put and the event passes as it is. `key` and
//! `target` are paths as elsewhere, without `*`; `event` and `instance` can be keys.
//!
//! # Where it is looked up
//!
//! In exactly one of these:
//!
//! | | |
//! |---|---|
//! | `table` | a table in this file: `table = { shop = { city = "Recife" } }` |
//! | `file` | a file that is read when evows starts, and when SIGHUP brings this filter other settings; not when the file alone has changed. JSON (`.json`): an object whose members are the keys, or, with `file_key`, an array of objects in which that member is the key. CSV (`.csv`): a line with names, and then a line for each key, which becomes an object of texts; the key is in the column `file_key`, or in the first one |
//! | `http` | a service that is asked with `GET` |
//!
//! Evows does not get any events through this filter before it has read `file`; while that fails, it tries again and says why.
//!
//! # HTTP
//!
//! `{key}` in the URL becomes the key, percent-encoded: in a path it is one part, `%2F` for a slash. A key that servers might take for another
//! path all the same is not asked for, and not found: one that makes a part `.` or `..`, with its slashes read as such, and one that
//! begins or ends with a slash or has two in a row (`\` counts as `/`). An empty key is not found either. A server that reads `%2F` as `/` before it looks for a route
//! is better asked in the query, `?id={key}`, where every other key is sent. An answer with a status of 2xx must have a JSON body of 1 MiB at most, of which
//! `pick` may choose a part. 404, 410, 204 and `null` mean that there is nothing. Everything else, redirects and answers that take
//! longer than `timeout` included, is an error. Nothing is tried again here: with `on_error = "fail"` the source is told,
//! and Evolution, for one, then posts the event again.
//!
//! A service that does not answer five times in a row (no connection, or no answer within `timeout`) is left alone for a second: events whose key is not
//! remembered do at once as `on_error` says. Then one event tries again, and as long as that fails the wait doubles, up to 30 seconds.
//!
//! What was found is remembered for `ttl`, that there is nothing for `missing_ttl`, and an error not at all. Events that ask for the same key at
//! once cause one request. `cache` bounds what is remembered, in bytes.
//!
//! # What may go wrong
//!
//! | | what happens | reason |
//! |---|---|---|
//! | there is nothing at `key`, or it is null, an object or an array | `on_missing` | `no_key` |
//! | the key is not found | `on_missing` | `not_found` |
//! | the service cannot be asked, or answers with an error | `on_error` | `lookup_failed` |
//! | it takes too long | `on_error` | `timeout` |
//! | it is left alone because it does not answer | `on_error` | `left_alone` |
//!
//! Events that fail or are discarded are counted with the reason, and those that pass are in `evows_events_unhandled_total`.

mod lookup;
mod table;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::OnceLock;

use async_trait::async_trait;
use evows_core::config::{Period, Problem, Size};
use evows_core::plugin::{
    AsyncFilter, AsyncFilterPlugin, BoxError, BuildContext, BuildError, Limits, Verdict,
};
use evows_core::{Event, register_async_filter};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use self::lookup::{Lookup, Template, Unanswered};
use self::table::Table;
use super::fallback::{Fallback, Fallbacks};
use super::outage::{LEFT_ALONE, Outage, What};
use super::path::{Path, Place};
use super::{attached, set};

/// Adds what is known about a value in the envelope.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The path of what is looked up, such as `"data.key.remoteJid"` or `"instance"`.
    pub key: Path,
    /// The path where what is found is put, such as `"data.customer"`.
    pub target: Path,
    /// What there is to find, by key.
    #[serde(default)]
    pub table: Option<BTreeMap<String, Value>>,
    /// A file with what there is to find: `.json` or `.csv`.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// The column, or the member of the objects, that is the key in `file`.
    #[serde(default)]
    pub file_key: Option<String>,
    /// The service that is asked.
    #[serde(default)]
    pub http: Option<Http>,
    /// What happens to an event whose key is not there or not found: `"pass"`, `"discard"` or `"fail"`.
    #[serde(default = "pass")]
    pub on_missing: Fallback,
    /// What happens to an event whose lookup fails: `"fail"`, `"discard"` or `"pass"`.
    #[serde(default)]
    pub on_error: Fallback,
    /// Time that a lookup may take, the wait for another one of the same key included.
    #[serde(default = "timeout")]
    pub timeout: Period,
    /// Lookups at once. Events leave in their order, whichever is ready first.
    #[serde(default = "concurrency")]
    pub concurrency: NonZeroUsize,
}

/// A service that is asked with `GET`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// The URL, with `{key}` in its path or query.
    pub url: String,
    /// Headers of the requests, such as `Authorization`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The part of the answer that is put at the target, as a path; all of it without this.
    #[serde(default)]
    pub pick: Option<Path>,
    /// How long an answer is remembered.
    #[serde(default = "ttl")]
    pub ttl: Period,
    /// How long it is remembered that there is nothing for a key.
    #[serde(default = "missing_ttl")]
    pub missing_ttl: Period,
    /// How much is remembered, in bytes of answers.
    #[serde(default = "cache")]
    pub cache: Size,
    /// Whether the proxies that the environment names are used.
    #[serde(default = "yes")]
    pub proxy: bool,
    /// Certificates (PEM) that are trusted beside those of the system.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// The running filter.
pub struct Enrich {
    key: Path,
    target: Path,
    from: From,
    on_missing: Fallback,
    on_error: Fallback,
    fallbacks: Fallbacks,
    limits: Limits,
}

/// Where things are looked up.
enum From {
    Table(Table),
    File {
        path: PathBuf,
        key: Option<String>,
        /// There once the filter has started.
        read: OnceLock<Table>,
    },
    Http(Box<Lookup>),
}

register_async_filter!(
    Enrich,
    summary = "Adds what is known about a value in the envelope, from a table or over HTTP.",
    example = "key = \"data.key.remoteJid\"\ntarget = \"data.customer\"\nhttp = { url = \"https://crm.example.com/contacts/{key}\" }\n",
);

fn pass() -> Fallback {
    Fallback::Pass
}

fn timeout() -> Period {
    Period::seconds(5)
}

fn concurrency() -> NonZeroUsize {
    NonZeroUsize::new(8).expect("8 is not 0")
}

fn ttl() -> Period {
    Period::seconds(300)
}

fn missing_ttl() -> Period {
    Period::seconds(60)
}

fn cache() -> Size {
    Size::mib(16)
}

fn yes() -> bool {
    true
}

// === impl Enrich ===

impl AsyncFilterPlugin for Enrich {
    const NAME: &'static str = "enrich";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        config.check()
    }

    fn build(config: Config, cx: &BuildContext) -> Result<Self, BuildError> {
        let from = match (config.table, config.file, config.http) {
            (Some(table), _, _) => {
                let entries = table.into_iter();
                From::Table(
                    entries
                        .map(|(key, value)| (key, set::plain(&value)))
                        .collect(),
                )
            }
            (None, Some(path), _) => From::File {
                path,
                key: config.file_key,
                read: OnceLock::new(),
            },
            (None, None, Some(http)) => {
                let what = What {
                    failed: "a lookup failed",
                    works: "lookups work again",
                };
                let outage = Outage::new(cx.id(), what, config.timeout.0);
                From::Http(Box::new(Lookup::new(http, cx.environment(), outage)?))
            }
            (None, None, None) => {
                return Err(BuildError::new(
                    "there is no `table`, no `file` and no `http`",
                ));
            }
        };
        Ok(Self {
            key: config.key,
            target: config.target,
            from,
            on_missing: config.on_missing,
            on_error: config.on_error,
            fallbacks: Fallbacks::new(cx),
            limits: Limits {
                concurrency: config.concurrency,
                timeout: config.timeout.0,
            },
        })
    }

    fn take_over(&mut self, before: &Self) {
        if let (From::Http(lookup), From::Http(before)) = (&mut self.from, &before.from) {
            lookup.take_over(before);
        }
    }
}

#[async_trait]
impl AsyncFilter for Enrich {
    async fn start(&self) -> Result<(), BoxError> {
        match &self.from {
            From::Table(_) => Ok(()),
            From::File { path, key, read } => {
                let (path, key) = (path.clone(), key.clone());
                let table = tokio::task::spawn_blocking(move || table::read(&path, key.as_deref()));
                let table = table.await??;
                read.get_or_init(|| table);
                Ok(())
            }
            From::Http(lookup) => lookup.start().await,
        }
    }

    async fn apply(&self, event: &Event) -> Verdict {
        let Some(key) = self.key_of(event) else {
            return self.fallbacks.verdict(self.on_missing, "no_key");
        };
        match &self.from {
            From::Table(table) => self.put(event, table.get(&key)),
            From::File { read, .. } => self.put(event, read.get().and_then(|it| it.get(&key))),
            From::Http(lookup) => match lookup.find(&key).await {
                Ok(found) => self.put(event, found.as_deref()),
                Err(error) => self.fallbacks.verdict(
                    self.on_error,
                    match error {
                        Unanswered::Failed => "lookup_failed",
                        Unanswered::LeftAlone => LEFT_ALONE,
                    },
                ),
            },
        }
    }

    fn timed_out(&self, _event: &Event) -> Verdict {
        if let From::Http(lookup) = &self.from {
            lookup.outage().failed(&"there is no answer in time");
        }
        self.fallbacks.verdict(self.on_error, "timeout")
    }

    /// Tables are.
    fn is_local(&self) -> bool {
        !matches!(self.from, From::Http(_))
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

impl Enrich {
    /// What is looked up, as text.
    fn key_of(&self, event: &Event) -> Option<String> {
        match self.key.member() {
            Some("event") => return Some(event.name().to_owned()),
            Some("instance") => return Some(event.instance().to_owned()),
            _ => {}
        }
        match self.key.get(event.document())? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(is) => Some(is.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// Puts what was found into the envelope.
    fn put(&self, event: &Event, found: Option<&Value>) -> Verdict {
        let Some(found) = found else {
            return self.fallbacks.verdict(self.on_missing, "not_found");
        };
        match self.target.place(event.document()) {
            Place::Blocked => return Verdict::Pass,
            Place::Taken(old) if old == found => return Verdict::Pass,
            Place::Taken(_) | Place::Free => {}
        }
        let edited = attached::edit(event.clone(), |document| {
            let done = self.target.set(document, found.clone());
            debug_assert_eq!(done, Ok(()), "the place was looked at before");
        });
        edited.into()
    }
}

// === impl Config ===

impl Config {
    fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, message: String, help: &str| {
            problems.push(Problem::new("invalid", message).help(help).at_key(key));
        };
        if self.key.has_every() {
            let message = format!("`{}` has a `*`: one value is looked up", self.key);
            wrong(
                "key",
                message,
                "write a path without one, such as \"data.key.remoteJid\"",
            );
        }
        if self.target.has_every() || self.target.is_reserved() {
            let message = format!("nothing can be put at `{}`", self.target);
            let help = "write a path without `*` that is not `event` or `instance`, such as \"data.customer\"";
            wrong("target", message, help);
        }
        let sources = [
            ("table", self.table.is_some()),
            ("file", self.file.is_some()),
            ("http", self.http.is_some()),
        ];
        let named: Vec<_> = sources.iter().filter(|(_, is_set)| *is_set).collect();
        match named.as_slice() {
            [_] => {}
            [] => {
                let problem = Problem::new(
                    "missing-key",
                    "nothing says where to look: `table`, `file` and `http` are missing",
                );
                let help = "add one of them, such as `http = { url = \"https://crm.example.com/contacts/{key}\" }`";
                problems.push(problem.help(help));
                return problems;
            }
            [_, (second, _), ..] => {
                let message = format!("`{}` and `{second}` are both set", named[0].0);
                wrong(
                    second,
                    message,
                    "things are looked up in one place; take the other away",
                );
            }
        }
        if let Some(path) = &self.file
            && table::Format::of(path).is_none()
        {
            let message = format!(
                "`{}` ends neither with `.json` nor with `.csv`",
                path.display()
            );
            wrong("file", message, "name a file of one of these kinds");
        }
        if self.file_key.is_some() && self.file.is_none() {
            let message = "`file_key` says what is the key in `file`, which is missing".to_owned();
            wrong("file_key", message, "add `file`, or take this away");
        }
        if self.timeout.0.is_zero() {
            wrong(
                "timeout",
                "no lookup takes no time".to_owned(),
                "write \"5s\", for example",
            );
        }
        if let Some(http) = &self.http {
            if let Err(error) = Template::new(&http.url) {
                wrong(
                    "http.url",
                    error.to_string(),
                    "write \"https://crm.example.com/contacts/{key}\", for example",
                );
            }
            for (name, value) in &http.headers {
                if lookup::header(name, value).is_none() {
                    let message = format!("the header {name:?} cannot be sent as it is set");
                    let help = "names are letters, digits and `-`; values are one line; `Host` and lengths are evows' own";
                    wrong(&format!("http.headers.{name}"), message, help);
                }
            }
        }
        problems
    }
}
