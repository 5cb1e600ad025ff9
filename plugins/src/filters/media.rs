//! Takes the content of media messages out of envelopes: drops it, or puts it into a folder or an object store and leaves a
//! reference.
//!
//! ```toml
//! [filters.media]
//! type = "media"
//! inputs = ["evolution"]
//! mode = "offload"
//! folder = "media"
//! public_url = "https://media.example.com"
//! ```
//!
//! # What is content
//!
//! Inside of `message`, `editedMessage`, `quotedMessage` and `contextInfo`, wherever these are in `data` (contract 1.4 and 1.5):
//!
//! - the text `base64`, which Evolution adds to media messages, and the texts `jpegThumbnail`, `pngThumbnail`, `thumbnail`,
//!   `streamingSidecar` and `scansSidecar`, where they are base64: in either alphabet (`+/` or `-_`), with or without padding, with line
//!   breaks and spaces in it or none, and behind `data:image/png;base64,` or not;
//! - byte fields as indexed objects, `{"0":1,"1":255}`, or as Node writes them, `{"type":"Buffer","data":[1,255]}`;
//! - attachments that travel beside the envelope.
//!
//! Up to `max_size` it stays where it is. Without that key this is 256 bytes, so that `mediaKey`, hashes and secrets, which clients need
//! to fetch and decrypt a file themselves, are never touched. A QR code is no message and stays.
//!
//! | `mode` | what becomes of content |
//! |---|---|
//! | `"strip"` | it is taken out; an element of an array becomes `null` |
//! | `"cap"` | the same, but `max_size` must be set |
//! | `"offload"` | it is stored, and its place is taken by `{"path":"...","url":"...","size":48213,"sha256":"...","mimetype":"image/jpeg"}` |
//!
//! `url` is there with `public_url`, or with `presign` of `s3`. With it, `mediaUrl` is set beside a `base64`, where there is none or `null`: that is where
//! Evolution's own store puts the address. An event without content keeps its bytes.
//!
//! # Its type
//!
//! The type is the `mimetype` of the message, or the one in front of base64. Without either it is told by how the content begins:
//! JPEG, PNG, WebP, GIF, MP4, Ogg, MP3 with tags, PDF and zip are known (an Office file begins as zip does, and is taken for that). It is what `mimetype` of
//! a reference says.
//!
//! `{ext}`, and the type that an object of `s3` is stored with, are those of the type where it is one of these, and `bin` and
//! `application/octet-stream` otherwise, so that a browser does not run what somebody sent:
//!
//! | | |
//! |---|---|
//! | pictures | JPEG, PNG, WebP, GIF, HEIC |
//! | videos | MP4, 3GP, `QuickTime`, `WebM` |
//! | sounds | Ogg, MP3, M4A, AAC, AMR, WAV |
//! | documents | PDF, zip; Word, Excel and `PowerPoint`, of both kinds (`doc`, `docx` and so on) |
//!
//! # Where it is stored
//!
//! In `folder`, or in the bucket of `s3`, under the name that `path` makes: `{instance}`, `{event}`, `{date}` (the day of arrival, UTC),
//! `{sha256}` of the content, and `{ext}`, which goes by the type. In instance and event, what is neither a letter, a digit, `-`, `_` nor
//! `.` is written as its bytes, `=20` for a space, and so is a dot in front: no event gets out of the folder, and no two instances share one. What
//! is longer than 64 bytes then is cut, and ends in `==` and a hash of all of it. The same content has the same name: storing it twice
//! changes nothing. Files are written beside their place and then renamed. Nothing is ever deleted: that is for the bucket's lifecycle rules, or for a
//! job that removes old days.
//!
//! An event goes on only when all of its content is stored. If that fails, the event does as `on_error` says: `"fail"` tells its source,
//! and Evolution posts it again; `"pass"` leaves the content in it. There is nothing in between, and no try again here. What cannot be read does as
//! `on_unreadable` says: it would be no better if it came again, so it passes as it is unless the file says otherwise.
//!
//! A store that does not answer five times in a row (no connection, or not stored within `timeout`) is left alone for a second: events with content do at once as
//! `on_error` says. Then one event tries again, and as long as that fails the wait doubles, up to 30 seconds.
//!
//! # S3
//!
//! ```toml
//! [filters.media]
//! type = "media"
//! inputs = ["evolution"]
//! mode = "offload"
//!
//! [filters.media.s3]
//! endpoint = "https://s3.eu-west-1.amazonaws.com"
//! bucket = "media"
//! region = "eu-west-1"
//! access_key = "${S3_ACCESS_KEY}"
//! secret_key = "${S3_SECRET_KEY}"
//! presign = "1h"
//! ```
//!
//! Objects are put with one request each, signed with Signature Version 4, as AWS, `MinIO`, R2 and others know it. `style = "path"`, the default, puts the bucket
//! into the path, `"virtual_host"` into the host.
//!
//! # What may go wrong
//!
//! | | what happens | reason |
//! |---|---|---|
//! | the folder or the store does not take it | `on_error` | `store_failed` |
//! | it takes longer than `timeout` | `on_error` | `timeout` |
//! | the store is left alone because it does not answer | `on_error` | `left_alone` |
//! | a `base64` to be stored is none | `on_unreadable` | `not_base64` |
//! | the envelope is nested more than 127 deep, or has a number that no double holds, such as `1e400` | `on_unreadable` | `unreadable` |
//!
//! Events that fail or are discarded are counted with the reason, and those that pass are in `evows_events_unhandled_total`.

