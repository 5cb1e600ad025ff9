//! Passes or discards events by their name and their instance.
//!
//! ```toml
//! [filters.wanted]
//! type = "events"
//! inputs = ["evolution"]
//! allow = ["messages.*", "SEND_MESSAGE"]
//! deny = ["messages.set"]
//! deny_instances = ["test-*"]
//! ```
//!
//! Patterns are globs: `*`, `?` and `{one,other}`. In event patterns `MESSAGES_UPSERT`, `messages.upsert` and
//! `messages-upsert` mean the same, so both of Evolution's spellings work. Instance patterns are taken exactly,
//! case included, and may have `[a-z]` too.
//!
//! An event passes when no deny pattern matches it and the allow patterns, where there are any, do. Discarded events
//! count under `event_denied`, `event_not_allowed`, `instance_denied` or `instance_not_allowed`.

use evows_core::config::Problem;
use evows_core::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
use evows_core::{Event, names, register_filter};
use globset::{GlobBuilder, GlobSet};
use hashbrown::HashMap;
use schemars::JsonSchema;
use serde::Deserialize;

/// Names whose verdict is remembered, for events and for instances. More than any Evolution server has.
const REMEMBERED: usize = 4096;

/// Passes or discards events by their name and their instance.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Patterns of the events that pass; all of them when empty.
    pub allow: Vec<String>,
    /// Patterns of the events that are discarded, even where `allow` has them.
    pub deny: Vec<String>,
    /// Patterns of the instances whose events pass; all of them when empty.
    pub allow_instances: Vec<String>,
    /// Patterns of the instances whose events are discarded, even where `allow_instances` has them.
    pub deny_instances: Vec<String>,
}

/// The running filter.
#[derive(Debug)]
pub struct Events {
    names: Rule,
    instances: Rule,
}

/// One pair of lists, and what it said so far.
#[derive(Debug)]
struct Rule {
    allow: GlobSet,
    deny: GlobSet,
    spelling: Spelling,
    verdicts: HashMap<Box<str>, Verdict>,
}

/// How names are compared.
#[derive(Debug, Clone, Copy)]
enum Spelling {
    /// `messages.upsert` is `MESSAGES_UPSERT`.
    Event,
    /// As it stands.
    Exact,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passes,
    Denied,
    NotAllowed,
}

register_filter!(
    Events,
    summary = "Passes or discards events by their name and their instance.",
    example = "allow = [\"messages.*\", \"SEND_MESSAGE\"]\ndeny_instances = [\"test-*\"]\n",
);

// === impl Events ===

impl FilterPlugin for Events {
    const NAME: &'static str = "events";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (key, patterns, spelling) in [
            ("allow", &config.allow, Spelling::Event),
            ("deny", &config.deny, Spelling::Event),
            ("allow_instances", &config.allow_instances, Spelling::Exact),
            ("deny_instances", &config.deny_instances, Spelling::Exact),
        ] {
            for (index, pattern) in patterns.iter().enumerate() {
                let compiled = compile(std::slice::from_ref(pattern), spelling);
                problems.extend(
                    compiled
                        .err()
                        .map(|problem| problem.at_key(&format!("{key}.{index}"))),
                );
            }
        }
        problems
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Self::new(&config)
    }
}

impl Events {
    fn new(config: &Config) -> Result<Self, BuildError> {
        Ok(Self {
            names: Rule::new(&config.allow, &config.deny, Spelling::Event)?,
            instances: Rule::new(
                &config.allow_instances,
                &config.deny_instances,
                Spelling::Exact,
            )?,
        })
    }

    /// Why the event is discarded.
    fn objection(&mut self, event: &Event) -> Option<&'static str> {
        match self.names.judge(event.name()) {
            Verdict::Passes => {}
            Verdict::Denied => return Some("event_denied"),
            Verdict::NotAllowed => return Some("event_not_allowed"),
        }
        match self.instances.judge(event.instance()) {
            Verdict::Passes => None,
            Verdict::Denied => Some("instance_denied"),
            Verdict::NotAllowed => Some("instance_not_allowed"),
        }
    }
}

impl Filter for Events {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        match self.objection(&event) {
            None => out.emit(event),
            Some(reason) => out.discard(event, reason),
        }
    }
}

// === impl Rule ===

impl Rule {
    fn new(allow: &[String], deny: &[String], spelling: Spelling) -> Result<Self, BuildError> {
        let compile = |patterns: &[String]| {
            compile(patterns, spelling).map_err(|problem| BuildError::Config(vec![problem]))
        };
        Ok(Self {
            allow: compile(allow)?,
            deny: compile(deny)?,
            spelling,
            verdicts: HashMap::new(),
        })
    }

    fn judge(&mut self, name: &str) -> Verdict {
        if self.allow.is_empty() && self.deny.is_empty() {
            return Verdict::Passes;
        }
        if let Some(verdict) = self.verdicts.get(name) {
            return *verdict;
        }
        let spelled = self.spelling.of(name);
        let verdict = if self.deny.is_match(&spelled) {
            Verdict::Denied
        } else if self.allow.is_empty() || self.allow.is_match(&spelled) {
            Verdict::Passes
        } else {
            Verdict::NotAllowed
        };
        if self.verdicts.len() >= REMEMBERED {
            // Whoever sends ever new names must not fill the memory; the ones in use come back.
            self.verdicts.clear();
        }
        self.verdicts.insert(name.into(), verdict);
        verdict
    }
}

