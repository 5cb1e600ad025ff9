//! From what a file says of a filter or a sink in a test to what stands in its place.

use std::collections::BTreeMap;

use super::check::{Checker, Mock};
use super::nodes::Role;
use super::{ErrorKind, MockConfig};
use crate::config::read::offer;
use crate::config::settings::Missing;
use crate::config::{FilterNode, Problem, codes, section};
use crate::registry::Kind;

// === impl Checker ===

impl Checker<'_> {
    pub(super) fn mocks(&mut self, mocks: BTreeMap<String, MockConfig>) -> Vec<Mock> {
        let nodes = self.nodes;
        let mut checked = Vec::new();
        for (id, mock) in mocks {
            self.at.extend(["mocks".to_owned(), id.clone()]);
            match nodes.find(&id, Role::Mock) {
                Err(problem) => self.add(problem),
                Ok(known) => match (known.kind, &known.filter) {
                    (Kind::Filter, filter) => {
                        checked.extend(self.filter_mock(&id, mock, filter.as_ref()));
                    }
                    _ => checked.extend(self.sink_mock(&id, &mock)),
                },
            }
            self.at.truncate(2);
        }
        checked
    }

    fn filter_mock(
        &mut self,
        id: &str,
        mock: MockConfig,
        filter: Option<&FilterNode>,
    ) -> Option<Mock> {
        let keys = [
            ("fails", mock.fails.is_some()),
            ("error", mock.error.is_some()),
        ];
        if let Some(key) = there(&keys) {
            let problem = format!("`{id}` is a filter, and `{key}` is for sinks");
            let help = "a filter has `settings`, `unset` or `program`";
            return self.misplaced(key, problem, help);
        }
        let changes = mock.settings.is_some() || mock.unset.is_some();
        let settings = mock.settings.unwrap_or_default();
        let unset = mock.unset.unwrap_or_default();
        match (changes, mock.program) {
            (true, None) => self.settings_mock(&unset, &settings, filter?),
            #[cfg(feature = "jq")]
            (false, Some(text)) => {
                let program = self.program("program", &text)?;
                Some(Mock::Program(id.into(), program))
            }
            #[cfg(not(feature = "jq"))]
            (false, Some(text)) => {
                self.program("program", &text);
                None
            }
            (both, _) => {
                let message = if both {
                    format!("`{id}` has both other keys and a `program`")
                } else {
                    format!("nothing is said of what `{id}` is instead")
                };
                let help = "a filter has `settings`, which replace some of its keys, and `unset`, which it does not have; or `program`, a jq program that runs in its place";
                self.add(Problem::new(codes::BAD_TEST, message).help(help));
                None
            }
        }
    }

    /// The filter with other keys, checked as the file's own are.
    fn settings_mock(
        &mut self,
        unset: &[String],
        settings: &toml::Table,
        filter: &FilterNode,
    ) -> Option<Mock> {
        let mut filter = filter.clone();
        let component = &mut filter.component;
        component.settings = match component.settings.with_others(unset, settings) {
            Ok(settings) => settings,
            Err(missing) => {
                for Missing { index, keys } in missing {
                    let (id, key) = (&component.id, unset.get(index).map_or("", String::as_str));
                    let message = format!("`{id}` has no key `{key}` that could be taken away");
                    let problem = Problem::new(codes::UNKNOWN_KEY, message);
                    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                    let problem = offer(problem, key, &keys);
                    self.add(problem.at_key(&format!("unset.{index}")));
                }
                return None;
            }
        };
        let problems = component.plugin.check(&component.settings);
        let wrong = !problems.is_empty();
        for mut problem in problems {
            section::explain(&mut problem, component.plugin);
            self.add(problem.under("settings"));
        }
        if wrong {
            return None;
        }
        filter.ports = component.plugin.ports(&component.settings);
        Some(Mock::Settings(Box::new(filter)))
    }

    /// A key that such a mock does not have.
    fn misplaced(&mut self, key: &str, message: String, help: &str) -> Option<Mock> {
        let problem = Problem::new(codes::BAD_TEST, message);
        self.add(problem.at_key(key).help(help));
        None
    }

    fn sink_mock(&mut self, id: &str, mock: &MockConfig) -> Option<Mock> {
        let keys = [
            ("settings", mock.settings.is_some()),
            ("unset", mock.unset.is_some()),
            ("program", mock.program.is_some()),
        ];
        if let Some(key) = there(&keys) {
            let problem = format!("`{id}` is a sink, and `{key}` is for filters");
            let help = "a test replaces every sink by one that takes all; `fails = 2` has it fail twice first";
            return self.misplaced(key, problem, help);
        }
        let Some(fails) = mock.fails else {
            let problem = Problem::new(codes::BAD_TEST, format!("`{id}` does not fail"));
            let help = "write how many attempts fail, such as `fails = 2`, or leave it out";
            self.add(problem.help(help));
            return None;
        };
        let error = mock.error.unwrap_or(ErrorKind::Transient);
        Some(Mock::Fails(id.into(), fails, error))
    }
}

/// The first of these keys that is there.
fn there<'k>(keys: &[(&'k str, bool)]) -> Option<&'k str> {
    let mut keys = keys.iter();
    keys.find(|(_, is_there)| *is_there).map(|(key, _)| *key)
}
