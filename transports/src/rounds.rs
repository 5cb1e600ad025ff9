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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use evows_core::hub::{ChannelName, Hub, Retention};
    use evows_core::testing::event;

    use super::*;

    #[derive(Default)]
    struct Client {
        driven: AtomicUsize,
        woken: AtomicUsize,
        /// How often more waits for it than it takes at once.
        more: AtomicUsize,
    }

    impl Driven for Client {
        fn drive(&self) -> bool {
            self.driven.fetch_add(1, Ordering::Relaxed);
            let took = |left: usize| left.checked_sub(1);
            let (order, more) = (Ordering::Relaxed, &self.more);
            more.fetch_update(order, order, took).is_ok()
        }

        fn wake(&self) {
            self.woken.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Scene {
        hub: Hub,
        name: ChannelName,
        rounds: Arc<Rounds>,
    }

    impl Scene {
        fn new() -> Self {
            let name = ChannelName::root();
            let hub = Hub::new(Retention::default());
            hub.open(&name);
            Self {
                hub,
                name,
                rounds: Arc::default(),
            }
        }

        fn seat(&self, client: &Arc<Client>) -> Seat {
            let client: Weak<Client> = Arc::downgrade(client);
            let driver = Driver {
                rounds: Arc::clone(&self.rounds),
                client,
            };
            driver.seat(&self.hub.open(&self.name))
        }

        fn publish(&self) {
            let event = event(r#"{"event":"call","instance":"a"}"#);
            let names = std::slice::from_ref(&self.name);
            self.hub.publish([(&event, names)]);
        }
    }

    /// Waits for the tasks that go round, which have nothing to wait for but what the test does.
    async fn until(mut holds: impl FnMut() -> bool) {
        let polled = async {
            while !holds() {
                tokio::task::yield_now().await;
            }
        };
        let limit = Duration::from_secs(20);
        tokio::time::timeout(limit, polled).await.expect("in time");
    }

    fn driven(client: &Client) -> usize {
        client.driven.load(Ordering::Relaxed)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn everybody_is_gone_round_to_in_whatever_lane() {
        let scene = Scene::new();
        let clients: Vec<Arc<Client>> = (0..3 * FEW + 5).map(|_| Arc::default()).collect();
        let mut seats: Vec<_> = clients.iter().map(|client| scene.seat(client)).collect();
        for _ in 0..3 {
            let before: Vec<_> = clients.iter().map(|client| driven(client)).collect();
            scene.publish();
            let moved = || clients.iter().zip(&before).all(|(it, n)| driven(it) > *n);
            until(moved).await;
        }
        // Whoever leaves is not gone round to; whoever comes in its place is.
        drop(seats.remove(0));
        until(|| Arc::weak_count(&clients[0]) == 0).await;
        let late = Arc::default();
        let _late = scene.seat(&late);
        scene.publish();
        until(|| driven(&late) > 0).await;
    }

    #[tokio::test]
    async fn who_takes_only_a_part_gets_the_rest_without_another_event() {
        let scene = Scene::new();
        let client = Arc::new(Client {
            more: AtomicUsize::new(3),
            ..Client::default()
        });
        let _seat = scene.seat(&client);
        scene.publish();
        until(|| client.more.load(Ordering::Relaxed) == 0).await;
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_round_that_nobody_sits_in() {
        let scene = Scene::new();
        let client = Arc::default();
        let seats = [scene.seat(&client), scene.seat(&client)];
        let round = {
            let rounds = scene.rounds.0.lock();
            Arc::downgrade(rounds.values().next().unwrap())
        };
        tokio::task::yield_now().await;
        drop(seats);
        assert!(scene.rounds.0.lock().is_empty());
        until(|| round.strong_count() == 0).await;
    }

    #[tokio::test]
    async fn a_closed_channel_wakes_everybody_and_whoever_comes_too_late() {
        let scene = Scene::new();
        let channel = scene.hub.open(&scene.name);
        let client: Arc<Client> = Arc::default();
        let seat = scene.seat(&client);
        tokio::task::yield_now().await;
        scene.hub.close(&scene.name);
        until(|| client.woken.load(Ordering::Relaxed) > 0).await;
        drop(seat);
        let late: Arc<Client> = Arc::default();
        let weak: Weak<Client> = Arc::downgrade(&late);
        let driver = Driver {
            rounds: Arc::clone(&scene.rounds),
            client: weak,
        };
        let _seat = driver.seat(&channel);
        until(|| late.woken.load(Ordering::Relaxed) > 0).await;
    }
}
