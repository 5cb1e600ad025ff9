//! Going round a channel's clients: one task that is woken for an event and writes it to one client after the other.
//!
//! A wake-up for each client would cost more than everything else that is done for a delivery but the write itself: by the time
//! its task runs, what the runtime keeps for it is no longer in the cache. A client's own task is left with what concerns it
//! alone: it reads, keeps time, and takes over whatever its socket does not take at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use evows_core::hub::{Channel, Start};
use parking_lot::Mutex;
use slab::Slab;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Clients between two chances for others to run on this thread.
const TURN: usize = 64;
/// Clients for which one task will do.
const FEW: usize = 64;

/// A client that can be written to from outside its own task.
pub(crate) trait Driven: Send + Sync {
    /// Writes what waits for it; `true` when more does. Must not block.
    fn drive(&self) -> bool;

    /// Wakes its own task.
    fn wake(&self);
}

/// The rounds of one transport, one for each channel that has clients, by the address of the channel.
#[derive(Default)]
pub(crate) struct Rounds(Mutex<HashMap<usize, Arc<Round>>>);

/// Has one client written to when a channel that it follows moves.
#[derive(Clone)]
pub struct Driver {
    pub(crate) rounds: Arc<Rounds>,
    pub(crate) client: Weak<dyn Driven>,
}

/// One client's place in a round, until it is dropped.
pub(crate) struct Seat {
    rounds: Arc<Rounds>,
    round: Arc<Round>,
    lane: usize,
    at: usize,
}

/// One channel's clients, in as many lanes as there are threads to go along them.
struct Round {
    channel: Arc<Channel>,
    lanes: Box<[Lane]>,
    seats: AtomicUsize,
}

#[derive(Default)]
struct Lane {
    members: Mutex<Members>,
    /// Told when nobody is left.
    empty: Notify,
}

#[derive(Default)]
struct Members {
    list: Slab<Weak<dyn Driven>>,
    /// Whether a task goes along this lane.
    is_gone_along: bool,
}

// === impl Driver ===

impl Driver {
    /// Takes a place in the round of a channel: from now on its client is written to whenever that moves. What came before, its
    /// own task has to look for once more.
    pub(crate) fn seat(&self, channel: &Arc<Channel>) -> Seat {
        let mut rounds = self.rounds.0.lock();
        let round = rounds.entry(address(channel));
        let round = round.or_insert_with(|| Arc::new(Round::new(Arc::clone(channel))));
        let nth = round.seats.fetch_add(1, Ordering::Relaxed);
        let lane = nth / FEW % round.lanes.len();
        let mut members = round.lanes[lane].members.lock();
        let at = members.list.insert(Weak::clone(&self.client));
        if !std::mem::replace(&mut members.is_gone_along, true) {
            // It ends with the last one in this lane.
            tokio::spawn(Arc::clone(round).go_along(lane));
        }
        drop(members);
        Seat {
            rounds: Arc::clone(&self.rounds),
            round: Arc::clone(round),
            lane,
            at,
        }
    }
}

// === impl Seat ===

impl Drop for Seat {
    fn drop(&mut self) {
        let mut rounds = self.rounds.0.lock();
        let lane = &self.round.lanes[self.lane];
        let mut members = lane.members.lock();
        members.list.remove(self.at);
        if members.list.is_empty() {
            members.list.shrink_to_fit();
            lane.empty.notify_one();
        }
        drop(members);
        if self.round.seats.fetch_sub(1, Ordering::Relaxed) == 1 {
            rounds.remove(&address(&self.round.channel));
        }
    }
}

fn address(channel: &Arc<Channel>) -> usize {
    Arc::as_ptr(channel).addr()
}

// === impl Round ===

impl Round {
    fn new(channel: Arc<Channel>) -> Self {
        let lanes = Handle::current().metrics().num_workers().max(1);
        Self {
            channel,
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            seats: AtomicUsize::new(0),
        }
    }

    /// Goes along a lane whenever the channel has moved, for as long as there is somebody.
    async fn go_along(self: Arc<Self>, lane: usize) {
        let lane = &self.lanes[lane];
        loop {
            // Taken before anybody is written to: what comes meanwhile is for the next time.
            let mut lead = self.channel.follow(Start::Head);
            let more = lane.pass(|client| client.drive()).await;
            if lane.is_left() {
                return;
            }
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            let moved = tokio::select! {
                moved = lead.ready() => moved,
                () = lane.empty.notified() => true,
            };
            if !moved {
                // Whose channel is closed finds that out by itself.
                lane.pass(|client| {
                    client.wake();
                    false
                })
                .await;
                lane.empty.notified().await;
            }
        }
    }
}

// === impl Lane ===

impl Lane {
    /// Visits everybody; whether any visit returned `true`.
    async fn pass(&self, visit: impl Fn(&dyn Driven) -> bool) -> bool {
        let (mut at, mut more) = (0, false);
        loop {
            for _ in 0..TURN {
                let Some(client) = self.next(&mut at) else {
                    return more;
                };
                more |= visit(&*client);
            }
            tokio::task::yield_now().await;
        }
    }

    /// The first client at a place from `at` on.
    fn next(&self, at: &mut usize) -> Option<Arc<dyn Driven>> {
        let members = self.members.lock();
        while *at < members.list.capacity() {
            let client = members.list.get(*at).and_then(Weak::upgrade);
            *at += 1;
            if client.is_some() {
                return client;
            }
        }
        None
    }

    /// Whether nobody is left. Then nobody goes along it any more.
    fn is_left(&self) -> bool {
        let mut members = self.members.lock();
        let left = members.list.is_empty();
        if left {
            members.is_gone_along = false;
        }
        left
    }
}
