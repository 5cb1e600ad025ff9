//! Events that could not be delivered, as lines of JSON in files that people can read and have sent again.
//!
//! The path is that of `dead_letter`, whose `*` is the day (UTC). Each line is an object: `at`, `sink`, `destination`, `reason`,
//! `attempts`, `error`, and `event` with `id`, `event`, `instance`, `received_at`, `envelope`, and `attachments` in base64 where
//! there are any. `evows dead-letters replay` moves lines into files beside them, which the sink takes up while it runs or
//! when it starts: see [`Folder::inbox`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Event, files, one_line};

/// What files of lines to be sent again have in place of the day, with the sink's id and the time behind it. No id has a dot.
const AGAIN: &str = "replay.";

/// The dead letters of one sink.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    /// The path, whose `*` is the day. Sinks may share it.
    template: PathBuf,
    sink: String,
}

/// One event that could not be delivered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Letter {
    /// When it was given up, as in RFC 3339.
    pub(crate) at: String,
    pub(crate) sink: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) destination: String,
    pub(crate) reason: String,
    pub(crate) attempts: u32,
    pub(crate) error: String,
    pub(crate) event: Body,
}

/// The event of a letter.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Body {
    pub(crate) id: String,
    pub(crate) event: String,
    pub(crate) instance: String,
    received_at: String,
    envelope: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<String>,
}

/// A line that is no letter.
#[derive(Debug, thiserror::Error)]
#[error("not a dead letter: {0}")]
pub(crate) struct NoLetter(String);

// === impl Letter ===

impl Letter {
    pub(crate) fn new(
        event: &Event,
        (sink, destination): (&str, &str),
        (reason, attempts, error): (&str, u32, &str),
    ) -> Self {
        let line = one_line(event.envelope());
        let envelope = str::from_utf8(&line).ok();
        let envelope = envelope.and_then(|json| RawValue::from_string(json.to_owned()).ok());
        let attachments = event.attachments().iter();
        Self {
            at: now(),
            sink: sink.to_owned(),
            destination: destination.to_owned(),
            reason: reason.to_owned(),
            attempts,
            error: error.to_owned(),
            event: Body {
                id: event.id().to_string(),
                event: event.name().to_owned(),
                instance: event.instance().to_owned(),
                received_at: humantime::format_rfc3339_micros(event.received_at()).to_string(),
                // Every event's envelope is JSON; one of a test may not be.
                envelope: envelope.unwrap_or_default(),
                attachments: attachments.map(|bytes| STANDARD.encode(bytes)).collect(),
            },
        }
    }

    pub(crate) fn parse(line: &str) -> Result<Self, NoLetter> {
        serde_json::from_str(line).map_err(|error| NoLetter(error.to_string()))
    }

    /// The event, with the id that it had.
    pub(crate) fn event(&self) -> Result<Event, NoLetter> {
        let body = &self.event;
        let wrong = |error: &dyn std::fmt::Display| NoLetter(error.to_string());
        let id = body.id.parse().map_err(|error| wrong(&error))?;
        let at = humantime::parse_rfc3339(&body.received_at).map_err(|error| wrong(&error))?;
        let envelope = Bytes::from(body.envelope.get().to_owned());
        let attachments = body.attachments.iter().map(|text| STANDARD.decode(text));
        let attachments: Result<Vec<_>, _> = attachments.map(|it| it.map(Bytes::from)).collect();
        let attachments = attachments.map_err(|error| wrong(&error))?;
        let (name, instance) = (&*body.event, &*body.instance);
        let event = Event::from_parts(name.into(), instance.into(), envelope, at).with_id(id);
        Ok(event.with_attachments(attachments))
    }

