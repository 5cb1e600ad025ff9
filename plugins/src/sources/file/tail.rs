//! The end of a file, and of those that follow it. Everything here blocks.

use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::iter;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use evows_core::Event;
use evows_core::config::Size;
use evows_core::metrics::Metrics;

use super::Config;
use super::position::{FileId, HEAD, Position, fingerprint};

/// What is read from the system at once.
const CHUNK: usize = 64 * 1024;
/// Events of one batch at most.
const MOST_EVENTS: usize = 256;
/// Bytes after which a batch ends.
const MOST_BYTES: usize = 1024 * 1024;

/// Reads a file that grows and is replaced.
#[derive(Debug)]
pub(super) struct Tail {
    id: Arc<str>,
    metrics: Metrics,
    path: PathBuf,
    follow: bool,
    max_line: usize,
    open: Option<Open>,
}

/// What came of looking at the file.
#[derive(Debug)]
pub(super) enum Step {
    /// Lines, whose events these are, up to here.
    Lines(Vec<Event>, Position),
    /// There is no more for now.
    Wait,
    /// There will be no more.
    End,
}

/// The file that is read.
#[derive(Debug)]
struct Open {
    reader: BufReader<File>,
    path: PathBuf,
    id: FileId,
    /// Bytes before the line that is being read.
    offset: u64,
    /// Bytes of that line that were read.
    read: u64,
    /// Its number.
    number: u64,
    /// What is kept of it: nothing when it is too long.
    line: Vec<u8>,
    is_too_long: bool,
    /// The first bytes of the file.
    head: Vec<u8>,
    /// Whether another file was seen in its place.
    is_replaced: bool,
}

/// A part of a line.
struct Piece {
    length: usize,
    is_last: bool,
}

// === impl Tail ===

impl Tail {
    pub(super) fn new(id: Arc<str>, metrics: Metrics, config: &Config) -> Self {
        Self {
            id,
            metrics,
            path: config.path.clone(),
            follow: config.follow,
            max_line: config.max_line.bytes(),
            open: None,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the file away, to be worked on elsewhere.
    pub(super) fn take(&mut self) -> Self {
        Self {
            id: Arc::clone(&self.id),
            metrics: self.metrics.clone(),
            path: self.path.clone(),
            follow: self.follow,
            max_line: self.max_line,
            open: self.open.take(),
        }
    }

    /// Goes on at a position that was written then, in whichever file it is by now.
    pub(super) fn resume(&mut self, position: &Position, written_at: SystemTime) -> io::Result<()> {
        let aside = self.put_aside()?;
        let others = aside.iter().map(|(_, path)| path);
        for path in iter::once(&self.path).chain(others) {
            let Some(mut open) = Open::new(path)? else {
                continue;
            };
            if open.id == position.file && open.go_to(position)? {
                self.open = Some(open);
                return Ok(());
            }
        }
        // Nothing that was written to since was read.
        let mut others = aside.iter();
        let next = others.find(|((at, _), _)| *at > written_at);
        let next = next.map_or(&self.path, |(_, path)| path);
        let path = next.display();
        tracing::warn!(source = &*self.id, %path, "the file that was read last is gone: begins with this one");
        self.open = Open::new(next)?;
        Ok(())
    }

    /// Leaves out what is there; the position is that of the end. Without a file, nothing is left out.
    pub(super) fn skip_to_end(&mut self) -> io::Result<Option<Position>> {
        let Some(mut open) = Open::new(&self.path)? else {
            return Ok(None);
        };
        // Lines are counted, so that they are reported by their numbers.
        while let Some(piece) = open.read_piece(0)? {
            if piece.is_last {
                open.next_line();
            }
        }
        // What was read of an unfinished line belongs to one that is added.
        open.begin_line_again()?;
        let position = open.position(&self.path);
        self.open = Some(open);
        Ok(Some(position))
    }

    /// Reads what is there, or finds out why there is no more.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        let Some(open) = &mut self.open else {
            return match Open::new(&self.path)? {
                Some(open) => {
                    let begin = open.position(&self.path);
                    self.open = Some(open);
                    Ok(Step::Lines(Vec::new(), begin))
                }
                None if self.follow => Ok(Step::Wait),
                None => Err(io::ErrorKind::NotFound.into()),
            };
        };
        let now = SystemTime::now();
        let (mut events, mut bytes) = (Vec::new(), 0);
        while events.len() < MOST_EVENTS && bytes < MOST_BYTES {
            let Some(piece) = open.read_piece(self.max_line)? else {
                break;
            };
            bytes += piece.length;
            if piece.is_last {
                events.extend(open.end_line(&self.id, &self.metrics, self.max_line, now));
            }
        }
        if bytes > 0 {
            return Ok(Step::Lines(events, open.position(&self.path)));
        }
        self.at_end(now)
    }

