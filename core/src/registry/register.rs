//! The macros that register plugins.

/// Registers a source: `register_source!(Webhook, summary = "...", example = "path = \"/in\"");`.
#[macro_export]
macro_rules! register_source {
    ($plugin:ty, summary = $summary:expr, example = $example:expr $(,)?) => {
        $crate::__register!(source, $plugin, $summary, $example);
    };
}

/// Registers a filter: `register_filter!(Upper, summary = "...", example = "");`.
#[macro_export]
macro_rules! register_filter {
    ($plugin:ty, summary = $summary:expr, example = $example:expr $(,)?) => {
        $crate::__register!(filter, $plugin, $summary, $example);
    };
}

/// Registers an async filter: `register_async_filter!(Lookup, summary = "...", example = "");`.
#[macro_export]
macro_rules! register_async_filter {
    ($plugin:ty, summary = $summary:expr, example = $example:expr $(,)?) => {
        $crate::__register!(async_filter, $plugin, $summary, $example);
    };
}

/// Registers a sink: `register_sink!(Stdout, summary = "...", example = "");`.
#[macro_export]
macro_rules! register_sink {
    ($plugin:ty, summary = $summary:expr, example = $example:expr $(,)?) => {
        $crate::__register!(sink, $plugin, $summary, $example);
    };
}

/// Registers a transport: `register_transport!(Sse, summary = "...", example = "");`.
#[macro_export]
macro_rules! register_transport {
    ($plugin:ty, summary = $summary:expr, example = $example:expr $(,)?) => {
        $crate::__register!(transport, $plugin, $summary, $example);
    };
}

/// Registers a policy: `register_policy!(Global, summary = "...", example = "");`.
#[macro_export]
macro_rules! register_policy {
    ($plugin:ty, summary = $summary:expr, example = $example:expr $(,)?) => {
        $crate::__register!(policy, $plugin, $summary, $example);
    };
}

/// Registers a lifecycle: `register_lifecycle!(Evolution, summary = "...", example = "");`.
#[macro_export]
macro_rules! register_lifecycle {
    ($plugin:ty, summary = $summary:expr, example = $example:expr $(,)?) => {
        $crate::__register!(lifecycle, $plugin, $summary, $example);
    };
}

/// The common part of the `register_*!` macros.
#[doc(hidden)]
#[macro_export]
macro_rules! __register {
    ($constructor:ident, $plugin:ty, $summary:expr, $example:expr) => {
        $crate::inventory::submit! {
            $crate::registry::Registration::$constructor::<$plugin>(
                $summary,
                $example,
                $crate::registry::Origin {
                    package: ::core::env!("CARGO_PKG_NAME"),
                    file: ::core::file!(),
                    line: ::core::line!(),
                },
            )
        }
    };
}
