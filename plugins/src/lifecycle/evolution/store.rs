//! The file that keeps the instances over a restart.
//!
//! A [redb](redb) file with two tables: `evows` holds the number of the format, `instances` a row of JSON
//! per instance. A transaction is on the disk when it returns. A file that cannot be used is never
//! replaced by a fresh one, nor repaired by leaving rows out: whoever runs evows decides that.

use std::fs;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use evows_core::plugin::{BoxError, LifecycleError};
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageBackend,
    StorageError, TableDefinition,
};

use super::row::Row;

/// The only format so far. A later one must be able to read it, or say how to get there.
const FORMAT: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("evows");
const INSTANCES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("instances");

/// The open file. Every call blocks.
pub(super) struct Store {
    path: PathBuf,
    database: Database,
}

/// Why the file cannot be used. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// Another process has it open.
    #[error("the instance registry {} is open in another process: stop that one, or give this one another `server.data_dir`", .0.display())]
    Locked(PathBuf),
    /// A newer evows, or one with another redb, wrote it.
    #[error("the instance registry {} has format {found}, and this evows reads format {FORMAT}: run the version that wrote it, or move the file away to start without instances", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format that it has.
        found: u64,
    },
    /// It is not what evows wrote.
    #[error("the instance registry {} is damaged ({reason}): restore it from a backup, or move it away to start without instances", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused.
    #[error("cannot use the instance registry {}: {source}; check the folder's permissions and the disk", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: BoxError,
    },
}

// === impl Store ===

impl Store {
    /// Opens the file, making it and its folder when there is none, and reads every row.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Row>), StoreError> {
        // redb panics over some bytes that it did not write. Nothing of it outlives the panic.
        catch_unwind(AssertUnwindSafe(|| Self::open_sound(path))).unwrap_or_else(|_| {
            Err(StoreError::Damaged {
                path: path.to_owned(),
                reason: "reading it ended in a panic".to_owned(),
            })
        })
    }

    fn open_sound(path: &Path) -> Result<(Self, Vec<Row>), StoreError> {
        let database = open_database(path)?;
        let store = Self {
            path: path.to_owned(),
            database,
        };
        store.check_format()?;
        let rows = store.rows()?;
        Ok((store, rows))
    }

    /// Writes a row, replacing the one of the same name. On the disk when this returns.
    pub(super) fn put(&self, row: &Row) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(row).map_err(|error| self.io(error))?;
        let write = self.begin()?;
        {
            let mut table = write
                .open_table(INSTANCES)
                .map_err(|error| self.of(error.into()))?;
            let inserted = table.insert(&*row.name, &*bytes);
            inserted.map_err(|error| self.of(error.into()))?;
        }
        self.commit(write)
    }

    /// Deletes the row of this name. On the disk when this returns.
    pub(super) fn delete(&self, name: &str) -> Result<(), StoreError> {
        let write = self.begin()?;
        {
            let mut table = write
                .open_table(INSTANCES)
                .map_err(|error| self.of(error.into()))?;
            let removed = table.remove(name);
            removed.map_err(|error| self.of(error.into()))?;
        }
        self.commit(write)
    }

    /// Checks the number of the format, and writes it into a file that has nothing in it.
    fn check_format(&self) -> Result<(), StoreError> {
        let write = self.begin()?;
        let tables = write
            .list_tables()
            .map_err(|error| self.of(error.into()))?
            .count();
        {
            let mut meta = write
                .open_table(META)
                .map_err(|error| self.of(error.into()))?;
            let found = meta
                .get("format")
                .map_err(|error| self.of(error.into()))?
                .map(|value| value.value());
            match found {
                Some(FORMAT) => {}
                Some(found) => {
                    return Err(StoreError::Format {
                        path: self.path.clone(),
                        found,
                    });
                }
                // Only the crash of a first start leaves a file without any table.
                None if tables == 0 => {
                    let inserted = meta.insert("format", FORMAT);
                    inserted.map_err(|error| self.of(error.into()))?;
                }
                None => return Err(self.damaged("it does not say which format it has")),
            }
        }
        write
            .open_table(INSTANCES)
            .map_err(|error| self.of(error.into()))?;
        self.commit(write)
    }

    fn rows(&self) -> Result<Vec<Row>, StoreError> {
        let read = self.database.begin_read();
        let read = read.map_err(|error| self.of(error.into()))?;
        let table = read
            .open_table(INSTANCES)
            .map_err(|error| self.of(error.into()))?;
        let mut rows = Vec::new();
        for item in table.iter().map_err(|error| self.of(error.into()))? {
            let (name, bytes) = item.map_err(|error| self.of(error.into()))?;
            let row: Row = serde_json::from_slice(bytes.value()).map_err(|error| {
                self.damaged(format!("the row of `{}` is {error}", name.value()))
            })?;
            rows.push(row);
        }
        Ok(rows)
    }

    fn begin(&self) -> Result<redb::WriteTransaction, StoreError> {
        let mut write = self
            .database
            .begin_write()
            .map_err(|error| self.of(error.into()))?;
        let durable = write.set_durability(Durability::Immediate);
        durable.map_err(|error| self.io(error))?;
        // Else redb takes a damaged last transaction for one that a crash cut short, and goes back to the
        // one before it without a word.
        write.set_two_phase_commit(true);
        Ok(write)
    }

    /// Commits, and then nothing once more. A file has the last two commits and one bit that says which is
    /// valid; when they are alike, that bit can be wrong without an older state coming back.
    fn commit(&self, write: redb::WriteTransaction) -> Result<(), StoreError> {
        write.commit().map_err(|error| self.of(error.into()))?;
        let again = self.begin()?.commit();
        again.map_err(|error| self.of(error.into()))
    }

    fn of(&self, error: redb::Error) -> StoreError {
        match error {
            redb::Error::Corrupted(reason) => self.damaged(reason),
            redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. } => self.damaged(error.to_string()),
            other => self.io(other),
        }
    }

    fn damaged(&self, reason: impl Into<String>) -> StoreError {
        StoreError::Damaged {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }

    fn io(&self, source: impl Into<BoxError>) -> StoreError {
        StoreError::Io {
            path: self.path.clone(),
            source: source.into(),
        }
    }
}

