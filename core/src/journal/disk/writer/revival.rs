//! After an error: the database is closed, opened again with back-off, and what was not reported as stored is taken back.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::super::folder::failed;
use super::super::store::Store;
use super::{Attempt, JournalError, RETRY, Writer, attempt, repair};

impl Writer {
    /// Closes the database over an error, to be opened again.
    pub(super) fn fail(&mut self, error: &JournalError) {
        self.refuse_all(error);
        if self.store.is_some() {
            tracing::error!(
                %error, "a journal cannot be written: appends fail until it can be opened again"
            );
            self.retry = Some((Instant::now() + RETRY.0, RETRY.0));
        }
        self.unsynced = None;
        let mut state = self.shared.state.lock();
        // Whoever asks again may be lucky, whatever the reason is.
        state.failure = Some(match error {
            error if error.passes() => error.clone(),
            other => failed(self.folder.path(), io::Error::other(other.to_string())),
        });
        for segment in &mut state.segments {
            segment.keyspace = None;
        }
        drop(state);
        self.drop_store();
    }

    pub(super) fn failure(&self) -> JournalError {
        let failure = self.shared.state.lock().failure.clone();
        failure.unwrap_or(JournalError::Closed)
    }

    pub(super) fn drop_store(&mut self) {
        let store = self.store.take();
        self.shared.state.lock().let_go();
        // fjall panics over its own locks when one of its threads did.
        if catch_unwind(AssertUnwindSafe(|| drop(store))).is_err() {
            tracing::error!("closing the database of a journal ended in a panic");
        }
    }

    /// Opens a failed database again, when it is time.
    pub(super) fn revive(&mut self) {
        let Some((at, delay)) = self.retry else {
            return;
        };
        if Instant::now() < at {
            return;
        }
        match self.try_revive() {
            Ok(()) => {
                self.retry = None;
                self.shared.state.lock().failure = None;
                tracing::info!(journal = %self.folder.path().display(), "the journal can be written again");
            }
            Err(error) => {
                self.fail(&error);
                let delay = (delay * 2).min(RETRY.1);
                self.retry = Some((Instant::now() + delay, delay));
            }
        }
    }

    fn try_revive(&mut self) -> Attempt<()> {
        let path = self.folder.path();
        let whole = repair(&self.folder)?;
        let (store, mut segments) = Store::open(&self.folder, whole)?;
        let next = self.shared.state.lock().next;
        for segment in &mut segments {
            if segment.summary.end > next {
                attempt(path, || store.truncate(segment, next))?;
            }
        }
        let end = segments.iter().map(|it| it.summary.end).max();
        let end = end.unwrap_or(next).max(1);
        if end < next {
            tracing::warn!(
                journal = %path.display(), from = end, to = next - 1,
                "some of these records may be lost"
            );
        }
        // Else a record of a full disk would keep the cursors from being written for good.
        attempt(path, || store.sync())?;
        self.store = Some(store);
        {
            let mut state = self.shared.state.lock();
            state.segments = segments.into();
        }
        self.retain()?;
        if self.shared.state.lock().segments.is_empty() {
            self.roll()?;
        }
        Ok(())
    }
}
