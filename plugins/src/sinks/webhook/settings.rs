//! What the file and Evolution's variables ask for together (contract section 4).

use std::num::NonZeroUsize;
use std::time::Duration;

use evows_core::delivery::{BatchPolicy, Delivery, Jitter, Order, RetryPolicy};
use evows_core::names::{GROUPS_UPDATE, LISTED};
use evows_core::plugin::Environment;

use super::Config;

/// The statuses that no other try mends, where neither the file nor a variable says so.
pub(super) const NON_RETRYABLE: [u16; 5] = [400, 401, 403, 404, 422];

/// A name that later versions of Evolution list.
const MESSAGING_HISTORY_SET: &str = "MESSAGING_HISTORY_SET";

/// Requests to one endpoint at once.
const CONCURRENCY: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not 0");

/// What is posted to the global endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Global {
    pub(super) url: String,
    pub(super) by_events: bool,
    /// Which events, in any spelling; all of them when `None`.
    pub(super) events: Option<Vec<String>>,
}

/// The variables, read as Evolution reads them.
#[derive(Clone, Copy)]
struct Variables<'a>(&'a Environment);

/// The global endpoint, if there is one.
pub(super) fn global(config: &Config, environment: &Environment) -> Option<Global> {
    let enabled = environment.flag("WEBHOOK_GLOBAL_ENABLED");
    let variable = environment.get("WEBHOOK_GLOBAL_URL").unwrap_or_default();
    let url = match enabled {
        Some(false) => return None,
        Some(true) if !variable.is_empty() => variable,
        _ => config.url.as_deref().filter(|url| !url.is_empty())?,
    };
    let by_events = environment.flag("WEBHOOK_GLOBAL_WEBHOOK_BY_EVENTS");
    Some(Global {
        url: url.to_owned(),
        by_events: by_events.unwrap_or(config.by_events),
        events: events(config, environment),
    })
}

fn events(config: &Config, environment: &Environment) -> Option<Vec<String>> {
    let names = LISTED.into_iter();
    let names = names.chain([GROUPS_UPDATE, MESSAGING_HISTORY_SET]);
    let switches: Vec<_> = names
        .filter_map(|name| Some((name, environment.flag(&format!("WEBHOOK_EVENTS_{name}"))?)))
        .collect();
    if switches.is_empty() {
        let listed = config.events.clone();
        return (!listed.is_empty()).then_some(listed);
    }
    let on = switches.into_iter().filter(|(_, on)| *on);
    Some(on.map(|(name, _)| name.to_owned()).collect())
}

/// The statuses that no other try mends.
pub(super) fn non_retryable(config: &Config, environment: &Environment) -> Vec<u16> {
    match environment.get("WEBHOOK_RETRY_NON_RETRYABLE_STATUS_CODES") {
        Some(list) => list
            .split(',')
            .map(|code| parse_int(code).and_then(|code| u16::try_from(code).ok()))
            .map(Option::unwrap_or_default)
            .collect(),
        None => config.non_retryable.clone(),
    }
}

/// How core delivers, unless the file says otherwise.
pub(super) fn delivery(environment: &Environment) -> Delivery {
    let variables = Variables(environment);
    let seconds = |name: &str, default: u64| Duration::from_secs(variables.int(name, default));
    let attempts = variables.int("WEBHOOK_RETRY_MAX_ATTEMPTS", 10);
    let initial = seconds("WEBHOOK_RETRY_INITIAL_DELAY_SECONDS", 5);
    let doubles = environment.get("WEBHOOK_RETRY_USE_EXPONENTIAL_BACKOFF") != Some("false");
    Delivery {
        timeout: Duration::from_millis(variables.int("WEBHOOK_REQUEST_TIMEOUT_MS", 30_000)),
        concurrency: CONCURRENCY,
        order: Order::Instance,
        batch: BatchPolicy {
            max_events: NonZeroUsize::MIN,
            ..BatchPolicy::default()
        },
        retry: RetryPolicy {
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            initial,
            max: seconds("WEBHOOK_RETRY_MAX_DELAY_SECONDS", 300),
            doubles,
            jitter: Jitter::Around(variables.float("WEBHOOK_RETRY_JITTER_FACTOR", 0.2)),
            ..RetryPolicy::default()
        },
        ..Delivery::default()
    }
}

/// JavaScript's `parseInt`: the digits that a text begins with.
fn parse_int(text: &str) -> Option<u64> {
    let text = text.trim_start();
    let digits = text.strip_prefix('+').unwrap_or(text);
    let end = digits.find(|c: char| !c.is_ascii_digit());
    digits.get(..end.unwrap_or(digits.len()))?.parse().ok()
}

/// JavaScript's `parseFloat`, without exponents.
fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_start();
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    let end = text.find(|c: char| !is_part(c));
    text.get(..end.unwrap_or(text.len()))?.parse().ok()
}

// === impl Variables ===

