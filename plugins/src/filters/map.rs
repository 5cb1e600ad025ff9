//! Changes events with a jq program.
//!
//! ```toml
//! [filters.slim]
//! type = "map"
//! inputs = ["evolution"]
//! program = '''
//! .data |= del(.message.messageContextInfo)
//! | .data.chat = (.data.key.remoteJid | split("@")[0])
//! '''
//! ```
//!
//! The [jq](https://jqlang.org/manual/) program is given the envelope. Each value that it yields becomes an event; it must be an
//! object with the strings `event` and `instance`. The first one keeps the id of the event that came in, others have ids that
//! follow from it, the same ones when the event comes again; each keeps the attachments whose placeholders it has. A program that
//! yields nothing discards the event as `no_output`. What it does not change stays in the bytes as it was.
//! A program that raises an error, yields something else than an envelope, or does not end in time does with the event what
//! `on_error` says, and nothing of what it yielded before goes on.

use evows_core::config::{Period, Problem};
use evows_core::jq::Mapping;
use evows_core::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
use evows_core::{Event, register_filter};
use schemars::JsonSchema;
use serde::Deserialize;

use super::fallback::Fallback;
use super::jq;

/// Changes events with a jq program.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A jq program over the envelope, such as `.data.source = "shop"`.
    pub program: String,
    /// What happens to an event over which the program raises an error or does not end: `"fail"`, `"discard"` or `"pass"`.
    #[serde(default)]
    pub on_error: Fallback,
    /// Time that the program may take for one event.
    #[serde(default = "jq::time_limit")]
    pub time_limit: Period,
}

/// The running filter.
#[derive(Debug)]
pub struct Map {
    mapping: Mapping,
    on_error: Fallback,
}

register_filter!(
    Map,
    summary = "Changes events with a jq program.",
    example = "program = '.data.source = \"shop\"'\n",
);

// === impl Map ===

impl FilterPlugin for Map {
    const NAME: &'static str = "map";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = jq::check("program", &config.program);
        problems.extend(jq::check_time(config.time_limit));
        problems
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        let program = jq::compile("program", &config.program)?;
        Ok(Self {
            mapping: Mapping::new(program, config.time_limit.0),
            on_error: config.on_error,
        })
    }
}

impl Filter for Map {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        if let Err((event, failure)) = self.mapping.apply(event, out) {
            jq::end(self.on_error, event, &failure, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use evows_core::testing::FilterHarness;

    use super::*;

    const CALL: &str = r#"{"event":"call","instance":"a","data":{"n":[1,2],"text":"é"}}"#;

    fn filter(program: &str) -> FilterHarness<Map> {
        FilterHarness::from_toml(&format!("program = '''{program}'''"))
    }

    fn envelopes(events: &[Event]) -> Vec<String> {
        let envelopes = events.iter().map(|event| event.envelope().to_vec());
        envelopes.map(|it| String::from_utf8(it).unwrap()).collect()
    }

    #[test]
    fn an_envelope_is_changed_and_stays_the_same_event() {
        let mut filter = filter(".data |= del(.n) | .instance = \"b\"");
        let event = evows_core::testing::event(CALL).with_key(7);
        let mapped = filter.send(event.clone()).emitted();
        assert_eq!(
            envelopes(&mapped),
            [r#"{"event":"call","instance":"b","data":{"text":"é"}}"#]
        );
        let mapped = &mapped[0];
        assert_eq!((mapped.id(), mapped.key()), (event.id(), Some(7)));
        assert_eq!((mapped.name(), mapped.instance()), ("call", "b"));
    }

    #[test]
    fn several_values_are_several_events_in_order_and_none_is_none() {
        let mut filter = filter(".data.n[] as $n | .data = {n: $n} | select($n > 0)");
        let mapped = filter.send_json(CALL).emitted();
        assert_eq!(
            envelopes(&mapped),
            [1, 2].map(|n| format!(r#"{{"event":"call","instance":"a","data":{{"n":{n}}}}}"#))
        );
        assert_ne!(mapped[0].id(), mapped[1].id());
        filter.send_json(r#"{"event":"call","instance":"a","data":{"n":[-1]}}"#);
        assert_eq!(filter.discarded()[0].1, "no_output");
    }

    #[test]
    fn attachments_go_with_their_placeholders() {
        let envelope = r#"{"event":"e","instance":"i","a":{"_placeholder":true,"num":0},"b":{"_placeholder":true,"num":1}}"#;
        let attachments = ["zero", "one"].map(|it| bytes::Bytes::from_static(it.as_bytes()));
        let event = evows_core::testing::event(envelope).with_attachments(attachments.to_vec());
        for program in ["del(.a)", "with_entries(select(.key != \"a\"))"] {
            let mapped = filter(program).send(event.clone()).emitted();
            let left = r#"{"event":"e","instance":"i","b":{"_placeholder":true,"num":0}}"#;
            assert_eq!(envelopes(&mapped), [left]);
            assert_eq!(mapped[0].attachments(), [attachments[1].clone()]);
        }
    }

    #[test]
    fn what_is_no_envelope_fails_with_all_that_came_with_it() {
        for program in [
            "., 5",
            "del(.event)",
            ".instance = 5",
            ".event = \"\"",
            ".data[tojson] = 1 | {}",
        ] {
            let mut filter = filter(program);
            assert_eq!(filter.send_json(CALL).emitted().len(), 0, "{program}");
            assert_eq!(filter.failed()[0].1, "not_an_envelope", "{program}");
        }
        let mut filter = filter(".data.n / 0");
        assert_eq!(filter.send_json(CALL).failed()[0].1, "program_error");
    }
}
