//! Object stores with the API of S3.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use evows_core::config::{Period, Problem};
use evows_core::plugin::{BoxError, Environment};
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Uri};
use rusty_s3::{BucketError, Credentials, S3Action, UrlStyle};
use schemars::JsonSchema;
use serde::Deserialize;

use super::names;
use super::store::{Store, StoreError};
use crate::client::{Exchange, Http, Network, Take, Trust};

/// How long the signature of a request holds: clocks may differ, and a large object takes its time.
const SIGNED: Duration = Duration::from_mins(15);

/// The longest that S3 lets an address hold.
const LONGEST: Duration = Duration::from_hours(7 * 24);

/// Characters of an answer that are told.
const TOLD: usize = 200;

/// An object store.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// The store's URL without the bucket, such as `"https://s3.eu-west-1.amazonaws.com"` or `"http://minio:9000"`.
    pub endpoint: String,
    /// The bucket, which must be there.
    pub bucket: String,
    /// The region that requests are signed for.
    #[serde(default = "region")]
    pub region: String,
    /// What stands in front of each name, such as `"evolution/media"`.
    #[serde(default)]
    pub prefix: String,
    /// The id of the access key, such as `"${S3_ACCESS_KEY}"`.
    pub access_key: String,
    /// The secret of the access key, such as `"${S3_SECRET_KEY}"`.
    pub secret_key: String,
    /// The token that comes with temporary credentials.
    #[serde(default)]
    pub session_token: Option<String>,
    /// Where the bucket stands in URLs: `"path"` or `"virtual_host"`.
    #[serde(default)]
    pub style: Style,
    /// For how long the `url` of a reference can be used, which then needs no `public_url`; seven days at most.
    #[serde(default)]
    pub presign: Option<Period>,
    /// Whether the proxies that the environment names are used.
    #[serde(default = "yes")]
    pub proxy: bool,
    /// Certificates (PEM) that are trusted beside those of the system.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// Where the bucket stands in URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// `https://host/bucket/name`.
    #[default]
    Path,
    /// `https://bucket.host/name`.
    VirtualHost,
}

/// Why there is no such bucket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadBucket {
    #[error("the endpoint is no URL: {0}")]
    Endpoint(String),
    #[error("the endpoint needs `http://` or `https://` in front")]
    Scheme,
    #[error("the endpoint has no host")]
    Host,
    #[error("the endpoint has a user in it, which no request is made with")]
    User,
    #[error("the endpoint has a query or a fragment, which no request is made with")]
    Query,
    #[error("the bucket and the endpoint make no URL: {0}")]
    Bucket(String),
}

/// A bucket that objects are put into.
pub(super) struct Bucket {
    at: rusty_s3::Bucket,
    credentials: Credentials,
    prefix: String,
    presign: Option<Duration>,
    network: Network,
    /// There once the filter has started.
    client: OnceLock<Arc<dyn Exchange>>,
}

fn region() -> String {
    "us-east-1".to_owned()
}

fn yes() -> bool {
    true
}

// === impl S3 ===

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3")
            .field("endpoint", &self.endpoint)
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}

impl S3 {
    pub(super) fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, message: String, help: &str| {
            problems.push(Problem::new("invalid", message).help(help).at_key(key));
        };
        if let Err(error) = self.bucket() {
            let key = match error {
                BadBucket::Bucket(_) => "bucket",
                _ => "endpoint",
            };
            let help = match error {
                BadBucket::User => {
                    "write the URL alone, and put the two into `access_key` and `secret_key`"
                }
                BadBucket::Query => {
                    "write the URL alone, and what is asked for into `bucket`, `region` and `style`"
                }
                _ => {
                    "write `endpoint = \"https://s3.eu-west-1.amazonaws.com\"` and `bucket = \"media\"`, for example"
                }
            };
            wrong(key, error.to_string(), help);
        }
        if self.bucket.is_empty() || !self.bucket.chars().all(names::is_plain) {
            let message = format!("{:?} is no bucket's name", self.bucket);
            wrong("bucket", message, "names are letters, digits, `-` and `.`");
        }
        for (key, value) in [
            ("access_key", &self.access_key),
            ("secret_key", &self.secret_key),
        ] {
            if value.is_empty() {
                wrong(
                    key,
                    format!("`{key}` is empty"),
                    "set the variable that it comes from",
                );
            }
        }
        if !self.prefix.is_empty()
            && let Err(error) = names::check(self.prefix.trim_end_matches('/'))
        {
            wrong(
                "prefix",
                error.to_string(),
                "write \"evolution/media\", for example",
            );
        }
        if let Some(presign) = self.presign
            && (presign.0 < Duration::from_secs(1) || presign.0 > LONGEST)
        {
            let message = format!("an address cannot hold for {presign}");
            wrong(
                "presign",
                message,
                "it is from a second to seven days: write \"1h\", for example",
            );
        }
        problems
    }

    fn bucket(&self) -> Result<rusty_s3::Bucket, BadBucket> {
        // Both would be dropped without a word.
        if self.endpoint.contains(['?', '#']) {
            return Err(BadBucket::Query);
        }
        let behind = self.endpoint.split("//").nth(1).unwrap_or_default();
        if behind.split('/').next().is_some_and(|it| it.contains('@')) {
            return Err(BadBucket::User);
        }
        let endpoint = self.endpoint.parse();
        let endpoint = endpoint.map_err(|error| BadBucket::Endpoint(format!("{error}")))?;
        let style = match self.style {
            Style::Path => UrlStyle::Path,
            Style::VirtualHost => UrlStyle::VirtualHost,
        };
        let (bucket, region) = (self.bucket.clone(), self.region.clone());
        rusty_s3::Bucket::new(endpoint, style, bucket, region).map_err(|error| match error {
            BucketError::UnsupportedScheme => BadBucket::Scheme,
            BucketError::MissingHost => BadBucket::Host,
            BucketError::ParseError(error) => BadBucket::Bucket(error.to_string()),
        })
    }
}

