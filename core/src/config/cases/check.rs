//! From what a file says of a test to what is run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::file::{envelopes, is_envelope};
use super::nodes::{Nodes, Role};
use super::{EndConfig, Envelope, ErrorKind, InputConfig, OutputConfig};
use super::{TestConfig, When};
use crate::config::inside::inside;
use crate::config::tree::{self, Node};
use crate::config::{FilterNode, Input, Place, Problem, codes};

/// A test that was checked against a configuration.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// The file that it stands in.
    pub file: Arc<str>,
    /// The line that it begins in, from 1.
    pub line: usize,
    /// When the pipeline is stopped.
    pub until: Option<Duration>,
    /// What is put in, in the order of its time.
    pub inputs: Vec<Feed>,
    /// What must come out.
    pub outputs: Vec<Expected>,
    /// What must be discarded.
    pub discards: Vec<End>,
    /// What must fail.
    pub failures: Vec<End>,
    /// What is replaced.
    pub mocks: Vec<Mock>,
    /// The files that it reads.
    pub files: Vec<PathBuf>,
}

/// An event that is put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// The source or filter.
    pub into: Arc<str>,
    /// The envelope, which is one.
    pub envelope: Arc<str>,
    /// When, from the start.
    pub at: Duration,
}

/// What must come out somewhere.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Where.
    pub from: Input,
    /// What.
    pub wanted: Vec<Wanted>,
    /// Only what came out until then.
    pub by: Option<Duration>,
    /// Only what came out then.
    pub when: Option<When>,
}

/// One thing that is wanted of what comes out.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// Exactly these.
    Events(Vec<Value>),
    /// These and more members.
    Subset(Vec<Value>),
    /// So many.
    Count(usize),
    /// All of them are like this.
    #[cfg(feature = "jq")]
    Condition(Arc<crate::jq::Program>),
}

/// Events that must end somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Where.
    pub from: Arc<str>,
    /// Why.
    pub reason: Option<String>,
    /// How many; one at least without it.
    pub count: Option<u64>,
}

/// What a filter or sink is.
#[derive(Debug, Clone)]
pub enum Mock {
    /// A filter with other keys.
    Settings(Box<FilterNode>),
    /// A filter that runs a program.
    #[cfg(feature = "jq")]
    Program(Arc<str>, Arc<crate::jq::Program>),
    /// A sink that fails so often.
    Fails(Arc<str>, u32, ErrorKind),
}

/// Checks the tests of one document.
pub(super) struct Checker<'t> {
    root: &'t Node<'t>,
    text: &'t str,
    path: &'t Path,
    pub(super) nodes: &'t Nodes,
    problems: Vec<Problem>,
    /// The keys from the top to what is being checked.
    pub(super) at: Vec<String>,
}

// === impl Mock ===

impl Mock {
    /// What it replaces.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Settings(node) => &node.component.id,
            #[cfg(feature = "jq")]
            Self::Program(id, _) => id,
            Self::Fails(id, _, _) => id,
        }
    }
}

// === impl Checker ===

impl<'t> Checker<'t> {
    pub(super) fn new(root: &'t Node<'t>, text: &'t str, path: &'t Path, nodes: &'t Nodes) -> Self {
        Self {
            root,
            text,
            path,
            nodes,
            problems: Vec::new(),
            at: Vec::new(),
        }
    }

    pub(super) fn check(mut self, tests: Vec<TestConfig>) -> (Vec<Case>, Vec<Problem>) {
        let mut cases: Vec<Case> = Vec::new();
        for (index, test) in tests.into_iter().enumerate() {
            self.at = vec!["tests".to_owned(), index.to_string()];
            if cases.iter().any(|other| other.name == test.name) {
                let problem = Problem::new(
                    codes::BAD_TEST,
                    format!("there are two tests `{}`", test.name),
                );
                let help = "give each its own name: it is how a test is told from the others";
                self.add(problem.at_key("name").help(help));
            }
            let case = self.case(test);
            cases.push(case);
        }
        self.reasons(&cases);
        (cases, self.problems)
    }

