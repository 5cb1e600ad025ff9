//! `evows new`: what it makes compiles, passes its tests and runs, and is what the guide shows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const KINDS: [&str; 5] = ["filter", "sink", "source", "policy", "transport"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn evows(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evows"));
    command.args(arguments).current_dir(folder);
    command.stdin(Stdio::null()).output().unwrap()
}

fn done(output: Output, what: &str) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = evows(folder, arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A workspace of a crate of each kind, which shares what this repository has built of its dependencies.
struct Crates {
    folder: tempfile::TempDir,
    /// Where cargo puts what it builds, and in which profile.
    target: PathBuf,
    profile: String,
}

impl Crates {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = repository().to_str().unwrap();
        for kind in KINDS {
            let name = format!("my_{kind}");
            let printed = done(
                evows(folder.path(), &["new", kind, &name, "--evows", source]),
                kind,
            );
            assert!(printed.contains("cargo test"), "{printed}");
        }
        let manifest = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
        let (_, profiles) = manifest.split_once("[profile.dev]").unwrap();
        let workspace = format!(
            "[workspace]\nmembers = [\"my_*\"]\nresolver = \"3\"\n\n[profile.dev]{profiles}"
        );
        fs::write(folder.path().join("Cargo.toml"), workspace).unwrap();
        fs::copy(
            repository().join("Cargo.lock"),
            folder.path().join("Cargo.lock"),
        )
        .unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_evows")).parent().unwrap();
        let profile = binary.file_name().unwrap().to_str().unwrap().to_owned();
        Self {
            folder,
            target: binary.parent().unwrap().to_owned(),
            profile,
        }
    }

    fn cargo(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(arguments)
            .args(["--workspace", "--all-targets", "--offline", "--quiet"])
            .args((self.profile == "release").then_some("--release"))
            .env("CARGO_TARGET_DIR", &self.target)
            // Variables of the test's own package are none of theirs.
            .env_remove("CARGO_MANIFEST_DIR")
            .current_dir(self.folder.path());
        done(command.output().unwrap(), arguments[0])
    }

    fn run(&self, name: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(self.target.join(&self.profile).join(name));
        command
            .args(arguments)
            .current_dir(self.folder.path().join(name));
        done(command.stdin(Stdio::null()).output().unwrap(), name)
    }
}

#[test]
fn crates_of_every_kind_compile_pass_their_tests_and_run() {
    let crates = Crates::new();
    crates.cargo(&["build"]);
    let tests = crates.cargo(&["test"]);
    let passed = tests.matches("test result: ok").count();
    assert_eq!(passed, KINDS.len(), "{tests}");
    for kind in KINDS {
        let name = format!("my_{kind}");
        crates.run(&name, &["validate", "--deny-warnings"]);
        let listed = crates.run(&name, &["list", "--kind", kind]);
        assert!(listed.contains(&name), "{listed}");
    }
    let printed = crates.run("my_filter", &["run"]);
    assert!(printed.lines().count() > 1, "{printed}");
    assert!(
        printed
            .lines()
            .all(|line| line.contains(r#""instance":"loja1""#)),
        "{printed}"
    );
    let printed = crates.run("my_sink", &["run"]);
    assert_eq!(
        printed.lines().filter(|it| it.starts_with("- ")).count(),
        10
    );
    let printed = crates.run("my_source", &["run"]);
    assert_eq!(printed.lines().count(), 3, "{printed}");
}

#[test]
fn nothing_is_overwritten_and_wrong_words_are_told_the_right_ones() {
    let folder = tempfile::tempdir().unwrap();
    let source = repository().to_str().unwrap();
    let path = folder.path();
    let said = refused(path, &["new", "filter", "MyFilter"]);
    assert!(said.contains("such as `my_filter`"), "{said}");
    let said = refused(path, &["new", "filtre", "a"]);
    assert!(said.contains("did you mean `filter`?"), "{said}");
    let said = refused(path, &["new", "lifecycle", "a"]);
    assert!(said.contains("a template of each of"), "{said}");
    let said = refused(path, &["new", "sink", "webhook", "--evows", source]);
    assert!(said.contains("there is a sink `webhook` already"), "{said}");
    let said = refused(path, &["new", "sink", "mine"]);
    assert!(said.contains("`--evows FOLDER`"), "{said}");
    assert_eq!(
        fs::read_dir(path).unwrap().count(),
        0,
        "nothing is left behind"
    );

    done(
        evows(path, &["new", "sink", "mine", "--evows", source]),
        "new",
    );
    fs::write(path.join("mine/src/mine.rs"), "// work").unwrap();
    let said = refused(path, &["new", "sink", "mine", "--evows", source]);
    assert!(said.contains("nothing is overwritten"), "{said}");
    assert_eq!(
        fs::read_to_string(path.join("mine/src/mine.rs")).unwrap(),
        "// work"
    );
}

/// The code of a fenced block, with its language.
fn blocks(page: &str) -> Vec<(String, String)> {
    let (mut blocks, mut open) = (Vec::new(), None::<(String, String)>);
    for line in page.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => open = Some((language.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, code)), None) => {
                code.push_str(line);
                code.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// Every file below a folder whose name ends like this.
fn files(folder: &Path, ending: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(fs::read_to_string(&path).unwrap());
        }
    }
}

/// What the guide shows is a piece of a file that the tests compile, or load: the templates and the examples.
#[test]
fn the_guide_shows_code_that_is_compiled() {
    let mut known = Vec::new();
    for folder in ["core/src/cli/new", "examples"] {
        for ending in [".rs", ".toml", ".template"] {
            files(&repository().join(folder), ending, &mut known);
        }
    }
    let pages = ["plugins.md", "plugins/filter.md", "plugins/sink.md"];
    let pages = pages.into_iter().chain([
        "plugins/source.md",
        "plugins/policy.md",
        "plugins/transport.md",
    ]);
    let mut shown = 0;
    for page in pages {
        let text = fs::read_to_string(repository().join("docs").join(page)).unwrap();
        for (language, code) in blocks(&text) {
            if !["rust", "toml"].contains(&language.as_str()) {
                assert_eq!(language, "console", "{page}: {code}");
                continue;
            }
            shown += 1;
            assert!(
                known.iter().any(|file| file.contains(&code)),
                "{page} shows what is in no file:\n{code}"
            );
        }
    }
    assert!(shown > 10, "{shown} blocks");
}
