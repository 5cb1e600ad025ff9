//! What one client is served: the channels that it follows, as one stream of frames.
//!
//! A client costs a cursor for each channel, and nothing that waits for it is held for it. A [`Batch`] shows what lies in front
//! of the cursors; they move only past what was begun to be written. So a client that takes nothing pins at most the one entry
//! that it has half of.

use std::sync::Arc;
use std::task::{Context, Poll};

use evows_core::hub::{
    Ahead, Channel, Cursor, Entry, Frame, FrameKey, Gap, Offset, Position, Variant,
};
use smallvec::SmallVec;

use crate::clients::Clients;
use crate::engineio::Close;
use crate::rounds::{Driver, Seat};
use crate::socketio::SlowClient;

/// Entries that one batch shows at most.
const MOST: usize = 64;

/// Entries to be written to one client, in order.
#[derive(Debug, Default)]
pub struct Batch {
    items: SmallVec<[Item; MOST]>,
    ahead: SmallVec<[Ahead; 1]>,
}

/// An entry and which of its frames is written. The frame is made.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    entry: Arc<Entry>,
    key: FrameKey,
    from: usize,
}

/// The channels that one client follows, each with what `T` says about it.
pub(crate) struct Feed<T> {
    list: SmallVec<[Following<T>; 1]>,
    /// Who writes to the client when a channel moves, if not its own task.
    driver: Option<Driver>,
}

/// One channel that a client follows.
pub(crate) struct Following<T> {
    pub(crate) cursor: Cursor,
    pub(crate) about: T,
    key: FrameKey,
    seat: Option<Seat>,
}

/// What happens to clients that do not keep up, the same for every transport.
#[derive(Clone)]
pub(crate) struct Slow {
    pub(crate) policy: SlowClient,
    pub(crate) clients: Arc<Clients>,
}

/// A client has fallen behind what a channel retains.
#[derive(Debug, Clone, Copy)]
struct Gapped {
    at: usize,
    gap: Gap,
}

// === impl Batch ===

impl Batch {
    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn items(&self) -> &[Item] {
        &self.items
    }

    /// How many of the first `count` reach the client: some may be kept from it, such as those with reserved names.
    pub(crate) fn deliveries(&self, count: usize) -> u64 {
        let begun = self.items.iter().take(count);
        begun.filter(|item| item.len() > 0).count() as u64
    }

    fn clear(&mut self) {
        self.items.clear();
        self.ahead.clear();
    }
}

// === impl Item ===

impl Item {
    pub(crate) fn frame(&self) -> Option<&Frame> {
        self.entry.framed(self.key)
    }

    /// Bytes on the wire.
    pub(crate) fn len(&self) -> usize {
        self.frame().map_or(0, Frame::len)
    }

    fn offset(&self) -> Offset {
        self.entry.position.offset
    }
}

// === impl Feed ===

impl<T> Feed<T> {
    pub(crate) fn new() -> Self {
        Self {
            list: SmallVec::new(),
            driver: None,
        }
    }

    pub(crate) fn list(&self) -> &[Following<T>] {
        &self.list
    }

    /// Follows a channel from where `cursor` stands, its entries framed in `variant`.
    pub(crate) fn follow(&mut self, cursor: Cursor, variant: Variant, about: T) {
        let key = cursor.channel().frame_key(variant);
        let seat = self.driver.as_ref().map(|it| it.seat(cursor.channel()));
        self.list.push(Following {
            cursor,
            about,
            key,
            seat,
        });
    }

    /// Has the client written to by `driver`, and wakes its own task no more. What waits now, that has to look for.
    pub(crate) fn seat(&mut self, driver: &Driver) {
        for it in &mut self.list {
            it.cursor.unwatched();
            it.seat = Some(driver.seat(it.cursor.channel()));
        }
        self.driver = Some(driver.clone());
    }

