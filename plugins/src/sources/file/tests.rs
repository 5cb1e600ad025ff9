//! A source on a file in a folder of its own. Time is virtual: it passes when nobody has anything else to do.

use std::fs;
use std::io::Write;

use evows_core::config::Settings;
use evows_core::testing::SourceHarness;

use super::*;

struct Rig {
    folder: tempfile::TempDir,
    metrics: Metrics,
}

/// A source that runs.
struct Run(SourceHarness);

impl Rig {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            metrics: Metrics::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Appends text to a file.
    fn add(&self, name: &str, text: &str) {
        let mut options = fs::File::options();
        let file = options.append(true).create(true).open(self.path(name));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Moves a file away, as rotation does, with a time of its own.
    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn run(&self, keys: &str) -> Run {
        let keys: Config = Settings::from_text(keys).read().unwrap();
        let path = self.path("in.ndjson");
        let config = Config { path, ..keys };
        let position = self.path("positions/in");
        let source = FileSource::new("in", &self.metrics, &config, position);
        Run(SourceHarness::run(Box::new(source)))
    }

    fn position(&self) -> Option<Position> {
        let text = fs::read(self.path("positions/in")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    async fn line_is(&self, line: u64) {
        while self.position().is_none_or(|position| position.line != line) {
            sleep(POLL).await;
        }
    }
}

impl Run {
    /// Takes an event, and says how it ended.
    async fn take(&mut self, outcome: Outcome) -> String {
        let taken = self.0.take(1, outcome).await;
        taken[0].instance().to_owned()
    }

    async fn expect(&mut self, instances: &str) {
        for instance in instances.chars() {
            assert_eq!(self.take(Outcome::Delivered).await, instance.to_string());
        }
    }

    async fn stop(self) {
        let (rest, ended) = self.0.stop().await;
        ended.unwrap();
        assert!(rest.is_empty(), "{rest:?}");
    }

    async fn end(self) {
        let (rest, ended) = self.0.end().await;
        ended.unwrap();
        assert!(rest.is_empty(), "more than expected: {rest:?}");
    }
}

/// Lines of events, one for each letter, which is the instance.
fn lines(instances: &str) -> String {
    let line = |instance| format!("{{\"event\":\"call\",\"instance\":\"{instance}\"}}\n");
    instances.chars().map(line).collect()
}

#[tokio::test(start_paused = true)]
async fn reads_to_the_end_and_goes_on_from_there() {
    let rig = Rig::new();
    rig.add("in.ndjson", lines("ab").trim_end());
    let mut run = rig.run("follow = false");
    run.expect("ab").await;
    run.end().await;
    rig.add("in.ndjson", &("\n".to_owned() + &lines("c")));
    let mut run = rig.run("follow = false");
    run.expect("c").await;
    run.end().await;
    rig.run("follow = false").end().await;
    assert_eq!(rig.position().unwrap().offset, lines("abc").len() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_not_there_is_an_error_or_waited_for() {
    let rig = Rig::new();
    let error = rig.run("follow = false").0.end().await.1.unwrap_err();
    assert!(error.to_string().starts_with("cannot read "), "{error}");
    let mut run = rig.run("start = \"end\"");
    sleep(POLL * 3).await;
    rig.add("in.ndjson", &lines("a"));
    run.expect("a").await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn follows_and_waits_for_whole_lines() {
    let rig = Rig::new();
    rig.add("in.ndjson", &lines("a"));
    let mut run = rig.run("");
    run.expect("a").await;
    let line = lines("b");
    let (begin, end) = line.split_at(20);
    rig.add("in.ndjson", begin);
    sleep(POLL * 3).await;
    rig.add("in.ndjson", end);
    run.expect("b").await;
    rig.line_is(3).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn begins_at_the_end_once() {
    let rig = Rig::new();
    rig.add("in.ndjson", &lines("ab"));
    let line = lines("c");
    let (begin, end) = line.split_at(20);
    rig.add("in.ndjson", begin);
    let run = rig.run("start = \"end\"");
    rig.line_is(3).await;
    run.stop().await;
    rig.add("in.ndjson", &(end.to_owned() + &lines("d")));
    let mut run = rig.run("start = \"end\"");
    run.expect("cd").await;
    rig.line_is(5).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_moved_away_is_read_to_its_end_first() {
    let rig = Rig::new();
    rig.add("in.ndjson", &lines("a"));
    let mut run = rig.run("");
    run.expect("a").await;
    rig.line_is(2).await;
    rig.add("in.ndjson", &lines("b"));
    rig.rename("in.ndjson", "in.ndjson.1");
    rig.add("in.ndjson.1", lines("c").trim_end());
    rig.add("in.ndjson", &lines("d"));
    run.expect("bcd").await;
    rig.line_is(2).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn files_that_were_put_aside_while_it_did_not_run_are_read_in_order() {
    let rig = Rig::new();
    rig.add("in.ndjson", &lines("a"));
    let mut run = rig.run("");
    run.expect("a").await;
    run.stop().await;
    rig.add("in.ndjson", &lines("b"));
    rig.add("in.ndjson.old", &lines("x"));
    let hour = Duration::from_hours(1);
    let begin = std::time::UNIX_EPOCH + hour * 24;
    for (n, letter) in (1..).zip(["c", "d", "e"]) {
        let file = fs::File::options().append(true).open(rig.path("in.ndjson"));
        file.unwrap().set_modified(begin + hour * n).unwrap();
        rig.rename(
            "in.ndjson",
            &format!("in.ndjson.2026-11-25T0{n}-00-00.000000Z"),
        );
        rig.add("in.ndjson", &lines(letter));
    }
    let mut run = rig.run("follow = false");
    run.expect("bcde").await;
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn where_the_file_is_gone_it_goes_on_with_those_written_to_since() {
    let rig = Rig::new();
    rig.add("in.ndjson.2", &lines("x"));
    let file = fs::File::options()
        .append(true)
        .open(rig.path("in.ndjson.2"));
    let long_ago = std::time::UNIX_EPOCH + Duration::from_hours(1);
    file.unwrap().set_modified(long_ago).unwrap();
    rig.add("in.ndjson", &lines("a"));
    let mut run = rig.run("");
    run.expect("a").await;
    run.stop().await;
    rig.add("in.ndjson.1", &lines("b"));
    let file = fs::File::options()
        .append(true)
        .open(rig.path("in.ndjson.1"));
    let later = std::time::SystemTime::now() + Duration::from_secs(1);
    file.unwrap().set_modified(later).unwrap();
    rig.add("new", &lines("c"));
    rig.rename("new", "in.ndjson");
    let mut run = rig.run("follow = false");
    run.expect("bc").await;
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_became_shorter_is_read_anew() {
    let rig = Rig::new();
    rig.add("in.ndjson", &lines("abc"));
    let mut run = rig.run("");
    run.expect("abc").await;
    rig.line_is(4).await;
    fs::write(rig.path("in.ndjson"), lines("d")).unwrap();
    run.expect("d").await;
    rig.line_is(2).await;
    run.stop().await;
    // Longer than before, and not the same file for all that its number says.
    fs::write(rig.path("in.ndjson"), lines("efg")).unwrap();
    let mut run = rig.run("follow = false");
    run.expect("efg").await;
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn lines_that_are_no_events_are_counted_and_skipped() {
    let rig = Rig::new();
    let long = "x".repeat(200_000);
    rig.add(
        "in.ndjson",
        &format!("no\n\n{}{long}\n{}", lines("a"), lines("b")),
    );
    let mut run = rig.run("follow = false\nmax_line = 100");
    run.expect("ab").await;
    run.end().await;
    let metrics = rig.metrics.encode();
    let counted = r#"evows_refusals_total{component="in",reason="bad_line"} 2"#;
    assert!(metrics.contains(counted), "{metrics}");
    assert_eq!(rig.position().unwrap().line, 6);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_accepted_is_sent_again_and_not_passed() {
    let rig = Rig::new();
    rig.add("in.ndjson", &lines("ab"));
    let mut run = rig.run("");
    let begun = Instant::now();
    for outcome in [Outcome::Shed, Outcome::Failed, Outcome::Lost] {
        assert_eq!(run.take(Outcome::Delivered).await, "a");
        assert_eq!(run.take(outcome).await, "b");
    }
    assert!(begun.elapsed() >= FIRST_WAIT);
    run.stop().await;
    assert_eq!(rig.position().unwrap().line, 1);
    let mut run = rig.run("follow = false");
    assert_eq!(run.take(Outcome::Held).await, "a");
    assert_eq!(run.take(Outcome::Filtered).await, "b");
    run.end().await;
    assert_eq!(rig.position().unwrap().line, 3);
}

#[tokio::test(start_paused = true)]
async fn stops_soon_though_nobody_takes_its_events() {
    let rig = Rig::new();
    rig.add("in.ndjson", &lines("abc"));
    let mut run = rig.run("");
    let held = run.0.receive().await.unwrap();
    run.0.stop_untaken().await.unwrap();
    held.settle(Outcome::Delivered);
    assert_eq!(rig.position().unwrap().line, 1);
}

#[tokio::test(start_paused = true)]
async fn many_lines_are_sent_in_batches_and_in_order() {
    let rig = Rig::new();
    let letters: String = ('a'..='z').cycle().take(1000).collect();
    rig.add("in.ndjson", &lines(&letters));
    let mut run = rig.run("follow = false");
    run.expect(&letters).await;
    run.end().await;
    assert_eq!(rig.position().unwrap().line, 1001);
}

#[tokio::test(start_paused = true)]
async fn a_position_that_cannot_be_read_is_an_error_and_none_is_lost_that_cannot_be_written() {
    let rig = Rig::new();
    rig.add("in.ndjson", &lines("a"));
    fs::create_dir(rig.path("positions")).unwrap();
    fs::write(rig.path("positions/in"), "{").unwrap();
    let error = rig.run("").0.end().await.1.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot read the position in "),
        "{error}"
    );
    fs::remove_dir_all(rig.path("positions")).unwrap();
    // In the way of what is to be renamed.
    fs::create_dir_all(rig.path("positions/in.tmp")).unwrap();
    let mut run = rig.run("");
    run.expect("a").await;
    fs::remove_dir(rig.path("positions/in.tmp")).unwrap();
    rig.line_is(2).await;
    run.stop().await;
}

#[test]
fn says_what_is_wrong_with_its_keys() {
    for (keys, message) in [
        ("path = ''", "`path` is \"\", which names no file"),
        ("position = '/'", "`position` is \"/\", which names no file"),
        ("max_line = 0", "`max_line` is 0: every line is longer"),
    ] {
        let problems = FileSource::check(&Settings::from_text(keys).read().unwrap());
        assert_eq!(problems.len(), 1, "{keys}: {problems:?}");
        assert_eq!(problems[0].message, message);
    }
}