    fn at_end(&mut self, now: SystemTime) -> io::Result<Step> {
        let Some(open) = &mut self.open else {
            return Ok(Step::Wait);
        };
        if open.metadata()?.len() < open.offset + open.read {
            let path = open.path.display();
            tracing::info!(source = &*self.id, %path, "the file became shorter: reads it from its start");
            open.begin_again()?;
            return Ok(Step::Lines(Vec::new(), open.position(&self.path)));
        }
        let there = metadata(&self.path)?;
        let is_replaced = there.is_some_and(|there| FileId::of(&there) != open.id);
        if self.follow {
            if !is_replaced {
                return Ok(Step::Wait);
            }
            if !open.is_replaced {
                // Whoever wrote to it may not have noticed yet.
                open.is_replaced = true;
                return Ok(Step::Wait);
            }
        }
        if open.read > 0 {
            let last = open.end_line(&self.id, &self.metrics, self.max_line, now);
            let events = last.into_iter().collect();
            return Ok(Step::Lines(events, open.position(&self.path)));
        }
        if !is_replaced {
            return Ok(Step::End);
        }
        let next = self.next_path()?;
        self.open = Open::new(&next)?;
        let Some(open) = &self.open else {
            return Ok(Step::Wait);
        };
        tracing::info!(source = &*self.id, path = %next.display(), "reads the next file");
        Ok(Step::Lines(Vec::new(), open.position(&self.path)))
    }

    /// The file behind the one that is open: the first one put aside that was written to later.
    fn next_path(&self) -> io::Result<PathBuf> {
        let Some(open) = &self.open else {
            return Ok(self.path.clone());
        };
        let modified = open.metadata()?.modified()?;
        let mut aside = self.put_aside()?.into_iter();
        let next = aside.find(|((at, id), _)| *id != open.id && *at > modified);
        Ok(next.map_or_else(|| self.path.clone(), |(_, path)| path))
    }

    /// The files that were in its place before, in the order in which they were written to last.
    fn put_aside(&self) -> io::Result<Vec<((SystemTime, FileId), PathBuf)>> {
        let folder = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let ours = self.path.file_name().unwrap_or_default().to_string_lossy();
        let mut aside = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let path = self.path.with_file_name(&name);
            if is_put_aside(&name.to_string_lossy(), &ours)
                && let Some(metadata) = metadata(&path)?
                && metadata.is_file()
            {
                aside.push(((metadata.modified()?, FileId::of(&metadata)), path));
            }
        }
        aside.sort_by(|((a, _), one), ((b, _), other)| (a, one).cmp(&(b, other)));
        Ok(aside)
    }
}

// === impl Open ===

impl Open {
    fn new(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let id = FileId::of(&file.metadata()?);
        Ok(Some(Self {
            reader: BufReader::with_capacity(CHUNK, file),
            path: path.to_owned(),
            id,
            offset: 0,
            read: 0,
            number: 1,
            line: Vec::new(),
            is_too_long: false,
            head: Vec::new(),
            is_replaced: false,
        }))
    }

    fn metadata(&self) -> io::Result<Metadata> {
        self.reader.get_ref().metadata()
    }