    pub(crate) fn line(&self) -> String {
        // Strings and valid JSON always serialize.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}

// === impl Folder ===

impl Folder {
    /// What the names of files end with that are being sent again.
    pub(crate) const UNDER_WAY: &str = ".sending";

    pub(crate) fn new(template: &Path, sink: &str) -> Self {
        Self {
            template: template.to_owned(),
            sink: sink.to_owned(),
        }
    }

    /// Appends lines to today's file, on the disk when this returns. Blocks.
    pub(crate) fn append(&self, lines: &str) -> io::Result<()> {
        let today = now().chars().take(10).collect::<String>();
        let path = self.path(&today);
        let mut file = open_locked(&path)?;
        let before = file.metadata()?.len();
        let mut last = [b'\n'];
        if before > 0 {
            file.seek(SeekFrom::Start(before - 1))?;
            file.read_exact(&mut last)?;
        }
        // Behind half a line, which a crash has left, a new one begins.
        let gap: &[u8] = if last == *b"\n" { b"" } else { b"\n" };
        let written = file
            .write_all(gap)
            .and_then(|()| file.write_all(lines.as_bytes()))
            .and_then(|()| file.sync_data());
        if written.is_err() {
            // Half a line would spoil the next one.
            file.set_len(before).ok();
        }
        written
    }

    /// The files that there are, oldest first. Blocks.
    pub(crate) fn files(&self) -> io::Result<Vec<PathBuf>> {
        self.all(|star| !star.starts_with(AGAIN))
    }

    /// The files of this sink's lines that are to be sent again, oldest first. Blocks.
    pub(crate) fn inbox(&self) -> io::Result<Vec<PathBuf>> {
        self.all(|star| self.is_mine(star))
    }

    /// Whether what a name has in place of the day says that its lines are to be sent again to this sink.
    fn is_mine(&self, star: &str) -> bool {
        let rest = star.strip_prefix(AGAIN);
        let rest = rest.and_then(|rest| rest.strip_prefix(&*self.sink));
        rest.is_some_and(|rest| rest.starts_with('.'))
    }

    /// Gives files back that another process was sending when it ended. Blocks.
    pub(crate) fn recover(&self) -> io::Result<()> {
        for path in self.entries()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Some(name) = name.strip_suffix(Self::UNDER_WAY)
                && self.star(name).is_some_and(|star| self.is_mine(star))
            {
                fs::rename(&path, path.with_file_name(name))?;
            }
        }
        Ok(())
    }

    /// Moves the lines that `choose` wants to be sent again. Returns how many. Blocks.
    pub(crate) fn send_again(&self, choose: impl Fn(&Letter) -> bool) -> io::Result<usize> {
        let mut moved = 0;
        for path in self.files()? {
            let mut file = open_locked(&path)?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            let chosen = |line: &&str| Letter::parse(line).is_ok_and(|letter| choose(&letter));
            let (again, rest): (Vec<&str>, Vec<&str>) = text.lines().partition(chosen);
            if again.is_empty() {
                continue;
            }
            // First there, then gone from here: a crash in between has them sent twice, and not never.
            let name = format!("{AGAIN}{}.{}-{moved}", self.sink, now());
            write_lines(&self.path(&name), &again)?;
            if rest.is_empty() {
                fs::remove_file(&path)?;
            } else {
                write_lines(&path, &rest)?;
            }
            moved += again.len();
        }
        Ok(moved)
    }

    fn path(&self, star: &str) -> PathBuf {
        let name = self.template.file_name().unwrap_or_default();
        let name = name.to_string_lossy();
        let name = if name.contains('*') {
            name.replacen('*', star, 1)
        } else if star.starts_with(AGAIN) {
            format!("{star}-{name}")
        } else {
            name.into_owned()
        };
        self.template.with_file_name(name)
    }

    /// The files whose names are of this kind, by what they have in place of the day.
    fn all(&self, is_wanted: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
        let mut files = self.entries()?;
        files.retain(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.star(&name).is_some_and(&is_wanted)
        });
        files.sort();
        Ok(files)
    }

