//! The keys of the sink.

use std::collections::BTreeMap;
use std::path::PathBuf;

use evows_core::config::Problem;
use evows_core::names::wire_name;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::Endpoint;
use super::settings::NON_RETRYABLE;
use super::sign::Secret;

/// The code of what is wrong with a value.
const INVALID: &str = "invalid";

/// Posts each event to HTTP endpoints.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
pub struct Config {
    /// The global endpoint, which gets the events of every instance; none without it. It may lead anywhere.
    pub url: Option<String>,
    /// What requests look like.
    pub format: Format,
    /// Whether the global URL is followed by the event's name.
    pub by_events: bool,
    /// The events that the global endpoint gets, in any spelling; all of them when empty.
    pub events: Vec<String>,
    /// Headers of requests to the global endpoint; `jwt_key` signs a token instead of being sent.
    pub headers: BTreeMap<String, String>,
    /// What requests to the global endpoint are signed with: `whsec_` and the base64 of 24 to 64 bytes.
    pub secret: Option<String>,
    /// More of them, each of which adds a signature: the old one, while receivers change over to the new one.
    pub secrets: Vec<String>,
    /// Whether instances may have a webhook of their own.
    pub instances: bool,
    /// Whether instances' webhooks get the headers that Evolution 2.4 adds: `X-Instance-ID`, `X-Event-Type` and so on.
    pub instance_headers: bool,
    /// Networks that URLs set over the API may lead to, beside public addresses.
    #[schemars(with = "Vec<String>")]
    pub allow_cidrs: Vec<IpNet>,
    /// Hosts that they may name, wherever these are: `n8n`, or `*.internal` for everything below it.
    pub allow_hosts: Vec<String>,
    /// Statuses after which an event fails at once instead of being tried again.
    pub non_retryable: Vec<u16>,
    /// Whether bodies are compressed. Evolution sends them as they are, and few receivers expect anything else.
    pub gzip: bool,
    /// Whether the proxies that the environment names are used.
    pub proxy: bool,
    /// Certificates (PEM) that are trusted beside those of the system.
    pub ca_file: Option<PathBuf>,
}

/// What requests look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// As Evolution's webhooks.
    #[default]
    Evolution,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            format: Format::default(),
            by_events: false,
            events: Vec::new(),
            headers: BTreeMap::new(),
            secret: None,
            secrets: Vec::new(),
            instances: true,
            instance_headers: false,
            allow_cidrs: Vec::new(),
            allow_hosts: Vec::new(),
            non_retryable: NON_RETRYABLE.to_vec(),
            gzip: false,
            proxy: true,
            ca_file: None,
        }
    }
}

impl Config {
    /// What requests to the global endpoint are signed with.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let all = self.secret.iter().chain(&self.secrets);
        all.map(String::as_str)
    }

    /// What is wrong with the values.
    pub(super) fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, message: String, help: &str| {
            let problem = Problem::new(INVALID, message).help(help);
            problems.push(problem.at_key(key));
        };
        if let Some(url) = &self.url
            && let Err(error) = Endpoint::global(url.clone(), false, [], Vec::new())
        {
            let help = "write \"https://example.com/path\", for example";
            wrong("url", format!("nothing can be posted there: {error}"), help);
        }
        for (name, value) in &self.headers {
            let url = "http://localhost".to_owned();
            if let Err(error) = Endpoint::global(url, false, [(name, value)], Vec::new()) {
                let help = "names are letters, digits and `-`; values are one line; how long a body is, evows says itself";
                wrong(&format!("headers.{name}"), error.to_string(), help);
            }
        }
        let help = "make one with: echo \"whsec_$(openssl rand -base64 32)\"";
        if let Some(secret) = &self.secret
            && let Err(error) = Secret::parse(secret)
        {
            wrong("secret", error.to_string(), help);
        }
        for (index, secret) in self.secrets.iter().enumerate() {
            if let Err(error) = Secret::parse(secret) {
                wrong(&format!("secrets.{index}"), error.to_string(), help);
            }
        }
        for (index, status) in self.non_retryable.iter().enumerate() {
            if !(300..600).contains(status) {
                let message = format!("{status} is no status that says that a request failed");
                let help = "these are from 300 to 599";
                wrong(&format!("non_retryable.{index}"), message, help);
            }
        }
        for (index, name) in self.events.iter().enumerate() {
            if wire_name(name).is_none() {
                let message = format!("Evolution has no event that is called {name:?}");
                let problem = Problem::new(INVALID, message).warning();
                let problem =
                    problem.help("write \"messages.upsert\" or \"MESSAGES_UPSERT\", for example");
                problems.push(problem.at_key(&format!("events.{index}")));
            }
        }
        problems
    }
}
