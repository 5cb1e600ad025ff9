//! Tests that stand in configurations: `evows test` runs them, and says what is wrong when they fail.
//!
//! Each `pipelines/*.toml` is a pipeline with its tests, and all of them pass. So filters that hold events are seen in the running
//! topology, with its ticks and its stop, in virtual time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn evows(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_evows"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A folder with these files in it.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

/// Passes messages, and drops the rest.
const PIPELINE: &str = r#"
[sources.in]
type = "webhook"
path = "/in"
[filters.wanted]
type = "events"
inputs = ["in"]
allow = ["messages.*"]
[filters.marked]
type = "set"
inputs = ["wanted"]
values = { "data.seen" = true }
[filters.calm]
type = "debounce"
inputs = ["marked"]
quiet = "2s"
[sinks.out]
type = "stdout"
inputs = ["calm"]
"#;

const UPSERT: &str = r#"{"event":"messages.upsert","instance":"shop","data":{"id":1}}"#;
const CALL: &str = r#"{"event":"call","instance":"shop","data":{"id":2}}"#;

#[test]
fn every_pipeline_passes_its_tests() {
    let folder = root().join("tests/behaviour/pipelines");
    let files = fs::read_dir(&folder).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let is_toml = |path: &PathBuf| path.extension().is_some_and(|it| it == "toml");
    let mut seen = 0;
    for path in files.filter(is_toml) {
        let output = evows(&folder, &["test", "--config", path.to_str().unwrap()]);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{}: {said}", path.display());
        seen += 1;
    }
    assert!(seen >= 5, "only {seen} pipelines");
}

#[test]
fn the_shipped_configuration_passes_its_tests() {
    let output = evows(root(), &["test"]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("3 tests passed"), "{said}");
}

