//! What evows does, seen from outside: the real binary, real clients, real signals.

// `cfg(test)` always holds here; it tells clippy that this is test code throughout.
#[cfg(test)]
mod behaviour {
    #[macro_use]
    mod engines;

    mod bad_input;
    mod bench;
    mod clients;
    mod cors;
    mod diagnostics;
    mod docs;
    mod faults;
    mod harness;
    mod history;
    mod inbound;
    mod lookups;
    mod media;
    mod new;
    mod pipelines;
    mod reload;
    mod resume;
    mod shutdown;
    mod slow_clients;
    mod streams;
    mod upgrade;
    mod vectors;
    mod webhooks;
}
