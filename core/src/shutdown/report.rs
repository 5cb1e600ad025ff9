//! What a run came to.

use std::fmt;
use std::sync::Arc;

use crate::Outcome;
use crate::registry::Kind;
use crate::topology::ledger::Ledger;
use crate::topology::{DEADLINE, NOT_STARTED};

/// The counts of every component, in the order of the flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// One line per component.
    pub lines: Vec<Line>,
    /// Whether a deadline passed before everything had stopped.
    pub cut: bool,
}

/// The counts of one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it is.
    pub kind: Kind,
    /// Its id.
    pub id: Arc<str>,
    /// Events that it took in.
    pub received: u64,
    /// Events that it passed on.
    pub sent: u64,
    /// Events in its buffer on disk, which the next process delivers.
    pub buffered: u64,
    /// Events that ended in it.
    pub ended: Vec<(Outcome, &'static str, u64)>,
}

// === impl Report ===

impl Report {
    pub(crate) fn new(ledgers: &[Arc<Ledger>], cut: bool) -> Self {
        let lines = ledgers.iter().map(|ledger| Line {
            kind: ledger.kind(),
            id: Arc::clone(ledger.component()),
            received: ledger.received.get(),
            sent: ledger.sent.get(),
            buffered: ledger.buffered.get().try_into().unwrap_or_default(),
            ended: ledger.endings(),
        });
        Self {
            lines: lines.collect(),
            cut,
        }
    }

    /// All counts together: as long as they change, something moves.
    pub(crate) fn moved(&self) -> u64 {
        let lines = self.lines.iter();
        let counts = lines.map(|line| {
            let ended = line.ended.iter().map(|(_, _, events)| events).sum::<u64>();
            line.received + line.sent + ended
        });
        counts.sum()
    }

    /// Events that were given up because the process stopped.
    pub fn abandoned(&self) -> u64 {
        let ended = self.lines.iter().flat_map(|line| &line.ended);
        ended
            .filter(|(_, reason, _)| *reason == DEADLINE || *reason == NOT_STARTED)
            .map(|(_, _, events)| events)
            .sum()
    }

    /// The counts of the component `id`.
    pub fn line(&self, id: &str) -> Option<&Line> {
        self.lines.iter().find(|line| &*line.id == id)
    }
}

// === impl Line ===

impl Line {
    /// Events that ended here with this outcome, whatever the reason.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        let ended = self.ended.iter().filter(|(o, _, _)| *o == outcome);
        ended.map(|(_, _, events)| events).sum()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            id,
            received,
            sent,
            buffered,
            ..
        } = self;
        write!(f, "{kind} `{id}`: {received} received")?;
        if *kind != Kind::Sink {
            write!(f, ", {sent} passed on")?;
        }
        for (outcome, reason, events) in &self.ended {
            write!(f, ", {events} {}", outcome.as_str())?;
            if !reason.is_empty() {
                write!(f, " ({reason})")?;
            }
        }
        if *buffered > 0 {
            write!(f, ", {buffered} in the buffer on disk")?;
        }
        Ok(())
    }
}
