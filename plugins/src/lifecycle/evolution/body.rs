//! Reads a request's body, as JSON or as a form.

use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use evows_core::http::{error_response, is_too_large};
use serde_json::{Value, json};

use super::validation::Body;

/// Far more than any body that this API has a use for.
const LIMIT: usize = 8 * 1024 * 1024;

/// Levels of brackets in a form's keys.
const DEPTH: usize = 5;

/// Reads a body. Nothing at all is an empty object, and so is an array.
pub(super) async fn read(headers: &HeaderMap, body: axum::body::Body) -> Result<Body, Response> {
    let bytes = axum::body::to_bytes(body, LIMIT)
        .await
        .map_err(|error| unreadable(&error))?;
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.starts_with("application/x-www-form-urlencoded") {
        return Ok(form(&bytes));
    }
    if bytes.is_empty() {
        return Ok(Body::new());
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(Value::Array(_)) => Ok(Body::new()),
        Ok(_) => Err(malformed("the body is neither an object nor an array")),
        Err(error) => Err(malformed(&error.to_string())),
    }
}

/// Why a body was not read to its end.
fn unreadable(error: &axum::Error) -> Response {
    if is_too_large(error) {
        let message = format!("the body is longer than {LIMIT} bytes");
        error_response(StatusCode::PAYLOAD_TOO_LARGE, message)
    } else {
        error_response(StatusCode::BAD_REQUEST, error.to_string())
    }
}

/// The original answers malformed JSON with this pair of status and phrase.
fn malformed(message: &str) -> Response {
    let body = json!({
        "status": 400,
        "error": "Internal Server Error",
        "response": { "message": message },
    });
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

/// Reads `a=x&b[c]=y&d[]=z`. Every value is a string, as in the original.
fn form(bytes: &[u8]) -> Body {
    let mut body = Value::Object(Body::new());
    for (key, value) in form_urlencoded::parse(bytes) {
        let key = key.replace(']', "");
        let path: Vec<_> = key.split('[').take(DEPTH + 1).collect();
        put(&mut body, &path, value.into_owned());
    }
    match body {
        Value::Object(body) => body,
        _ => Body::new(),
    }
}

fn put(place: &mut Value, path: &[&str], value: String) {
    let Some((key, rest)) = path.split_first() else {
        match place {
            Value::Null => *place = Value::String(value),
            Value::Array(values) => values.push(Value::String(value)),
            // A key that comes twice makes an array.
            first => *first = Value::Array(vec![first.take(), Value::String(value)]),
        }
        return;
    };
    let is_index = key.bytes().all(|byte| byte.is_ascii_digit());
    match place {
        Value::Null if is_index => *place = Value::Array(vec![Value::String(value)]),
        Value::Array(values) => values.push(Value::String(value)),
        Value::Object(table) => {
            put(table.entry(*key).or_insert(Value::Null), rest, value);
        }
        other => {
            *other = Value::Object(Body::new());
            put(other, path, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_nests_by_brackets() {
        let read = |text: &str| Value::Object(form(text.as_bytes())).to_string();
        assert_eq!(
            read("instanceName=a+b%21&token=T"),
            r#"{"instanceName":"a b!","token":"T"}"#
        );
        assert_eq!(
            read("websocket[enabled]=true&websocket%5Bevents%5D[]=CALL&websocket[events][1]=X"),
            r#"{"websocket":{"enabled":"true","events":["CALL","X"]}}"#
        );
        assert_eq!(read("a=1&a=2"), r#"{"a":["1","2"]}"#);
        assert_eq!(read(""), "{}");
        read("a[b]=1&a=2&a[b][c]=3&[=4&]=5&a[[[[[[[[[[[[=6&0=1");
    }
}