mod find;
mod names;
#[cfg(feature = "s3")]
mod s3;
mod store;

#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use async_trait::async_trait;
use evows_core::config::{Period, Problem, Size};
use evows_core::plugin::{
    AsyncFilter, AsyncFilterPlugin, BoxError, BuildContext, BuildError, Limits, Verdict,
};
use evows_core::{Event, register_async_filter};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use self::find::{Content, NotBase64, Step};
use self::names::Template;
use self::store::{Folder, Store};
use super::attached;
use super::fallback::{Fallback, Fallbacks};
use super::outage::{LEFT_ALONE, Outage, What};

#[cfg(feature = "s3")]
pub use self::s3::{S3, Style};

/// What stays in an envelope where the file does not say otherwise, in bytes: keys and hashes.
const KEYS: usize = 256;

/// Takes the content of media messages out of envelopes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What becomes of content: `"strip"`, `"cap"` or `"offload"`.
    pub mode: Mode,
    /// What is no larger stays in the envelope; 256 bytes when left out.
    pub max_size: Option<Size>,
    /// The folder that content is put into.
    pub folder: Option<PathBuf>,
    /// The object store that content is put into.
    #[cfg(feature = "s3")]
    pub s3: Option<S3>,
    /// The name of what is stored: `{instance}`, `{event}`, `{date}`, `{sha256}` and `{ext}`, with slashes between folders.
    pub path: String,
    /// What stands in front of the name in the `url` of a reference, such as `"https://media.example.com"`.
    pub public_url: Option<String>,
    /// What happens to an event whose content cannot be stored: `"fail"`, `"discard"` or `"pass"`.
    pub on_error: Fallback,
    /// What happens to an event that cannot be read, or whose content cannot: `"pass"`, `"discard"` or `"fail"`.
    pub on_unreadable: Fallback,
    /// Time that storing the content of one event may take.
    pub timeout: Period,
    /// Events whose content is stored at once. They leave in their order.
    pub concurrency: NonZeroUsize,
}

/// What becomes of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It is taken out.
    #[default]
    Strip,
    /// What is larger than `max_size` is taken out.
    Cap,
    /// It is stored, and a reference takes its place.
    Offload,
}

/// The running filter.
pub struct Media {
    max_size: usize,
    store: Option<Box<dyn Store>>,
    path: Template,
    public_url: Option<String>,
    on_error: Fallback,
    on_unreadable: Fallback,
    fallbacks: Fallbacks,
    limits: Limits,
    outage: Outage,
}

/// Content that is ready to be stored.
struct Ready {
    steps: Vec<Step>,
    content: Content,
    name: String,
}

/// Why an event keeps its content.
#[derive(Debug)]
enum Failure {
    /// The store did not take it.
    Store,
    /// It was not asked to.
    LeftAlone,
    NotBase64(NotBase64),
}

register_async_filter!(
    Media,
    summary = "Takes the content of media messages out of envelopes, or stores it elsewhere.",
    example =
        "mode = \"offload\"\nfolder = \"media\"\npublic_url = \"https://media.example.com\"\n",
);

// === impl Media ===

