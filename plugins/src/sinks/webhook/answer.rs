//! What an answer means for the event that was posted.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use evows_core::plugin::{SinkError, SinkErrorKind};
use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, LOCATION, RETRY_AFTER};

use crate::client::Answer;

/// Characters of a body that are told.
const TOLD: usize = 200;

// === impl Answer ===

impl Answer {
    /// Whether the endpoint wants nothing any more.
    pub(super) fn is_gone(&self) -> bool {
        self.status == StatusCode::GONE
    }

    /// Whether the event is delivered, and if not, what core is to do. `never` are the statuses that no other try mends.
    pub(super) fn verdict(&self, never: &[u16], now: SystemTime) -> Result<(), SinkError> {
        if self.status.is_success() {
            return Ok(());
        }
        let retry_after = self.retry_after(now);
        let kind = match self.status {
            StatusCode::GONE => SinkErrorKind::Permanent,
            status if never.contains(&status.as_u16()) => SinkErrorKind::Permanent,
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => SinkErrorKind::Overloaded { retry_after },
            _ => SinkErrorKind::Transient { retry_after },
        };
        Err(SinkError::new(kind, self.told()))
    }

    /// How long the endpoint asks to be left alone: seconds, or a date.
    fn retry_after(&self, now: SystemTime) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let at = httpdate::parse_http_date(text).ok()?;
        // A moment that has passed asks for nothing.
        Some(at.duration_since(now).unwrap_or_default())
    }

    fn told(&self) -> String {
        let mut told = format!("it answered {}", self.status);
        if self.status.is_redirection() && self.headers.contains_key(LOCATION) {
            told.push_str(", and redirects are not followed");
        }
        let excerpt = self.excerpt();
        if !excerpt.is_empty() {
            told.push_str(": ");
            told.push_str(&excerpt);
        }
        told
    }

    fn excerpt(&self) -> String {
        if self.headers.contains_key(CONTENT_ENCODING) {
            return String::new();
        }
        let text: Cow<'_, str> = String::from_utf8_lossy(&self.body);
        let words = text.split(|c: char| c.is_whitespace() || c.is_control());
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        words.join(" ").chars().take(TOLD).collect()
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::super::settings::NON_RETRYABLE;
    use super::*;

    fn answer(status: u16) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Vec::new(),
            is_whole: true,
        }
    }

    fn kind(answer: &Answer, never: &[u16]) -> Option<SinkErrorKind> {
        let verdict = answer.verdict(never, SystemTime::UNIX_EPOCH);
        verdict.err().map(|error| error.kind)
    }

    #[test]
    fn every_status_has_its_meaning() {
        let again = SinkErrorKind::Transient { retry_after: None };
        let slower = SinkErrorKind::Overloaded { retry_after: None };
        for (statuses, meaning) in [
            (&[200, 201, 202, 204, 299][..], None),
            (
                &[400, 401, 403, 404, 410, 422],
                Some(SinkErrorKind::Permanent),
            ),
            (&[429, 502, 503, 504], Some(slower)),
            (
                &[
                    301, 302, 304, 307, 308, 402, 405, 408, 409, 413, 425, 500, 501, 505, 599,
                ],
                Some(again),
            ),
        ] {
            for status in statuses {
                assert_eq!(kind(&answer(*status), &NON_RETRYABLE), meaning, "{status}");
            }
        }
        // As `WEBHOOK_RETRY_NON_RETRYABLE_STATUS_CODES=` has it.
        assert_eq!(kind(&answer(404), &[0]), Some(again));
        assert_eq!(kind(&answer(410), &[0]), Some(SinkErrorKind::Permanent));
        assert_eq!(kind(&answer(503), &[503]), Some(SinkErrorKind::Permanent));
    }

    #[test]
    fn an_endpoint_may_ask_for_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(24);
        for (text, asked) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Fri, 02 Jan 1970 00:00:30 GMT", Some(30)),
            ("Thu, 01 Jan 1970 00:00:30 GMT", Some(0)),
            ("soon", None),
            ("-5", None),
            ("", None),
        ] {
            let mut answer = answer(503);
            answer
                .headers
                .insert(RETRY_AFTER, text.trim().parse().unwrap());
            let kind = answer.verdict(&[], now).unwrap_err().kind;
            let retry_after = asked.map(Duration::from_secs);
            assert_eq!(kind, SinkErrorKind::Overloaded { retry_after }, "{text:?}");
        }
    }

    #[test]
    fn an_error_tells_the_beginning_of_the_body_on_one_line() {
        let mut answer = answer(500);
        answer.body = b"<h1>\r\n  no\x07pe \xff".to_vec();
        let text = answer.verdict(&[], SystemTime::now()).unwrap_err();
        assert_eq!(
            text.to_string(),
            "it answered 500 Internal Server Error: <h1> no pe \u{fffd}"
        );
        answer.body = vec![b'x'; 16_000];
        let text = answer.verdict(&[], SystemTime::now()).unwrap_err();
        assert!(text.to_string().len() < 300);
        let gzip = "gzip".parse().unwrap();
        answer.headers.insert(CONTENT_ENCODING, gzip);
        let text = answer.verdict(&[], SystemTime::now()).unwrap_err();
        assert_eq!(text.to_string(), "it answered 500 Internal Server Error");
    }
}
