//! Sends events to named ports, by conditions.
//!
//! ```toml
//! [filters.kinds]
//! type = "route"
//! inputs = ["evolution"]
//! routes = [
//!     { port = "messages", condition = '.event | startswith("messages.")' },
//!     { port = "calls", condition = '.event == "call"' },
//! ]
//!
//! [sinks.crm]
//! type = "webhook"
//! inputs = ["kinds.messages"]
//! url = "https://crm.example.com/events"
//! ```
//!
//! Conditions are [jq](https://jqlang.org/manual/) programs over the envelope, as those of `where`. An event goes to the port of
//! the first route that holds; with `match = "all"`, to those of all that hold. Where none does, it goes to the port
//! `unmatched`.

use std::collections::HashSet;
use std::time::Duration;

use evows_core::config::{Period, Problem};
use evows_core::jq::{Program, Reader, Val};
use evows_core::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
use evows_core::{Event, register_filter};
use schemars::JsonSchema;
use serde::Deserialize;

use super::fallback::Fallback;
use super::jq::{self, Failure};

/// Where events go for which no route holds.
const UNMATCHED: &str = "unmatched";

/// Sends events to named ports, by conditions.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The ports and their conditions, looked at in this order.
    pub routes: Vec<Route>,
    /// Whether an event goes to the `"first"` port whose condition holds, or to `"all"` of them.
    #[serde(default, rename = "match")]
    pub matching: Match,
    /// What happens to an event over which a condition raises an error or does not end: `"fail"`, `"discard"` or `"pass"`, which
    /// means the port `unmatched`.
    #[serde(default)]
    pub on_error: Fallback,
    /// Time that one condition may take for one event.
    #[serde(default = "jq::time_limit")]
    pub time_limit: Period,
}

/// One port.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name: others read it as `inputs = ["<id>.<port>"]`.
    pub port: String,
    /// A jq program over the envelope, such as `.event == "call"`.
    pub condition: String,
}

/// To how many ports an event goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// The first that holds.
    #[default]
    First,
    /// All that hold.
    All,
}

/// The running filter.
#[derive(Debug)]
pub struct Router {
    conditions: Vec<Program>,
    reader: Reader,
    matching: Match,
    on_error: Fallback,
    time_limit: Duration,
    /// The ports that an event goes to.
    found: Vec<usize>,
}

register_filter!(
    Router,
    summary = "Sends events to named ports, by conditions in jq.",
    example = "routes = [{ port = \"calls\", condition = '.event == \"call\"' }]\n",
);

// === impl Router ===

impl FilterPlugin for Router {
    const NAME: &'static str = "route";
    type Config = Config;
    const UNNAMED_OUTPUT: bool = false;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        if config.routes.is_empty() {
            let none = Problem::new("invalid-value", "there is no route").at_key("routes");
            problems.push(
                none.help(
                    "write one, such as { port = \"calls\", condition = '.event == \"call\"' }",
                ),
            );
        }
        problems.extend(jq::check_time(config.time_limit));
        let mut seen = HashSet::from([UNMATCHED]);
        for (index, route) in config.routes.iter().enumerate() {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            let name = &*route.port;
            let wrong = if name.is_empty() || !name.chars().all(is_plain) {
                Some("a port's name has letters, digits, `_` and `-` only")
            } else if !seen.insert(name) {
                Some("there is a port of this name already")
            } else {
                None
            };
            let key = format!("routes.{index}.port");
            problems.extend(wrong.map(|wrong| Problem::new("invalid-value", wrong).at_key(&key)));
            problems.extend(jq::check_condition(
                &format!("routes.{index}.condition"),
                &route.condition,
            ));
        }
        problems
    }

    fn ports(config: &Config) -> Vec<String> {
        let ports = config.routes.iter().map(|route| route.port.clone());
        ports.chain([UNMATCHED.to_owned()]).collect()
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        let conditions = config.routes.iter().enumerate().map(|(index, route)| {
            jq::compile(&format!("routes.{index}.condition"), &route.condition)
        });
        let conditions: Vec<Program> = conditions.collect::<Result<_, _>>()?;
        Ok(Self {
            reader: Reader::of(&conditions),
            conditions,
            matching: config.matching,
            on_error: config.on_error,
            time_limit: config.time_limit.0,
            found: Vec::new(),
        })
    }
}

impl Router {
    /// Finds the ports that an event goes to.
    fn find(&mut self, event: &Event) -> Result<(), Failure> {
        self.found.clear();
        // Read once for all conditions, and not at all when none of them needs it.
        let mut read: Option<Val> = None;
        for (port, condition) in self.conditions.iter().enumerate() {
            let input = || match &read {
                Some(value) => Ok(value.clone()),
                None => Ok(read.insert(jq::input(&self.reader, event)?).clone()),
            };
            if jq::holds(condition, event, self.time_limit, input)? {
                self.found.push(port);
                if self.matching == Match::First {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Filter for Router {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        let unmatched = self.conditions.len();
        if let Err(failure) = self.find(&event) {
            if self.on_error == Fallback::Pass {
                return out.emit_to(unmatched, event);
            }
            return jq::end(self.on_error, event, &failure, out);
        }
        let Some(last) = self.found.pop() else {
            return out.emit_to(unmatched, event);
        };
        for port in &self.found {
            out.emit_to(*port, event.fork());
        }
        out.emit_to(last, event);
    }
}

#[cfg(test)]
mod tests {
    use evows_core::testing::FilterHarness;

    use super::*;

    const ROUTES: &str = "routes = [\n\
        { port = 'messages', condition = '.event | startswith(\"messages.\")' },\n\
        { port = 'mine', condition = '.data.fromMe' },\n]\n";

    fn sent(more: &str, envelope: &str) -> [usize; 3] {
        let mut filter = FilterHarness::<Router>::from_toml(&format!("{ROUTES}{more}"));
        filter.send_json(envelope);
        ["messages", "mine", "unmatched"].map(|port| filter.emitted_to(port).len())
    }

    #[test]
    fn an_event_goes_to_the_first_port_or_to_all_or_to_the_rest() {
        let both = r#"{"event":"messages.upsert","instance":"a","data":{"fromMe":true}}"#;
        let call = r#"{"event":"call","instance":"a","data":{"fromMe":false}}"#;
        assert_eq!(sent("", both), [1, 0, 0]);
        assert_eq!(sent("match = 'all'", both), [1, 1, 0]);
        assert_eq!(sent("match = 'all'", call), [0, 0, 1]);
        let odd = r#"{"event":"call","instance":"a","data":5}"#;
        assert_eq!(sent("on_error = 'pass'", odd), [0, 0, 1]);
    }

    #[test]
    fn ports_are_named_once_and_plainly() {
        for (keys, message) in [
            ("routes = []", "no route"),
            ("routes = [{ port = 'a b', condition = '.' }]", "letters"),
            (
                "routes = [{ port = 'a', condition = '.' }, { port = 'a', condition = '.' }]",
                "already",
            ),
            (
                "routes = [{ port = 'unmatched', condition = '.' }]",
                "already",
            ),
            ("routes = [{ port = 'a', condition = '(' }]", "parenthesis"),
        ] {
            let problems = FilterHarness::<Router>::problems(keys);
            assert!(problems.contains(message), "{keys}: {problems}");
        }
    }
}
