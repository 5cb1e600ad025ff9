//! Where the new crate has evows from.

use std::path::{Path, PathBuf, absolute};
use std::{env, fs};

/// The keys of a Cargo dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dependency(String);

// === impl Dependency ===

impl Dependency {
    /// Reads what the user wrote, or looks for sources near `folder`. The error says what to write instead.
    pub(super) fn find(source: Option<&str>, folder: &Path) -> Result<Self, String> {
        match source {
            Some(source) => Self::parse(source),
            None => Self::near(folder).ok_or_else(|| {
                "evows is not on crates.io yet, and its sources are not near the new crate: say where they are with \
                 `--evows FOLDER`, or `--evows https://...` for a git repository"
                    .to_owned()
            }),
        }
    }

    /// The keys, as they stand between the braces.
    pub(super) fn keys(&self) -> &str {
        &self.0
    }

    fn parse(source: &str) -> Result<Self, String> {
        if source.contains('=') {
            let table: Result<toml::Table, _> = toml::from_str(&format!("evows = {{ {source} }}"));
            return match table {
                Ok(_) => Ok(Self(source.to_owned())),
                Err(error) => Err(format!(
                    "`{source}` are no keys of a Cargo dependency: {}; write 'path = \"../evows\"', for example",
                    error.message()
                )),
            };
        }
        if source.contains("://") || source.starts_with("git@") {
            return Ok(Self(format!("git = {source:?}")));
        }
        let is_version = source.starts_with(|c: char| c.is_ascii_digit());
        if is_version && source.chars().all(|c| c.is_ascii_digit() || c == '.') {
            return Ok(Self(format!("version = {source:?}")));
        }
        let path = Path::new(source);
        if is_evows(path) {
            return Ok(Self::at(path));
        }
        Err(format!(
            "there are no sources of evows in {source}: name the folder whose Cargo.toml is that of the package `evows`"
        ))
    }

    /// The sources that the new crate lies in or beside.
    fn near(folder: &Path) -> Option<Self> {
        let folder = absolute(folder).ok()?;
        let around = folder.ancestors().skip(1);
        let mut places = around.flat_map(|around| [around.to_owned(), around.join("evows")]);
        let found = places.find(|place| is_evows(place))?;
        Some(Self::at(&found))
    }

    fn at(folder: &Path) -> Self {
        // It is there: only a current folder that is gone has no whole path.
        let whole = fs::canonicalize(folder).unwrap_or_else(|_| PathBuf::from(folder));
        Self(format!("path = {:?}", whole.display().to_string()))
    }
}

/// Whether a folder has the sources of evows.
fn is_evows(folder: &Path) -> bool {
    manifest(folder).is_some_and(|manifest| {
        let name = manifest.get("package").and_then(|it| it.get("name"));
        name.and_then(toml::Value::as_str) == Some("evows")
    })
}

/// Whether a folder lies in a Cargo package or workspace.
pub(super) fn is_in_package(folder: &Path) -> bool {
    let folder = absolute(folder).or_else(|_| env::current_dir());
    folder.is_ok_and(|folder| {
        let mut around = folder.ancestors().skip(1);
        around.any(|around| around.join("Cargo.toml").exists())
    })
}

fn manifest(folder: &Path) -> Option<toml::Table> {
    let text = fs::read_to_string(folder.join("Cargo.toml")).ok()?;
    toml::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (source, keys) in [
            (
                "https://example.com/evows.git",
                r#"git = "https://example.com/evows.git""#,
            ),
            ("git@example.com:evows", r#"git = "git@example.com:evows""#),
            ("0.1", r#"version = "0.1""#),
            (r#"git = "x", rev = "y""#, r#"git = "x", rev = "y""#),
        ] {
            assert_eq!(Dependency::parse(source).unwrap().keys(), keys);
        }
        for (source, message) in [
            ("path = ..", "no keys of a Cargo dependency"),
            ("/no/such/folder", "no sources of evows in /no/such/folder"),
        ] {
            let error = Dependency::parse(source).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn finds_sources_around_and_beside() {
        let home = tempfile::tempdir().unwrap();
        let error = Dependency::find(None, &home.path().join("mine")).unwrap_err();
        assert!(error.contains("--evows FOLDER"), "{error}");
        let sources = home.path().join("evows");
        fs::create_dir_all(sources.join("examples")).unwrap();
        fs::write(sources.join("Cargo.toml"), "[package]\nname = \"evows\"\n").unwrap();
        let found = Dependency::at(&sources);
        for folder in ["mine", "a/b/mine", "evows/mine", "evows/examples/mine"] {
            let folder = home.path().join(folder);
            assert_eq!(Dependency::find(None, &folder).unwrap(), found);
            assert_eq!(is_in_package(&folder), folder.starts_with(&sources));
        }
    }
}
