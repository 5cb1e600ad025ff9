//! A test in a process of its own.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, fs};

/// Set in such a process.
const APART: &str = "EVOWS_CONFORMANCE_APART";

/// A folder that is removed with its content.
struct Folder(PathBuf);

/// Runs `check` in a process of its own: the same test binary, told to run only the test `name` of the module `module`, in an
/// empty folder and with no standard input.
///
/// # Panics
///
/// When it fails there, or cannot be run.
pub fn apart(module: &str, name: &str, check: impl FnOnce()) {
    if is_apart() {
        check();
        return;
    }
    let folder = Folder::new(name);
    // Tests are named without their crate.
    let module = module.split_once("::").map_or("", |(_, module)| module);
    let test = format!("{module}::{name}");
    let test = test.trim_start_matches(':');
    let program = env::current_exe().expect("a test binary knows where it is");
    let output = Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .env(APART, "1")
        .current_dir(&folder.0)
        .stdin(Stdio::null())
        .output()
        .expect("a test binary can be run");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "in a process of its own:\n{out}\n{err}"
    );
    assert!(
        out.contains("1 passed"),
        "`{test}` was not found in a process of its own:\n{out}\n{err}"
    );
}

/// Whether this is such a process.
pub(super) fn is_apart() -> bool {
    env::var_os(APART).is_some()
}

// === impl Folder ===

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("evows-conformance-{name}-{}", std::process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("the folder for temporary files takes another one");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is removed with the other temporary files.
        fs::remove_dir_all(&self.0).ok();
    }
}
