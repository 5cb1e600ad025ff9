//! Behaviour of journals.

#[cfg(feature = "disk")]
mod ahead;
#[cfg(feature = "disk")]
mod corrupt;
#[cfg(feature = "disk")]
mod full;
#[cfg(feature = "disk")]
mod killed;
mod model;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::task::JoinSet;

use super::{Journal, JournalError, Limit, Memory, Options, Record, Retention, WhenFull};

const ALL: Limit = Limit {
    records: usize::MAX,
    bytes: usize::MAX,
};

/// A record that says which one it is, of some length.
fn record(id: u64, length: usize) -> Bytes {
    let mut text = format!("{{\"id\":{id},\"text\":\"");
    while text.len() < length {
        write!(text, "{:x} ", text.len() as u64 * (id + 7)).unwrap();
    }
    text.push_str("\"}");
    text.into()
}

/// The same with text that nothing makes smaller.
#[cfg(feature = "disk")]
fn random(id: u64, length: usize) -> Bytes {
    let mut random = fastrand::Rng::with_seed(id);
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes.into()
}

async fn all(journal: &dyn Journal) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    let mut from = 0;
    loop {
        let most = Limit {
            records: 1_000,
            bytes: 1 << 20,
        };
        let page = journal.read(from, most).await.unwrap();
        if page.records.is_empty() {
            return records;
        }
        from = page.next;
        records.extend(page.records);
    }
}

/// A journal of each kind, and the folder that one of them is in.
fn journals(options: Options) -> (Vec<Arc<dyn Journal>>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut journals: Vec<Arc<dyn Journal>> = vec![Arc::new(Memory::new(options.retention))];
    #[cfg(feature = "disk")]
    journals.push(Arc::new(super::Disk::open(folder.path(), options).unwrap()));
    (journals, folder)
}

#[tokio::test]
async fn concurrent_appends_are_stored_once_and_each_in_one_piece() {
    let (journals, _folder) = journals(Options::default());
    for journal in journals {
        let mut appends = JoinSet::new();
        for id in 0..600_u64 {
            let journal = Arc::clone(&journal);
            appends.spawn(async move {
                let records: Vec<_> = (0..=id % 3).map(|part| record(id * 3 + part, 40)).collect();
                let count = records.len() as u64;
                (id, count, journal.append(records).await.unwrap())
            });
        }
        let appends = appends.join_all().await;
        let stored = all(&*journal).await;
        assert_eq!(
            stored.len() as u64,
            appends.iter().map(|it| it.1).sum::<u64>()
        );
        for (id, count, first) in appends {
            for part in 0..count {
                let at = usize::try_from(first + part - 1).unwrap();
                assert_eq!(stored[at].offset, first + part);
                assert_eq!(stored[at].bytes, record(id * 3 + part, 40));
            }
        }
        journal.close().await.unwrap();
        let closed = journal.append(vec![record(1, 10)]).await;
        assert!(matches!(closed, Err(JournalError::Closed)), "{closed:?}");
    }
}

#[tokio::test]
async fn a_full_buffer_refuses_until_it_is_trimmed() {
    let retention = Retention {
        bytes: 200_000,
        full: WhenFull::Reject,
        ..Retention::default()
    };
    let options = Options {
        retention,
        ..Options::default()
    };
    let (journals, _folder) = journals(options);
    for journal in journals {
        let mut stored = 0;
        let error = loop {
            let bytes: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
                .take(1_000)
                .collect();
            match journal.append(vec![bytes.into()]).await {
                Ok(offset) => stored = offset,
                Err(error) => break error,
            }
        };
        assert!(
            matches!(error, JournalError::Full { .. }) && error.passes(),
            "{error}"
        );
        assert!((180..=200).contains(&stored), "{stored}");
        assert_eq!(journal.bounds().records, stored);
        journal.trim(stored / 2).await.unwrap();
        let bounds = journal.bounds();
        assert!(
            (stored / 3..=stored / 2).contains(&bounds.oldest),
            "{bounds:?}"
        );
        assert_eq!(
            journal.append(vec![record(0, 9)]).await.unwrap(),
            stored + 1
        );
        journal.trim(u64::MAX).await.unwrap();
        let bounds = journal.bounds();
        assert_eq!((bounds.records, bounds.oldest), (0, stored + 2));
    }
}

#[tokio::test]
async fn what_is_too_old_goes_and_times_find_offsets() {
    let retention = Retention {
        age: Duration::from_millis(1),
        ..Retention::default()
    };
    let options = Options {
        retention,
        ..Options::default()
    };
    let (journals, _folder) = journals(options);
    for journal in journals {
        let before = SystemTime::now();
        journal.append(vec![record(1, 10)]).await.unwrap();
        assert!(journal.seek(before).await.unwrap() <= 2);
        let later = SystemTime::now() + Duration::from_mins(1);
        assert_eq!(journal.seek(later).await.unwrap(), 2);
        let gone = async {
            while !journal.read(1, ALL).await.unwrap().records.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone)
            .await
            .unwrap();
        let bounds = journal.bounds();
        assert_eq!((bounds.oldest, bounds.next), (2, 2));
    }
}

#[tokio::test]
async fn a_reader_waits_for_what_comes_next() {
    let (journals, _folder) = journals(Options::default());
    for journal in journals {
        let page = journal.read(0, ALL).await.unwrap();
        assert_eq!((page.records.len(), page.next), (0, 1));
        assert!(journal.appended(page.next).now_or_never().is_none());
        let append = journal.append(vec![record(1, 10), record(2, 10)]);
        let ((), offset) = tokio::join!(journal.appended(page.next), append);
        assert_eq!(offset.unwrap(), 1);
        let page = journal.read(page.next, ALL).await.unwrap();
        assert_eq!((page.records.len(), page.next), (2, 3));
        assert!(journal.appended(page.next).now_or_never().is_none());
    }
}