impl AsyncFilterPlugin for Media {
    const NAME: &'static str = "media";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        config.check()
    }

    fn build(config: Config, cx: &BuildContext) -> Result<Self, BuildError> {
        let path = Template::new(&config.path);
        let path = path.map_err(|error| BuildError::new(error.to_string()))?;
        let store = match config.mode {
            Mode::Strip | Mode::Cap => None,
            Mode::Offload => Some(config.store(cx)?),
        };
        Ok(Self {
            max_size: config.max_size.map_or(KEYS, Size::bytes),
            store,
            path,
            public_url: config.public_url,
            on_error: config.on_error,
            on_unreadable: config.on_unreadable,
            fallbacks: Fallbacks::new(cx),
            limits: Limits {
                concurrency: config.concurrency,
                timeout: config.timeout.0,
            },
            outage: {
                let what = What {
                    failed: "content is not stored",
                    works: "content is stored again",
                };
                Outage::new(cx.id(), what, config.timeout.0)
            },
        })
    }
}

#[async_trait]
impl AsyncFilter for Media {
    async fn start(&self) -> Result<(), BoxError> {
        match &self.store {
            Some(store) => store.start().await,
            None => Ok(()),
        }
    }

    async fn apply(&self, event: &Event) -> Verdict {
        // Nothing in it is larger than the whole.
        if event.size() <= self.max_size {
            return Verdict::Pass;
        }
        if !attached::is_readable(event) {
            return self.fallbacks.verdict(self.on_unreadable, "unreadable");
        }
        let Some(store) = self.store.as_deref() else {
            return self.strip(event);
        };
        match self.offload(store, event).await {
            Ok(verdict) => verdict,
            Err(Failure::Store) => self.fallbacks.verdict(self.on_error, "store_failed"),
            Err(Failure::LeftAlone) => self.fallbacks.verdict(self.on_error, LEFT_ALONE),
            Err(Failure::NotBase64(error)) => {
                tracing::debug!(%error, "content cannot be read");
                self.fallbacks.verdict(self.on_unreadable, "not_base64")
            }
        }
    }

    fn timed_out(&self, _event: &Event) -> Verdict {
        self.outage.failed(&"it is not stored in time");
        self.fallbacks.verdict(self.on_error, "timeout")
    }

