//! The hub between threads: what is published is seen in order, once by each cursor, or a gap is told; nobody sleeps on.
//!
//! With every test run the scene is played on real threads for a moment. Shuttle plays it in thousands of orders of its own
//! choice, and a lost wake-up is a deadlock that it reports with the order that led there:
//!
//!     RUSTFLAGS="--cfg evows_shuttle" cargo test -p evows-core --lib --target-dir target/shuttle hub::threads

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use self::play::{block_on, play, spawn};
use super::{ChannelName, Cursor, Gap, Hub, Offset, Retention, Start};
use crate::Event;

/// What one client got.
#[derive(Default)]
struct Seen {
    offsets: Vec<Offset>,
    gaps: Vec<Gap>,
}

/// Who plays the scene.
#[cfg(not(evows_shuttle))]
mod play {
    use std::pin::pin;
    use std::time::{Duration, Instant};

    pub(super) use std::thread::spawn;

    const TIME: Duration = Duration::from_millis(300);
    const PATIENCE: Duration = Duration::from_secs(30);

    pub(super) fn play(scene: impl Fn() + Send + Sync + 'static) {
        let started = Instant::now();
        while started.elapsed() < TIME {
            scene();
        }
    }

    pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let future = pin!(future);
        let done = runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await });
        done.expect("nobody sleeps on while entries wait")
    }
}

#[cfg(evows_shuttle)]
mod play {
    pub(super) use shuttle::future::block_on;
    pub(super) use shuttle::thread::spawn;

    const ORDERS: usize = 10_000;

    pub(super) fn play(scene: impl Fn() + Send + Sync + Copy + 'static) {
        shuttle::check_random(scene, ORDERS);
        shuttle::check_pct(scene, ORDERS, 3);
    }
}

fn names() -> [ChannelName; 2] {
    [ChannelName::root(), ChannelName::of_instance("a").unwrap()]
}

/// Publishes one event after the other to every channel of `names`; returns their offsets.
fn publish(hub: &Hub, names: &[ChannelName], events: usize) -> Vec<Offset> {
    let envelope = &br#"{"event":"call","instance":"a"}"#[..];
    let event = Event::parse(envelope.into(), SystemTime::UNIX_EPOCH).unwrap();
    let publish = |_| hub.publish([(&event, names)]).head.offset;
    (0..events).map(publish).collect()
}

/// Reads for as many rounds, or until the channel is closed. In every other round only the first entry is taken, as by a peer
/// whose buffer is full.
async fn follow(cursor: &mut Cursor, seen: &mut Seen, rounds: usize) {
    for round in 0..rounds {
        if !cursor.ready().await {
            return;
        }
        let mut offsets = Vec::new();
        let ahead = cursor.peek(2, |entry| offsets.push(entry.position.offset));
        offsets.truncate(if round % 2 == 0 { 1 } else { 2 });
        let last = offsets.last().copied().unwrap_or(ahead.reached());
        cursor.pass(&ahead, offsets.len() as u64, last);
        seen.gaps.extend(ahead.gap);
        seen.offsets.extend(offsets);
    }
}

/// Follows a channel to its end, on one thread and then on another.
fn client(mut cursor: Cursor) -> Seen {
    let mut seen = Seen::default();
    block_on(follow(&mut cursor, &mut seen, 1));
    let rest = spawn(move || {
        block_on(follow(&mut cursor, &mut seen, usize::MAX));
        seen
    });
    rest.join().unwrap()
}

fn check(published: &[Offset], seen: &Seen) {
    assert!(
        seen.offsets.is_sorted_by(|a, b| a < b),
        "{:?}",
        seen.offsets
    );
    for offset in published {
        let got = seen.offsets.contains(offset);
        let mut gaps = seen.gaps.iter();
        let lost = gaps.any(|gap| gap.after.offset < *offset && *offset <= gap.through.offset);
        assert!(got != lost, "{offset}: {:?}, {:?}", seen.offsets, seen.gaps);
    }
    let foreign = seen
        .offsets
        .iter()
        .find(|offset| !published.contains(offset));
    assert_eq!(foreign, None);
}

/// Two publishers, one for both channels and one for the first alone, a client of each, and at last the end of both channels.
fn scene(events: usize) {
    let retention = Retention {
        events,
        bytes: usize::MAX,
        age: Duration::MAX,
    };
    let hub = Arc::new(Hub::new(retention));
    let clients = names().map(|name| {
        let cursor = hub.open(&name).follow(Start::Head);
        spawn(move || client(cursor))
    });
    let publishers = [2, 1].map(|channels| {
        let hub = Arc::clone(&hub);
        spawn(move || publish(&hub, &names()[..channels], 3))
    });
    let [both, first] = publishers.map(|publisher| publisher.join().unwrap());
    for name in names() {
        hub.close(&name);
    }
    let [root, own] = clients.map(|client| client.join().unwrap());
    check(&[&both[..], &first].concat(), &root);
    check(&both, &own);
}

#[test]
fn every_entry_is_seen_once_and_nobody_sleeps_on() {
    play(|| scene(100));
}

#[test]
fn what_is_overrun_is_told() {
    play(|| scene(2));
}

#[test]
fn what_is_in_a_channel_is_in_the_root() {
    play(|| {
        let hub = Arc::new(Hub::new(Retention::default()));
        let [root, own] = names().map(|name| hub.open(&name));
        let publisher = {
            let hub = Arc::clone(&hub);
            let [root, own] = names();
            spawn(move || publish(&hub, &[own, root], 3))
        };
        for _ in 0..4 {
            let seen = own.head();
            assert!(root.head().offset >= seen.offset, "{seen}");
        }
        publisher.join().unwrap();
    });
}

#[test]
fn who_goes_round_misses_nobody() {
    play(|| {
        let hub = Arc::new(Hub::new(Retention::default()));
        let channel = hub.open(&names()[0]);
        let (mut lead, mut cursor) = (channel.watch(), channel.follow(Start::Head));
        let round = spawn(move || {
            block_on(async {
                let mut seen = Vec::new();
                loop {
                    lead.look();
                    // As for a client that was just gone round to.
                    if cursor.is_behind() {
                        let ahead = cursor.peek(9, |entry| seen.push(entry.position.offset));
                        cursor.pass_all(&ahead);
                    }
                    if !lead.moved().await {
                        return seen;
                    }
                }
            })
        });
        let published = publish(&hub, &names()[..1], 3);
        hub.close(&names()[0]);
        assert_eq!(round.join().unwrap(), published);
    });
}
