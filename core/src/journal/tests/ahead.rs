//! Blocks that are being encoded while something happens.

use futures_util::future::{join, join_all};

use super::super::disk::PANICS;
use super::super::{Disk, Durability};
use super::*;

const DURABILITIES: [Durability; 2] = [
    Durability::Always,
    Durability::Interval(Duration::from_millis(20)),
];
const LENGTH: usize = 40 << 10;

fn open(folder: &tempfile::TempDir, durability: Durability) -> Disk {
    let options = Options {
        durability,
        ..Options::default()
    };
    Disk::open(folder.path(), options).unwrap()
}

/// Appends of several records each, enough for a helper.
fn appends(count: u64) -> Vec<Vec<Bytes>> {
    let append = |id| (0..5).map(|it| record(10 * id + it, LENGTH)).collect();
    (0..count).map(append).collect()
}

#[tokio::test]
async fn closing_stores_what_is_being_encoded() {
    for durability in DURABILITIES {
        let folder = tempfile::tempdir().unwrap();
        let journal = open(&folder, durability);
        let appends = appends(60);
        let stored = join_all(appends.iter().map(|it| journal.append(it.clone())));
        let (stored, closed) = join(stored, journal.close()).await;
        closed.unwrap();
        let firsts: Vec<_> = stored.into_iter().map(Result::unwrap).collect();
        let expected: Vec<_> = (0..60).map(|index| 1 + 5 * index).collect();
        assert_eq!(firsts, expected);
        drop(journal);
        let journal = open(&folder, durability);
        let found = all(&journal).await.into_iter().map(|it| it.bytes);
        assert!(found.eq(appends.concat()));
    }
}

#[tokio::test]
async fn a_panic_while_encoding_costs_what_is_not_reported_and_no_more() {
    for durability in DURABILITIES {
        for place in [0, 1, 7, 39] {
            let folder = tempfile::tempdir().unwrap();
            let journal = open(&folder, durability);
            let mut appends = appends(40);
            // Large, to be the first of its block.
            let large = Bytes::from(vec![b' '; 300 << 10]);
            appends.insert(place, vec![large.clone()]);
            appends.insert(place + 1, vec![Bytes::from_static(PANICS), large]);
            let stored = join_all(appends.iter().map(|it| journal.append(it.clone()))).await;
            assert!(
                stored
                    .iter()
                    .any(|it| matches!(it, Err(error) if error.passes()))
            );
            // It is opened again by itself.
            let last = vec![record(9_999, 100)];
            let at = loop {
                match journal.append(last.clone()).await {
                    Ok(at) => break at,
                    Err(error) => assert!(error.passes(), "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            let mut expected = Vec::new();
            for (first, records) in stored.into_iter().zip(appends).chain([(Ok(at), last)]) {
                let offsets = first.into_iter().flat_map(|first| first..);
                expected.extend(offsets.zip(records));
            }
            expected.sort_by_key(|it| it.0);
            let found = all(&journal)
                .await
                .into_iter()
                .map(|it| (it.offset, it.bytes));
            assert!(found.eq(expected), "{durability:?} {place}");
        }
    }
}
