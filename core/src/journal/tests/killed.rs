//! A process that is killed keeps every record that it reported as stored.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::super::{Disk, Durability, Journal, Options};
use super::{all, record};

const FOLDER: &str = "EVOWS_TEST_JOURNAL";
const FIRST: &str = "EVOWS_TEST_JOURNAL_ID";

fn options(folder: &Path) -> Options {
    let durability = if folder.ends_with("always") {
        Durability::Always
    } else {
        Durability::Interval(Duration::from_millis(20))
    };
    Options {
        durability,
        ..Options::default()
    }
}

/// What is killed: appends, and prints the offset and the record of every append that succeeded.
#[tokio::test]
#[ignore = "run by the test below, in a process of its own"]
async fn child() {
    let Some(folder) = env::var_os(FOLDER) else {
        return;
    };
    let first = env::var_os(FIRST).unwrap().into_string().unwrap();
    let first: u64 = first.parse().unwrap();
    let folder = Path::new(&folder);
    let journal = Arc::new(Disk::open(folder, options(folder)).unwrap());
    let append = async |lane: u64| {
        for id in (first + lane..).step_by(8) {
            let length = usize::try_from(id % 5_000).unwrap();
            let offset = journal.append(vec![record(id, length)]).await.unwrap();
            let mut out = std::io::stdout().lock();
            writeln!(out, "\nstored {offset} {id}").unwrap();
            out.flush().unwrap();
        }
    };
    futures_util::future::join_all((0..8).map(append)).await;
}

#[tokio::test]
async fn a_killed_process_loses_nothing() {
    for name in ["interval", "always"] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join(name);
        let mut stored = BTreeMap::new();
        for round in 0..5 {
            let mut child = Command::new(env::current_exe().unwrap())
                .args([
                    "--exact",
                    "journal::tests::killed::child",
                    "--ignored",
                    "--nocapture",
                ])
                .env(FOLDER, &folder)
                .env(FIRST, (round * 1_000_000).to_string())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut left = fastrand::u64(1..400);
            let mut dead = false;
            while let Some(Ok(line)) = lines.next() {
                let Some(numbers) = line.strip_prefix("stored ") else {
                    continue;
                };
                let (offset, id) = numbers.split_once(' ').unwrap();
                let id: u64 = id.parse().unwrap();
                stored.insert(offset.parse::<u64>().unwrap(), id);
                left = left.saturating_sub(1);
                if left == 0 && !dead {
                    child.kill().unwrap();
                    // What it has printed until now still comes.
                    dead = true;
                }
            }
            child.wait().unwrap();
            assert!(dead, "the process ended by itself");
        }
        let journal = Disk::open(&folder, options(&folder)).unwrap();
        let records = all(&journal).await;
        let mut ids = std::collections::BTreeSet::new();
        for (stored, offset) in records.iter().zip(1..) {
            assert_eq!(stored.offset, offset);
            let text = str::from_utf8(&stored.bytes).unwrap();
            let id = text.trim_start_matches("{\"id\":").split_once(',').unwrap();
            let id: u64 = id.0.parse().unwrap();
            assert_eq!(
                stored.bytes,
                record(id, usize::try_from(id % 5_000).unwrap())
            );
            assert!(ids.insert(id), "{id} is there twice");
        }
        for (offset, id) in stored {
            let at = usize::try_from(offset - 1).unwrap();
            let length = usize::try_from(id % 5_000).unwrap();
            assert_eq!(records[at].bytes, record(id, length), "{offset}");
        }
    }
}