    /// Follows it no more.
    pub(crate) fn leave(&mut self, channel: &str) -> Option<T> {
        let at = self.find(channel)?;
        let left = self.list.remove(at);
        if self.list.len() <= 1 {
            self.list.shrink_to_fit();
        }
        Some(left.about)
    }

    /// Whether it follows the channel of this name.
    pub(crate) fn follows(&self, channel: &str) -> bool {
        self.find(channel).is_some()
    }

    fn find(&self, channel: &str) -> Option<usize> {
        self.list.iter().position(|it| it.name() == channel)
    }

    /// Whether anything waits.
    pub(crate) fn is_behind(&self) -> bool {
        self.list.iter().any(|it| it.cursor.is_behind())
    }

    /// Whether anything waits that is in memory alone, or soon will be read from there.
    pub(crate) fn is_owed(&self) -> bool {
        let behind = |it: &&Following<T>| it.cursor.is_behind();
        let (past, owed): (Vec<_>, Vec<_>) =
            (self.list.iter().filter(behind)).partition(|it| it.cursor.is_in_past());
        // What has to wait for the root's copies is not owed before those are.
        !owed.is_empty() && !past.into_iter().any(Following::is_root)
    }

    /// Whether something that waited is gone.
    pub(crate) fn is_overrun(&self) -> bool {
        self.list.iter().any(|it| it.cursor.is_overrun())
    }

    /// Bytes that wait in all.
    pub(crate) fn bytes_behind(&self) -> u64 {
        self.list.iter().map(|it| it.cursor.bytes_behind()).sum()
    }

    /// Shows what waits. A gap ends the client, or it is told of it with `tell`: then the batch is empty, and what is retained
    /// comes with the next call. While it is pending, the task is woken by whatever comes, unless there is a driver.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        slow: &Slow,
        frame: impl Fn(&Following<T>, &Entry) -> Frame,
        mut tell: impl FnMut(&Following<T>, Gap),
    ) -> Poll<Result<(), Close>> {
        loop {
            match self.fill(batch, &frame) {
                Ok(()) if !batch.is_empty() => return Poll::Ready(Ok(())),
                Ok(()) => {}
                Err(gapped) => {
                    slow.misses("gap")?;
                    if let Some(it) = self.list.get(gapped.at) {
                        tell(it, gapped.gap);
                    }
                    self.pass_gap(&gapped);
                    return Poll::Ready(Ok(()));
                }
            }
            match self.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Close("namespace_closed"))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The client takes nothing: it goes, or what waits for it does, of which it is told with `tell`.
    pub(crate) fn lags(
        &mut self,
        slow: &Slow,
        tell: impl FnMut(&Following<T>, Gap),
    ) -> Result<(), Close> {
        let overrun = self.is_overrun();
        slow.misses(if overrun { "gap" } else { "slow" })?;
        self.skip(tell);
        Ok(())
    }

    /// Shows what waits, or what is missing in front of it: then the batch is empty, for nothing may pass what the client was not
    /// told of. Of one event the root's copy comes first (contract section 9, vector 8).
    fn fill(
        &mut self,
        batch: &mut Batch,
        frame: impl Fn(&Following<T>, &Entry) -> Frame,
    ) -> Result<(), Gapped> {
        batch.clear();
        match self.list.as_mut_slice() {
            [] => return Ok(()),
            [only] => {
                if !only.cursor.is_behind() {
                    return Ok(());
                }
                batch.ahead.push(only.show(0, MOST, &mut batch.items));
            }
            several => merge(several, batch),
        }
        let gaps = batch.ahead.iter().map(|ahead| ahead.gap);
        let gapped = gaps
            .enumerate()
            .find_map(|(at, gap)| gap.map(|gap| Gapped { at, gap }));
        if let Some(gapped) = gapped {
            batch.clear();
            return Err(gapped);
        }
        for (it, ahead) in self.list.iter_mut().zip(&batch.ahead) {
            if ahead.shown() == 0 {
                it.cursor.pass_all(ahead);
            }
        }
        for item in &batch.items {
            if let Some(from) = self.list.get(item.from) {
                item.entry.frame(item.key, |entry| frame(from, entry));
            }
        }
        Ok(())
    }

    /// Moves past the first `count` entries of a batch that was filled here.
    pub(crate) fn passed(&mut self, batch: &Batch, count: usize) {
        let begun = batch.items.get(..count).unwrap_or(&batch.items);
        for (at, (it, ahead)) in self.list.iter_mut().zip(&batch.ahead).enumerate() {
            let own = begun.iter().filter(|item| item.from == at);
            let (count, last) = own.fold((0, None), |(n, _), item| (n + 1, Some(item.offset())));
            if let Some(last) = last {
                it.cursor.pass(ahead, count, last);
            }
        }
    }

    /// Moves past what is missing.
    fn pass_gap(&mut self, gapped: &Gapped) {
        if let Some(it) = self.list.get_mut(gapped.at) {
            it.cursor.pass_gap(&gapped.gap);
        }
    }

    /// Moves to the heads, and says what each channel's client misses by that.
    fn skip(&mut self, mut missed: impl FnMut(&Following<T>, Gap)) {
        for it in &mut self.list {
            let (after, epoch) = (it.cursor.offset(), it.cursor.channel().head().epoch);
            it.cursor.skip();
            let through = it.cursor.offset();
            if through > after {
                let [after, through] = [after, through].map(|offset| Position { epoch, offset });
                missed(it, Gap { after, through });
            }
        }
    }

    /// Whether something waits; `Ready(Err)` names a channel that is closed. While pending, the task
    /// is woken by whatever comes, unless somebody else is.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Arc<Channel>>> {
        let (mut ready, mut held) = (Poll::Pending, false);
        for it in &mut self.list {
            let moved = match it.seat {
                Some(_) => it.cursor.poll_unwatched(cx),
                None => it.cursor.poll_ready(cx),
            };
            match moved {
                Poll::Ready(true) => ready = Poll::Ready(Ok(())),
                Poll::Ready(false) => return Poll::Ready(Err(Arc::clone(it.cursor.channel()))),
                // The others' copies have to wait for the root's until those are read back.
                Poll::Pending if it.is_root() && it.cursor.is_behind() => held = true,
                Poll::Pending => {}
            }
        }
        if held { Poll::Pending } else { ready }
    }
}

