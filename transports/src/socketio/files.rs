//! The client's own files: `/socket.io/socket.io.js` and its variants, which browser pages may load from the server (contract 2.1).
//!
//! They are read from an installed `socket.io-client` package each time they are asked for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

/// What is served below a path.
#[derive(Debug, Clone)]
pub(super) struct Files {
    path: Arc<str>,
    folder: Option<Arc<Path>>,
}

// === impl Files ===

impl Files {
    /// The files in `folder`, or none, below `path`.
    pub(super) fn new(path: &str, folder: Option<&PathBuf>) -> Self {
        Self {
            path: path.into(),
            folder: folder.map(|folder| folder.as_path().into()),
        }
    }

    /// Whether the folder is one. To be called before anybody asks.
    pub(super) async fn check(&self) -> Result<(), io::Error> {
        match &self.folder {
            Some(folder) => tokio::fs::metadata(folder.join("socket.io.js"))
                .await
                .map(drop),
            None => Ok(()),
        }
    }

    /// Routes that answer requests for files themselves, and leave the rest to `router`.
    pub(super) fn in_front_of(self, router: Router) -> Router {
        router.layer(from_fn_with_state(self, enter))
    }

    async fn answer(&self, name: &str, method: &Method, known: Option<HeaderValue>) -> Response {
        let Some(folder) = &self.folder else {
            return StatusCode::NOT_FOUND.into_response();
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            return StatusCode::METHOD_NOT_ALLOWED.into_response();
        }
        let tag = tag(folder).await;
        if tag.is_some() && known == tag {
            return StatusCode::NOT_MODIFIED.into_response();
        }
        let mut response = match tokio::fs::read(folder.join(name)).await {
            Ok(content) => content.into_response(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return StatusCode::NOT_FOUND.into_response();
            }
            Err(error) => {
                tracing::error!(%error, folder = %folder.display(), name, "cannot read a file of the client");
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        };
        let kind = match name.rsplit_once('.') {
            Some((_, "map")) => "application/json; charset=utf-8",
            _ => "application/javascript; charset=utf-8",
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let always_ask = HeaderValue::from_static("public, max-age=0");
        headers.insert(CACHE_CONTROL, always_ask);
        if let Some(tag) = tag {
            headers.insert(ETAG, tag);
        }
        response
    }
}

async fn enter(State(files): State<Files>, request: Request, next: Next) -> Response {
    let name = request.uri().path().strip_prefix(&*files.path);
    let name = name.filter(|name| is_file(name)).map(str::to_owned);
    match name {
        Some(name) => {
            let known = request.headers().get(IF_NONE_MATCH).cloned();
            let method = request.method().clone();
            files.answer(&name, &method, known).await
        }
        None => next.run(request).await,
    }
}

/// Whether this is the name of one of the client's files. Nothing else in the folder can be asked for.
fn is_file(name: &str) -> bool {
    let name = name.strip_suffix(".map").unwrap_or(name);
    let variant = name
        .strip_prefix("socket.io")
        .and_then(|rest| rest.strip_suffix(".js"));
    variant.is_some_and(|variant| {
        let variant = variant.strip_suffix(".min").unwrap_or(variant);
        matches!(variant, "" | ".msgpack" | ".esm")
    })
}

/// The package's version, which is what Node's server tags the files with.
async fn tag(folder: &Path) -> Option<HeaderValue> {
    #[derive(Deserialize)]
    struct Package {
        version: String,
    }

    let package = tokio::fs::read(folder.parent()?.join("package.json"))
        .await
        .ok()?;
    let Package { version } = serde_json::from_slice(&package).ok()?;
    HeaderValue::from_str(&format!("\"{version}\"")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_files_of_the_client_have_names() {
        for name in [
            "socket.io.js",
            "socket.io.min.js",
            "socket.io.esm.min.js",
            "socket.io.msgpack.min.js",
            "socket.io.js.map",
            "socket.io.esm.min.js.map",
        ] {
            assert!(is_file(name), "{name}");
        }
        for name in [
            "",
            "a.js",
            "socket.io.",
            "../socket.io.js",
            "socket.io/../../x.js",
            "socket.io.css",
        ] {
            assert!(!is_file(name), "{name}");
        }
    }
}