    fn position(&self, path: &Path) -> Position {
        let length = self
            .head
            .len()
            .min(usize::try_from(self.offset).unwrap_or(HEAD));
        Position {
            path: path.to_owned(),
            file: self.id,
            offset: self.offset,
            line: self.number,
            head: fingerprint(self.head.get(..length).unwrap_or_default()),
        }
    }

    /// Goes to a position, if the file is the one that it is of.
    fn go_to(&mut self, position: &Position) -> io::Result<bool> {
        let length = position.offset.min(HEAD as u64);
        let mut head = Vec::new();
        self.reader.seek(SeekFrom::Start(0))?;
        Read::by_ref(&mut self.reader)
            .take(length)
            .read_to_end(&mut head)?;
        let is_it = fingerprint(&head) == position.head;
        if !is_it || self.metadata()?.len() < position.offset {
            return Ok(false);
        }
        self.head = head;
        self.offset = position.offset;
        self.number = position.line;
        self.begin_line_again()?;
        Ok(true)
    }

    fn begin_again(&mut self) -> io::Result<()> {
        self.head.clear();
        (self.offset, self.number) = (0, 1);
        self.begin_line_again()
    }

    fn begin_line_again(&mut self) -> io::Result<()> {
        self.reader.seek(SeekFrom::Start(self.offset))?;
        self.read = 0;
        self.line.clear();
        self.is_too_long = false;
        Ok(())
    }

    /// Reads up to the end of a line, or as far as there is something; `None` where there is nothing.
    fn read_piece(&mut self, max_line: usize) -> io::Result<Option<Piece>> {
        let buffer = self.reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        let end = memchr::memchr(b'\n', buffer);
        let piece = end.and_then(|at| buffer.get(..=at)).unwrap_or(buffer);
        if self.head.len() < HEAD {
            // What is read again is there already.
            let before = usize::try_from(self.offset + self.read).unwrap_or(HEAD);
            let known = self.head.len().saturating_sub(before);
            let room = HEAD - self.head.len();
            self.head.extend(piece.iter().skip(known).take(room));
        }
        // The line break does not count.
        let length = self.line.len() + piece.trim_ascii_end().len();
        self.is_too_long |= length > max_line;
        if self.is_too_long {
            self.line = Vec::new();
        } else {
            self.line.extend_from_slice(piece);
        }
        let length = piece.len();
        self.read += length as u64;
        self.reader.consume(length);
        Ok(Some(Piece {
            length,
            is_last: end.is_some(),
        }))
    }

    fn next_line(&mut self) {
        self.offset += self.read;
        self.read = 0;
        self.number += 1;
        self.line.clear();
        self.is_too_long = false;
    }

    /// Ends the line that is being read, and begins the next.
    fn end_line(
        &mut self,
        id: &Arc<str>,
        metrics: &Metrics,
        max_line: usize,
        now: SystemTime,
    ) -> Option<Event> {
        let mut line = mem::take(&mut self.line);
        line.truncate(line.trim_ascii_end().len());
        let parsed = if self.is_too_long {
            Err(format!("it is longer than {}", Size(max_line as u64)))
        } else if line.is_empty() {
            Ok(None)
        } else {
            let event = Event::parse(Bytes::from(line), now);
            event.map(Some).map_err(|error| error.to_string())
        };
        let number = self.number;
        self.next_line();
        parsed.unwrap_or_else(|reason| {
            let path = self.path.display();
            tracing::warn!(source = &**id, %path, line = number, %reason, "skipped a line");
            metrics.refuse(id, "bad_line");
            None
        })
    }
}

fn metadata(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a file of this name was put aside: `events.ndjson.1`, `events.ndjson.2026-11-25T10-00-00.000000Z`.
fn is_put_aside(name: &str, ours: &str) -> bool {
    let rest = name.strip_prefix(ours);
    let rest = rest.and_then(|rest| rest.strip_prefix(['.', '-']));
    rest.is_some_and(|rest| {
        let is_time = |c: char| c.is_ascii_digit() || "-_.:TZ".contains(c);
        rest.starts_with(|c: char| c.is_ascii_digit()) && rest.chars().all(is_time)
    })
}