#[test]
fn a_test_that_fails_says_what_came_and_where_the_rest_ended() {
    let tests = format!(
        r#"{PIPELINE}
[[tests]]
name = "calls come, too"
inputs = [{{ into = "in", event = '{UPSERT}' }}, {{ into = "in", event = '{CALL}' }}]
[[tests.outputs]]
from = "out"
subset = [{{ data = {{ id = 1, seen = false }} }}, {{ event = "call" }}]
[[tests]]
name = "it passes"
inputs = [{{ into = "in", event = '{UPSERT}' }}]
discards = [{{ from = "wanted", count = 0 }}]
"#
    );
    let folder = folder(&[("evows.toml", &tests)]);
    let output = evows(folder.path(), &["test"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "  FAIL  calls come, too (",
        "`out`: 2 events wanted, 1 came out",
        "-       \"seen\": false\n",
        "+       \"seen\": true\n",
        "call of shop, put into `in` at 0s: discarded by `wanted` at 0s: event_not_allowed",
        "  ok    it passes (",
        "2 tests: 1 passed, 1 failed",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let output = evows(folder.path(), &["test", "--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let lines = text(&output.stdout);
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["passed"], false);
    assert_eq!(lines[0]["failures"][0]["came_out"][0]["data"]["seen"], true);
    assert_eq!(lines[1]["passed"], true);
    assert_eq!(lines[2]["failed"], 1);
    let only = evows(folder.path(), &["test", "--name", "it passes"]);
    assert_eq!(only.status.code(), Some(0), "{}", text(&only.stdout));
    let none = evows(folder.path(), &["test", "--name", "nonsense"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("no test has `nonsense`"));
}

#[test]
fn a_failure_that_no_test_expects_fails_it() {
    let tests = r#"
[sources.in]
type = "stdin"
[filters.change]
type = "map"
inputs = ["in"]
program = '.data.a.b'
[sinks.out]
type = "blackhole"
inputs = ["change"]
[[tests]]
name = "nothing comes out"
inputs = [{ into = "in", event = { event = "call", instance = "a", data = 5 } }]
outputs = [{ from = "out", count = 0 }]
"#;
    let folder = folder(&[("evows.toml", tests)]);
    let output = evows(folder.path(), &["test"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let part = "`change`: 1 event failed: program_error, which the test does not expect";
    assert!(said.contains(part), "{said}");
}

#[test]
fn nobody_is_asked_anything() {
    let asked = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    asked.set_nonblocking(true).unwrap();
    let config = format!(
        r#"
[sources.in]
type = "stdin"
[filters.customer]
type = "enrich"
inputs = ["in"]
key = "instance"
target = "data.customer"
http = {{ url = "http://{}/{{key}}" }}
[sinks.out]
type = "blackhole"
inputs = ["customer"]
[[tests]]
name = "it is asked"
inputs = [{{ into = "in", event = '{CALL}' }}]
outputs = [{{ from = "out", count = 1 }}]
"#,
        asked.local_addr().unwrap()
    );
    let folder = folder(&[("evows.toml", &config), ("event.json", CALL)]);
    let output = evows(folder.path(), &["test"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let part = "say what it makes of events, with `[tests.mocks.customer]` and a `program`";
    assert!(said.contains(part), "{said}");
    let output = evows(folder.path(), &["trace", "event.json"]);
    let said = text(&output.stdout);
    assert!(said.contains("= delivered to `out`"), "{said}");
    assert!(asked.accept().is_err(), "nobody came");
}

#[test]
fn tests_may_stand_in_files_of_their_own_and_read_others_beside_them() {
    let folder = folder(&[("evows.toml", PIPELINE)]);
    fs::create_dir(folder.path().join("more")).unwrap();
    let recorded = format!("{UPSERT}\n{CALL}\n");
    fs::write(folder.path().join("more/recorded.ndjson"), recorded).unwrap();
    let tests = r#"
[[tests]]
name = "what was recorded"
inputs = [{ into = "in", file = "recorded.ndjson" }]
outputs = [{ from = "out", count = 1 }]
"#;
    fs::write(folder.path().join("more/tests.toml"), tests).unwrap();
    let output = evows(folder.path(), &["test", "more/tests.toml"]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("more/tests.toml\n  ok    what was recorded"),
        "{said}"
    );
    // A pipeline is no file of tests.
    let output = evows(folder.path(), &["test", "evows.toml"]);
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output.stderr);
    assert!(said.contains("a file of tests has no `sources`"), "{said}");
    // Without tests there is nothing that could have passed.
    let output = evows(folder.path(), &["test"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("there are no tests"));
}

#[test]
fn a_test_opens_and_writes_nothing() {
    // Were anything opened, the port would be taken, and there would be folders and files.
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tests = format!(
        r#"
[server]
listen = "{}"
[history]
enabled = true
[sources.in]
type = "webhook"
path = "/in"
[sinks.out]
type = "file"
inputs = ["in"]
path = "out.ndjson"
buffer = {{ type = "disk" }}
dead_letter = "dead-*.ndjson"
[[tests]]
name = "nothing is written"
inputs = [{{ into = "in", event = '{CALL}' }}]
mocks = {{ out = {{ fails = 1, error = "permanent" }} }}
failures = [{{ from = "out", count = 1 }}]
"#,
        held.local_addr().unwrap()
    );
    let folder = folder(&[("evows.toml", &tests), ("event.json", CALL)]);
    for arguments in [
        &["test"][..],
        &["trace", "event.json"],
        &["run", "--dry", "event.json"],
    ] {
        let output = evows(folder.path(), arguments);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
    }
    let names = fs::read_dir(folder.path()).unwrap();
    assert_eq!(names.count(), 2, "only what was there before");
}

#[test]
fn wrong_tests_keep_no_pipeline_from_running() {
    let config = r#"
[server]
listen = "127.0.0.1:0"
[sources.in]
type = "stdin"
[sinks.out]
type = "stdout"
inputs = ["in"]
[[tests]]
name = "wrong"
inputs = [{ into = "inn" }]
"#;
    let folder = folder(&[("evows.toml", config)]);
    let run = evows(folder.path(), &["run"]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    assert!(!text(&run.stderr).contains("inn"), "{}", text(&run.stderr));
    for command in ["test", "validate"] {
        let output = evows(folder.path(), &[command]);
        assert_eq!(output.status.code(), Some(78));
        assert!(text(&output.stderr).contains("did you mean `in`?"));
    }
}

#[test]
fn a_trace_follows_everything_that_is_made_of_an_event() {
    let pipeline = r#"
        [sources.in]
        type = "stdin"
        [filters.two]
        type = "map"
        inputs = ["in"]
        program = '(.n = 1), (.n = 2)'
        [filters.first]
        type = "where"
        inputs = ["two"]
        condition = '.n == 1'
        [sinks.out]
        type = "stdout"
        inputs = ["first"]
    "#;
    let folder = folder(&[("evows.toml", pipeline), ("events.ndjson", CALL)]);
    let output = evows(folder.path(), &["trace", "events.ndjson"]);
    let said = text(&output.stdout);
    for part in [
        "\"n\": 1",
        "\"n\": 2",
        "#1 delivered",
        "#2 discarded: condition_false",
        "  = #1 delivered to `out` at 0s; #2 discarded by `first` at 0s: condition_false\n",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_filter_that_cannot_start_says_why() {
    let pipeline = r#"
        [sources.in]
        type = "stdin"
        [filters.known]
        type = "enrich"
        inputs = ["in"]
        key = "instance"
        target = "data.shop"
        file = "shops.json"
        [sinks.out]
        type = "stdout"
        inputs = ["known"]
    "#;
    let folder = folder(&[("evows.toml", pipeline), ("events.ndjson", CALL)]);
    let output = evows(folder.path(), &["trace", "events.ndjson"]);
    let said = text(&output.stdout);
    for part in [
        "the filter cannot start",
        "shops.json",
        "failed: not_started",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    std::fs::write(
        folder.path().join("shops.json"),
        r#"{"shop":{"city":"Recife"}}"#,
    )
    .unwrap();
    let output = evows(folder.path(), &["trace", "events.ndjson"]);
    let said = text(&output.stdout);
    assert!(
        said.contains("Recife") && said.contains("delivered"),
        "{said}"
    );
}

#[test]
fn a_trace_shows_every_step_and_what_it_changed() {
    let events = format!("{UPSERT}\n{CALL}\n");
    let folder = folder(&[("evows.toml", PIPELINE), ("events.ndjson", &events)]);
    let output = evows(folder.path(), &["trace", "events.ndjson"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let (upsert, call) = said.split_once("\n\n").unwrap();
    for part in [
        "messages.upsert of shop\n  in            0s  it is put in\n",
        "  wanted        0s  passed on\n",
        "  marked        0s  changed and passed on\n",
        "+     \"seen\": true\n",
        "  calm          0s  held\n",
        "  calm          2s  passed on\n",
        "  out           2s  delivered\n",
        "  = delivered to `out`",
    ] {
        assert!(upsert.contains(part), "{part}: {said}");
    }
    assert!(
        call.contains("  wanted        0s  discarded: event_not_allowed\n"),
        "{said}"
    );
    let output = evows(
        folder.path(),
        &[
            "trace",
            "events.ndjson",
            "--format",
            "json",
            "--into",
            "calm",
        ],
    );
    let lines = text(&output.stdout);
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "call");
    assert_eq!(last["steps"][0]["did"], "held");
    assert_eq!(last["outcome"], "delivered");
    let output = evows(
        folder.path(),
        &["trace", "events.ndjson", "--into", "calmer"],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("did you mean `calm`?"));
}

#[test]
fn a_dry_run_counts_what_would_become_of_a_file() {
    let events = format!("{UPSERT}\n{CALL}\n{UPSERT}\n");
    let folder = folder(&[("evows.toml", PIPELINE), ("events.ndjson", &events)]);
    let output = evows(folder.path(), &["run", "--dry", "events.ndjson"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        "source  in      3 in, 3 out\n\
         filter  wanted  3 in, 2 out, 1 discarded (event_not_allowed)\n\
         filter  marked  2 in, 2 out\n\
         filter  calm    2 in, 1 out, 1 discarded (superseded)\n\
         sink    out     1 in, 1 delivered\n"
    );
    let arguments = ["run", "--dry", "events.ndjson", "--show", "--every", "1m"];
    let output = evows(folder.path(), &arguments);
    let lines = text(&output.stdout);
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines.len(),
        2,
        "with a minute between them none replaces another"
    );
    assert_eq!(lines[0]["sink"], "out");
    assert_eq!(lines[0]["envelope"]["data"]["seen"], true);
    assert!(text(&output.stderr).contains("calm    2 in, 2 out"));
    let bad = folder.path().join("bad.ndjson");
    fs::write(bad, format!("{CALL}\n{{\"event\":\"x\"}}\n")).unwrap();
    let output = evows(folder.path(), &["run", "--dry", "bad.ndjson"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("bad.ndjson: line 2: "), "{said}");
    assert!(said.contains("missing field `instance`"), "{said}");
}

#[test]
fn traces_and_dry_runs_say_by_their_exit_code_that_an_event_failed() {
    let pipeline = r#"
        [sources.in]
        type = "stdin"
        [filters.change]
        type = "map"
        inputs = ["in"]
        program = '.data.a.b'
        [sinks.out]
        type = "stdout"
        inputs = ["change"]
    "#;
    let folder = folder(&[("evows.toml", pipeline), ("event.json", CALL)]);
    for arguments in [
        &["trace", "event.json"][..],
        &["run", "--dry", "event.json"],
    ] {
        let output = evows(folder.path(), arguments);
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("failed"), "{arguments:?}: {said}");
    }
}

#[test]
fn what_an_event_has_for_terminals_is_shown_and_not_obeyed() {
    let hidden = format!(
        r#"{{"event":"messages.\u001b[2J","instance":"shop\u007f","data":{{"text":"{}"}}}}"#,
        '\u{9b}'
    );
    let tests = format!(
        r#"{PIPELINE}
[[tests]]
name = "it fails"
inputs = [{{ into = "in", file = "event.json" }}]
outputs = [{{ from = "out", events = [{{}}], count = 1 }}, {{ from = "out", count = 7 }}]
"#
    );
    let folder = folder(&[("evows.toml", &tests), ("event.json", &hidden)]);
    for arguments in [&["trace", "event.json"][..], &["test"]] {
        let said = text(&evows(folder.path(), arguments).stdout);
        let is_obeyed = |it: char| it.is_control() && it != '\n';
        assert!(!said.contains(is_obeyed), "{arguments:?}: {said:?}");
        let shown = r"messages.\u001b[2J";
        assert!(said.contains(shown), "{arguments:?}: {said:?}");
    }
}

#[test]
fn a_file_of_events_may_be_marked_as_utf8_and_has_an_event() {
    let marked = format!("\u{feff}{CALL}\n");
    let files = [
        ("evows.toml", PIPELINE),
        ("marked", &marked),
        ("empty", " \n"),
    ];
    let folder = folder(&files);
    for command in [&["trace"][..], &["run", "--dry"]] {
        let output = evows(folder.path(), &[command, &["marked"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("event_not_allowed"));
        let output = evows(folder.path(), &[command, &["empty"]].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("empty: there is no event in it"), "{said}");
    }
}

#[test]
fn watching_runs_again_when_a_file_changes() {
    use std::io::{BufRead, BufReader};

    let test = |count: usize| {
        format!(
            "{PIPELINE}\n[[tests]]\nname = \"so many\"\n\
             inputs = [{{ into = \"in\", file = \"events.ndjson\" }}]\n\
             outputs = [{{ from = \"out\", count = {count} }}]\n"
        )
    };
    let folder = folder(&[("evows.toml", &test(1)), ("events.ndjson", UPSERT)]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_evows"))
        .args(["test", "--watch"])
        .current_dir(folder.path())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut until = |wanted: &str| {
        let found = lines.any(|line| line.unwrap().contains(wanted));
        assert!(found, "it ended before `{wanted}`");
    };
    until("1 test passed");
    until("waiting for a change");
    // Both the configuration and what a test reads are watched.
    fs::write(folder.path().join("events.ndjson"), CALL).unwrap();
    until("0 passed, 1 failed");
    until("waiting for a change");
    fs::write(folder.path().join("evows.toml"), test(0)).unwrap();
    until("1 test passed");
    child.kill().unwrap();
    child.wait().unwrap();
}
