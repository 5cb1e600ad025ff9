//! What files are called.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use evows_core::files;

/// The length of a day as it is written.
const DAY: usize = "2026-11-25".len();

/// The names of the files of one sink.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// The path, whose `*` is the day.
    template: PathBuf,
}

// === impl Names ===

impl Names {
    pub(super) fn new(template: PathBuf) -> Self {
        Self { template }
    }

    /// The file that is written to at a time.
    pub(super) fn at(&self, time: SystemTime) -> PathBuf {
        let name = self.template.file_name().unwrap_or_default();
        let name = name.to_string_lossy();
        if !name.contains('*') {
            return self.template.clone();
        }
        let day: String = stamp(time).chars().take(DAY).collect();
        self.template.with_file_name(name.replacen('*', &day, 1))
    }

    /// Where a file goes that is put aside at a time: to a name that is not taken.
    pub(super) fn aside(path: &Path, mut time: SystemTime) -> io::Result<PathBuf> {
        loop {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(".");
            name.push(stamp(time));
            let aside = path.with_file_name(name);
            if !aside.try_exists()? {
                return Ok(aside);
            }
            time += Duration::from_micros(1);
        }
    }

    /// The files that nothing is written to any more, oldest first.
    pub(super) fn old(&self, current: &Path) -> io::Result<Vec<PathBuf>> {
        let mut old = Vec::new();
        for entry in fs::read_dir(files::folder(&self.template))? {
            let name = entry?.file_name();
            let path = self.template.with_file_name(&name);
            if let Some(age) = self.age(&name.to_string_lossy())
                && path != current
            {
                old.push((age, path));
            }
        }
        old.sort();
        Ok(old.into_iter().map(|(_, path)| path).collect())
    }

    /// The day and the time in the name of one of its files. The one of a day that was not put aside is its last.
    fn age(&self, name: &str) -> Option<(String, String)> {
        let template = self.template.file_name().unwrap_or_default();
        let template = template.to_string_lossy();
        let (day, rest) = match template.split_once('*') {
            None => ("", name.strip_prefix(&*template)?),
            Some((before, after)) => {
                let (day, rest) = name.strip_prefix(before)?.split_at_checked(DAY)?;
                (day, rest.strip_prefix(after)?)
            }
        };
        let is_day = day.is_empty() || is_like(day, "0000-00-00");
        let stamp = match rest.strip_prefix('.') {
            Some(stamp) if is_like(stamp, "0000-00-00T00-00-00.000000Z") => stamp,
            None if rest.is_empty() => "~",
            _ => return None,
        };
        is_day.then(|| (day.to_owned(), stamp.to_owned()))
    }
}

/// A time in UTC that sorts as text and is a file name everywhere.
fn stamp(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_micros(time).to_string();
    text.replace(':', "-")
}

/// Whether a text has digits where the pattern has, and is the same elsewhere.
fn is_like(text: &str, pattern: &str) -> bool {
    let matches = |(a, b): (u8, u8)| {
        if b == b'0' {
            a.is_ascii_digit()
        } else {
            a == b
        }
    };
    text.len() == pattern.len() && text.bytes().zip(pattern.bytes()).all(matches)
}
