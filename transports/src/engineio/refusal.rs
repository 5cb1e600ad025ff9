//! The error answers of Engine.IO, byte for byte as Node's server gives them (contract 2.3 and 2.4).

use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::clients::Shut;
use crate::keys::KeyError;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No transport of that name, or it is switched off.
    TransportUnknown,
    /// No session of that id.
    SessionUnknown,
    /// A handshake that is not a GET.
    BadMethod,
    /// Anything else that does not fit.
    BadRequest,
    /// The handshake has no key.
    KeyRequired,
    /// The handshake's key is nobody's.
    KeyUnknown,
    /// Not revision 4.
    Version,
    /// Not one of Node's: too many sessions on long-polling, try again later.
    Overloaded,
    /// Not one of Node's: too many handshakes in the last moment, try again later.
    Busy,
    /// Not one of Node's: stopping, try again elsewhere.
    Draining,
}

// === impl Refusal ===

impl Refusal {
    /// The label of the counter.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::TransportUnknown => "transport_unknown",
            Self::SessionUnknown => "session_unknown",
            Self::BadMethod => "bad_method",
            Self::BadRequest => "bad_request",
            Self::KeyRequired => "key_required",
            Self::KeyUnknown => "key_unknown",
            Self::Version => "protocol_version",
            Self::Overloaded => "polling_sessions",
            Self::Busy => "handshake_rate",
            Self::Draining => "draining",
        }
    }

    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::TransportUnknown => "Transport unknown",
            Self::SessionUnknown => "Session ID unknown",
            Self::BadMethod => "Bad handshake method",
            Self::BadRequest => "Bad request",
            Self::KeyRequired => "apiKey is required",
            Self::KeyUnknown => "Invalid global token",
            Self::Version => "Unsupported protocol version",
            Self::Overloaded => "Too many sessions",
            Self::Busy => "Too many handshakes",
            Self::Draining => "Server is stopping",
        }
    }

    fn code(self) -> Option<u8> {
        match self {
            Self::TransportUnknown => Some(0),
            Self::SessionUnknown => Some(1),
            Self::BadMethod => Some(2),
            Self::BadRequest => Some(3),
            Self::KeyRequired | Self::KeyUnknown => Some(4),
            Self::Version => Some(5),
            Self::Overloaded | Self::Busy | Self::Draining => None,
        }
    }

    /// The answer. An `upgrade` request gets the text alone, and its connection is closed.
    pub(crate) fn answer(self, upgrade: bool) -> Response {
        let message = self.message();
        let Some(code) = self.code() else {
            let mut response = (StatusCode::SERVICE_UNAVAILABLE, message).into_response();
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("1"));
            return response;
        };
        if upgrade {
            let headers = [(CONNECTION, "close"), (CONTENT_TYPE, "text/html")];
            return (StatusCode::BAD_REQUEST, headers, message).into_response();
        }
        let status = if code == 4 {
            StatusCode::FORBIDDEN
        } else {
            StatusCode::BAD_REQUEST
        };
        let body = format!(r#"{{"code":{code},"message":"{message}"}}"#);
        (status, [(CONTENT_TYPE, "application/json")], body).into_response()
    }
}

impl From<KeyError> for Refusal {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Missing => Self::KeyRequired,
            KeyError::Unknown => Self::KeyUnknown,
        }
    }
}

impl From<Shut> for Refusal {
    fn from(shut: Shut) -> Self {
        match shut {
            Shut::Busy => Self::Busy,
            Shut::Draining => Self::Draining,
        }
    }
}
