//! What requests say beside their path.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName};

/// The first parameter of this name in a query, decoded.
pub fn parameter(query: &str, wanted: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find_map(|(name, value)| (name == wanted).then(|| value.into_owned()))
}

/// The key that a request shows: in the query as `apikey`, in the header of that name, or as `Authorization: Bearer`. The first of
/// them that is not empty.
pub fn key(query: &str, headers: &HeaderMap) -> Option<String> {
    let header = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let own = header(HeaderName::from_static("apikey"));
    let bearer = header(AUTHORIZATION).and_then(bearer);
    let shown = [own, bearer].into_iter().flatten().map(str::to_owned);
    parameter(query, "apikey")
        .into_iter()
        .chain(shown)
        .find(|key| !key.is_empty())
}

/// The token of a `Bearer` header, whose scheme may have any case (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_that_is_one() {
        for (query, headers, expected) in [
            ("apikey=a", &[("apikey", "b")][..], Some("a")),
            ("apikey=", &[("apikey", "b")], Some("b")),
            ("apikey=a%20b", &[], Some("a b")),
            ("", &[("authorization", "bearer  c")], Some("c")),
            (
                "",
                &[("apikey", ""), ("authorization", "Bearer c")],
                Some("c"),
            ),
            ("", &[("authorization", "Basic c")], None),
            ("", &[], None),
        ] {
            let headers = headers.iter().map(|(name, value)| {
                let value = value.parse().unwrap();
                (HeaderName::from_static(name), value)
            });
            assert_eq!(key(query, &headers.collect()).as_deref(), expected);
        }
    }
}
