//! `evows test`.

mod watch;

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::output::{self, Format};
use super::validate::{self, Checked};
use super::{Exit, complain};
use crate::config::{Case, Cases, Config, Diagnostic};
use crate::plugin::Environment;
use crate::rehearsal::{Failure, Rehearsal, Style, judge};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Files with more `[[tests]]` of the pipeline in `--config`.
    files: Vec<PathBuf>,
    /// Only tests with this in their names.
    #[arg(long, short, value_name = "TEXT")]
    name: Option<String>,
    /// How to report: `text`, or `json`, one object per test and line.
    #[arg(long, default_value = "text")]
    format: Format,
    /// Run again whenever the configuration, a file of tests or a file of events changes, until interrupted. Files that filters read are
    /// not looked at.
    #[arg(long)]
    watch: bool,
}

/// Everything that was read.
struct Suite {
    config: Option<Config>,
    cases: Vec<Case>,
    /// The files, and those that the tests read.
    files: Vec<PathBuf>,
}

/// What became of one test.
struct Verdict<'c> {
    case: &'c Case,
    failures: Vec<Failure>,
    took: Duration,
}

/// Runs the tests of the configuration and of other files.
pub(super) fn run(options: &Options, path: &Path, environment: &Environment) -> io::Result<Exit> {
    if !options.watch {
        return once(options, path, environment).map(|(exit, _)| exit);
    }
    watch::each_change(|| once(options, path, environment).map(|(_, files)| files))?;
    Ok(Exit::Clean)
}

/// Runs them once; also gives what to watch for a change.
fn once(
    options: &Options,
    path: &Path,
    environment: &Environment,
) -> io::Result<(Exit, Vec<PathBuf>)> {
    let suite = Suite::read(options, path, environment)?;
    let Some(config) = suite.config else {
        return Ok((Exit::Config, suite.files));
    };
    let is_chosen = |case: &&Case| {
        let name = options.name.as_deref();
        name.is_none_or(|part| case.name.contains(part))
    };
    let chosen: Vec<&Case> = suite.cases.iter().filter(is_chosen).collect();
    if chosen.is_empty() {
        complain(&match &options.name {
            Some(name) => format!("no test has `{name}` in its name"),
            None => format!(
                "there are no tests: write `[[tests]]` into {}, or name files that have some",
                path.display()
            ),
        });
        return Ok((Exit::Failed, suite.files));
    }
    let mut reporter = Reporter::new(options.format);
    for case in chosen {
        let begun = Instant::now();
        let rehearsal = Rehearsal {
            config: &config,
            environment,
            mocks: &case.mocks,
            feeds: &case.inputs,
            until: case.until,
            skips: false,
        };
        let failures = match rehearsal.run()? {
            Ok(run) => judge(case, &run),
            Err(error) => vec![Failure {
                message: error.to_string(),
                ..Failure::default()
            }],
        };
        reporter.tell(&Verdict {
            case,
            failures,
            took: begun.elapsed(),
        })?;
    }
    Ok((reporter.finish()?, suite.files))
}

// === impl Suite ===

impl Suite {
    /// Reads everything, and shows what is wrong with it.
    fn read(options: &Options, path: &Path, environment: &Environment) -> io::Result<Self> {
        let mut checked = validate::load(path, environment);
        let own = checked.add_cases(path, environment);
        checked.build(path, environment)?;
        let Checked {
            config,
            diagnostics,
            text,
            ..
        } = checked;
        show(&diagnostics, &text, options.format)?;
        let mut suite = Self {
            config,
            cases: own,
            files: vec![path.to_owned()],
        };
        for file in &options.files {
            suite.files.push(file.clone());
            suite.add(file, options.format, environment)?;
        }
        let read = suite.cases.iter().flat_map(|case| case.files.clone());
        let read: Vec<PathBuf> = read.collect();
        suite.files.extend(read);
        Ok(suite)
    }

    /// Adds the tests of another file.
    fn add(&mut self, file: &Path, format: Format, environment: &Environment) -> io::Result<()> {
        let text = match Config::read_text(file) {
            Ok(text) => text,
            Err(diagnostic) => {
                self.config = None;
                return show(&[*diagnostic], "", format);
            }
        };
        let Some(config) = &self.config else {
            return Ok(());
        };
        let found = Cases::of_file(&text, file, config, environment);
        if !found.diagnostics.is_empty() {
            self.config = None;
        }
        self.cases.extend(found.cases);
        show(&found.diagnostics, &text, format)
    }
}

