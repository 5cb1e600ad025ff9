//! `evows run`.

use std::path::Path;
use std::sync::Arc;

use super::validate::load;
use super::{Exit, log, output};
use crate::http::Host;
use crate::plugin::Environment;
use crate::runtime;

/// Runs the pipeline until it is told to stop. A wrong configuration starts nothing, and when it is loaded again, changes nothing.
pub(super) fn run(
    path: &Path,
    log: &log::Options,
    host: Arc<dyn Host>,
    environment: Environment,
) -> Exit {
    if let Err(message) = log.start() {
        output::complain(&message);
        return Exit::Usage;
    }
    let checked = load(path, &environment);
    output::show(&checked.diagnostics, &checked.text);
    let Some(config) = checked.config else {
        return Exit::Config;
    };
    let threads = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("evows")
        .build();
    let threads = match threads {
        Ok(threads) => threads,
        Err(error) => {
            output::complain(&format_args!("cannot start threads: {error}"));
            return Exit::Failed;
        }
    };
    let (path, again) = (path.to_owned(), environment.clone());
    let reload = Arc::new(move || {
        let checked = load(&path, &again);
        output::show(&checked.diagnostics, &checked.text);
        checked.config
    });
    let exit = threads.block_on(runtime::run(config, host, environment, reload));
    // Dropping them would wait for a blocking read of the standard input, which may never end.
    threads.shutdown_background();
    exit
}
