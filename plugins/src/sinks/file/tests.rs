//! A folder to write to, and a clock that a test sets.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::UNIX_EPOCH;

use evows_core::Event;
use evows_core::config::Settings;
use evows_core::plugin::SinkErrorKind;
use evows_core::testing::event;

use super::log::append_or_cut;
use super::*;

/// 2026-11-25T10:00:00Z.
const MORNING: u64 = 1_795_600_800;

struct Rig {
    folder: tempfile::TempDir,
    now: Arc<Cell<SystemTime>>,
}

impl Rig {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            now: Arc::new(Cell::new(UNIX_EPOCH + Duration::from_secs(MORNING))),
        }
    }

    fn config(&self, name: &str, keys: &str) -> Config {
        let keys: Config = Settings::from_text(keys).read().unwrap();
        let path = self.folder.path().join(name);
        Config { path, ..keys }
    }

    fn sink(&self, name: &str, keys: &str) -> FileSink {
        let now = Arc::clone(&self.now);
        FileSink::new(&self.config(name, keys), Arc::new(move || *now.lock()))
    }

    fn log(&self, name: &str, keys: &str) -> Log {
        let now = Arc::clone(&self.now);
        Log::new(&self.config(name, keys), Arc::new(move || *now.lock()))
    }

    fn pass(&self, time: Duration) {
        *self.now.lock() += time;
    }

    /// What is in the folder.
    fn files(&self) -> BTreeMap<String, String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        entries
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (
                    entry.file_name().into_string().unwrap(),
                    read(&entry.path()),
                )
            })
            .collect()
    }

    fn names(&self) -> Vec<String> {
        self.files().into_keys().collect()
    }
}

fn call(instance: &str) -> Event {
    event(&format!(
        "{{\"event\":\"call\",\n\"instance\":\"{instance}\"}}"
    ))
}

fn line(instance: &str) -> String {
    format!("{{\"event\":\"call\", \"instance\":\"{instance}\"}}\n")
}

#[tokio::test]
async fn writes_a_line_per_event_and_goes_on_after_a_restart() {
    let rig = Rig::new();
    for instance in ["a", "b"] {
        let sink = rig.sink("sub/out.ndjson", "sync = \"always\"");
        sink.start().await.unwrap();
        sink.send(Batch::of(&[call(instance), call("c")]))
            .await
            .unwrap();
        sink.stop().await.unwrap();
    }
    let text = fs::read_to_string(rig.folder.path().join("sub/out.ndjson")).unwrap();
    assert_eq!(text, line("a") + &line("c") + &line("b") + &line("c"));
}

#[test]
fn an_unfinished_last_line_is_cut_off() {
    let rig = Rig::new();
    let path = rig.folder.path().join("out");
    let long = "x".repeat(200_000);
    for (before, whole) in [
        ("one\ntw".to_owned(), "one\n"),
        (format!("one\n{long}"), "one\n"),
        (long, ""),
        ("one\n".to_owned(), "one\n"),
    ] {
        fs::write(&path, before).unwrap();
        rig.log("out", "").append(b"three\n").unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("{whole}three\n")
        );
    }
}

#[test]
fn a_file_that_is_large_enough_is_put_aside() {
    let rig = Rig::new();
    let mut log = rig.log("out", "rotate = { size = 8, keep = 2 }");
    for lines in ["1\n", "2\n3\n", "4\n5\n", "a-long-line\n", "6\n", "7\n"] {
        log.append(lines.as_bytes()).unwrap();
        rig.pass(Duration::from_secs(1));
    }
    let texts: Vec<_> = rig.files().into_iter().collect();
    let expected = [
        ("out", "6\n7\n"),
        ("out.2026-11-25T10-00-02.000000Z", "1\n2\n3\n"),
        ("out.2026-11-25T10-00-03.000000Z", "4\n5\n"),
        ("out.2026-11-25T10-00-04.000000Z", "a-long-line\n"),
    ];
    // The oldest of three is gone.
    let expected: Vec<_> = [&expected[..1], &expected[2..]].concat();
    let expected = expected
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    assert_eq!(texts, expected.collect::<Vec<_>>());
}

#[test]
fn names_that_are_taken_are_not_taken_again() {
    let rig = Rig::new();
    let mut log = rig.log("out", "rotate = { size = 1 }");
    for _ in 0..4 {
        log.append(b"1\n").unwrap();
    }
    assert_eq!(
        rig.names(),
        [
            "out",
            "out.2026-11-25T10-00-00.000000Z",
            "out.2026-11-25T10-00-00.000001Z",
            "out.2026-11-25T10-00-00.000002Z",
        ]
    );
}

#[test]
fn a_file_whose_time_is_over_is_put_aside_after_a_restart_too() {
    let rig = Rig::new();
    let keys = "rotate = { every = \"1h\" }";
    let mut log = rig.log("out", keys);
    log.append(b"1\n").unwrap();
    rig.pass(Duration::from_secs(3599));
    log.append(b"2\n").unwrap();
    rig.pass(Duration::from_secs(1));
    log.append(b"3\n").unwrap();
    assert_eq!(rig.files()["out.2026-11-25T11-00-00.000000Z"], "1\n2\n");
    drop(log);
    let out = fs::File::options()
        .append(true)
        .open(rig.folder.path().join("out"))
        .unwrap();
    out.set_modified(*rig.now.lock()).unwrap();
    rig.log("out", keys).append(b"4\n").unwrap();
    assert_eq!(rig.files()["out"], "3\n4\n");
    out.set_modified(*rig.now.lock()).unwrap();
    rig.pass(Duration::from_hours(1));
    rig.log("out", keys).append(b"5\n").unwrap();
    assert_eq!(rig.files()["out"], "5\n");
    assert_eq!(rig.files()["out.2026-11-25T12-00-00.000000Z"], "3\n4\n");
}

