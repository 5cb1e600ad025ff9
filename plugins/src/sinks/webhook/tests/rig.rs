//! The sink beside the real lifecycle.

use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, header};
use evows_core::access::Secret;
use evows_core::config::{ServerConfig, Settings};
use evows_core::http::Routes;
use evows_core::plugin::{
    Batch, BuildContext, Destination, Environment, Lifecycle, LifecyclePlugin, Sink, SinkError,
    SinkPlugin,
};
use evows_core::testing::shared;
use evows_core::{Event, testing};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use super::super::{Config, Webhook};
use crate::lifecycle::evolution::{self, Evolution};

const KEY: &str = "GLOBAL";

/// Lets URLs that are set over the API lead to the tests' own servers.
pub(super) const LOCAL: &str = "allow_cidrs = [\"127.0.0.0/8\"]\n";

pub(super) struct Rig {
    pub(super) sink: Webhook,
    pub(super) lifecycle: Arc<Evolution>,
    routes: Routes,
    folder: Option<TempDir>,
}

// === impl Rig ===

impl Rig {
    pub(super) async fn new(config: &str) -> Self {
        Self::with(config, &[]).await
    }

    pub(super) async fn with(config: &str, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut rig = Self::over(folder.path(), config, variables).await;
        rig.folder = Some(folder);
        rig
    }

    /// Over a folder that outlives it.
    pub(super) async fn over(folder: &Path, config: &str, variables: &[(&str, &str)]) -> Self {
        let rig = Self::not_started(folder, config, variables).await;
        rig.sink.start().await.unwrap();
        rig
    }

    pub(super) async fn not_started(
        folder: &Path,
        config: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let server = ServerConfig {
            data_dir: folder.to_owned(),
            ..ServerConfig::default()
        };
        let owned = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let environment: Environment = owned.collect();
        let shared = shared(server, environment);
        let cx = BuildContext::new("lifecycle", Arc::clone(&shared));
        let lifecycle = Evolution::build(evolution::Config::default(), &cx).unwrap();
        let lifecycle = Arc::new(lifecycle);
        shared.access.set_global(Secret::new(KEY));
        let known = Arc::clone(&lifecycle) as Arc<dyn Lifecycle>;
        shared.access.set_lifecycle(Arc::clone(&known));
        shared.lifecycle.set(known).ok().unwrap();
        lifecycle.start().await.unwrap();
        let routes = Routes::new(cx.take_mounted().routes).unwrap();
        let cx = BuildContext::new("hooks", shared);
        let config: Config = Settings::from_text(config).read().unwrap();
        assert_eq!(Webhook::check(&config), []);
        let sink = Webhook::build(config, &cx).unwrap();
        Self {
            sink,
            lifecycle,
            routes,
            folder: None,
        }
    }

    pub(super) async fn call(&self, method: Method, uri: &str, body: &Value) -> (u16, Value) {
        let request = Request::builder().method(method).uri(uri);
        let request = request.header("apikey", KEY);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Body::from(body.to_string())).unwrap();
        let router = self.routes.find(uri).unwrap().clone();
        let response = router.oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
        (status, serde_json::from_slice(&body.unwrap()).unwrap())
    }

    /// Sets an instance's own webhook.
    pub(super) async fn set(&self, instance: &str, webhook: Value) -> Value {
        let uri = format!("/webhook/set/{instance}");
        let body = json!({ "webhook": webhook });
        let (status, row) = self.call(Method::POST, &uri, &body).await;
        assert_eq!(status, 201, "{row}");
        row
    }

    /// Enables an instance's own webhook for every event.
    pub(super) async fn enable(&self, instance: &str, url: &str) {
        self.set(instance, json!({"enabled": true, "url": url, "events": []}))
            .await;
    }

    pub(super) async fn find(&self, instance: &str) -> Value {
        let uri = format!("/webhook/find/{instance}");
        self.call(Method::GET, &uri, &Value::Null).await.1
    }

    pub(super) fn destinations(&self, name: &str, instance: &str) -> Vec<String> {
        let mut out = Vec::new();
        self.sink.destinations(&event(name, instance), &mut out);
        out.iter().map(ToString::to_string).collect()
    }

    pub(super) async fn send(&self, destination: &str, event: Event) -> Result<(), SinkError> {
        let destination = Destination::named(destination);
        let batch = Batch::new(&destination, std::slice::from_ref(&event));
        self.sink.send(batch).await
    }

    pub(super) async fn fails(&self, destination: &str) -> SinkError {
        let sent = self.send(destination, event("call", "ana")).await;
        sent.unwrap_err()
    }
}

pub(super) fn event(name: &str, instance: &str) -> Event {
    let envelope = json!({"event": name, "instance": instance, "data": {"id": 1}});
    testing::event(&envelope.to_string())
}
