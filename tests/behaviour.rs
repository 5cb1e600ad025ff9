//! What evows does, seen from outside: the real binary, real clients, real signals.

mod behaviour {
    mod bad_input;
    mod clients;
    mod harness;
    mod shutdown;
    mod slow_clients;
    mod vectors;
}