/// Merges what waits in several channels by offset, as far as all of them were looked at.
fn merge<T>(several: &[Following<T>], batch: &mut Batch) {
    let share = MOST / several.len().clamp(1, MOST / 4);
    // The root is looked at last. An event is appended to the root first, so what is seen elsewhere is then seen there, too.
    let (roots, others): (Vec<_>, Vec<_>) =
        several.iter().enumerate().partition(|(_, it)| it.is_root());
    let mut shown: Vec<_> = others
        .into_iter()
        .chain(roots)
        .map(|(at, it)| (at, it.show(at, share, &mut batch.items)))
        .collect();
    shown.sort_by_key(|(at, _)| *at);
    // Behind the last one shown of a channel that has more, that channel's next one may come. Who is far behind in one channel
    // is served the others meanwhile, but for what the root's copies have to come in front of.
    let partly = |at: &usize, ahead: &Ahead, of_root: bool| {
        let root = several.get(*at).is_some_and(Following::is_root);
        ahead.has_more() && (of_root && root || !ahead.is_in_past())
    };
    let bound = |of_root: bool| {
        let partly = shown
            .iter()
            .filter(|(at, ahead)| partly(at, ahead, of_root));
        partly.map(|(_, ahead)| ahead.reached()).min()
    };
    let is_root = |item: &Item| several.get(item.from).is_some_and(Following::is_root);
    let (for_root, for_others) = (bound(false), bound(true));
    batch.items.retain(|item| {
        let bound = if is_root(item) { for_root } else { for_others };
        bound.is_none_or(|bound| item.offset() <= bound)
    });
    let order = |item: &Item| (item.offset(), !is_root(item));
    batch.items.sort_by_key(order);
    batch.ahead = shown.into_iter().map(|(_, ahead)| ahead).collect();
}