    /// That nothing is discarded for a reason which does not exist is always true. Nobody knows the reasons of a filter before it
    /// runs, so one counts as known when another test wants it.
    fn reasons(&mut self, cases: &[Case]) {
        let ends = || cases.iter().flat_map(|case| &case.discards);
        for (index, case) in cases.iter().enumerate() {
            for (number, end) in case.discards.iter().enumerate() {
                let Some(reason) = end.reason.as_ref().filter(|_| end.count == Some(0)) else {
                    continue;
                };
                let from = &end.from;
                let mut others = ends().filter(|it| it.from == *from && it.count != Some(0));
                if others.any(|it| it.reason.as_ref() == Some(reason)) {
                    continue;
                }
                self.at = ["tests", &index.to_string(), "discards", &number.to_string()]
                    .map(str::to_owned)
                    .to_vec();
                let message = format!(
                    "`{from}` discards nothing as `{reason}`, and no test shows that it ever does"
                );
                let help = "leave `reason` out, and nothing may be discarded there for whatever reason; or add a test in which an event is discarded so";
                let problem = Problem::new(codes::BAD_TEST, message);
                self.add(problem.at_key("reason").help(help));
            }
        }
    }

    fn case(&mut self, test: TestConfig) -> Case {
        if test.name.trim().is_empty() {
            let problem = Problem::new(codes::BAD_TEST, "the test has no name");
            self.add(problem.at_key("name").help("say what it shows"));
        }
        let nothing = test.outputs.is_empty() && test.discards.is_empty();
        if nothing && test.failures.is_empty() {
            let message = format!("the test `{}` expects nothing", test.name);
            let help = "add `[[tests.outputs]]`, `[[tests.discards]]` or `[[tests.failures]]`";
            self.add(Problem::new(codes::BAD_TEST, message).help(help));
        }
        let begins = tree::locate(self.root, &self.at, false).start;
        let before = self.text.get(..begins).unwrap_or_default();
        let (inputs, files) = self.inputs(test.inputs);
        if let (Some(until), Some(last)) = (test.until, inputs.last())
            && until.0 < last.at
        {
            let message = format!("the test ends after {until}, before its last input");
            let help = "make `until` later, or that input earlier";
            self.add(
                Problem::new(codes::BAD_TEST, message)
                    .at_key("until")
                    .help(help),
            );
        }
        Case {
            file: self.path.display().to_string().into(),
            line: before.matches('\n').count() + 1,
            until: test.until.map(|period| period.0),
            inputs,
            files,
            outputs: self.each("outputs", test.outputs, Self::output),
            discards: self.each("discards", test.discards, |it, end| Some(it.end(end))),
            failures: self.each("failures", test.failures, |it, end| Some(it.end(end))),
            mocks: self.mocks(test.mocks),
            name: test.name,
        }
    }

    /// Checks each table of a list, at its place.
    fn each<T, U>(
        &mut self,
        key: &str,
        list: Vec<T>,
        check: impl Fn(&mut Self, T) -> Option<U>,
    ) -> Vec<U> {
        let mut checked = Vec::with_capacity(list.len());
        for (index, one) in list.into_iter().enumerate() {
            self.at.extend([key.to_owned(), index.to_string()]);
            checked.extend(check(self, one));
            self.at.truncate(2);
        }
        checked
    }

