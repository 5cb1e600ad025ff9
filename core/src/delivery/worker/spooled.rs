//! The worker of a sink whose buffer is on disk.

use tokio::time::Instant;

use super::super::cargo::{Item, Tag};
use super::super::intake::Intake;
use super::Worker;
use crate::journal::Record;
use crate::plugin::Destination;
use crate::{Event, Outcome};

/// The part of the lanes' limit that one destination may have of events from the disk before it is parked.
const PARKED_AT: usize = 64;
/// What it may have at least, and when the lanes are crowded.
const FEW: usize = 16;
const FEWEST: usize = 4;

impl Worker {
    /// Puts events that were read from the disk into their lanes, those of parked destinations left out.
    pub(super) fn take_records(&mut self, records: Vec<Record>) {
        let now = Instant::now();
        let most = (self.limits.events / PARKED_AT).max(FEW);
        for record in records {
            let offset = record.offset;
            let item = self.restore(record);
            let crowded = self.is_crowded();
            let Self {
                intake,
                lanes,
                destinations,
                ..
            } = self;
            let Intake::Spool(spool) = intake else {
                return;
            };
            // What the journal has no more, it dropped to make room; or it was damaged.
            let gone = offset.saturating_sub(spool.progress.next());
            if gone > 0 {
                let (outcome, reason) = spool.gone();
                self.ledger.end(outcome, reason, gone);
            }
            spool.progress.read_to(offset + 1);
            spool.touch();
            let item = match item {
                Ok(item) => item,
                Err(outcome) => {
                    spool.waiting.settle(offset, outcome);
                    continue;
                }
            };
            if destinations.len() > 1 {
                spool.waiting.divide(offset, destinations.len());
            }
            let progress = &mut spool.progress;
            let counts = destinations.first().cloned();
            destinations.retain(|destination| {
                let under_way = progress.under_way(destination);
                // So that no one can fill the lanes, with events or with their bytes, that others have to get through.
                let has_enough = under_way >= most
                    || (crowded && under_way >= FEWEST)
                    || (crowded && under_way > 0 && !lanes.is_served(destination));
                // A sink with one destination just waits.
                if has_enough && *destination != Destination::default() {
                    progress.park(destination, offset);
                }
                let takes = !progress.is_parked(destination);
                if takes {
                    progress.begin(destination, offset);
                }
                takes
            });
            // One that goes to several is counted with the first of them.
            let counted = destinations.first() == counts.as_ref();
            self.place(item.counted(counted), now);
        }
    }

    /// Lets a parked destination that takes events again have some. Whether there is more to do at once.
    pub(super) async fn catch_up(&mut self) -> bool {
        let crowded = self.is_crowded();
        let few = (self.limits.events / PARKED_AT / 2).max(FEWEST);
        let Intake::Spool(spool) = &mut self.intake else {
            return false;
        };
        if !spool.progress.has_parked() {
            spool.let_go();
            return false;
        }
        let hungry = spool.progress.parked().find(|(destination, _)| {
            let under_way = spool.progress.under_way(destination);
            // Without anything under way nobody would learn that it is back.
            under_way == 0 || (!crowded && under_way <= few && self.lanes.is_served(destination))
        });
        let Some((destination, from)) = hungry else {
            return false;
        };
        let destination = destination.clone();
        let Some(page) = spool.read_from(from).await else {
            // Another time, which the next save brings.
            spool.touch();
            return false;
        };
        // One that does not answer gets one, to see whether it does.
        let most = if crowded || !self.lanes.is_served(&destination) {
            1
        } else {
            few * 2 + FEW
        };
        if spool.has_dropped(from) {
            let sink = self.ledger.component();
            tracing::warn!(sink = &**sink, %destination, "the full buffer has dropped events that were waiting for a destination which is down");
        }
        let (now, end) = (Instant::now(), spool.progress.next());
        let mut reached = page.next.min(end);
        let had = page.records.partition_point(|record| record.offset < from);
        for record in &page.records[had..] {
            let offset = record.offset;
            let full = self.lanes.bytes() >= self.limits.bytes.bytes();
            let Intake::Spool(spool) = &mut self.intake else {
                return false;
            };
            let under_way = spool.progress.under_way(&destination);
            // The reader hands out what comes behind it; and there is always more where this came from.
            if offset >= end || under_way >= most || (full && under_way > 0) {
                reached = reached.min(offset);
                break;
            }
            // What cannot be read or has no destination was counted by the reader.
            let Ok(event) = Event::from_record(record.bytes.clone()) else {
                continue;
            };
            if !self.ask(&event) || !self.destinations.contains(&destination) {
                continue;
            }
            let first = self.destinations.first() == Some(&destination);
            if let Intake::Spool(spool) = &mut self.intake {
                spool.progress.begin(&destination, offset);
            }
            let item = Item::new(event, offset).counted(first);
            self.lanes.push(&destination, item, now);
        }
        if let Intake::Spool(spool) = &mut self.intake {
            spool.progress.caught_up_to(&destination, reached);
            spool.touch();
        }
        true
    }

    /// Whether the lanes are more than half full.
    fn is_crowded(&self) -> bool {
        self.lanes.events() > self.limits.events / 2
            || self.lanes.bytes() > self.limits.bytes.bytes() / 2
    }

    /// The event of a record, with its destinations in `self.destinations`; or how it has ended.
    fn restore(&mut self, record: Record) -> Result<Item, Outcome> {
        match Event::from_record(record.bytes) {
            Ok(event) => self.address(event, record.offset),
            Err(error) => {
                tracing::error!(sink = self.id(), offset = record.offset, %error, "an event cannot be read back");
                self.ledger.end(Outcome::Failed, "damaged", 1);
                Err(Outcome::Failed)
            }
        }
    }

    pub(super) async fn save(&mut self) {
        if let Intake::Spool(spool) = &mut self.intake {
            spool.save().await;
            self.ledger.set_buffered(spool.backlog());
        }
    }

    /// Notes that an event failed for good: who sends it again means it.
    pub(super) fn note_failed(&self, item: &Item) {
        if let (Intake::Spool(spool), Some(key)) = (&self.intake, item.event.key()) {
            spool.waiting.fail(key);
        }
    }

    /// Notes in the buffer on disk that events have ended, and tells sources that wait for it.
    pub(super) fn note_ended<'t>(
        &mut self,
        destination: &Destination,
        tags: impl IntoIterator<Item = &'t Tag>,
        outcome: Outcome,
    ) {
        let Intake::Spool(spool) = &mut self.intake else {
            return;
        };
        for tag in tags {
            // Dead letters that are sent again are not in the buffer.
            if tag.offset > 0 {
                spool.end(destination, tag.offset);
                spool.waiting.settle(tag.offset, outcome);
            }
        }
    }
}
