//! Folders that are not as they were left.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::disk::{used, wait_until_free};
use super::super::{Bounds, Disk, Journal, JournalError, Options, Record, Retention};
use super::{all, record};

const APPENDS: u64 = 40;
const EACH: u64 = 5;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            let bytes = fs::read(&path).unwrap();
            // Room that was never written to stays a hole.
            let used = used(&bytes);
            fs::write(&target, &bytes[..used]).unwrap();
            let file = fs::File::options().write(true).open(&target).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
        }
    }
}

fn options(records: u64) -> Options {
    let retention = Retention {
        records,
        ..Retention::default()
    };
    Options {
        retention,
        ..Options::default()
    }
}

/// A folder as a killed process leaves it.
async fn left(folder: &Path, options: Options) -> PathBuf {
    let path = folder.join("whole");
    let journal = Disk::open(&path, options).unwrap();
    for append in 0..APPENDS {
        let records = (0..EACH).map(|it| record(append * EACH + it + 1, 300));
        journal.append(records.collect()).await.unwrap();
    }
    let left = folder.join("left");
    drop(journal);
    // Waits for the writer to end.
    wait_until_free(&path);
    copy(&path, &left);
    left
}

/// Opens it, and checks what is in it.
async fn found(path: &Path, options: Options) -> Result<(Vec<Record>, Bounds), JournalError> {
    let journal = Disk::open(path, options)?;
    let records = all(&journal).await;
    for stored in &records {
        assert_eq!(
            stored.bytes,
            record(stored.offset, 300),
            "{}",
            stored.offset
        );
    }
    let bounds = journal.bounds();
    let next = journal.append(vec![record(1, 1)]).await.unwrap();
    assert_eq!(next, bounds.next);
    drop(journal);
    wait_until_free(path);
    Ok((records, bounds))
}

#[tokio::test]
async fn a_damaged_log_costs_what_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let left = left(folder.path(), Options::default()).await;
    let log = left.join("db/0.jnl");
    let whole = fs::read(&log).unwrap();
    let used = used(&whole);
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..15 {
        let path = folder.path().join(format!("damaged{round}"));
        copy(&left, &path);
        let log = path.join("db/0.jnl");
        let at = random.usize(..used);
        let cut = round % 3 == 0;
        if cut {
            fs::File::options()
                .write(true)
                .open(&log)
                .unwrap()
                .set_len(at as u64)
                .unwrap();
        } else {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << random.u8(..8);
            fs::write(&log, bytes).unwrap();
        }
        let (records, bounds) = found(&path, Options::default()).await.unwrap();
        let total = APPENDS * EACH;
        if cut {
            let offsets = records.iter().map(|it| it.offset);
            assert!(offsets.eq(1..bounds.next), "cut at {at}");
            let share = total * at as u64 / used as u64;
            assert!(bounds.next + 3 * EACH > share, "{bounds:?} of {share}");
        } else {
            let lost = total - records.len() as u64;
            assert!(lost <= EACH, "{lost} lost by byte {at}");
        }
        fs::remove_dir_all(&path).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_file_gives_right_records_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(2_000);
    let small = self::options(160);
    // Ten segments, most of them flushed.
    let left = left(folder.path(), small).await;
    let mut random = fastrand::Rng::with_seed(9);
    let mut skipped = 0;
    let mut files = files(&left);
    random.shuffle(&mut files);
    for file in files.iter().take(30) {
        let name = file.strip_prefix(&left).unwrap();
        if ["reserve", "lock"].iter().any(|it| name.ends_with(it)) {
            continue;
        }
        let length = fs::read(file).unwrap();
        let used = used(&length);
        if used == 0 {
            continue;
        }
        {
            let path = folder.path().join("damaged");
            copy(&left, &path);
            let mut bytes = length.clone();
            bytes[random.usize(..used)] ^= 1 << random.u8(..8);
            fs::write(path.join(name), bytes).unwrap();
            match found(&path, options).await {
                Ok((_, bounds)) => skipped += bounds.damaged,
                Err(error) => assert!(error.to_string().contains("damaged"), "{error}"),
            }
            fs::remove_dir_all(&path).unwrap();
        }
    }
    assert!(skipped > 0);
}

#[tokio::test]
async fn a_newer_format_is_refused_and_an_open_folder_is_locked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/journal");
    let journal = Disk::open(&path, Options::default()).unwrap();
    let locked = Disk::open(&path, Options::default()).unwrap_err();
    assert!(matches!(locked, JournalError::Locked(_)), "{locked}");
    assert!(locked.to_string().contains("open in another process"));
    journal.close().await.unwrap();
    let description = fs::read_to_string(path.join("journal")).unwrap();
    let newer = description.replace("format 1", "format 2");
    fs::write(path.join("journal"), newer).unwrap();
    let refused = Disk::open(&path, Options::default()).unwrap_err();
    assert!(refused.to_string().contains("has format 2"), "{refused}");
    fs::write(path.join("journal"), "nonsense").unwrap();
    let refused = Disk::open(&path, Options::default()).unwrap_err();
    assert!(refused.to_string().contains("is damaged"), "{refused}");
}

#[tokio::test]
async fn offsets_that_a_crash_of_the_machine_may_have_lost_are_not_given_again() {
    let folder = tempfile::tempdir().unwrap();
    let left = left(folder.path(), Options::default()).await;
    let mark = fs::read_to_string(left.join("open")).unwrap();
    let (_, durability) = mark.split_once('\n').unwrap();
    fs::write(left.join("open"), format!("another-boot\n{durability}")).unwrap();
    let total = APPENDS * EACH;
    for jumps in 1..=3 {
        let journal = Disk::open(&left, Options::default()).unwrap();
        let next = total + 1 + (1 << 20);
        assert_eq!(journal.bounds().next, next, "opened {jumps} times");
        let page = journal.read(total + 1, super::ALL).await.unwrap();
        assert_eq!((page.records.len(), page.next), (0, next));
        let records = all(&journal).await;
        assert_eq!(records.len() as u64, total);
        journal.close().await.unwrap();
    }
}