#[test]
fn a_star_is_the_day_and_former_days_are_old_files() {
    let rig = Rig::new();
    fs::write(rig.folder.path().join("out-else.txt"), "").unwrap();
    let mut log = rig.log("out-*.txt", "rotate = { size = 3, keep = 2 }");
    for day in 0..3 {
        log.append(format!("{day}\n").as_bytes()).unwrap();
        rig.pass(Duration::from_hours(24));
    }
    rig.pass(Duration::from_secs(1));
    log.append(b"3\n").unwrap();
    log.append(b"4\n").unwrap();
    assert_eq!(
        rig.names(),
        [
            "out-2026-11-27.txt",
            "out-2026-11-28.txt",
            "out-2026-11-28.txt.2026-11-28T10-00-01.000000Z",
            "out-else.txt",
        ]
    );
}

#[test]
fn a_batch_that_is_written_in_part_is_cut_off() {
    let rig = Rig::new();
    let path = rig.folder.path().join("out");
    let file = fs::File::options()
        .append(true)
        .create(true)
        .open(&path)
        .unwrap();
    append_or_cut(&file, 0, |mut file| file.write_all(b"one\n")).unwrap();
    let error = append_or_cut(&file, 4, |mut file| {
        file.write_all(b"two\nthr")?;
        Err(io::ErrorKind::StorageFull.into())
    });
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
}

#[test]
fn what_was_dropped_is_taken_back() {
    let rig = Rig::new();
    let mut log = rig.log("out", "");
    log.append(b"one\n").unwrap();
    log.append(b"two\n").unwrap();
    log.take_back();
    log.append(b"three\n").unwrap();
    assert_eq!(rig.files()["out"], "one\nthree\n");
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_full_disk_is_tried_again_more_slowly() {
    let rig = Rig::new();
    let sink = rig.sink("/dev/full", "");
    for _ in 0..2 {
        let error = sink.send(Batch::of(&[call("a")])).await.unwrap_err();
        assert!(
            matches!(error.kind, SinkErrorKind::Overloaded { .. }),
            "{error}"
        );
        assert!(
            error.to_string().starts_with("cannot write /dev/full: "),
            "{error}"
        );
    }
}

#[tokio::test]
async fn what_is_in_the_way_may_go_away() {
    let rig = Rig::new();
    let sink = rig.sink("sub/out", "");
    fs::write(rig.folder.path().join("sub"), "a file").unwrap();
    let error = sink.start().await.unwrap_err();
    assert!(
        matches!(error.kind, SinkErrorKind::Transient { .. }),
        "{error}"
    );
    fs::remove_file(rig.folder.path().join("sub")).unwrap();
    sink.send(Batch::of(&[call("a")])).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_moved_away_is_made_anew_and_locked() {
    let rig = Rig::new();
    let sink = rig.sink("out", "");
    sink.send(Batch::of(&[call("a")])).await.unwrap();
    let error = rig.sink("out", "").start().await.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("another process or sink writes to it"),
        "{error}"
    );
    let path = rig.folder.path().join("out");
    fs::rename(&path, rig.folder.path().join("moved")).unwrap();
    sink.send(Batch::of(&[call("b")])).await.unwrap();
    assert_eq!(
        rig.files(),
        [("moved", "a"), ("out", "b")]
            .map(|(name, it)| (name.to_owned(), line(it)))
            .into()
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_written_is_synced_a_moment_later_and_at_the_end() {
    for (sync, at_once) in [("always", true), ("interval", false), ("os", false)] {
        let rig = Rig::new();
        let sink = rig.sink("out", &format!("sync = \"{sync}\""));
        sink.start().await.unwrap();
        sink.send(Batch::of(&[call("a")])).await.unwrap();
        assert_eq!(sink.log.lock().await.is_synced(), at_once, "{sync}");
        if sync == "interval" {
            // Virtual time: it passes once nothing else is left to do.
            while !sink.log.lock().await.is_synced() {
                tokio::time::sleep(SYNC_INTERVAL / 4).await;
            }
            sink.send(Batch::of(&[call("b")])).await.unwrap();
        }
        sink.stop().await.unwrap();
        assert_eq!(sink.log.lock().await.is_synced(), sync != "os", "{sync}");
    }
}

#[test]
fn says_what_is_wrong_with_its_keys() {
    for (keys, at, message) in [
        ("path = ''", "path", "`path` is \"\", which names no file"),
        (
            "path = '..'",
            "path",
            "`path` is \"..\", which names no file",
        ),
        (
            "path = 'a*/b'",
            "path",
            "`path` is \"a*/b\": only its last part may have a `*`, and one",
        ),
        (
            "path = '*-*'",
            "path",
            "`path` is \"*-*\": only its last part may have a `*`, and one",
        ),
        (
            "rotate.size = 0",
            "rotate.size",
            "`rotate.size` is 0: every file is larger",
        ),
        (
            "rotate.every = '0s'",
            "rotate.every",
            "`rotate.every` is no time at all",
        ),
    ] {
        let problems = FileSink::check(&Settings::from_text(keys).read().unwrap());
        assert_eq!(problems.len(), 1, "{keys}: {problems:?}");
        assert_eq!(problems[0].message, message);
        assert_eq!(problems[0].place, Problem::new("", "").at_key(at).place);
    }
}
