//! What the query of a request says.

use axum::http::Uri;

/// The parameters that count; of each the first one, as in Node.
#[derive(Debug, Default)]
pub(crate) struct Query {
    /// `EIO`: the protocol version.
    pub(crate) version: Option<String>,
    pub(crate) transport: Option<String>,
    /// `sid`.
    pub(crate) session: Option<String>,
    /// `apikey`.
    pub(crate) key: Option<String>,
}

// === impl Query ===

impl Query {
    pub(crate) fn parse(uri: &Uri) -> Self {
        let mut query = Self::default();
        let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        for (name, value) in pairs {
            let field = match &*name {
                "EIO" => &mut query.version,
                "transport" => &mut query.transport,
                "sid" => &mut query.session,
                "apikey" => &mut query.key,
                _ => continue,
            };
            if field.is_none() {
                *field = Some(value.into_owned());
            }
        }
        query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_decoded() {
        let uri = "/socket.io/?EIO=4&transport=polling&apikey=a%20b&t=x"
            .parse()
            .unwrap();
        let query = Query::parse(&uri);
        assert_eq!(query.key.as_deref(), Some("a b"));
        assert_eq!(query.session, None);
    }
}
