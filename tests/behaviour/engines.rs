//! The Socket.IO engines. A test that serves Socket.IO runs once on each.

/// Makes tests of the named functions: `async fn name(engine: &str)` becomes a test `<engine>::name` for every
/// engine. With `threads(n)` first they run on that many workers, otherwise on one thread. A function that is not
/// named is dead code, which the compiler reports.
macro_rules! on_every_engine {
    (threads($threads:tt), $($test:ident),+ $(,)?) => {
        on_every_engine!(@all (flavor = "multi_thread", worker_threads = $threads) [$($test)+]);
    };
    ($($test:ident),+ $(,)?) => {
        on_every_engine!(@all () [$($test)+]);
    };
    // The list of engines, as `engine` of the transport has them: one line each.
    (@all $runtime:tt $tests:tt) => {
        on_every_engine!(@one native $runtime $tests);
        on_every_engine!(@one socketioxide $runtime $tests);
    };
    (@one $engine:ident $runtime:tt [$($test:ident)+]) => {
        mod $engine {
            $(
                #[tokio::test $runtime]
                async fn $test() {
                    super::$test(stringify!($engine)).await;
                }
            )+
        }
    };
}