    /// What a name has in place of the day, if it is that of a day, or of lines to be sent again, and finished.
    fn star<'n>(&self, name: &'n str) -> Option<&'n str> {
        if name.ends_with(Self::UNDER_WAY) || name.ends_with(files::UNFINISHED) {
            return None;
        }
        let template = self.template.file_name().unwrap_or_default();
        let template = template.to_string_lossy();
        let (before, after, has_star) = match template.split_once('*') {
            Some((before, after)) => (before, after, true),
            None => ("", &*template, false),
        };
        let star = name.strip_prefix(before)?.strip_suffix(after)?;
        let is_plain = if has_star {
            is_day(star)
        } else {
            star.is_empty()
        };
        (is_plain || star.starts_with(AGAIN)).then_some(star)
    }

    fn entries(&self) -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(files::folder(&self.template)) {
            Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

fn is_day(text: &str) -> bool {
    text.len() == 10
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'-')
}

/// Now, as in RFC 3339.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}

/// Opens a file to append to, made if need be, and locks it: the command line may be moving lines out of it.
fn open_locked(path: &Path) -> io::Result<File> {
    fs::create_dir_all(files::folder(path))?;
    loop {
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(path)?;
        file.lock()?;
        // Whoever had the lock may have put another file in its place.
        if files::is_same(&file, path)? {
            if file.metadata()?.len() == 0 {
                files::sync_folder(path)?;
            }
            return Ok(file);
        }
    }
}

/// Puts lines in the place of a file.
fn write_lines(path: &Path, lines: &[&str]) -> io::Result<()> {
    let lines = lines.iter().flat_map(|line| [line.as_bytes(), b"\n"]);
    files::put(path, lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::event;

    fn letter(n: usize) -> Letter {
        let event = event(&format!(
            "{{\"event\":\"call\",\n\"instance\":\"a\",\"n\":{n}}}"
        ));
        let event = event.with_attachments(vec![Bytes::from_static(b"\0\xff")]);
        Letter::new(&event, ("out", "global"), ("permanent", 1, "400: no"))
    }

    #[test]
    fn a_letter_reads_back() {
        let letter = letter(7);
        let line = letter.line();
        assert_eq!(line.lines().count(), 1);
        let back = Letter::parse(&line).unwrap().event().unwrap();
        assert_eq!(back.id().to_string(), letter.event.id);
        assert_eq!(
            back.envelope(),
            "{\"event\":\"call\", \"instance\":\"a\",\"n\":7}"
        );
        assert_eq!(back.attachments(), [Bytes::from_static(b"\0\xff")]);
        assert!(Letter::parse("{}").is_err());
    }

    #[test]
    fn lines_are_moved_to_be_sent_again() {
        for template in ["out-*.ndjson", "out.ndjson", "*"] {
            let folder = tempfile::tempdir().unwrap();
            let letters = Folder::new(&folder.path().join("sub").join(template), "out");
            assert_eq!(letters.files().unwrap(), Vec::<PathBuf>::new());
            let all: Vec<Letter> = (0..4).map(letter).collect();
            for letter in &all {
                letters.append(&letter.line()).unwrap();
            }
            fs::write(folder.path().join("sub").join("other.ndjson"), "x").unwrap();
            assert_eq!(letters.files().unwrap().len(), 1, "{template}");
            let wanted = [&all[1].event.id, &all[3].event.id];
            let moved = letters.send_again(|letter| wanted.contains(&&letter.event.id));
            assert_eq!(moved.unwrap(), 2);
            let inbox = letters.inbox().unwrap();
            assert_eq!(fs::read_to_string(&inbox[0]).unwrap().lines().count(), 2);
            let left = fs::read_to_string(&letters.files().unwrap()[0]).unwrap();
            assert_eq!(left, all[0].line() + &all[2].line());
            assert_eq!(letters.send_again(|_| true).unwrap(), 2);
            assert_eq!(letters.files().unwrap(), Vec::<PathBuf>::new());
            assert_eq!(letters.inbox().unwrap().len(), 2, "{template}");
        }
    }
}