/// Opens the database, making it when there is none.
fn open_database(path: &Path) -> Result<Database, StoreError> {
    let io = |source: BoxError| StoreError::Io {
        path: path.to_owned(),
        source,
    };
    let refused = |error: DatabaseError| refused(path, error);
    match fs::metadata(path) {
        // redb would take an empty file for a new one.
        Ok(file) if file.len() == 0 => Err(StoreError::Damaged {
            path: path.to_owned(),
            reason: "it is empty".to_owned(),
        }),
        Ok(_) => {
            verify(path)?;
            Database::open(path).map_err(refused)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder).map_err(|error| io(error.into()))?;
            let created = create_private(path);
            created.map_err(|error| io(error.into()))?;
            Database::create(path).map_err(refused)
        }
        Err(error) => Err(io(error.into())),
    }
}

/// Checks every page of a copy in memory: redb repairs what it opens, and a repair that leaves rows out would
/// look sound at the next start.
fn verify(path: &Path) -> Result<(), StoreError> {
    let io = |error: io::Error| refused(path, StorageError::Io(error).into());
    let damaged = |reason: &str| StoreError::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let file = fs::OpenOptions::new().read(true).write(true).open(path);
    let backend = FileBackend::new(file.map_err(io)?).map_err(|error| refused(path, error))?;
    // Whoever has it open may be writing.
    let locked = backend.try_lock_range(Bound::Unbounded, Bound::Unbounded);
    if !locked.map_err(|error| refused(path, error.into()))? {
        return Err(StoreError::Locked(path.to_owned()));
    }
    let bytes = fs::read(path).map_err(io)?;
    let copy = InMemoryBackend::new();
    let length = u64::try_from(bytes.len()).map_err(|_| damaged("it does not fit into memory"))?;
    let copied = copy.set_len(length).and_then(|()| copy.write(0, &bytes));
    copied.map_err(|error| refused(path, error.into()))?;
    let opened = Database::builder().create_with_backend(copy);
    let mut database = opened.map_err(|error| refused(path, error))?;
    match database.check_integrity() {
        Ok(true) => Ok(()),
        Ok(false) => Err(damaged("its checksums do not fit")),
        Err(error) => Err(refused(path, error)),
    }
}

/// Tells apart what its user can do something about.
fn refused(path: &Path, error: DatabaseError) -> StoreError {
    let damaged = |reason: String| StoreError::Damaged {
        path: path.to_owned(),
        reason,
    };
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::Locked(path.to_owned())
        }
        DatabaseError::UpgradeRequired(found) => damaged(format!(
            "its redb file format is {found}, which this evows does not read"
        )),
        DatabaseError::Storage(StorageError::Corrupted(reason)) => damaged(reason),
        DatabaseError::Storage(StorageError::Io(error)) if is_damage(&error) => {
            damaged(error.to_string())
        }
        other => StoreError::Io {
            path: path.to_owned(),
            source: other.into(),
        },
    }
}