/// Shows what is wrong, on stderr, or as JSON on stdout.
fn show(diagnostics: &[Diagnostic], text: &str, format: Format) -> io::Result<()> {
    match format {
        Format::Text => output::show(diagnostics, text),
        Format::Json => {
            let lines = diagnostics.iter().map(|one| one.to_json() + "\n");
            output::print(&lines.collect::<String>())?;
        }
    }
    Ok(())
}

/// Tells how tests end, as they do.
struct Reporter {
    format: Format,
    style: Style,
    file: String,
    passed: usize,
    failed: usize,
}

// === impl Reporter ===

impl Reporter {
    fn new(format: Format) -> Self {
        let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            format,
            style: if coloured {
                Style::Coloured
            } else {
                Style::Plain
            },
            file: String::new(),
            passed: 0,
            failed: 0,
        }
    }

    fn tell(&mut self, verdict: &Verdict<'_>) -> io::Result<()> {
        if verdict.failures.is_empty() {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
        let text = match self.format {
            Format::Json => verdict.as_json(),
            Format::Text => {
                let mut text = String::new();
                if *self.file != *verdict.case.file {
                    self.file = verdict.case.file.to_string();
                    // Writing to a string cannot fail.
                    writeln!(text, "{}", self.file).ok();
                }
                text + &verdict.as_text(self.style)
            }
        };
        output::print(&text)
    }

    fn finish(self) -> io::Result<Exit> {
        let Self { passed, failed, .. } = self;
        let all = passed + failed;
        output::print(&match self.format {
            Format::Json => format!(
                "{}\n",
                json!({ "tests": all, "passed": passed, "failed": failed })
            ),
            Format::Text => {
                let tests = output::plural(all, "test").unwrap_or_default();
                match failed {
                    0 => format!("\n{tests} passed\n"),
                    _ => format!("\n{tests}: {passed} passed, {failed} failed\n"),
                }
            }
        })?;
        Ok(if failed == 0 {
            Exit::Clean
        } else {
            Exit::Failed
        })
    }
}

// === impl Verdict ===

impl Verdict<'_> {
    fn as_text(&self, style: Style) -> String {
        let passed = self.failures.is_empty();
        let word = match (passed, style) {
            (true, Style::Plain) => "  ok    ",
            (false, Style::Plain) => "  FAIL  ",
            (true, Style::Coloured) => "  \u{1b}[32mok\u{1b}[0m    ",
            (false, Style::Coloured) => "  \u{1b}[1;31mFAIL\u{1b}[0m  ",
        };
        let took = self.took.as_millis();
        let mut text = format!("{word}{} ({took} ms)\n", self.case.name);
        if !passed {
            let Case { file, line, .. } = self.case;
            // Writing to a string cannot fail.
            writeln!(text, "        {file}:{line}").ok();
        }
        for failure in &self.failures {
            indented(&mut text, 8, &failure.message);
            indented(&mut text, 10, &failure.diff(style));
            if !failure.fates.is_empty() {
                indented(&mut text, 8, "where the others ended:");
            }
            for fate in &failure.fates {
                indented(&mut text, 10, fate);
            }
        }
        text
    }

    fn as_json(&self) -> String {
        let failures = self.failures.iter().map(|failure| {
            let (wanted, came) = failure.values.clone().unzip();
            json!({
                "message": failure.message,
                "wanted": wanted,
                "came_out": came,
                "others": failure.fates,
            })
        });
        let object = json!({
            "test": self.case.name,
            "file": &*self.case.file,
            "line": self.case.line,
            "passed": self.failures.is_empty(),
            "took_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            "failures": failures.collect::<Vec<_>>(),
        });
        format!("{object}\n")
    }
}

/// Adds lines behind so many spaces.
fn indented(text: &mut String, spaces: usize, lines: &str) {
    for line in lines.lines() {
        // Writing to a string cannot fail.
        writeln!(text, "{:spaces$}{line}", "").ok();
    }
}
