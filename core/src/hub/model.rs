//! The hub against a model: every retained entry in order exactly once per cursor, or an explicit gap.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::{ChannelName, Cursor, Entry, Gap, Hub, Offset, Position, Retention, Since, Start};
use crate::Event;

const INSTANCES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Step {
    /// Publishes one event of an instance, to `/`, to its channel, or to both.
    Publish {
        instance: usize,
        root: bool,
        own: bool,
    },
    /// A new client.
    Follow { channel: usize, earliest: bool },
    /// A client reads.
    Read { client: usize, most: usize },
    /// A client looks at some entries and takes the first few of them.
    Pass {
        client: usize,
        most: usize,
        count: usize,
    },
    /// A client goes to the head.
    Skip { client: usize },
    /// A client goes back to what the channel had this many entries ago.
    Rewind { client: usize, back: usize },
    /// A client leaves, and comes back with the position it had, or with one that lies this far from it.
    Resume { client: usize, ahead: u64 },
}

struct Client {
    channel: usize,
    cursor: Cursor,
    /// The offsets that the client may still expect, oldest first.
    expected: Vec<Offset>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let publish =
        (0..INSTANCES.len(), any::<bool>(), any::<bool>()).prop_map(|(instance, root, own)| {
            Step::Publish {
                instance,
                root,
                own,
            }
        });
    let follow = (0..=INSTANCES.len(), any::<bool>())
        .prop_map(|(channel, earliest)| Step::Follow { channel, earliest });
    let client = || 0..8_usize;
    let read = (client(), 1..6_usize).prop_map(|(client, most)| Step::Read { client, most });
    let pass = (client(), 0..6_usize, 0..6_usize).prop_map(|(client, most, count)| Step::Pass {
        client,
        most,
        count,
    });
    let skip = client().prop_map(|client| Step::Skip { client });
    let rewind = (client(), 0..12_usize).prop_map(|(client, back)| Step::Rewind { client, back });
    let resume = (client(), prop_oneof![3 => Just(0), 1 => 0..5_u64])
        .prop_map(|(client, ahead)| Step::Resume { client, ahead });
    let step = prop_oneof![
        16 => publish, 4 => follow, 4 => read, 4 => pass, 1 => skip, 1 => rewind, 2 => resume
    ];
    proptest::collection::vec(step, 1..120)
}

fn names() -> Vec<ChannelName> {
    let instances = INSTANCES.map(|name| ChannelName::of_instance(name).unwrap());
    instances.into_iter().chain([ChannelName::root()]).collect()
}

