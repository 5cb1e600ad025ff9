//! Going round a channel's clients: one task that is woken for an event and writes it to one client after the other.
//!
//! A wake-up for each client would cost more than everything else that is done for a delivery but the write itself: by the time
//! its task runs, what the runtime keeps for it is no longer in the cache. A client's own task is left with what concerns it
//! alone: it reads, keeps time, and takes over whatever its socket does not take at once.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use evows_core::hub::Channel;
use parking_lot::Mutex;
use slab::Slab;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Clients between two chances for others to run on this thread.
const TURN: usize = 64;
/// Clients for which one task will do, however many threads there are.
const FEW: usize = 64;

/// A client that can be written to from outside its own task.
pub(crate) trait Driven: Send + Sync {
    /// Writes some of what waits for it; `true` when more does. Must not wait for its peer, nor panic.
    fn drive(&self) -> bool;

    /// Wakes its own task.
    fn wake(&self);
}

/// The rounds of one transport: the lanes of each channel that has clients, by the address of the channel. There are as many as
/// its clients are worth, and no more than threads.
#[derive(Default)]
pub(crate) struct Rounds(Mutex<HashMap<usize, Vec<Arc<Lane>>>>);

/// Has one client written to when a channel that it follows moves.
#[derive(Clone)]
pub struct Driver {
    pub(crate) rounds: Arc<Rounds>,
    pub(crate) client: Weak<dyn Driven>,
}

/// One client's place in a round, until it is dropped.
pub(crate) struct Seat {
    rounds: Arc<Rounds>,
    lane: Arc<Lane>,
    at: usize,
}

/// Clients of a channel that one task goes along.
struct Lane {
    channel: Arc<Channel>,
    members: Mutex<Slab<Weak<dyn Driven>>>,
    /// Told when nobody is left, which is for good.
    left: Notify,
}

// === impl Driver ===

impl Driver {
    /// Takes a place in the round of a channel: from now on its client is written to whenever that moves. What came before, its
    /// own task has to look for once more.
    pub(crate) fn seat(&self, channel: &Arc<Channel>) -> Seat {
        let threads = Handle::current().metrics().num_workers().max(1);
        let mut rounds = self.rounds.0.lock();
        let lanes = rounds.entry(address(channel)).or_default();
        let seated: usize = lanes.iter().map(|lane| lane.len()).sum();
        let shortest = lanes.iter().min_by_key(|lane| lane.len());
        // One more lane for every so many clients, as far as there are threads for it.
        let wanted = (seated / FEW + 1).min(threads);
        let known = shortest.filter(|_| lanes.len() >= wanted).cloned();
        let lane = known.clone().unwrap_or_else(|| {
            let lane = Arc::new(Lane::new(Arc::clone(channel)));
            lanes.push(Arc::clone(&lane));
            lane
        });
        let at = lane.members.lock().insert(Weak::clone(&self.client));
        if known.is_none() {
            // It ends with the last client of this lane. It yields by itself: with a budget for the whole round, clients in its
            // second half would look as if they took nothing.
            tokio::spawn(tokio::task::unconstrained(Arc::clone(&lane).go_along()));
        }
        let rounds = Arc::clone(&self.rounds);
        Seat { rounds, lane, at }
    }
}

// === impl Seat ===

impl Drop for Seat {
    fn drop(&mut self) {
        let mut rounds = self.rounds.0.lock();
        let mut members = self.lane.members.lock();
        members.remove(self.at);
        if !members.is_empty() {
            return;
        }
        // Whoever comes now gets another lane: this one ends.
        let channel = address(&self.lane.channel);
        if let Some(lanes) = rounds.get_mut(&channel) {
            lanes.retain(|lane| !Arc::ptr_eq(lane, &self.lane));
            if lanes.is_empty() {
                rounds.remove(&channel);
            }
        }
        self.lane.left.notify_one();
    }
}

fn address(channel: &Arc<Channel>) -> usize {
    Arc::as_ptr(channel).addr()
}

// === impl Lane ===

impl Lane {
    fn new(channel: Arc<Channel>) -> Self {
        Self {
            channel,
            members: Mutex::default(),
            left: Notify::new(),
        }
    }

    fn len(&self) -> usize {
        self.members.lock().len()
    }

    /// Visits everybody whenever the channel has moved, for as long as there is somebody.
    async fn go_along(self: Arc<Self>) {
        let mut lookout = self.channel.watch();
        loop {
            // Before anybody is written to: what comes meanwhile is for the next time.
            lookout.look();
            let more = self.pass(|client| client.drive()).await;
            if self.len() == 0 {
                return;
            }
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            let closed = tokio::select! {
                moved = lookout.moved() => !moved,
                () = self.left.notified() => return,
            };
            if closed {
                // Each finds out by itself, and goes.
                self.pass(|client| {
                    client.wake();
                    false
                })
                .await;
                self.left.notified().await;
                return;
            }
        }
    }

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
        while *at < members.capacity() {
            let client = members.get(*at).and_then(Weak::upgrade);
            *at += 1;
            if client.is_some() {
                return client;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
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
        let lane = Arc::downgrade(&seats[0].lane);
        tokio::task::yield_now().await;
        drop(seats);
        assert!(scene.rounds.0.lock().is_empty());
        until(|| lane.strong_count() == 0).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn lanes_stay_even_while_clients_come_and_go() {
        let scene = Scene::new();
        let client = Arc::default();
        let mut seats: Vec<_> = (0..4 * FEW).map(|_| scene.seat(&client)).collect();
        for _ in 0..10 * FEW {
            // The oldest go first.
            seats.remove(0);
            seats.push(scene.seat(&client));
        }
        let rounds = scene.rounds.0.lock();
        let lengths: Vec<_> = rounds.values().flatten().map(|lane| lane.len()).collect();
        assert_eq!(lengths, [2 * FEW; 2]);
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
