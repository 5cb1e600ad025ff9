//! An axum application that was there before: a page, a port and a shutdown of its own. Now it has evows inside.

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use evows::axum::{Router, routing};
use evows::tokio::{net::TcpListener, signal};
use evows::{Embedded, axum, tokio};

fn main() -> ExitCode {
    // An application with a main that is async has a runtime already.
    let served = tokio::runtime::Runtime::new()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(serve()));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What is wrong with a configuration has several lines.
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let evows = Embedded::from_file("evows.toml").await?;
    let app = Router::new()
        .route("/", routing::get(async || "a shop\n"))
        .route("/healthz", routing::get(async || "fine\n"))
        .merge(evows.router())
        .into_make_service_with_connect_info::<SocketAddr>();
    let listener = TcpListener::bind("127.0.0.1:7006").await?;
    let serving = axum::serve(listener, app).with_graceful_shutdown(async {
        // When this fails, the application cannot be told to stop; then it stops now.
        signal::ctrl_c().await.ok();
        // While the server still serves: clients are told to go, and what was accepted is delivered.
        let exit = evows.stop().await;
        eprintln!("evows has stopped: {exit:?}");
    });
    Ok(serving.await?)
}
