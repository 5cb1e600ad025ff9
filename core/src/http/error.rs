//! The one shape that every error body has (contract section 3.1).

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;
use serde_json::{Value, json};

/// An error as Evolution writes it: `{"status":n,"error":"<reason phrase>","response":{"message":…}}`.
pub fn error_response(status: StatusCode, message: impl Into<Value>) -> Response {
    let body = json!({
        "status": status.as_u16(),
        "error": status.canonical_reason().unwrap_or("Error"),
        "response": { "message": message.into() },
    });
    (status, Json(body)).into_response()
}

/// Whether a body was given up for its size, and not because it broke off.
pub fn is_too_large(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn has_the_shape_of_the_original() {
        let response = error_response(StatusCode::NOT_FOUND, vec!["Cannot GET /nope"]);
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        let body = axum::body::to_bytes(response.into_body(), 1024);
        assert_eq!(
            body.await.unwrap(),
            r#"{"status":404,"error":"Not Found","response":{"message":["Cannot GET /nope"]}}"#
        );
    }
}
