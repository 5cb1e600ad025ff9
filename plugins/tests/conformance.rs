//! Every registered plugin keeps the rules that users and the other tools rely on.

use evows_core::registry;
use evows_plugins as _;

/// Everything that ships. A plugin that is missing here was not asked for; one that is missing in the binary was not
/// linked, which nothing else would say.
const SHIPPED: &[&str] = &[
    "source file",
    "source generator",
    "source stdin",
    "source webhook",
    "filter bytes",
    "filter debounce",
    "filter dedupe",
    "filter enrich",
    "filter events",
    "filter map",
    "filter media",
    "filter normalize",
    "filter redact",
    "filter remove",
    "filter rename",
    "filter route",
    "filter sample",
    "filter set",
    "filter throttle",
    "filter where",
    "sink blackhole",
    "sink channels",
    "sink file",
    "sink socketio",
    "sink stdout",
    "sink webhook",
    "transport socketio",
    "transport sse",
    "transport websocket",
    "policy both",
    "policy env",
    "policy global",
    "policy traditional",
    "lifecycle evolution",
];

evows_core::testing::conformance!(all);

#[test]
fn exactly_what_ships_is_registered() {
    let names: Vec<_> = registry::all()
        .iter()
        .map(|plugin| format!("{} {}", plugin.kind, plugin.name))
        .collect();
    assert_eq!(names, SHIPPED);
}