// === impl Bucket ===

impl Bucket {
    pub(super) fn new(config: &S3, environment: &Environment) -> Result<Self, BadBucket> {
        let (key, secret) = (config.access_key.clone(), config.secret_key.clone());
        Ok(Self {
            at: config.bucket()?,
            credentials: match config.session_token.clone() {
                Some(token) => Credentials::new_with_token(key, secret, token),
                None => Credentials::new(key, secret),
            },
            prefix: config.prefix.trim_end_matches('/').to_owned(),
            presign: config.presign.map(|period| period.0),
            network: Network::of_operator(config.proxy, config.ca_file.clone(), environment),
            client: OnceLock::new(),
        })
    }
}

#[async_trait]
impl Store for Bucket {
    async fn start(&self) -> Result<(), BoxError> {
        if self.client.get().is_none() {
            let network = self.network.clone();
            let made = tokio::task::spawn_blocking(move || Http::new(&network)).await??;
            // Only one start runs at a time.
            self.client.get_or_init(|| Arc::new(made));
        }
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            return name.to_owned();
        }
        format!("{}/{name}", self.prefix)
    }

    fn url(&self, name: &str) -> Option<String> {
        let holds = self.presign?;
        let key = self.path(name);
        let get = self.at.get_object(Some(&self.credentials), &key);
        Some(get.sign(holds).into())
    }

    async fn put(
        &self,
        name: &str,
        bytes: Bytes,
        content_type: &'static str,
    ) -> Result<(), StoreError> {
        let key = self.path(name);
        let signed = self.at.put_object(Some(&self.credentials), &key);
        let signed = String::from(signed.sign(SIGNED));
        let failed = |reason: String| StoreError::Object { key, reason };
        let uri: Uri = match signed.parse() {
            Ok(uri) => uri,
            Err(error) => return Err(failed(format!("{error}"))),
        };
        let Some(client) = self.client.get() else {
            return Err(failed("the filter has not started".to_owned()));
        };
        let mut request = Request::new(Full::new(bytes));
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let answer = client
            .exchange(request, Trust::Operator, Take::EXCERPT)
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                let (key, reason) = (self.path(name), failure.to_string());
                return Err(StoreError::Unanswered { key, reason });
            }
        };
        if answer.status.is_success() {
            return Ok(());
        }
        let said = code(&answer.body);
        Err(failed(format!("it answered {}{said}", answer.status)))
    }
}

/// What an answer says is wrong, such as `AccessDenied`.
fn code(body: &[u8]) -> Cow<'static, str> {
    let text = String::from_utf8_lossy(body);
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"));
    match code {
        Some((code, _)) => {
            let code: String = code.chars().take(TOLD).collect();
            format!(": {code}").into()
        }
        None => "".into(),
    }
}

#[cfg(test)]
mod tests {
    use evows_core::config::Settings;

    use super::*;

    const KEYS: &str = "bucket = 'media'\naccess_key = 'id'\nsecret_key = 'secret'\n";

    fn bucket(keys: &str) -> Bucket {
        let config: S3 = Settings::from_text(&format!("{KEYS}{keys}"))
            .read()
            .unwrap();
        assert_eq!(config.check(), []);
        Bucket::new(&config, &Environment::default()).unwrap()
    }

    #[test]
    fn addresses_are_signed_and_in_both_styles() {
        for (keys, begin) in [
            (
                "endpoint = 'http://minio:9000'\npresign = '1h'",
                "http://minio:9000/media/a/b.jpg?",
            ),
            (
                "endpoint = 'https://s3.example.com'\nprefix = 'p/q/'\nstyle = 'virtual_host'\npresign = '1h'",
                "https://media.s3.example.com/p/q/a/b.jpg?",
            ),
        ] {
            let url = bucket(keys).url("a/b.jpg").unwrap();
            assert!(url.starts_with(begin), "{url}");
            assert!(url.contains("X-Amz-Expires=3600"), "{url}");
            assert!(url.contains("X-Amz-Signature="), "{url}");
            assert!(!url.contains("secret"), "{url}");
        }
        assert_eq!(bucket("endpoint = 'http://minio:9000'").url("a"), None);
    }

    #[test]
    fn what_an_answer_says_is_told() {
        let body =
            b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>x</Message></Error>";
        assert_eq!(code(body), ": AccessDenied");
        assert_eq!(code(b"<html>"), "");
    }
}