fn event(instance: &str) -> Event {
    let envelope = format!(r#"{{"event":"call","instance":"{instance}"}}"#);
    Event::parse(envelope.into(), SystemTime::UNIX_EPOCH).unwrap()
}

/// The hub, and what it has to do.
struct Model {
    hub: Hub,
    events: usize,
    names: Vec<ChannelName>,
    /// What each channel was given, ever.
    log: Vec<Vec<Offset>>,
    clients: Vec<Client>,
}

// === impl Model ===

impl Model {
    fn new(events: usize) -> Self {
        let retention = Retention {
            events,
            bytes: usize::MAX,
            age: Duration::MAX,
        };
        let names = names();
        Self {
            hub: Hub::new(retention),
            events,
            log: vec![Vec::new(); names.len()],
            names,
            clients: Vec::new(),
        }
    }

    fn publish(&mut self, instance: usize, root: bool, own: bool) {
        let targets = [(root, INSTANCES.len()), (own, instance)];
        let targets = targets.iter().filter_map(|&(is, at)| is.then_some(at));
        let channels: Vec<_> = targets.clone().map(|at| self.names[at].clone()).collect();
        let event = event(INSTANCES[instance]);
        let offset = self.hub.publish([(&event, &*channels)]).head.offset;
        for at in targets {
            self.log[at].push(offset);
            let followers = self.clients.iter_mut().filter(|it| it.channel == at);
            followers.for_each(|client| client.expected.push(offset));
        }
    }

    fn follow(&mut self, channel: usize, earliest: bool) {
        let (start, expected) = if earliest {
            (Start::Earliest, self.retained(channel).to_vec())
        } else {
            (Start::Head, Vec::new())
        };
        self.clients.push(Client {
            channel,
            cursor: self.hub.open(&self.names[channel]).follow(start),
            expected,
        });
    }

    /// What a channel still has.
    fn retained(&self, channel: usize) -> &[Offset] {
        let log = &self.log[channel];
        &log[log.len().saturating_sub(self.events)..]
    }

    /// How many of those that a client expects are gone.
    fn lost(&self, client: &Client) -> usize {
        let oldest = self.retained(client.channel).first();
        let gone = |offset: &&Offset| Some(*offset) < oldest;
        client.expected.iter().filter(gone).count()
    }

    /// What a channel was given behind an offset.
    fn behind(&self, channel: usize, offset: Offset) -> Vec<Offset> {
        let log = self.log[channel].iter().copied();
        log.filter(|it| *it > offset).collect()
    }

    fn step(&mut self, step: &Step) -> TestCaseResult {
        let at = match *step {
            Step::Publish {
                instance,
                root,
                own,
            } => {
                self.publish(instance, root, own);
                return Ok(());
            }
            Step::Follow { channel, earliest } => {
                self.follow(channel, earliest);
                return Ok(());
            }
            Step::Read { client, .. }
            | Step::Pass { client, .. }
            | Step::Skip { client }
            | Step::Rewind { client, .. }
            | Step::Resume { client, .. } => client,
        };
        if at >= self.clients.len() {
            return Ok(());
        }
        let mut client = self.clients.swap_remove(at);
        self.client(&mut client, step)?;
        let behind = client.cursor.is_behind();
        prop_assert_eq!(behind, !client.expected.is_empty());
        prop_assert_eq!(client.cursor.is_overrun(), self.lost(&client) > 0);
        self.clients.push(client);
        Ok(())
    }

    fn client(&self, client: &mut Client, step: &Step) -> TestCaseResult {
        let lost = self.lost(client);
        match *step {
            Step::Read { most, .. } => {
                let mut entries = Vec::new();
                let gap = client.cursor.read(most, &mut entries);
                client.shown(gap, lost, most, &entries)?;
                client.expected.drain(..lost + entries.len());
            }
            Step::Pass { most, count, .. } => {
                let mut entries = Vec::new();
                let ahead = client.cursor.peek(most, |it| entries.push(Arc::clone(it)));
                client.shown(ahead.gap, lost, most, &entries)?;
                let count = count.min(entries.len());
                let end = entries[..count].last().map(|entry| entry.position.offset);
                let end = end.unwrap_or(Offset::ORIGIN);
                client.cursor.pass(&ahead, count as u64, end);
                client.expected.drain(..lost + count);
            }
            Step::Skip { .. } => {
                client.cursor.skip();
                client.expected.clear();
            }
            Step::Rewind { back, .. } => {
                let mut log = self.log[client.channel].iter().rev();
                let offset = log.nth(back).copied();
                if let Some(offset) = offset.filter(|it| *it < client.cursor.offset()) {
                    client.expected = self.behind(client.channel, offset);
                    client.cursor.rewind(offset);
                }
            }
            Step::Resume { ahead, .. } => {
                let channel = Arc::clone(client.cursor.channel());
                let offset = Offset::from(client.cursor.offset().get() + ahead);
                let there = Position {
                    epoch: self.hub.epoch(),
                    offset,
                };
                let resume = channel.resume(&Since::Position(there));
                let unknown = offset > channel.head().offset;
                client.expected = self.behind(client.channel, offset);
                let lost = self.lost(client);
                client.expected.drain(..lost);
                prop_assert_eq!(resume.gap.is_some(), unknown || lost > 0);
                client.cursor = channel.follow(Start::After(resume.from.offset));
            }
            Step::Publish { .. } | Step::Follow { .. } => {}
        }
        Ok(())
    }
}

// === impl Client ===

impl Client {
    /// Compares what was shown with what is due.
    fn shown(
        &self,
        gap: Option<Gap>,
        lost: usize,
        most: usize,
        entries: &[Arc<Entry>],
    ) -> TestCaseResult {
        prop_assert_eq!(
            gap.is_some(),
            lost > 0,
            "a gap is reported exactly when something is gone"
        );
        if let Some(gap) = gap {
            prop_assert_eq!(Some(&gap.through.offset), self.expected[..lost].last());
        }
        let got = entries.iter().map(|entry| entry.position.offset);
        let due = self.expected[lost..].iter().copied().take(most);
        prop_assert!(got.eq(due));
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_cursor_sees_everything_once_or_is_told_of_the_gap(steps in steps(), events in 1..12_usize) {
        let mut model = Model::new(events);
        for step in steps {
            model.step(&step)?;
        }
    }
}

#[tokio::test]
async fn a_waiting_cursor_wakes_for_its_channel_alone() {
    let hub = Arc::new(Hub::new(Retention::default()));
    let (a, b) = (names()[0].clone(), names()[1].clone());
    let mut cursor = hub.open(&a).follow(Start::Head);
    hub.publish([(&event("b"), std::slice::from_ref(&b))]);
    assert!(!cursor.is_behind());

    let waiting = tokio::spawn(async move { cursor.ready().await });
    hub.publish([(&event("a"), std::slice::from_ref(&a))]);
    assert!(waiting.await.unwrap());
}

#[tokio::test]
async fn closing_a_channel_ends_the_wait() {
    let hub = Hub::new(Retention::default());
    let name = names()[0].clone();
    let mut cursor = hub.open(&name).follow(Start::Head);
    hub.close(&name);
    assert!(!cursor.ready().await);
    assert!(hub.channel(&name).is_none());
}

#[test]
fn behind_a_gap_the_rest_still_waits() {
    let hub = Hub::new(Retention {
        events: 2,
        ..Retention::default()
    });
    let name = names()[0].clone();
    let mut cursor = hub.open(&name).follow(Start::Head);
    for _ in 0..3 {
        hub.publish([(&event("a"), std::slice::from_ref(&name))]);
    }
    let ahead = cursor.peek(0, |_| {});
    let gap = ahead.gap.expect("the first is gone");
    cursor.pass(&ahead, 0, gap.through.offset);
    assert_eq!(cursor.offset(), gap.through.offset);
    assert!(cursor.is_behind() && !cursor.is_overrun());
}

#[test]
fn the_root_and_an_instance_share_an_entry() {
    let hub = Hub::new(Retention::default());
    let (root, a) = (ChannelName::root(), names()[0].clone());
    let mut cursors = [&root, &a].map(|name| hub.open(name).follow(Start::Head));
    hub.publish([(&event("a"), [root, a].as_slice())]);
    let [first, second] = cursors.each_mut().map(|cursor| {
        let mut entries = Vec::new();
        assert!(cursor.read(10, &mut entries).is_none());
        entries.remove(0)
    });
    assert!(Arc::ptr_eq(&first, &second));
}

#[test]
fn bytes_bound_a_channel() {
    let retention = Retention {
        events: usize::MAX,
        bytes: 2_000,
        age: Duration::MAX,
    };
    let hub = Hub::new(retention);
    let name = names()[0].clone();
    for _ in 0..50 {
        hub.publish([(&event("a"), std::slice::from_ref(&name))]);
    }
    let (entries, bytes) = hub.open(&name).retained();
    assert!(
        entries >= 2 && bytes <= 2_000,
        "{entries} entries, {bytes} bytes"
    );
}
