//! Dead letters on their way back into the sink.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::cargo::Item;
use super::dead_letter::{Folder, Letter};
use crate::plugin::Destination;

/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where `evows dead-letters replay` puts what is to be sent again.
pub(super) struct Inbox {
    folder: Folder,
    reader: Option<Reader>,
    look_at: Instant,
    /// Whether files were looked for that an earlier process left half sent.
    recovered: bool,
    sink: Arc<str>,
}

/// A file that is being taken up.
struct Reader {
    lines: io::Lines<BufReader<File>>,
    file: Arc<Taken>,
}

/// A file whose lines are under way. It goes when all of them have ended; one that is left is taken up again by the next process.
#[derive(Debug)]
pub(super) struct Taken {
    path: PathBuf,
    /// Lines that have not ended, and one more while it is read.
    left: AtomicUsize,
}

// === impl Inbox ===

impl Inbox {
    pub(super) fn new(folder: Folder, sink: Arc<str>) -> Self {
        Self {
            folder,
            reader: None,
            look_at: Instant::now(),
            recovered: false,
            sink,
        }
    }

    /// When to [take](Self::take) next.
    pub(super) fn look_at(&self) -> Instant {
        self.look_at
    }

    /// Up to `most` events to send again. Not cancel safe, but nothing is lost: what was read is read again by the next process.
    pub(super) async fn take(&mut self, most: usize) -> Vec<(Destination, Item)> {
        let (folder, sink) = (self.folder.clone(), Arc::clone(&self.sink));
        let (reader, recovered) = (self.reader.take(), self.recovered);
        self.recovered = true;
        let taken = tokio::task::spawn_blocking(move || {
            if !recovered && let Err(error) = folder.recover() {
                tracing::warn!(sink = &*sink, %error, "dead letters that were half sent cannot be taken up again");
            }
            take(&folder, reader, most, &sink)
        }).await;
        let (items, reader) = taken.unwrap_or_default();
        self.look_at = Instant::now();
        if reader.is_none() {
            self.look_at += LOOK_EVERY;
        }
        self.reader = reader;
        items
    }
}

fn take(
    folder: &Folder,
    reader: Option<Reader>,
    most: usize,
    sink: &str,
) -> (Vec<(Destination, Item)>, Option<Reader>) {
    let opened = match reader {
        Some(reader) => Ok(Some(reader)),
        None => Reader::next(folder),
    };
    let mut reader = match opened {
        Ok(Some(reader)) => reader,
        Ok(None) => return (Vec::new(), None),
        Err(error) => {
            tracing::warn!(sink, %error, "dead letters cannot be taken up again");
            return (Vec::new(), None);
        }
    };
    let mut items = Vec::new();
    while items.len() < most {
        let Some(line) = reader.lines.next() else {
            reader.file.end(1);
            return (items, None);
        };
        let file = reader.file.path.display();
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                // It stays as it is, and the next process tries again.
                tracing::error!(sink, %file, %error, "dead letters cannot be read");
                return (items, None);
            }
        };
        let letter = Letter::parse(&line).and_then(|letter| Ok((letter.event()?, letter)));
        match letter {
            Ok((event, letter)) => {
                let destination = match letter.destination.as_str() {
                    "" => Destination::default(),
                    name => Destination::named(name),
                };
                reader.file.left.fetch_add(1, Ordering::Relaxed);
                items.push((destination, Item::again(event, Arc::clone(&reader.file))));
            }
            Err(error) => {
                tracing::warn!(sink, %file, %error, "a line is not sent again, and put back");
                if let Err(error) = folder.append(&format!("{line}\n")) {
                    tracing::error!(sink, %file, %error, "it cannot be put back: the file stays");
                    return (items, None);
                }
            }
        }
    }
    (items, Some(reader))
}

// === impl Reader ===

impl Reader {
    /// Opens the oldest file that is not under way.
    fn next(folder: &Folder) -> io::Result<Option<Self>> {
        let Some(path) = folder.inbox()?.into_iter().next() else {
            return Ok(None);
        };
        // Under another name nobody finds it again while it is under way.
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(Folder::UNDER_WAY);
        let mine = path.with_file_name(name);
        fs::rename(&path, &mine)?;
        let lines = BufReader::new(File::open(&mine)?).lines();
        let file = Taken {
            path: mine,
            left: AtomicUsize::new(1),
        };
        Ok(Some(Self {
            lines,
            file: Arc::new(file),
        }))
    }
}

// === impl Taken ===

impl Taken {
    /// Notes that lines have ended.
    pub(super) fn end(&self, lines: usize) {
        if self.left.fetch_sub(lines, Ordering::AcqRel) == lines
            && let Err(error) = fs::remove_file(&self.path)
        {
            let file = self.path.display();
            tracing::warn!(%file, %error, "what was sent again cannot be removed, and will be sent once more");
        }
    }
}
