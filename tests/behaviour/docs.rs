//! Every pipeline that the documentation shows is one: each block of TOML in README.md and below docs/ is validated, as far as a
//! part of a pipeline can be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What may be wrong with a part of a pipeline: that the rest is not there.
const MISSING: &[&str] = &[
    "cycle",
    "missing-variable",
    "no-input",
    "no-sink",
    "no-source",
    "unknown-input",
    "unknown-node",
    "unreachable",
    "unread-output",
    "unread-port",
    "unreadable-file",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages below a folder, less those that are checked elsewhere: the guide shows plugins that are not in this binary, and is held
/// to its templates; a policy is a key of some plugin, and its example is one that the conformance suite tries.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    let elsewhere = ["docs/plugins", "docs/reference/policy"];
    let elsewhere = elsewhere.map(|folder| root().join(folder));
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if elsewhere.contains(&path) {
            continue;
        }
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|it| it == "md") {
            found.push(path);
        }
    }
}

/// The blocks of TOML of a page, each with its line.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.trim() == "```toml" {
            let block = lines.by_ref().map(|(_, line)| line);
            let block: Vec<_> = block.take_while(|line| line.trim() != "```").collect();
            blocks.push((number + 2, block.join("\n")));
        }
    }
    blocks
}

/// What is wrong with a block, beside what is not there.
fn problems(block: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("evows.toml"), block).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_evows"))
        .args(["validate", "--format", "json"])
        .current_dir(folder.path())
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let diagnostics = said.lines().map(|line| {
        let diagnostic: Value = serde_json::from_str(line).unwrap();
        diagnostic
    });
    diagnostics
        .filter(|it| !MISSING.contains(&it["code"].as_str().unwrap_or_default()))
        .map(|it| format!("{}: {} (line {})", it["code"], it["message"], it["line"]))
        .collect()
}

#[test]
fn every_pipeline_in_the_documentation_is_one() {
    let mut found = vec![root().join("README.md")];
    pages(&root().join("docs"), &mut found);
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in found {
        for (line, block) in blocks(&fs::read_to_string(&page).unwrap()) {
            count += 1;
            let place = format!("{}:{line}", page.display());
            wrong.extend(problems(&block).iter().map(|it| format!("{place}: {it}")));
        }
    }
    assert!(count > 50, "only {count} blocks were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_wrong_one_is_found() {
    let page = "text\n```toml\n[filters.f]\ntype = \"events\"\ninputs = [\"a\"]\nalow = []\n```\n";
    let [(3, block)] = &blocks(page)[..] else {
        panic!("{:?}", blocks(page));
    };
    let [problem] = &problems(block)[..] else {
        panic!("{:?}", problems(block));
    };
    assert!(problem.contains("`alow`"), "{problem}");
}
