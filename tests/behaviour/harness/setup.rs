//! What a server under test is given: a configuration and an environment.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{Evows, KEY, free_address};

/// A configuration in parts: webhook in, Socket.IO out, unless [`Setup::pipeline`] says otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    policy: &'static str,
    server: String,
    source: String,
    transport: String,
    hub: String,
    pipeline: Option<String>,
    data_dir: Option<PathBuf>,
    keyless: bool,
    pub(super) user: Option<u32>,
    environment: Vec<(&'static str, String)>,
}

// === impl Setup ===

impl Setup {
    /// Webhook in, Socket.IO out, under a policy.
    pub(crate) fn policy(policy: &'static str) -> Self {
        Self {
            policy,
            server: String::new(),
            source: String::new(),
            transport: String::new(),
            hub: String::new(),
            pipeline: None,
            data_dir: None,
            keyless: false,
            user: None,
            environment: Vec::new(),
        }
    }

    /// Sources, filters and sinks written out.
    pub(crate) fn pipeline(text: &str) -> Self {
        Self {
            pipeline: Some(text.to_owned()),
            ..Self::policy("unused")
        }
    }

    /// Adds a line to `[server]`.
    pub(crate) fn server(mut self, line: &str) -> Self {
        push_line(&mut self.server, line);
        self
    }

    /// Configures no API key.
    pub(crate) fn keyless(mut self) -> Self {
        self.keyless = true;
        self
    }

    /// Adds a line to the webhook source.
    pub(crate) fn source(mut self, line: &str) -> Self {
        push_line(&mut self.source, line);
        self
    }

    /// Adds a line to the Socket.IO sink's transport.
    pub(crate) fn transport(mut self, line: &str) -> Self {
        push_line(&mut self.transport, line);
        self
    }

    /// Adds a line to `[hub]`.
    pub(crate) fn hub(mut self, line: &str) -> Self {
        push_line(&mut self.hub, line);
        self
    }

    /// Serves Socket.IO with this engine.
    pub(crate) fn engine(self, engine: &str) -> Self {
        self.transport(&format!("engine = \"{engine}\""))
    }

    /// Sets a variable of the environment, which is empty otherwise.
    pub(crate) fn env(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Keeps its data in a folder of the test's own.
    pub(crate) fn data_dir(mut self, path: &Path) -> Self {
        self.data_dir = Some(path.to_owned());
        self
    }

    /// Runs it as another user, to whom its folder belongs. Only root may.
    pub(crate) fn user(mut self, id: u32) -> Self {
        self.user = Some(id);
        self
    }

    /// Starts evows with it and waits until it is healthy.
    pub(crate) async fn start(self) -> Evows {
        Evows::start(self).await
    }

    /// Starts evows with it and waits for nothing: it may well refuse to start.
    pub(crate) fn spawn(self) -> Evows {
        self.spawn_on(free_address())
    }

    /// As [`Setup::spawn`], on a given address.
    pub(crate) fn spawn_on(self, address: SocketAddr) -> Evows {
        Evows::spawn(self, tempfile::tempdir().unwrap(), address)
    }

    pub(super) fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let variables = self.environment.iter();
        variables.map(|(name, value)| (*name, value.as_str()))
    }

    pub(crate) fn render(&self, address: SocketAddr, folder: &Path) -> String {
        let data = match &self.data_dir {
            Some(path) => path.clone(),
            None => folder.join("data"),
        };
        let mut text = format!(
            "[server]\nlisten = \"{address}\"\ndata_dir = \"{}\"\n{}\n",
            data.display(),
            self.server,
        );
        if !self.keyless {
            writeln!(text, "api_key = \"{KEY}\"").expect("a String takes everything");
        }
        if !self.hub.is_empty() {
            text.push_str("[hub]\n");
            text.push_str(&self.hub);
        }
        match &self.pipeline {
            Some(pipeline) => text.push_str(pipeline),
            None => self.render_pipeline(&mut text),
        }
        text
    }

    fn render_pipeline(&self, text: &mut String) {
        let Self {
            policy,
            source,
            transport,
            ..
        } = self;
        write!(
            text,
            "[sources.in]\ntype = \"webhook\"\n{source}\n\
             [sinks.out]\ntype = \"socketio\"\ninputs = [\"in\"]\npolicy = \"{policy}\"\n"
        )
        .expect("a String takes everything");
        if !transport.is_empty() {
            text.push_str("\n[sinks.out.transport]\n");
            text.push_str(transport);
        }
    }
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