    fn inputs(&mut self, inputs: Vec<InputConfig>) -> (Vec<Feed>, Vec<PathBuf>) {
        if inputs.is_empty() {
            let problem = Problem::new(codes::BAD_TEST, "nothing is put in");
            let help = "add `[[tests.inputs]]` with `into` and `event`";
            self.add(problem.at_key("inputs").help(help));
        }
        let (mut feeds, mut files) = (Vec::new(), Vec::new());
        let mut last = Duration::ZERO;
        for (index, input) in inputs.into_iter().enumerate() {
            self.at.extend(["inputs".to_owned(), index.to_string()]);
            let found = self.nodes.find(&input.into, Role::Into);
            self.report("into", found.map(drop));
            if input.at.is_some() && input.after.is_some() {
                let problem = Problem::new(codes::BAD_TEST, "`at` and `after` are both there");
                let help = "`at` counts from the start, `after` from the input above: keep one";
                self.add(problem.at_key("after").help(help));
            }
            let after = input.after.map(|period| last.saturating_add(period.0));
            let mut at = input.at.map(|period| period.0).or(after).unwrap_or(last);
            let every = input.every.map(|period| period.0).unwrap_or_default();
            let into: Arc<str> = input.into.as_str().into();
            files.extend(input.file.as_ref().map(|file| self.beside(file)));
            for envelope in self.envelopes(input) {
                last = at;
                let into = Arc::clone(&into);
                feeds.push(Feed { into, envelope, at });
                at = at.saturating_add(every);
            }
            self.at.truncate(2);
        }
        // Stable: with equal times the order of the file stays.
        feeds.sort_by_key(|feed| feed.at);
        (feeds, files)
    }

    /// What an input puts in.
    fn envelopes(&mut self, input: InputConfig) -> Vec<Arc<str>> {
        if input.said() != 1 {
            let message = match input.said() {
                0 => "the input does not say what is put in",
                _ => "the input says twice what is put in",
            };
            let help = "write one of `event`, `events` and `file`";
            self.add(Problem::new(codes::BAD_TEST, message).help(help));
            return Vec::new();
        }
        if let Some(file) = input.file {
            let envelopes = self.envelopes_of(&file);
            if envelopes.as_ref().is_some_and(Vec::is_empty) {
                self.nothing_in("file");
            }
            return envelopes.unwrap_or_default();
        }
        if input.events.as_ref().is_some_and(Vec::is_empty) {
            self.nothing_in("events");
        }
        let one = input.event.into_iter().map(|one| (one, None));
        let all = input.events.unwrap_or_default();
        let all = all.into_iter().enumerate();
        let all = all.map(|(index, one)| (one, Some(index)));
        let mut envelopes = Vec::new();
        for (Envelope(value), index) in one.chain(all) {
            let json = value.to_string();
            if let Err(why) = is_envelope(&json) {
                let key = index.map_or_else(|| "event".to_owned(), |at| format!("events.{at}"));
                let help = "an envelope has the strings `event` and `instance`, such as `{ event = \"messages.upsert\", instance = \"shop\", data = {} }`";
                let problem = Problem::new(codes::INVALID_VALUE, why);
                self.add(problem.at_key(&key).help(help));
            }
            envelopes.push(json.into());
        }
        envelopes
    }

    fn nothing_in(&mut self, key: &str) {
        let message = format!("`{key}` has no envelope, so that nothing is put in");
        let help = "an input has one envelope at least: write some, or leave the input out";
        let problem = Problem::new(codes::BAD_TEST, message);
        self.add(problem.at_key(key).help(help));
    }

