//! The hub against a model: every retained entry in order exactly once per cursor, or an explicit gap.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::{ChannelName, Cursor, Hub, Offset, Retention, Start};
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
    let read = (0..8_usize, 1..6_usize).prop_map(|(client, most)| Step::Read { client, most });
    proptest::collection::vec(prop_oneof![4 => publish, 1 => follow, 2 => read], 1..120)
}

fn names() -> Vec<ChannelName> {
    let instances = INSTANCES.map(|name| ChannelName::of_instance(name).unwrap());
    instances.into_iter().chain([ChannelName::root()]).collect()
}

fn event(instance: &str) -> Event {
    let envelope = format!(r#"{{"event":"call","instance":"{instance}"}}"#);
    Event::parse(envelope.into(), SystemTime::UNIX_EPOCH).unwrap()
}

proptest! {
    #[test]
    fn a_cursor_sees_everything_once_or_is_told_of_the_gap(steps in steps(), events in 1..12_usize) {
        let retention = Retention { events, bytes: usize::MAX, age: Duration::MAX };
        let hub = Hub::new(retention);
        let names = names();
        // What each channel was given, ever.
        let mut log: Vec<Vec<Offset>> = vec![Vec::new(); names.len()];
        let mut clients: Vec<Client> = Vec::new();

        for step in steps {
            match step {
                Step::Publish { instance, root, own } => {
                    let mut targets = Vec::new();
                    if root { targets.push(INSTANCES.len()); }
                    if own { targets.push(instance); }
                    let channels: Vec<_> = targets.iter().map(|&at| names[at].clone()).collect();
                    let event = event(INSTANCES[instance]);
                    let position = hub.publish([(&event, channels.as_slice())]).head;
                    for at in targets {
                        log[at].push(position.offset);
                        for client in clients.iter_mut().filter(|client| client.channel == at) {
                            client.expected.push(position.offset);
                        }
                    }
                }
                Step::Follow { channel, earliest } => {
                    let start = if earliest { Start::Earliest } else { Start::Head };
                    let cursor = hub.open(&names[channel]).follow(start);
                    let skip = log[channel].len().saturating_sub(events);
                    let expected = if earliest { log[channel][skip..].to_vec() } else { Vec::new() };
                    clients.push(Client { channel, cursor, expected });
                }
                Step::Read { client, most } => {
                    let Some(client) = clients.get_mut(client) else { continue };
                    let mut entries = Vec::new();
                    let gap = client.cursor.read(most, &mut entries);
                    let retained = log[client.channel].len().saturating_sub(events);
                    let oldest = log[client.channel].get(retained).copied();
                    let lost = client.expected.iter().filter(|&&offset| Some(offset) < oldest).count();
                    prop_assert_eq!(gap.is_some(), lost > 0, "a gap is reported exactly when something is gone");
                    client.expected.drain(..lost);
                    let got: Vec<_> = entries.iter().map(|entry| entry.position.offset).collect();
                    let due: Vec<_> = client.expected.drain(..most.min(client.expected.len())).collect();
                    prop_assert_eq!(got, due);
                    prop_assert_eq!(client.cursor.is_behind(), !client.expected.is_empty());
                }
            }
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