    /// Where nothing is stored.
    fn is_local(&self) -> bool {
        self.store.is_none()
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

impl Media {
    fn strip(&self, event: &Event) -> Verdict {
        let found = find::find(event, self.max_size);
        if found.is_empty() {
            return Verdict::Pass;
        }
        let places: Vec<_> = found.into_iter().map(|found| found.steps).collect();
        let stripped = attached::edit(event.clone(), |document| {
            for steps in &places {
                find::remove(document, steps);
            }
        });
        stripped.into()
    }

    /// Stores the content, all of it, and then puts references in its place.
    async fn offload(&self, store: &dyn Store, event: &Event) -> Result<Verdict, Failure> {
        let Some(ready) = self.prepare(event).await? else {
            return Ok(Verdict::Pass);
        };
        let attempt = self.outage.attempt().ok_or(Failure::LeftAlone)?;
        for one in &ready {
            let content_type = names::content_type(&one.content.mimetype);
            let bytes = one.content.bytes.clone();
            let put = attempt.make(store.put(&one.name, bytes, content_type));
            if let Err(error) = put.await.ok_or(Failure::LeftAlone)? {
                if error.is_silence() {
                    attempt.failed(&error);
                } else {
                    attempt.refused(&error);
                }
                return Err(Failure::Store);
            }
        }
        attempt.worked();
        let edited = attached::edit(event.clone(), |document| {
            for one in &ready {
                self.refer(document, one, store);
            }
        });
        Ok(edited.into())
    }

    /// Finds, decodes and hashes content, away from the tasks that must not wait; `None` where there is none.
    async fn prepare(&self, event: &Event) -> Result<Option<Vec<Ready>>, Failure> {
        let (event, path, max_size) = (event.clone(), self.path.clone(), self.max_size);
        let prepared = tokio::task::spawn_blocking(move || {
            let found = find::find(&event, max_size).into_iter();
            let ready = found.map(|found| {
                let content = found.read()?;
                Ok(Ready {
                    name: path.name(&event, &content),
                    steps: found.steps,
                    content,
                })
            });
            ready.collect::<Result<Vec<_>, NotBase64>>()
        });
        let ready = match prepared.await {
            Ok(ready) => ready.map_err(Failure::NotBase64)?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        Ok((!ready.is_empty()).then_some(ready))
    }

    fn refer(&self, document: &mut Map<String, Value>, one: &Ready, store: &dyn Store) {
        let path = store.path(&one.name);
        let url = match &self.public_url {
            Some(base) => Some(format!("{}/{path}", base.trim_end_matches('/'))),
            None => store.url(&one.name),
        };
        let mut reference = Map::new();
        reference.insert("path".to_owned(), path.into());
        if let Some(url) = &url {
            reference.insert("url".to_owned(), url.as_str().into());
        }
        reference.insert("size".to_owned(), one.content.bytes.len().into());
        reference.insert("sha256".to_owned(), one.content.sha256.as_str().into());
        reference.insert("mimetype".to_owned(), one.content.mimetype.as_str().into());
        find::replace(document, &one.steps, Value::Object(reference));
        if let (Some(url), Some((Step::Member(last), steps))) = (url, one.steps.split_last())
            && last == find::BASE64
            && let Some(Value::Object(message)) = find::at(document, steps)
        {
            let place = message.entry("mediaUrl").or_insert(Value::Null);
            if place.is_null() {
                *place = url.into();
            }
        }
    }
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Strip,
            max_size: None,
            folder: None,
            #[cfg(feature = "s3")]
            s3: None,
            path: "{instance}/{date}/{sha256}.{ext}".to_owned(),
            public_url: None,
            on_error: Fallback::default(),
            // It cannot be read however often it comes.
            on_unreadable: Fallback::Pass,
            // Less than a webhook source waits for: its sender would send the event again.
            timeout: Period::seconds(10),
            concurrency: NonZeroUsize::new(8).expect("8 is not 0"),
        }
    }
}

impl Config {
    fn store(&self, cx: &BuildContext) -> Result<Box<dyn Store>, BuildError> {
        #[cfg(feature = "s3")]
        if let Some(s3) = &self.s3 {
            let bucket = s3::Bucket::new(s3, cx.environment());
            let bucket = bucket.map_err(|error| BuildError::new(error.to_string()))?;
            return Ok(Box::new(bucket));
        }
        #[cfg(not(feature = "s3"))]
        let _ = cx;
        match &self.folder {
            Some(folder) => Ok(Box::new(Folder::new(folder.clone(), self.concurrency))),
            None => Err(BuildError::new("there is no place to put content into")),
        }
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, message: String, help: &str| {
            problems.push(Problem::new("invalid", message).help(help).at_key(key));
        };
        #[cfg(feature = "s3")]
        let has_s3 = self.s3.is_some();
        #[cfg(not(feature = "s3"))]
        let has_s3 = false;
        let places = [("folder", self.folder.is_some()), ("s3", has_s3)];
        let places: Vec<_> = places.iter().filter(|(_, is_set)| *is_set).collect();
        match (self.mode, places.as_slice()) {
            (Mode::Offload, []) => wrong(
                "mode",
                "nothing says where content is put".to_owned(),
                "add `folder = \"media\"`, or a table `s3`",
            ),
            (Mode::Offload, [_, (second, _), ..]) => wrong(
                second,
                "content is put in one place: `folder` and `s3` are both set".to_owned(),
                "take one of them away",
            ),
            (Mode::Strip | Mode::Cap, [(place, _), ..]) => wrong(
                place,
                "nothing is put there: that takes `mode = \"offload\"`".to_owned(),
                "set the mode, or take this away",
            ),
            _ => {}
        }
        if self.mode == Mode::Cap && self.max_size.is_none() {
            let message = "`mode = \"cap\"` takes a `max_size`".to_owned();
            wrong("mode", message, "add `max_size = \"64KiB\"`, for example");
        }
        if let Err(error) = Template::new(&self.path) {
            let help = "write \"{instance}/{date}/{sha256}.{ext}\", for example";
            wrong("path", error.to_string(), help);
        }
        if let Some(url) = &self.public_url
            && !(url.starts_with("http://") || url.starts_with("https://"))
        {
            let message = "the URL needs `http://` or `https://` in front".to_owned();
            wrong(
                "public_url",
                message,
                "write \"https://media.example.com\", for example",
            );
        }
        if self.timeout.0.is_zero() {
            wrong(
                "timeout",
                "nothing is stored in no time".to_owned(),
                "write \"30s\", for example",
            );
        }
        #[cfg(feature = "s3")]
        if let Some(s3) = &self.s3 {
            problems.extend(s3.check().into_iter().map(|problem| problem.under("s3")));
        }
        problems
    }
}
