//! The answers that are not 200, in the shape of Evolution's errors.

use std::sync::Arc;

use axum::http::header::{ALLOW, RETRY_AFTER};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use evows_core::config::Size;
use evows_core::http::error_response;

/// Why a request is not answered 200.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("post events to this path; {0} is not served")]
    Method(Method),
    #[error("`wait` may be `accepted` or `delivered`, or be left out")]
    Wait,
    #[error("the webhook's secret is missing or wrong")]
    Unauthorized,
    #[error("the body is larger than {limit} (`max_body` of the source `{id}`)")]
    TooLarge { limit: Size, id: Arc<str> },
    #[error("the body holds more than {limit} events (`max_events` of the source `{id}`)")]
    TooMany { limit: usize, id: Arc<str> },
    #[error("the body did not arrive in time")]
    Slow,
    #[error("the body could not be read: {0}")]
    Unreadable(axum::Error),
    #[error(
        "{place} is not an event: {reason}; send an envelope, which is a JSON object with the strings \
         \"event\" and \"instance\", an array of envelopes, or one envelope per line"
    )]
    NotAnEvent { place: String, reason: String },
    #[error("too many events are in flight; send this again")]
    Overloaded,
    #[error("the events were not delivered in time; send them again")]
    Timeout,
    #[error("the events were not delivered ({0}); send them again")]
    Undelivered(&'static str),
    #[error("the source is not running; send this again")]
    Stopped,
}

// === impl Refusal ===

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::TooLarge { .. } | Self::TooMany { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::NotAnEvent { .. } | Self::Wait => StatusCode::BAD_REQUEST,
            Self::Unreadable(_)
            | Self::Overloaded
            | Self::Timeout
            | Self::Undelivered(_)
            | Self::Stopped => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The label of the counter.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Method(_) => "method",
            Self::Unauthorized => "unauthorized",
            Self::Wait => "bad_request",
            Self::TooLarge { .. } => "too_large",
            Self::TooMany { .. } => "too_many_events",
            Self::Slow => "slow_body",
            Self::Unreadable(_) => "unreadable",
            Self::NotAnEvent { .. } => "not_an_event",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::Undelivered(_) => "undelivered",
            Self::Stopped => "stopped",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = error_response(status, vec![self.to_string()]);
        let headers = response.headers_mut();
        match status {
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}
