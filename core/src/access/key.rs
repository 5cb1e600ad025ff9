//! Where the global key comes from.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::Secret;

/// The file below `data_dir` that keeps a generated key.
const FILE: &str = "api_key";

/// The key that sees and may do everything.
#[derive(Debug, Clone)]
pub struct GlobalKey {
    /// The key.
    pub secret: Secret,
    /// Where it comes from.
    pub origin: KeyOrigin,
}

/// Where the global key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOrigin {
    /// `server.api_key`, or the variable that overrides it.
    Configured,
    /// A file that an earlier start wrote.
    Stored,
    /// It was made just now, and is stored for the next start.
    Generated,
}

/// Why there is no global key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The stored key cannot be read.
    #[error("cannot read the API key in {}: make the file readable, or set `server.api_key`", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file of the stored key has no key in it.
    #[error("{} holds no API key: delete the file to have a new key made, or set `server.api_key`", .0.display())]
    Empty(PathBuf),
    /// The configured key can be in no header.
    #[error(
        "the configured API key has a space or a control character in it, which no header can carry: set `server.api_key` (or AUTHENTICATION_API_KEY) to one without"
    )]
    ConfiguredUnusable,
    /// The stored key can be in no header.
    #[error("the API key in {} has a space or a control character in it, which no header can carry: write it on one line without, or delete the file to have a new key made", .0.display())]
    StoredUnusable(PathBuf),
    /// A new key cannot be stored.
    #[error("cannot store a new API key in {}: make the folder writable, or set `server.api_key`", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system has no random numbers to make a key of.
    #[error("cannot make an API key: {0}")]
    Random(getrandom::Error),
}

/// Finds the global key: the configured one, else the one stored in `data_dir`, else a new one, which is
/// stored there. An empty configured key counts as none.
pub fn global_key(configured: Option<&str>, data_dir: &Path) -> Result<GlobalKey, KeyError> {
    if let Some(key) = configured.filter(|key| !key.is_empty()) {
        if !is_usable(key) {
            return Err(KeyError::ConfiguredUnusable);
        }
        return Ok(GlobalKey::new(key, KeyOrigin::Configured));
    }
    let path = data_dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim() {
            "" => Err(KeyError::Empty(path)),
            key if !is_usable(key) => Err(KeyError::StoredUnusable(path)),
            key => Ok(GlobalKey::new(key, KeyOrigin::Stored)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = generate().map_err(KeyError::Random)?;
            store(&path, data_dir, &key).map_err(|source| KeyError::Unwritable { path, source })?;
            Ok(GlobalKey::new(&key, KeyOrigin::Generated))
        }
        Err(source) => Err(KeyError::Unreadable { path, source }),
    }
}

/// Whether a client can send the key as it is: nothing in it that a header or a query loses or refuses.
pub(crate) fn is_usable(key: &str) -> bool {
    !key.chars().any(|it| it.is_whitespace() || it.is_control())
}

/// 32 upper-case hexadecimal digits, the form that Evolution's own sample key has.
fn generate() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{:032X}", u128::from_ne_bytes(bytes)))
}

/// Writes the key so that the file is there whole or not at all, and is readable by its owner alone.
fn store(path: &Path, folder: &Path, key: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let draft = folder.join(format!("{FILE}.{}", std::process::id()));
    let written = write_private(&draft, key).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // The draft is useless now; that it cannot be removed either changes nothing.
        drop(fs::remove_file(&draft));
    }
    written?;
    // The rename itself must survive a power cut too.
    File::open(folder)?.sync_all()
}

fn write_private(path: &Path, key: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    writeln!(file, "{key}")?;
    file.sync_all()
}

// === impl GlobalKey ===

impl GlobalKey {
    fn new(key: &str, origin: KeyOrigin) -> Self {
        Self {
            secret: Secret::new(key),
            origin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_key_wins_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "stored\n").unwrap();
        let key = global_key(Some("configured"), folder.path()).unwrap();
        assert_eq!(key.origin, KeyOrigin::Configured);
        assert!(key.secret.matches("configured"));
        let key = global_key(Some(""), folder.path()).unwrap();
        assert_eq!(key.origin, KeyOrigin::Stored);
        assert!(key.secret.matches("stored"));
    }

    #[test]
    fn a_generated_key_is_kept_for_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("not/there/yet");
        let made = global_key(None, &data).unwrap();
        assert_eq!(made.origin, KeyOrigin::Generated);
        let text = made.secret.reveal();
        assert_eq!(text.len(), 32);
        assert!(text.bytes().all(|b| b"0123456789ABCDEF".contains(&b)));
        let again = global_key(None, &data).unwrap();
        assert_eq!(again.origin, KeyOrigin::Stored);
        assert!(again.secret.matches(text));
        let files = fs::read_dir(&data).unwrap().count();
        assert_eq!(files, 1, "no draft is left behind");
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_reads_a_generated_key() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        global_key(None, folder.path()).unwrap();
        let file = fs::metadata(folder.path().join(FILE)).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_empty_or_unreadable_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        fs::write(&path, " \n").unwrap();
        let error = global_key(None, folder.path()).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let error = global_key(None, folder.path()).unwrap_err();
        assert!(matches!(error, KeyError::Unreadable { .. }), "{error}");
    }

    #[test]
    fn a_key_that_no_header_can_carry_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        for key in ["two words", "two\nlines", "a\tb", "a\u{7}b", "a\u{0}b"] {
            let error = global_key(Some(key), folder.path()).unwrap_err();
            assert!(matches!(error, KeyError::ConfiguredUnusable), "{key:?}");
            assert!(!error.to_string().contains(key));
            fs::write(&path, format!("{key}\n")).unwrap();
            let error = global_key(None, folder.path()).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(error.contains("no header can carry"), "{error}");
            assert!(!error.contains(key));
        }
        assert!(matches!(
            global_key(Some(" key"), folder.path()),
            Err(KeyError::ConfiguredUnusable)
        ));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = global_key(None, &file.join("data")).unwrap_err();
        let clear = matches!(
            error,
            KeyError::Unwritable { .. } | KeyError::Unreadable { .. }
        );
        assert!(clear, "{error}");
    }
}
