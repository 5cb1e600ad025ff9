//! Real clients: Node's `socket.io-client` and `python-socketio`, run as small programs that print what
//! happens to them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};

use super::{Lines, PATIENCE};

/// A running client. It ends when this is dropped.
pub(crate) struct Listener {
    // Ends with the pipe to its standard input, which lives here; killed if that is not enough.
    _child: Child,
    printed: Lines,
    errors: Lines,
    read: usize,
}

// === impl Listener ===

impl Listener {
    /// Node's client; see `tests/clients/listen.mjs` for the keys of `options`.
    pub(crate) fn node(options: &Value) -> Self {
        Self::node_program("listen.mjs", options)
    }

    /// One that leaves and comes back; see `tests/clients/resume.mjs`. It prints lines without a type.
    pub(crate) fn resuming_node(options: &Value) -> Self {
        Self::node_program("resume.mjs", options)
    }

    fn node_program(program: &str, options: &Value) -> Self {
        let folder = clients();
        let installed = folder.join("node_modules/socket.io-client");
        assert!(
            installed.exists(),
            "{} is missing: run `tests/run`, which installs the clients and runs every test",
            installed.display()
        );
        Self::spawn(Path::new("node"), &folder.join(program), options)
    }

    /// Python's client; see `tests/clients/listen.py` for the keys of `options`.
    pub(crate) fn python(options: &Value) -> Self {
        Self::python_program("listen.py", options)
    }

    /// One that leaves and comes back; see `tests/clients/resume.py`. It prints lines without a type.
    pub(crate) fn resuming_python(options: &Value) -> Self {
        Self::python_program("resume.py", options)
    }

    fn python_program(program: &str, options: &Value) -> Self {
        let folder = clients();
        let python = folder.join(".venv/bin/python");
        assert!(
            python.exists(),
            "{} is missing: run `tests/run`, which installs the clients and runs every test",
            python.display()
        );
        Self::spawn(&python, &folder.join(program), options)
    }

    fn spawn(runtime: &Path, program: &Path, options: &Value) -> Self {
        let child = Command::new(runtime)
            .arg(program)
            .arg(options.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = child.unwrap_or_else(|error| {
            let runtime = runtime.display();
            panic!("cannot run {runtime} ({error}): run `tests/run`, which installs it")
        });
        Self {
            printed: Lines::of(child.stdout.take().expect("piped")),
            errors: Lines::of(child.stderr.take().expect("piped")),
            _child: child,
            read: 0,
        }
    }

    /// The next thing of this type, whatever else happens before it.
    pub(crate) async fn next(&mut self, kind: &str) -> Value {
        self.next_where(kind, |happened| happened["type"] == kind)
            .await
    }

    /// The next thing that has this key, whatever else happens before it.
    pub(crate) async fn next_with(&mut self, key: &str) -> Value {
        self.next_where(key, |happened| happened.get(key).is_some())
            .await
    }

    /// The next thing that happens.
    pub(crate) async fn line(&mut self) -> Value {
        self.next_where("line", |_| true).await
    }

    async fn next_where(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                while let Some(happened) = self.read_one() {
                    if wanted(&happened) {
                        return happened;
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let Ok(happened) = tokio::time::timeout(PATIENCE, found).await else {
            let (printed, errors) = (self.printed.text(), self.errors.text());
            panic!("no `{kind}`; it printed:\n{printed}{errors}");
        };
        happened
    }

    fn read_one(&mut self) -> Option<Value> {
        let line = self.printed.get(self.read)?;
        self.read += 1;
        Some(serde_json::from_str(&line).expect("the client prints JSON lines"))
    }

    /// The next event's name and its envelope: exactly one argument.
    pub(crate) async fn event(&mut self) -> (String, Value) {
        let mut happened = self.next("event").await;
        let name = happened["name"].as_str().expect("a name").to_owned();
        let args = happened["args"].as_array_mut().expect("an array");
        assert_eq!(args.len(), 1, "{args:?}");
        (name, args.remove(0))
    }

    /// The ids (`data.key.id`) of the next `count` messages.
    pub(crate) async fn message_ids(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count {
            let (_, envelope) = self.event().await;
            let id = envelope["data"]["key"]["id"].as_str().expect("an id");
            ids.push(id.to_owned());
        }
        ids
    }

    /// Whether this has happened by now. It can still be taken with [`Listener::next`].
    pub(crate) fn has_printed(&self, kind: &str) -> bool {
        // Both programs print the type first; Python puts a space behind the colon.
        let starts = [
            format!(r#"{{"type":"{kind}""#),
            format!(r#"{{"type": "{kind}""#),
        ];
        let starts = |line: &String| starts.iter().any(|start| line.starts_with(start));
        self.printed.any(starts)
    }

    /// Everything that it printed so far, of one type.
    pub(crate) fn all(&self, kind: &str) -> Vec<Value> {
        let lines = self.printed.all();
        let parsed = lines.iter().map(|line| serde_json::from_str::<Value>(line));
        let parsed = parsed.map(|value| value.expect("the client prints JSON lines"));
        parsed.filter(|happened| happened["type"] == kind).collect()
    }
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}
