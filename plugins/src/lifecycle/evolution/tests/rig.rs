//! A lifecycle as the binary would build it, without a network.

use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, header};
use axum::response::Response;
use evows_core::access::{Compat, Secret};
use evows_core::config::ServerConfig;
use evows_core::http::Routes;
use evows_core::plugin::{BuildContext, Environment, Lifecycle, LifecycleError, LifecyclePlugin};
use evows_core::testing::shared;
use serde_json::Value;
use tower::ServiceExt;

use super::super::{Config, Evolution, UnknownInstances};

pub(super) const KEY: &str = "GLOBAL";

/// A built lifecycle and its routes.
pub(super) struct Rig {
    pub(super) lifecycle: Arc<Evolution>,
    routes: Routes,
}

/// A status and a body.
pub(super) type Answer = (u16, String);

impl Rig {
    /// Starts over a folder.
    pub(super) async fn start(folder: &Path) -> Self {
        Self::start_with(folder, Compat::Strict, UnknownInstances::Create).await
    }

    pub(super) async fn start_with(
        folder: &Path,
        compat: Compat,
        unknown: UnknownInstances,
    ) -> Self {
        let rig = Self::build(folder, compat, unknown);
        rig.lifecycle.start().await.unwrap();
        rig
    }

    pub(super) fn build(folder: &Path, compat: Compat, unknown: UnknownInstances) -> Self {
        let server = ServerConfig {
            data_dir: folder.to_owned(),
            compat,
            ..ServerConfig::default()
        };
        let shared = shared(server, Environment::default());
        let cx = BuildContext::new("lifecycle", Arc::clone(&shared));
        let config = Config {
            unknown_instances: unknown,
        };
        let lifecycle = Arc::new(Evolution::build(config, &cx).unwrap());
        shared.access.set_global(Secret::new(KEY));
        shared
            .access
            .set_lifecycle(Arc::clone(&lifecycle) as Arc<dyn Lifecycle>);
        let routes = Routes::new(cx.take_mounted().routes).unwrap();
        Self { lifecycle, routes }
    }

    /// What a start over a folder fails with.
    pub(super) async fn fails(folder: &Path) -> LifecycleError {
        let rig = Self::build(folder, Compat::Strict, UnknownInstances::Create);
        rig.lifecycle.start().await.unwrap_err()
    }

    /// Makes a request with a key, `""` being none.
    pub(super) async fn call(&self, method: Method, uri: &str, key: &str, body: &str) -> Answer {
        self.send(method, uri, key, "application/json", body).await
    }

    pub(super) async fn send(
        &self,
        method: Method,
        uri: &str,
        key: &str,
        kind: &str,
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(uri);
        if !key.is_empty() {
            request = request.header("ApiKey", key);
        }
        let request = request.header(header::CONTENT_TYPE, kind);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let router = self.routes.find(request.uri().path()).unwrap().clone();
        read(router.oneshot(request).await.unwrap()).await
    }

    pub(super) async fn get(&self, uri: &str, key: &str) -> Answer {
        self.call(Method::GET, uri, key, "").await
    }

    pub(super) async fn set(&self, name: &str, key: &str, body: &str) -> Answer {
        let uri = format!("/websocket/set/{name}");
        self.call(Method::POST, &uri, key, body).await
    }

    pub(super) async fn create(&self, body: &str) -> Answer {
        self.call(Method::POST, "/instance/create", KEY, body).await
    }

    pub(super) async fn delete(&self, name: &str, key: &str) -> Answer {
        let uri = format!("/instance/delete/{name}");
        self.call(Method::DELETE, &uri, key, "").await
    }
}

async fn read(response: Response) -> Answer {
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    (status, String::from_utf8(body.unwrap().to_vec()).unwrap())
}

/// The body of an answer as JSON.
pub(super) fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.1).unwrap()
}

/// The keys of an object, in their order.
pub(super) fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// An error as contract 3.1 writes it; `message` is JSON.
pub(super) fn error(status: u16, phrase: &str, message: &str) -> Answer {
    let body =
        format!(r#"{{"status":{status},"error":"{phrase}","response":{{"message":{message}}}}}"#);
    (status, body)
}

pub(super) fn unauthorized() -> Answer {
    error(401, "Unauthorized", r#""Unauthorized""#)
}

pub(super) fn unknown(name: &str) -> Answer {
    let message = format!(r#"["The \"{name}\" instance does not exist"]"#);
    error(404, "Not Found", &message)
}
