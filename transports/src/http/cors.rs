//! Which web pages may read our answers (contract sections 2.1 and 3.1).
//!
//! A page from elsewhere is served all the same: its browser keeps the answer from it. That differs from the
//! original, which answers 500 to everybody who sends no `Origin`, command line tools and servers included.

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;

const METHODS: HeaderValue = HeaderValue::from_static("GET,HEAD,PUT,PATCH,POST,DELETE");

/// The origins that may read.
pub(super) enum Cors {
    Any,
    Only(Vec<String>),
}

// === impl Cors ===

impl Cors {
    /// The rule for these origins; one `*` among them allows all.
    pub(super) fn new(origins: &[String]) -> Self {
        if origins.iter().any(|origin| origin == "*") {
            Self::Any
        } else {
            Self::Only(origins.to_vec())
        }
    }

    /// Adds what a response to a request from `origin` needs.
    pub(super) fn apply(&self, origin: Option<HeaderValue>, response: &mut HeaderMap) {
        match self {
            Self::Any => {
                response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            Self::Only(allowed) => {
                response.append(VARY, HeaderValue::from_name(ORIGIN));
                if let Some(origin) = origin
                    && allowed
                        .iter()
                        .any(|one| one.as_bytes() == origin.as_bytes())
                {
                    response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                }
            }
        }
    }

    /// The answer to an `OPTIONS` request, less what [`apply`](Self::apply) adds.
    pub(super) fn preflight(request: &HeaderMap) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.append(VARY, HeaderValue::from_name(ACCESS_CONTROL_REQUEST_HEADERS));
        if let Some(wanted) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(allowed: &[&str], origin: Option<&'static str>) -> (Option<String>, Option<String>) {
        let allowed: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        let mut headers = HeaderMap::new();
        Cors::new(&allowed).apply(origin.map(HeaderValue::from_static), &mut headers);
        let text = |name| Some(headers.get(name)?.to_str().unwrap().to_owned());
        (text(ACCESS_CONTROL_ALLOW_ORIGIN), text(VARY))
    }

    #[test]
    fn answers_as_the_contract_says() {
        let (a, b) = ("https://a.example", "https://b.example");
        let any = (Some("*".to_owned()), None);
        let vary = Some("origin".to_owned());
        assert_eq!(answer(&["*"], Some(a)), any);
        assert_eq!(answer(&[a, "*"], None), any);
        assert_eq!(answer(&[a], Some(a)), (Some(a.to_owned()), vary.clone()));
        assert_eq!(answer(&[a], Some(b)), (None, vary.clone()));
        assert_eq!(answer(&[a], None), (None, vary));
    }
}
