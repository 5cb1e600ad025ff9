//! Error answers of socketioxide, made those of Node's server (contract 2.4).

use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

/// Larger error bodies are nobody's.
const LARGEST: usize = 1024;

/// socketioxide writes its error codes as strings; Node writes numbers.
pub(super) async fn with_numeric_code(response: Response) -> Response {
    #[derive(Deserialize)]
    struct Answer {
        code: String,
        message: String,
    }

    if response.status() != StatusCode::BAD_REQUEST {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(body) = to_bytes(body, LARGEST).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let body = match serde_json::from_slice::<Answer>(&body) {
        Ok(Answer { code, message }) => {
            parts.headers.remove(CONTENT_LENGTH);
            Body::from(format!(r#"{{"code":{code},"message":"{message}"}}"#))
        }
        Err(_) => Body::from(body),
    };
    Response::from_parts(parts, body)
}