/// Makes one matcher of patterns.
fn compile(patterns: &[String], spelling: Spelling) -> Result<GlobSet, Problem> {
    let mut set = GlobSet::builder();
    for pattern in patterns {
        let bad = |reason: &str| {
            Problem::new(
                "bad-pattern",
                format!("`{pattern}` is not a pattern: {reason}"),
            )
            .help(
                "write a name, or a pattern such as \"messages.*\" with `*`, `?` or `{one,other}`",
            )
        };
        if pattern.is_empty() {
            return Err(bad("it is empty"));
        }
        if matches!(spelling, Spelling::Event) && pattern.contains(['[', '\\']) {
            return Err(bad("event patterns have no `[...]` and no backslash"));
        }
        let glob = GlobBuilder::new(&spelling.of(pattern)).build();
        set.add(glob.map_err(|error| bad(&error.kind().to_string()))?);
    }
    let built = set.build();
    built.map_err(|error| Problem::new("bad-pattern", error.to_string()))
}

// === impl Spelling ===

impl Spelling {
    fn of(self, name: &str) -> String {
        match self {
            // The one alias: `same_event` knows it too.
            Self::Event if names::same_event(name, names::GROUPS_UPDATE) => {
                names::GROUPS_UPDATE.to_owned()
            }
            Self::Event => names::config_name(name),
            Self::Exact => name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use evows_core::testing::FilterHarness;

    use super::*;

    fn list(patterns: &[&str]) -> Vec<String> {
        patterns.iter().copied().map(str::to_owned).collect()
    }

    fn objection(filter: &mut Events, name: &str, instance: &str) -> Option<&'static str> {
        let event = Event::from_parts(
            name.into(),
            instance.into(),
            "{}".into(),
            SystemTime::UNIX_EPOCH,
        );
        // The second answer comes from memory.
        let first = filter.objection(&event);
        assert_eq!(filter.objection(&event), first);
        first
    }

    #[test]
    fn emits_or_discards() {
        let mut bench = FilterHarness::<Events>::from_toml("deny = [\"CALL\"]");
        bench
            .send_json(r#"{"event":"call","instance":"a"}"#)
            .send_json(r#"{"event":"chats.set","instance":"a"}"#);
        let (emitted, discarded) = (bench.emitted(), bench.discarded());
        assert_eq!(emitted.len(), 1);
        assert_eq!(emitted[0].name(), "chats.set");
        assert_eq!(discarded.len(), 1);
        assert_eq!(discarded[0].1, "event_denied");
        drop((emitted, discarded));
        bench.finish();
    }

    #[test]
    fn passes_everything_by_default() {
        let mut filter = Events::new(&Config::default()).unwrap();
        assert_eq!(objection(&mut filter, "messages.upsert", "loja1"), None);
    }

    #[test]
    fn spellings_of_events_mean_the_same() {
        for allow in [
            "MESSAGES_*",
            "messages.*",
            "messages-{set,upsert}",
            "messages.upsert",
        ] {
            let mut filter = Events::new(&Config {
                allow: list(&[allow]),
                ..Config::default()
            })
            .unwrap();
            assert_eq!(objection(&mut filter, "messages.upsert", "a"), None);
            assert_eq!(objection(&mut filter, "MESSAGES_UPSERT", "a"), None);
            assert_eq!(
                objection(&mut filter, "call", "a"),
                Some("event_not_allowed")
            );
        }
        let mut filter = Events::new(&Config {
            deny: list(&["GROUP_UPDATE"]),
            ..Config::default()
        })
        .unwrap();
        assert_eq!(
            objection(&mut filter, "groups.update", "a"),
            Some("event_denied")
        );
    }

    #[test]
    fn deny_wins_and_instances_are_exact() {
        let mut filter = Events::new(&Config {
            allow: list(&["messages.*"]),
            deny: list(&["messages.set"]),
            allow_instances: list(&["Loja*"]),
            deny_instances: list(&["Loja-test"]),
        })
        .unwrap();
        assert_eq!(objection(&mut filter, "messages.update", "Loja1"), None);
        let refused = [
            ("messages.set", "Loja1", "event_denied"),
            ("call", "Loja1", "event_not_allowed"),
            ("messages.update", "Loja-test", "instance_denied"),
            ("messages.update", "loja1", "instance_not_allowed"),
        ];
        for (name, instance, reason) in refused {
            assert_eq!(objection(&mut filter, name, instance), Some(reason));
        }
    }

    #[test]
    fn remembers_a_bounded_number_of_names() {
        let mut filter = Events::new(&Config {
            deny: list(&["a*"]),
            ..Config::default()
        })
        .unwrap();
        for number in 0..=REMEMBERED {
            filter.names.judge(&number.to_string());
        }
        assert_eq!(filter.names.verdicts.len(), 1);
    }

    #[test]
    fn a_bad_pattern_is_a_problem_at_its_place() {
        let problems = Events::check(&Config {
            allow: list(&["call", "messages.{upsert"]),
            deny: list(&["messages.[a-z]*"]),
            ..Config::default()
        });
        let places: Vec<_> = problems.iter().map(|problem| &problem.place).collect();
        let key = |path: [&str; 2]| {
            evows_core::config::Place::Key(path.iter().copied().map(str::to_owned).collect())
        };
        assert_eq!(places, [&key(["allow", "1"]), &key(["deny", "0"])]);
    }
}