impl Variables<'_> {
    /// A number; 0 and what is no number are the default, as in `parseInt(x) || default`.
    fn int(self, name: &str, default: u64) -> u64 {
        let value = self.0.get(name).and_then(parse_int);
        value.filter(|value| *value != 0).unwrap_or(default)
    }

    fn float(self, name: &str, default: f64) -> f64 {
        let value = self.0.get(name).and_then(parse_float);
        value.filter(|value| *value > 0.0).unwrap_or(default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let owned = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        owned.collect()
    }

    fn url_of(url: Option<&str>, variables: &[(&str, &str)]) -> Option<String> {
        let config = Config {
            url: url.map(str::to_owned),
            ..Config::default()
        };
        global(&config, &environment(variables)).map(|global| global.url)
    }

    #[test]
    fn the_global_endpoint_is_the_files_or_the_variables() {
        let on = ("WEBHOOK_GLOBAL_ENABLED", "true");
        let variable = ("WEBHOOK_GLOBAL_URL", "http://v");
        assert_eq!(url_of(None, &[]), None);
        assert_eq!(url_of(Some(""), &[]), None);
        assert_eq!(url_of(Some("http://f"), &[]).unwrap(), "http://f");
        assert_eq!(url_of(None, &[on, variable]).unwrap(), "http://v");
        assert_eq!(url_of(Some("http://f"), &[on]).unwrap(), "http://f");
        assert_eq!(
            url_of(Some("http://f"), &[on, variable]).unwrap(),
            "http://v"
        );
        assert_eq!(
            url_of(None, &[variable]),
            None,
            "as long as it is not enabled"
        );
        let off = ("WEBHOOK_GLOBAL_ENABLED", "TRUE");
        assert_eq!(url_of(Some("http://f"), &[off, variable]), None);
    }

    #[test]
    fn variables_win_over_the_file() {
        let config = Config {
            url: Some("http://f".to_owned()),
            by_events: true,
            events: vec!["messages.*".to_owned()],
            ..Config::default()
        };
        let file = global(&config, &environment(&[])).unwrap();
        assert!(file.by_events);
        assert_eq!(file.events.unwrap(), ["messages.*"]);
        let variables = [
            ("WEBHOOK_GLOBAL_WEBHOOK_BY_EVENTS", "1"),
            ("WEBHOOK_EVENTS_CALL", "true"),
            ("WEBHOOK_EVENTS_GROUPS_UPDATE", "true"),
            ("WEBHOOK_EVENTS_MESSAGES_UPSERT", "false"),
            ("WEBHOOK_EVENTS_ERRORS", "true"),
        ];
        let both = global(&config, &environment(&variables)).unwrap();
        assert!(!both.by_events);
        assert_eq!(both.events.unwrap(), ["CALL", "GROUPS_UPDATE"]);
        let none = [("WEBHOOK_EVENTS_CALL", "false")];
        let none = global(&config, &environment(&none)).unwrap();
        assert_eq!(none.events.unwrap(), [""; 0]);
        let all = Config {
            events: Vec::new(),
            ..config
        };
        assert_eq!(global(&all, &environment(&[])).unwrap().events, None);
    }

    #[test]
    fn numbers_are_read_as_the_original_reads_them() {
        let plain = delivery(&environment(&[]));
        assert_eq!(plain.timeout, Duration::from_secs(30));
        assert_eq!(plain.order, Order::Instance);
        assert_eq!(
            (plain.concurrency.get(), plain.batch.max_events.get()),
            (4, 1)
        );
        let retry = plain.retry;
        assert_eq!(
            (retry.attempts, retry.initial, retry.max),
            (10, Duration::from_secs(5), Duration::from_mins(5))
        );
        assert!(retry.doubles);
        assert_eq!(retry.jitter, Jitter::Around(0.2));

        let set = delivery(&environment(&[
            ("WEBHOOK_REQUEST_TIMEOUT_MS", " 60000ms"),
            ("WEBHOOK_RETRY_MAX_ATTEMPTS", "3"),
            ("WEBHOOK_RETRY_INITIAL_DELAY_SECONDS", "1"),
            ("WEBHOOK_RETRY_MAX_DELAY_SECONDS", "7"),
            ("WEBHOOK_RETRY_USE_EXPONENTIAL_BACKOFF", "false"),
            ("WEBHOOK_RETRY_JITTER_FACTOR", "0.5x"),
        ]));
        assert_eq!(set.timeout, Duration::from_mins(1));
        let retry = set.retry;
        assert_eq!(
            (retry.attempts, retry.initial, retry.max, retry.doubles),
            (3, Duration::from_secs(1), Duration::from_secs(7), false)
        );
        assert_eq!(retry.jitter, Jitter::Around(0.5));

        let odd = delivery(&environment(&[
            ("WEBHOOK_REQUEST_TIMEOUT_MS", "0"),
            ("WEBHOOK_RETRY_MAX_ATTEMPTS", "many"),
            ("WEBHOOK_RETRY_INITIAL_DELAY_SECONDS", "-1"),
            ("WEBHOOK_RETRY_USE_EXPONENTIAL_BACKOFF", "no"),
            ("WEBHOOK_RETRY_JITTER_FACTOR", "0"),
        ]));
        assert_eq!(odd, plain);
    }

    #[test]
    fn an_empty_list_of_statuses_has_everything_tried_again() {
        let config = Config::default();
        let read = |variables: &[_]| non_retryable(&config, &environment(variables));
        assert_eq!(read(&[]), NON_RETRYABLE);
        let name = "WEBHOOK_RETRY_NON_RETRYABLE_STATUS_CODES";
        assert_eq!(read(&[(name, "404, 410")]), [404, 410]);
        assert_eq!(read(&[(name, "")]), [0]);
    }
}
