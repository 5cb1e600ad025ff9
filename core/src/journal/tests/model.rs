//! A journal against a model: every retained record in order exactly once, at the offset that was given for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::super::{Journal, Limit, Memory, Options, Retention};
use super::record;

/// Records that are retained; an eighth of them is a segment.
const RECORDS: u64 = 48;

#[derive(Debug, Clone)]
enum Step {
    /// Appends records of these lengths.
    Append(Vec<usize>),
    /// Reads from an offset that lies this far in front of the next.
    Read { back: u64, most: Limit },
    /// Drops what lies further than this in front of the next.
    Trim { back: u64 },
    /// Moves a cursor to an offset that lies this far in front of the next, or forgets it.
    Cursor { name: usize, back: Option<u64> },
    /// Closes the journal, or drops it without, and opens it again.
    Reopen { close: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let append = proptest::collection::vec(0..3_000_usize, 0..8).prop_map(Step::Append);
    let limit = (1..30_usize, 1..9_000_usize).prop_map(|(records, bytes)| Limit { records, bytes });
    let read = (0..90_u64, limit).prop_map(|(back, most)| Step::Read { back, most });
    let trim = (0..60_u64).prop_map(|back| Step::Trim { back });
    let cursor = (0..3_usize, proptest::option::of(0..50_u64))
        .prop_map(|(name, back)| Step::Cursor { name, back });
    let reopen = any::<bool>().prop_map(|close| Step::Reopen { close });
    let step = prop_oneof![12 => append, 8 => read, 1 => trim, 3 => cursor, 1 => reopen];
    proptest::collection::vec(step, 1..50)
}

/// A journal, and what it has to do.
struct Model {
    journal: Arc<dyn Journal>,
    epoch: u64,
    /// What was appended, ever.
    log: Vec<Bytes>,
    /// The greatest offset in front of which records may be trimmed.
    trimmed: u64,
    oldest: u64,
    cursors: BTreeMap<String, u64>,
}

// === impl Model ===

impl Model {
    fn new(journal: Arc<dyn Journal>) -> Self {
        Self {
            epoch: journal.epoch(),
            journal,
            log: Vec::new(),
            trimmed: 0,
            oldest: 1,
            cursors: BTreeMap::new(),
        }
    }

    fn next(&self) -> u64 {
        self.log.len() as u64 + 1
    }

    async fn append(&mut self, lengths: &[usize]) -> TestCaseResult {
        let ids = self.next()..;
        let records: Vec<_> = lengths
            .iter()
            .zip(ids)
            .map(|(length, id)| record(id, *length))
            .collect();
        let first = self.journal.append(records.clone()).await.unwrap();
        prop_assert_eq!(first, self.next());
        self.log.extend(records);
        Ok(())
    }

    async fn read(&self, back: u64, most: Limit) -> TestCaseResult {
        let from = self.next().saturating_sub(back);
        let page = self.journal.read(from, most).await.unwrap();
        let start = from.max(self.journal.bounds().oldest);
        let skip = usize::try_from(start - 1).unwrap();
        let mut bytes = 0;
        let expected = self.log.iter().skip(skip).take(most.records);
        let expected = expected.enumerate().take_while(|(index, record)| {
            bytes += record.len();
            *index == 0 || bytes <= most.bytes
        });
        let expected: Vec<_> = expected.map(|(_, record)| record.clone()).collect();
        for (record, offset) in page.records.iter().zip(start..) {
            prop_assert_eq!(record.offset, offset);
        }
        prop_assert_eq!(page.next, start + page.records.len() as u64);
        let read: Vec<_> = page.records.into_iter().map(|it| it.bytes).collect();
        prop_assert_eq!(read, expected);
        Ok(())
    }

    fn check(&mut self) -> TestCaseResult {
        let bounds = self.journal.bounds();
        prop_assert_eq!(bounds.next, self.next());
        prop_assert_eq!(bounds.records, bounds.next - bounds.oldest);
        prop_assert!(bounds.oldest >= self.oldest);
        // Up to a segment more than it may, or two less: the last block of each is as long as one append.
        prop_assert!(bounds.records <= RECORDS + 2 * (RECORDS / 8 + 8));
        let kept = self.next().saturating_sub(RECORDS / 2);
        prop_assert!(
            bounds.oldest <= kept.max(self.trimmed).max(1),
            "{:?}",
            bounds
        );
        prop_assert_eq!(self.journal.epoch(), self.epoch);
        prop_assert_eq!(bounds.damaged, 0);
        self.oldest = bounds.oldest;
        let cursors: BTreeMap<_, _> = self.journal.cursors().into_iter().collect();
        prop_assert_eq!(&cursors, &self.cursors);
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> TestCaseResult {
        match step {
            Step::Append(lengths) => self.append(lengths).await?,
            Step::Read { back, most } => self.read(*back, *most).await?,
            Step::Trim { back } => {
                let before = self.next().saturating_sub(*back);
                self.trimmed = self.trimmed.max(before);
                self.journal.trim(before).await.unwrap();
            }
            Step::Cursor { name, back } => {
                let name = ["a", "b", "ü"][*name];
                let offset = back.map(|back| self.next().saturating_sub(back));
                self.journal.set_cursor(name, offset);
                match offset {
                    Some(offset) => self.cursors.insert(name.to_owned(), offset),
                    None => self.cursors.remove(name),
                };
            }
            Step::Reopen { .. } => {}
        }
        self.check()
    }
}

fn options() -> Options {
    let retention = Retention {
        records: RECORDS,
        ..Retention::default()
    };
    Options {
        retention,
        ..Options::default()
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn memory_follows_the_model(steps in steps()) {
        block_on(async {
            let mut model = Model::new(Arc::new(Memory::new(options().retention)));
            for step in &steps {
                model.step(step).await?;
            }
            TestCaseResult::Ok(())
        })?;
    }
}

#[cfg(feature = "disk")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn disk_follows_the_model(steps in steps()) {
        use super::super::Disk;

        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let open = || Arc::new(Disk::open(folder.path(), options()).unwrap());
            let mut model = Model::new(open());
            for step in &steps {
                if let Step::Reopen { close } = step {
                    if *close {
                        model.journal.close().await.unwrap();
                    }
                    let memory = Retention::default();
                    drop(std::mem::replace(&mut model.journal, Arc::new(Memory::new(memory))));
                    model.journal = open();
                    if !*close {
                        // Only what was set lately may be lost.
                        model.cursors = model.journal.cursors().into_iter().collect();
                    }
                }
                model.step(step).await?;
            }
            TestCaseResult::Ok(())
        })?;
    }
}