    fn envelopes_of(&mut self, file: &Path) -> Option<Vec<Arc<str>>> {
        let path = self.beside(file);
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|error| format!("cannot read `{}`: {error}", path.display()));
        let read = text.and_then(|text| {
            envelopes(&text).map_err(|why| format!("`{}`: {why}", path.display()))
        });
        match read {
            Ok(envelopes) => Some(envelopes),
            Err(message) => {
                let help = "name a file of envelopes, one JSON object per line; its path is relative to this file";
                let problem = Problem::new(codes::UNREADABLE_FILE, message);
                self.add(problem.at_key("file").help(help));
                None
            }
        }
    }

    /// A path that is relative to the file being checked.
    fn beside(&self, file: &Path) -> PathBuf {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        folder.join(file)
    }

    fn output(&mut self, output: OutputConfig) -> Option<Expected> {
        let found = self.nodes.find(&output.from, Role::From).map(drop);
        self.report("from", found);
        if output.events.is_some() && output.subset.is_some() {
            let problem = Problem::new(codes::BAD_TEST, "`events` and `subset` are both there");
            let help = "`events` is all of an envelope, `subset` some of its members: keep one";
            self.add(problem.at_key("subset").help(help));
        }
        let listed = output.events.as_ref().or(output.subset.as_ref());
        if let (Some(count), Some(listed)) = (output.count, listed)
            && count != listed.len()
        {
            let message = format!("`count` is {count}, and {} are listed", listed.len());
            let help = "leave `count` out: as many must come as are listed";
            let problem = Problem::new(codes::BAD_TEST, message);
            self.add(problem.at_key("count").help(help));
        }
        let values = |list: Vec<Envelope>| list.into_iter().map(|one| one.0).collect();
        let mut wanted = Vec::new();
        wanted.extend(output.events.map(|list| Wanted::Events(values(list))));
        wanted.extend(output.subset.map(|list| Wanted::Subset(values(list))));
        wanted.extend(output.count.map(Wanted::Count));
        let asks = !wanted.is_empty() || output.condition.is_some();
        if let Some(program) = &output.condition {
            wanted.extend(self.program("condition", program).map(condition));
        }
        if !asks {
            let message = format!("nothing is said of what comes out of `{}`", output.from);
            let help = "write `events`, `subset`, `count` or `condition`";
            self.add(Problem::new(codes::BAD_TEST, message).help(help));
            return None;
        }
        Some(Expected {
            from: Input::parse(&output.from),
            wanted,
            by: output.by.map(|period| period.0),
            when: output.when,
        })
    }

    fn end(&mut self, end: EndConfig) -> End {
        let found = self.nodes.find(&end.from, Role::End).map(drop);
        self.report("from", found);
        End {
            from: end.from.into(),
            reason: end.reason,
            count: end.count,
        }
    }

    #[cfg(feature = "jq")]
    pub(super) fn program(&mut self, key: &str, text: &str) -> Option<Arc<crate::jq::Program>> {
        match crate::jq::Program::compile(text) {
            Ok(program) => Some(Arc::new(program)),
            Err(faults) => {
                for fault in faults {
                    let problem = Problem::new(codes::BAD_PROGRAM, fault.message)
                        .at_key(key)
                        .within(fault.span)
                        .help("write a jq program, as https://jqlang.org/manual/ has them");
                    self.add(problem);
                }
                None
            }
        }
    }

    #[cfg(not(feature = "jq"))]
    pub(super) fn program(&mut self, key: &str, _text: &str) -> Option<std::convert::Infallible> {
        let problem = Problem::new(codes::BAD_PROGRAM, "this evows has no jq");
        let help = "build it with the feature `jq`, which is on by default";
        self.add(problem.at_key(key).help(help));
        None
    }

    fn report(&mut self, key: &str, found: Result<(), Problem>) {
        if let Err(problem) = found {
            self.add(problem.at_key(key));
        }
    }

    /// Adds a problem whose place is below what is being checked.
    pub(super) fn add(&mut self, mut problem: Problem) {
        let (below, part) = problem.place.below();
        let path: Vec<String> = self.at.iter().chain(below).cloned().collect();
        let span = tree::locate(self.root, &path, problem.code == codes::UNKNOWN_KEY);
        let span = match part {
            Some(part) => inside(self.text, span, part),
            None => span,
        };
        problem.place = Place::Span(span);
        self.problems.push(problem);
    }
}

#[cfg(feature = "jq")]
fn condition(program: Arc<crate::jq::Program>) -> Wanted {
    Wanted::Condition(program)
}

#[cfg(not(feature = "jq"))]
fn condition(never: std::convert::Infallible) -> Wanted {
    match never {}
}