/// The tokens are in it: its owner alone may read it.
fn create_private(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Whether redb says by an I/O error that the bytes are not a database.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

// === impl StoreError ===

impl From<StoreError> for LifecycleError {
    fn from(error: StoreError) -> Self {
        // The message says it all, the cause included.
        Self::new(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_error(path: &Path) -> String {
        let Err(error) = Store::open(path) else {
            panic!("{} was opened", path.display())
        };
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        text
    }

    #[test]
    fn rows_are_there_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/instances.redb");
        let (store, rows) = Store::open(&path).unwrap();
        assert!(rows.is_empty());
        let row = Row::new("ana", "TOKEN");
        store.put(&row).unwrap();
        store.put(&Row::new("bob", "OTHER")).unwrap();
        store.delete("bob").unwrap();
        // What a process that dies now leaves behind: the file as it is, never closed.
        let left = folder.path().join("left.redb");
        fs::copy(&path, &left).unwrap();
        let (_, rows) = Store::open(&left).unwrap();
        assert_eq!(rows, [row]);
    }

    #[test]
    fn a_file_that_is_open_elsewhere_is_locked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instances.redb");
        let _store = Store::open(&path).unwrap();
        assert!(open_error(&path).contains("open in another process"));
    }

    #[test]
    fn a_damaged_file_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instances.redb");
        for content in [Vec::new(), vec![b'x'; 4096], b"short".to_vec()] {
            fs::write(&path, &content).unwrap();
            assert!(open_error(&path).contains("is damaged"));
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        fs::remove_file(&path).unwrap();
        drop(Store::open(&path).unwrap());
        let whole = fs::read(&path).unwrap();
        let half = whole.get(..whole.len() / 2).unwrap();
        fs::write(&path, half).unwrap();
        open_error(&path);
    }

    /// Twenty rows, the last of them in one commit or in the usual two, and the file as a crash leaves it.
    fn crashed(folder: &Path, commits: usize) -> (Vec<Row>, Vec<u8>) {
        let path = folder.join(format!("{commits}.redb"));
        let (store, _) = Store::open(&path).unwrap();
        let rows: Vec<_> = (10..30)
            .map(|index| Row::new(&format!("instance{index}"), &format!("TOKEN{index}")))
            .collect();
        let (last, others) = rows.split_last().unwrap();
        for row in others {
            store.put(row).unwrap();
        }
        let write = store.begin().unwrap();
        let mut table = write.open_table(INSTANCES).unwrap();
        let bytes = serde_json::to_vec(last).unwrap();
        table.insert(&*last.name, &*bytes).unwrap();
        drop(table);
        if commits == 1 {
            write.commit().unwrap();
        } else {
            store.commit(write).unwrap();
        }
        (rows, fs::read(&path).unwrap())
    }

    #[test]
    fn a_crashed_file_with_wrong_bytes_gives_every_row_or_an_error() {
        /// Where the file says which of its two commits is valid.
        const VALID: usize = 9;

        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join("left.redb");
        for commits in [1, 2] {
            let (rows, whole) = crashed(folder.path(), commits);
            // The header with its commits densely, and every page that has something in it.
            let pages = (1..whole.len() / 4096).map(|page| page * 4096);
            let pages = pages.filter(|at| whole[*at..][..4096].iter().any(|byte| *byte != 0));
            let places = (0..320).chain(pages.flat_map(|at| [at, at + 100, at + 700]));
            let mut refused = 0;
            for place in places.filter(|place| commits == 2 || *place != VALID) {
                let mut bytes = whole.clone();
                bytes[place] ^= if place == VALID { 0x01 } else { 0xff };
                fs::write(&left, &bytes).unwrap();
                match Store::open(&left) {
                    Ok((_, found)) => assert_eq!(found, rows, "{commits} commits, {place}"),
                    Err(StoreError::Damaged { .. }) => {
                        refused += 1;
                        assert!(fs::read(&left).unwrap() == bytes, "{place}: it was changed");
                    }
                    Err(other) => panic!("{place}: {other}"),
                }
            }
            assert!(refused > 20, "{refused}");
        }
    }

    #[test]
    fn a_newer_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instances.redb");
        let (store, _) = Store::open(&path).unwrap();
        let write = store.begin().unwrap();
        let mut meta = write.open_table(META).unwrap();
        meta.insert("format", FORMAT + 1).unwrap();
        drop(meta);
        write.commit().unwrap();
        drop(store);
        assert!(open_error(&path).contains("has format 2"));
    }

    #[test]
    fn a_row_that_is_not_json_names_its_instance() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instances.redb");
        let (store, _) = Store::open(&path).unwrap();
        let write = store.begin().unwrap();
        let mut table = write.open_table(INSTANCES).unwrap();
        table.insert("ana", &b"nonsense"[..]).unwrap();
        drop(table);
        write.commit().unwrap();
        drop(store);
        assert!(open_error(&path).contains("the row of `ana`"));
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_reads_the_tokens() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instances.redb");
        drop(Store::open(&path).unwrap());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
