//! Cursors that come back later than the channels' memory reaches.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::super::{Channel, Cursor, Gap, Hub, Resume, Since, Start};
use super::*;
use crate::journal::{self, Bounds, Memory, Page};
use crate::testing::event;

/// Events that a channel retains in memory.
const RING: usize = 4;

fn retention() -> Retention {
    Retention {
        events: RING,
        bytes: usize::MAX,
        age: Duration::MAX,
    }
}

fn names() -> [ChannelName; 3] {
    let instance = |name| ChannelName::of_instance(name).unwrap();
    [ChannelName::root(), instance("a"), instance("b")]
}

async fn hub(journal: &Arc<dyn Journal>) -> Hub {
    let history = History::open(Arc::clone(journal), &retention()).await;
    let hub = Hub::with_history(retention(), history.unwrap());
    for name in names() {
        hub.open(&name);
    }
    hub.opened_all();
    hub
}

fn memory() -> Arc<dyn Journal> {
    Arc::new(Memory::new(journal::Retention::default()))
}

/// Publishes to `/` and one of the others, and returns the offset.
async fn publish(hub: &Hub, instance: usize) -> Offset {
    let names = names();
    let channels = [names[0].clone(), names[instance].clone()];
    let event = event(r#"{"event":"call","instance":"a"}"#);
    let published = hub.store_and_publish(vec![(&event, &channels)]).await;
    published.unwrap().0.head.offset
}

/// What a client has seen.
#[derive(Debug, Default)]
struct Seen {
    offsets: Vec<Offset>,
    gaps: Vec<(Offset, Offset)>,
}

impl Seen {
    fn missed(&mut self, gap: &Gap) {
        self.gaps.push((gap.after.offset, gap.through.offset));
    }

    /// Reads on, up to `most` entries.
    async fn read(&mut self, cursor: &mut Cursor, mut most: usize) {
        while most > 0 && cursor.is_behind() {
            cursor.fetched().await;
            let mut entries = Vec::new();
            if let Some(gap) = cursor.read(most.min(3), &mut entries) {
                self.missed(&gap);
            }
            most -= entries.len();
            self.offsets
                .extend(entries.iter().map(|it| it.position.offset));
        }
    }

    fn is_missing(&self, offset: Offset) -> bool {
        let mut gaps = self.gaps.iter();
        gaps.any(|(after, through)| *after < offset && offset <= *through)
    }
}

fn channel(hub: &Hub, at: usize) -> Arc<Channel> {
    hub.channel(&names()[at]).unwrap()
}

fn behind(hub: &Hub, offset: Offset) -> Since {
    Since::Position(Position {
        epoch: hub.epoch(),
        offset,
    })
}

fn resume(hub: &Hub, at: usize, since: &Since) -> (Resume, Cursor) {
    let channel = channel(hub, at);
    let resume = channel.resume(since);
    (resume, channel.follow(Start::Resume(resume)))
}

#[derive(Debug, Clone)]
enum Step {
    Publish {
        instance: usize,
    },
    /// A client comes back with a position that lies so far back.
    Resume {
        channel: usize,
        back: u64,
    },
    Earliest {
        channel: usize,
    },
    Read {
        client: usize,
        most: usize,
    },
    /// The oldest records go, but for so many.
    Trim {
        left: u64,
    },
    /// Something is stored that nobody can read.
    Lose,
    /// Everybody leaves, and nobody publishes for a moment.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let channel = || 0..3_usize;
    let step = prop_oneof![
        20 => (1..3_usize).prop_map(|instance| Step::Publish { instance }),
        3 => (channel(), 0..40_u64).prop_map(|(channel, back)| Step::Resume { channel, back }),
        1 => channel().prop_map(|channel| Step::Earliest { channel }),
        8 => (0..6_usize, 1..9_usize).prop_map(|(client, most)| Step::Read { client, most }),
        1 => (0..30_u64).prop_map(|left| Step::Trim { left }),
        1 => Just(Step::Lose),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..150)
}

struct Client {
    channel: usize,
    from: Offset,
    cursor: Cursor,
    seen: Seen,
}

impl Client {
    /// Everything once and in order, or told to be missing; and nothing that is there was said to be missing.
    fn check(&self, log: &[Offset], lost: &[Offset], oldest: Offset) {
        let seen = &self.seen;
        assert!(seen.offsets.is_sorted_by(|a, b| a < b), "{seen:?}");
        let wanted = log.iter().filter(|it| **it > self.from);
        for offset in wanted {
            let got = seen.offsets.contains(offset);
            assert!(got || seen.is_missing(*offset), "{offset}: {seen:?}");
            // What a hole is told with may reach over what is delivered all the same.
            let sound = lost.is_empty() && *offset >= oldest;
            assert!(got || !sound, "{offset} is there: {seen:?}");
        }
        assert!(seen.offsets.iter().all(|it| log.contains(it)), "{seen:?}");
    }
}

async fn run(steps: Vec<Step>) {
    let journal = memory();
    let mut hub = hub(&journal).await;
    let mut log: [Vec<Offset>; 3] = Default::default();
    let (mut clients, mut lost): (Vec<Client>, Vec<Offset>) = Default::default();
    let follow = |hub: &Hub, at, since: Since| {
        let (resume, cursor) = resume(hub, at, &since);
        let mut seen = Seen::default();
        resume.gap.iter().for_each(|gap| seen.missed(gap));
        let from = match since {
            Since::Position(there) => there.offset,
            _ => resume.from.offset,
        };
        Client {
            channel: at,
            from,
            cursor,
            seen,
        }
    };
    let settle = async |clients: &mut Vec<Client>, log: &[Vec<Offset>; 3], lost: &[Offset]| {
        for mut client in clients.drain(..) {
            client.seen.read(&mut client.cursor, usize::MAX).await;
            let oldest = journal.bounds().oldest.into();
            client.check(&log[client.channel], lost, oldest);
        }
    };
    for step in steps {
        match step {
            Step::Publish { instance } => {
                let offset = publish(&hub, instance).await;
                log[0].push(offset);
                log[instance].push(offset);
            }
            Step::Resume { channel, back } => {
                let head = hub.head().offset.get();
                let since = behind(&hub, head.saturating_sub(back).into());
                clients.push(follow(&hub, channel, since));
            }
            Step::Earliest { channel } => {
                clients.push(follow(&hub, channel, Since::Earliest));
            }
            Step::Read { client, most } => {
                if let Some(client) = clients.get_mut(client) {
                    client.seen.read(&mut client.cursor, most).await;
                }
            }
            Step::Trim { left } => {
                let bounds = journal.bounds();
                journal
                    .trim(bounds.next.saturating_sub(left))
                    .await
                    .unwrap();
            }
            Step::Lose => {
                let offset = journal.append(vec![Bytes::from_static(b"?")]).await;
                lost.push(offset.unwrap().into());
            }
            Step::Restart => {
                settle(&mut clients, &log, &lost).await;
                hub = self::hub(&journal).await;
            }
        }
    }
    settle(&mut clients, &log, &lost).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whoever_comes_back_gets_all_that_is_there_once(steps in steps()) {
        Runtime::new().unwrap().block_on(run(steps));
    }
}

/// A journal that is read only when the test lets it.
#[derive(Debug)]
struct Guarded {
    journal: Memory,
    reads: AtomicUsize,
    turns: Semaphore,
    fails: Mutex<Vec<JournalError>>,
}

#[async_trait]
impl Journal for Guarded {
    async fn append(&self, records: Vec<Bytes>) -> Result<u64, JournalError> {
        self.journal.append(records).await
    }

    async fn read(&self, from: u64, most: Limit) -> Result<Page, JournalError> {
        self.turns.acquire().await.unwrap().forget();
        if let Some(error) = self.fails.lock().pop() {
            return Err(error);
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.journal.read(from, most).await
    }

    fn bounds(&self) -> Bounds {
        self.journal.bounds()
    }

    async fn seek(&self, time: SystemTime) -> Result<u64, JournalError> {
        self.journal.seek(time).await
    }

    fn seek_roughly(&self, time: SystemTime) -> Option<u64> {
        self.journal.seek_roughly(time)
    }

    async fn appended(&self, next: u64) {
        self.journal.appended(next).await;
    }

    fn cursors(&self) -> Vec<(String, u64)> {
        self.journal.cursors()
    }

    fn set_cursor(&self, name: &str, offset: Option<u64>) {
        self.journal.set_cursor(name, offset);
    }

    async fn trim(&self, before: u64) -> Result<(), JournalError> {
        self.journal.trim(before).await
    }

    fn epoch(&self) -> u64 {
        self.journal.epoch()
    }

    async fn close(&self) -> Result<(), JournalError> {
        self.journal.close().await
    }
}

/// A hub with a hundred events, of which few are in memory, and its journal.
async fn guarded() -> (Hub, Arc<Guarded>) {
    let guarded = Arc::new(Guarded {
        journal: Memory::new(journal::Retention::default()),
        reads: AtomicUsize::new(0),
        turns: Semaphore::new(99),
        fails: Mutex::default(),
    });
    let journal: Arc<dyn Journal> = Arc::clone(&guarded) as _;
    let hub = hub(&journal).await;
    for _ in 0..100 {
        publish(&hub, 1).await;
    }
    guarded.turns.forget_permits(99);
    guarded.reads.store(0, Ordering::Relaxed);
    (hub, guarded)
}

#[tokio::test]
async fn a_page_is_read_once_for_all_who_ask() {
    let (hub, journal) = guarded().await;
    let origin = behind(&hub, Offset::ORIGIN);
    let mut cursors: Vec<_> = (0..200).map(|at| resume(&hub, at % 2, &origin).1).collect();
    let cx = &Context::from_waker(Waker::noop());
    for cursor in &mut cursors {
        assert_eq!(cursor.poll_fetched(cx), Poll::Pending);
    }
    journal.turns.add_permits(9);
    for cursor in &mut cursors {
        let mut seen = Seen::default();
        seen.read(cursor, usize::MAX).await;
        assert_eq!((seen.offsets.len(), seen.gaps.len()), (100, 0));
    }
    // In memory are the last four of a hundred.
    assert_eq!(journal.reads.load(Ordering::Relaxed), 96 / 16);
}

#[tokio::test]
async fn nothing_is_read_for_who_is_gone() {
    let (hub, journal) = guarded().await;
    let (_, mut cursor) = resume(&hub, 0, &behind(&hub, Offset::ORIGIN));
    let cx = &Context::from_waker(Waker::noop());
    assert_eq!(cursor.poll_fetched(cx), Poll::Pending);
    drop(cursor);
    journal.turns.add_permits(9);
    // The next one asks anew, and is not left with what nobody reads any more.
    let (_, mut cursor) = resume(&hub, 0, &behind(&hub, Offset::ORIGIN));
    cursor.fetched().await;
    assert_eq!(journal.reads.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_fails_for_a_while_is_read_again() {
    let (hub, journal) = guarded().await;
    let error = JournalError::Io {
        path: "there".into(),
        source: Arc::new(std::io::ErrorKind::Other.into()),
    };
    journal.fails.lock().extend([error.clone(), error]);
    journal.turns.add_permits(9);
    let (_, mut cursor) = resume(&hub, 0, &behind(&hub, Offset::ORIGIN));
    let mut seen = Seen::default();
    seen.read(&mut cursor, usize::MAX).await;
    assert_eq!((seen.offsets.len(), seen.gaps.len()), (100, 0));
}

#[tokio::test]
async fn what_cannot_be_read_is_a_gap_and_the_rest_is_read() {
    let (hub, journal) = guarded().await;
    let error = JournalError::Damaged {
        path: "there".into(),
        reason: "it burned".to_owned(),
    };
    journal.fails.lock().push(error);
    journal.turns.add_permits(9);
    let (_, mut cursor) = resume(&hub, 0, &behind(&hub, 9.into()));
    let mut seen = Seen::default();
    seen.read(&mut cursor, usize::MAX).await;
    assert_eq!(
        (seen.offsets.len(), &*seen.gaps),
        (75, &[(9.into(), 25.into())][..])
    );
    // It is known from then on.
    let (known, _) = resume(&hub, 0, &behind(&hub, 9.into()));
    assert!(known.gap.is_some());
}

#[tokio::test]
async fn when_the_journal_is_closed_clients_sleep() {
    let (hub, journal) = guarded().await;
    journal.turns.add_permits(99);
    journal.fails.lock().push(JournalError::Closed);
    let (_, mut cursor) = resume(&hub, 0, &behind(&hub, Offset::ORIGIN));
    let slept = tokio::time::timeout(Duration::from_millis(50), cursor.fetched()).await;
    assert!(slept.is_err());
    assert_eq!(journal.turns.available_permits(), 98, "it was asked once");
}

#[tokio::test]
async fn a_name_that_opens_later_has_nothing_of_whoever_had_it_before() {
    let journal = memory();
    let hub = hub(&journal).await;
    publish(&hub, 1).await;
    // A process in which it is never open, and therefore not closed.
    let history = History::open(Arc::clone(&journal), &retention()).await;
    let hub = Hub::with_history(retention(), history.unwrap());
    hub.opened_all();
    hub.open(&names()[0]);
    hub.open(&names()[1]);
    let (found, mut cursor) = resume(&hub, 1, &Since::Earliest);
    assert_eq!((found.from.offset, found.gap), (1.into(), None));
    publish(&hub, 1).await;
    let mut seen = Seen::default();
    seen.read(&mut cursor, usize::MAX).await;
    assert_eq!(seen.offsets, [2.into()]);
    // And it stays so.
    let hub = self::hub(&journal).await;
    assert_eq!(resume(&hub, 1, &Since::Earliest).0.from.offset, 1.into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn nothing_is_missed_while_others_publish_and_the_ring_moves_on() {
    const COUNT: usize = 3_000;

    let journal = memory();
    let hub = Arc::new(hub(&journal).await);
    let read = async |hub: Arc<Hub>, at: usize| {
        let mut cursor = channel(&hub, at).follow(Start::Earliest);
        let mut seen = Seen::default();
        // Every other event is of this instance.
        let wanted = if at == 0 { COUNT } else { COUNT / 2 };
        while seen.offsets.len() < wanted {
            assert!(cursor.ready().await);
            seen.read(&mut cursor, 5).await;
        }
        seen
    };
    let readers: Vec<_> = (0..9)
        .map(|at| tokio::spawn(read(Arc::clone(&hub), at % 3)))
        .collect();
    for number in 0..COUNT {
        publish(&hub, 1 + number % 2).await;
        if number % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for reader in readers {
        let patience = Duration::from_mins(1);
        let seen = tokio::time::timeout(patience, reader).await;
        let seen = seen.expect("all of it arrives").unwrap();
        assert!(seen.offsets.is_sorted_by(|a, b| a < b));
        assert!(seen.gaps.is_empty(), "{:?}", seen.gaps);
    }
}

#[tokio::test]
async fn who_was_told_of_a_hole_reads_over_it() {
    let journal = memory();
    let hub = hub(&journal).await;
    for _ in 0..20 {
        publish(&hub, 1).await;
    }
    journal
        .append(vec![Bytes::from_static(b"?")])
        .await
        .unwrap();
    for _ in 0..20 {
        publish(&hub, 1).await;
    }
    let hub = self::hub(&journal).await;
    let since = behind(&hub, 10.into());
    // The first one runs into it.
    let (found, mut cursor) = resume(&hub, 1, &since);
    assert_eq!(found.gap, None);
    let mut seen = Seen::default();
    seen.read(&mut cursor, usize::MAX).await;
    assert_eq!(
        (seen.offsets.len(), &*seen.gaps),
        (30, &[(20.into(), 21.into())][..])
    );
    // From then on whoever comes back is told before, and once: it would be sent away forever otherwise.
    let (known, mut cursor) = resume(&hub, 1, &since);
    let gap = known.gap.unwrap();
    assert_eq!(
        (gap.after.offset, gap.through.offset),
        (20.into(), 21.into())
    );
    assert_eq!(known.from.offset, 10.into());
    let mut seen = Seen::default();
    seen.read(&mut cursor, usize::MAX).await;
    assert_eq!((seen.offsets.len(), seen.gaps.len()), (30, 0));
}

#[tokio::test]
async fn a_time_begins_with_its_first_entry() {
    let journal = memory();
    let hub = hub(&journal).await;
    for _ in 0..20 {
        publish(&hub, 1).await;
    }
    let until = SystemTime::now() + Duration::from_millis(2);
    while SystemTime::now() < until {
        std::hint::spin_loop();
    }
    let time = SystemTime::now();
    for _ in 0..20 {
        publish(&hub, 1).await;
    }
    let hub = self::hub(&journal).await;
    for at in 0..2 {
        let (found, mut cursor) = resume(&hub, at, &Since::Time(time));
        assert_eq!(found.gap, None);
        let mut seen = Seen::default();
        seen.read(&mut cursor, usize::MAX).await;
        assert_eq!(seen.offsets, (21..41).map(Offset::from).collect::<Vec<_>>());
    }
    // A time from before everything is a gap only if there was something before.
    let (found, _) = resume(&hub, 0, &Since::Time(SystemTime::UNIX_EPOCH));
    assert_eq!((found.from.offset, found.gap), (Offset::ORIGIN, None));
    journal.trim(11).await.unwrap();
    let (found, _) = resume(&hub, 0, &Since::Time(SystemTime::UNIX_EPOCH));
    assert_eq!((found.from.offset, found.gap.is_some()), (10.into(), true));
}

#[tokio::test]
async fn what_a_closed_channel_had_is_nobodys() {
    let journal = memory();
    let hub = hub(&journal).await;
    for _ in 0..20 {
        publish(&hub, 1).await;
    }
    let (_, mut cursor) = resume(&hub, 1, &Since::Earliest);
    assert!(!cursor.is_overrun());
    let name = &names()[1];
    hub.close(name);
    assert_eq!(cursor.is_ready(), Some(false));
    assert!(!cursor.ready().await);
    hub.open(name);
    publish(&hub, 1).await;
    for hub in [&hub, &self::hub(&journal).await] {
        let (_, mut cursor) = resume(hub, 1, &Since::Earliest);
        let mut seen = Seen::default();
        seen.read(&mut cursor, usize::MAX).await;
        assert_eq!((&*seen.offsets, seen.gaps.len()), (&[21.into()][..], 0));
        // Of the root's it was one, and stays that.
        let (_, mut cursor) = resume(hub, 0, &Since::Earliest);
        let mut seen = Seen::default();
        seen.read(&mut cursor, usize::MAX).await;
        assert_eq!(seen.offsets.len(), 21);
    }
}

#[tokio::test]
async fn who_reads_the_past_is_not_waited_for() {
    let (hub, _) = guarded().await;
    let channel = channel(&hub, 0);
    let (_, mut cursor) = resume(&hub, 0, &behind(&hub, Offset::ORIGIN));
    let cx = &Context::from_waker(Waker::noop());
    assert_eq!(cursor.poll_fetched(cx), Poll::Pending);
    assert_eq!((channel.crowded(), cursor.bytes_behind()), (None, 0));
    cursor.rewind(Offset::ORIGIN);
    cursor.skip();
    for _ in 0..2 {
        publish(&hub, 1).await;
        Seen::default().read(&mut cursor, 1).await;
    }
    assert_eq!(channel.crowded(), None);
    for _ in 1..RING {
        publish(&hub, 1).await;
    }
    assert!(channel.crowded().is_some());
    // It is on its way out of the ring, where it loses nothing.
    for _ in 0..RING {
        publish(&hub, 1).await;
    }
    assert_eq!(channel.crowded(), None);
}

#[tokio::test]
async fn pages_that_nobody_looks_at_go() {
    let (hub, journal) = guarded().await;
    journal.turns.add_permits(9);
    let (_, mut cursor) = resume(&hub, 0, &behind(&hub, Offset::ORIGIN));
    Seen::default().read(&mut cursor, usize::MAX).await;
    let history = hub.history().unwrap();
    let kept = || history.pages().find(1.into()).is_some();
    history.expire(Instant::now());
    assert!(kept());
    history.expire(Instant::now() + Duration::from_mins(1));
    assert!(!kept());
}
