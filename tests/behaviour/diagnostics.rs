//! What evows says of wrong configurations: `tests/diagnostics/*.toml`, each with the `.stderr` that it must
//! give. `UPDATE_GOLDEN=1` writes those anew; read the difference before you keep it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const SECRET: &str = "correct-horse-battery-staple";

fn evows(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_evows"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("EVOWS_TEST_SECRET", SECRET)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics")
}

fn is_toml(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|it| it == "toml")
}

fn cases() -> Vec<String> {
    let files = fs::read_dir(folder()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut cases: Vec<_> = names.filter(|name| is_toml(name)).collect();
    cases.sort();
    cases
}

#[test]
fn every_bad_configuration_is_reported_as_it_should_be() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let output = evows(&folder(), &["validate", &case]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{case}: {said}");
        assert!(output.stdout.is_empty(), "{case}");
        assert!(!said.contains(SECRET), "{case}: {said}");
        let golden = folder().join(&case).with_extension("stderr");
        if update {
            fs::write(golden, said).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != said {
            wrong.push(format!("== {case}\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn json_tells_programs_the_same() {
    for case in cases() {
        let output = evows(&folder(), &["validate", &case, "--format", "json"]);
        assert_eq!(output.status.code(), Some(78), "{case}");
        assert!(output.stderr.is_empty(), "{case}");
        let shown = text(&evows(&folder(), &["validate", &case]).stderr);
        let lines = text(&output.stdout);
        assert!(!lines.is_empty(), "{case}");
        assert!(!lines.contains(SECRET), "{case}: {lines}");
        for line in lines.lines() {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            let (severity, code) = (&object["severity"], &object["code"]);
            let (severity, code) = (severity.as_str().unwrap(), code.as_str().unwrap());
            assert!(
                shown.contains(&format!("{severity}[{code}]")),
                "{case}: {line}"
            );
            assert_eq!(object["file"], case.as_str());
            if let Some(at) = object["line"].as_u64() {
                let place = format!("--> {case}:{at}:{}", object["column"]);
                assert!(shown.contains(&place), "{case}: {line}");
            }
        }
    }
}

#[test]
fn a_wrong_configuration_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // Were anything started, the taken port would be another exit code, and there would be a folder.
    let config = format!(
        "[server]\nlisten = \"{}\"\ndata_dir = \"data\"\nnonsense = 1\n\
         [sources.hook]\ntype = \"webhook\"\npath = \"/in\"\n\
         [sinks.out]\ntype = \"stdout\"\ninputs = [\"hook\"]\n",
        held.local_addr().unwrap()
    );
    fs::write(folder.path().join("evows.toml"), config).unwrap();
    let output = evows(folder.path(), &[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("error[unknown-key]"), "{said}");
    assert!(!folder.path().join("data").exists());
}

#[test]
fn what_cannot_be_built_leaves_no_folder_behind() {
    let directory = tempfile::tempdir().unwrap();
    let config = fs::read_to_string(folder().join("path_conflict.toml")).unwrap();
    fs::write(directory.path().join("evows.toml"), config).unwrap();
    let output = evows(directory.path(), &["run"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("both serve the path `/in`"), "{said}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "{said}");
}

#[test]
fn a_file_that_cannot_be_read_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let said = |arguments: &[&str]| {
        let output = evows(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(78));
        text(&output.stderr)
    };
    let missing = said(&["run"]);
    assert!(
        missing.contains("there is no file `evows.toml`"),
        "{missing}"
    );
    assert!(missing.contains("--config FILE"), "{missing}");
    assert!(said(&["validate", "."]).contains("`.` is a folder"));
    fs::write(folder.path().join("latin.toml"), b"# a\n# caf\xe9\n").unwrap();
    let latin = said(&["validate", "latin.toml"]);
    assert!(latin.contains("is not UTF-8 text: line 2"), "{latin}");
}

#[test]
fn warnings_are_errors_only_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[sources.hook]\ntype = \"webhook\"\npath = \"/in\"\n\
                  [sinks.out]\ntype = \"stdout\"\ninputs = [\"hook\"]\n";
    fs::write(folder.path().join("evows.toml"), config).unwrap();
    let validate = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evows"));
        let command = command
            .arg("validate")
            .args(more)
            .current_dir(folder.path());
        command
            .env_clear()
            .env("SERVER_PORT", "eighty")
            .output()
            .unwrap()
    };
    let output = validate(&[]);
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stderr);
    assert!(
        said.contains("warning[bad-environment]: SERVER_PORT"),
        "{said}"
    );
    assert!(!said.contains("eighty"), "{said}");
    assert_eq!(
        text(&output.stdout),
        "evows.toml: sound (1 source, 1 sink)\n"
    );
    assert_eq!(validate(&["--deny-warnings"]).status.code(), Some(78));
}

#[test]
fn a_filter_that_may_outlast_the_source_before_it_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let config = |limit: &str| {
        let filter = "type = \"enrich\"\nkey = \"instance\"\ntarget = \"data.customer\"\n\
                      http = { url = \"http://127.0.0.1:9/{key}\" }";
        format!(
            "[sources.hook]\ntype = \"webhook\"\npath = \"/in\"\ntimeout = \"10s\"\n\
             [sources.typed]\ntype = \"stdin\"\n\
             [filters.wanted]\ntype = \"events\"\ninputs = [\"hook\", \"typed\"]\nallow = [\"call\"]\n\
             [filters.customer]\n{filter}\ninputs = [\"wanted\"]\ntimeout = \"{limit}\"\n\
             [sinks.out]\ntype = \"blackhole\"\ninputs = [\"customer\"]\n"
        )
    };
    fs::write(folder.path().join("evows.toml"), config("10s")).unwrap();
    let output = evows(folder.path(), &["validate"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in [
        "warning[short-timeout]: the filter `customer` may take 10s for an event, and the source `hook` answers after 10s",
        "timeout = \"10s\"\n",
        "= help: give `customer` less than 10s, or `hook` more time",
        "1 warning",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    fs::write(folder.path().join("evows.toml"), config("9s")).unwrap();
    let output = evows(folder.path(), &["validate", "--deny-warnings"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn the_command_line_has_its_own_exit_code() {
    for wrong in [
        &["rnu"][..],
        &["list", "--kind", "sunk"],
        &["explain", "webhok"],
        &["--log", "evows=loud", "run"],
        &[
            "send",
            "a",
            "--instance",
            "b",
            "--url",
            "https://localhost/",
        ],
        &["send", "a", "--instance", "b", "--data", "{"],
    ] {
        let output = evows(&folder(), wrong);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {said}");
        assert!(said.contains("error:"), "{wrong:?}: {said}");
    }
    let output = evows(&folder(), &["--help"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_evows"))
        .arg("schema")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Nobody reads: the pipe is closed before or while the schema is written.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn sending_to_nobody_says_so() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/webhook", free.local_addr().unwrap());
    drop(free);
    let output = evows(
        &folder(),
        &["send", "call", "--instance", "a", "--url", &url],
    );
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("nothing listens at 127.0.0.1:"), "{said}");
}

#[test]
fn the_shipped_configuration_is_sound_and_fits_its_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = evows(root, &["validate", "evows.toml", "--deny-warnings"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let schema = evows(root, &["schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).unwrap();
    for section in [
        "server",
        "hub",
        "lifecycle",
        "transports",
        "sources",
        "filters",
        "sinks",
    ] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
}