// === impl Slow ===

impl Slow {
    /// Counts what a client misses for this reason; the error ends it where that is the policy.
    fn misses(&self, reason: &'static str) -> Result<(), Close> {
        self.clients.undelivered(reason);
        match self.policy {
            SlowClient::Disconnect => Err(Close(reason)),
            SlowClient::Skip => Ok(()),
        }
    }
}

// === impl Following ===

impl<T> Following<T> {
    /// The channel's name.
    pub(crate) fn name(&self) -> &str {
        self.cursor.channel().name().as_str()
    }

    fn is_root(&self) -> bool {
        self.cursor.channel().name().is_root()
    }

    fn show(&self, from: usize, most: usize, items: &mut SmallVec<[Item; MOST]>) -> Ahead {
        self.cursor.peek(most, |entry| {
            items.push(Item {
                entry: Arc::clone(entry),
                key: self.key,
                from,
            });
        })
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;
    use evows_core::hub::{ChannelName, Hub, Retention, Start};
    use evows_core::metrics::Metrics;
    use evows_core::testing::event;

    use super::*;
    use crate::admission::Admission;

    #[test]
    fn behind_a_gap_that_was_told_everything_retained_is_shown() {
        let hub = Hub::new(Retention {
            events: 3,
            ..Retention::default()
        });
        let name = ChannelName::root();
        let mut feed = Feed::new();
        let cursor = hub.open(&name).follow(Start::Head);
        feed.follow(cursor, Variant::unique(), ());
        for _ in 0..10 {
            let event = event(r#"{"event":"call","instance":"a"}"#);
            hub.publish([(&event, std::slice::from_ref(&name))]);
        }
        let admission = Admission::new(0);
        let clients = Clients::new(&"test".into(), &Metrics::new(), admission);
        let slow = Slow {
            policy: SlowClient::Skip,
            clients: Arc::new(clients),
        };
        let frame = |_: &Following<()>, _: &Entry| Frame::new([Bytes::from_static(b"x")]);
        let cx = &mut Context::from_waker(Waker::noop());
        let (mut batch, mut gaps) = (Batch::default(), Vec::new());

        let told = feed.poll_fill(cx, &mut batch, &slow, frame, |_, gap| gaps.push(gap));
        assert_eq!((told, gaps.len(), batch.len()), (Poll::Ready(Ok(())), 1, 0));
        // As its caller does with whatever it was shown.
        feed.passed(&batch, batch.len());
        let shown = feed.poll_fill(cx, &mut batch, &slow, frame, |_, gap| gaps.push(gap));
        assert_eq!(
            (shown, gaps.len(), batch.len()),
            (Poll::Ready(Ok(())), 1, 3)
        );
        assert_eq!(batch.deliveries(3), 3);
    }

    struct Nobody;

    impl crate::rounds::Driven for Nobody {
        fn drive(&self) -> bool {
            false
        }

        fn wake(&self) {}
    }

    #[tokio::test]
    async fn who_is_gone_round_to_is_not_woken_as_well() {
        let hub = Hub::new(Retention::default());
        let channel = hub.open(&ChannelName::root());
        let mut feed = Feed::new();
        feed.follow(channel.follow(Start::Head), Variant::unique(), ());
        // As a request on long-polling that waits.
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(feed.poll_ready(cx).is_pending());
        assert_eq!(channel.waiting(), 1);

        let client: Arc<Nobody> = Arc::new(Nobody);
        let weak: std::sync::Weak<Nobody> = Arc::downgrade(&client);
        feed.seat(&Driver {
            rounds: Arc::default(),
            client: weak,
        });
        assert!(feed.poll_ready(cx).is_pending());
        // Its lane has not begun to wait yet.
        assert_eq!(channel.waiting(), 0);
    }
}
