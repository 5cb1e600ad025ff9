//! Socket.IO packets.

use evows_transports::socketio::packet::{Packet, ack_head, connect, event_head};
use proptest::prelude::*;
use serde_json::{Value, json};

fn namespace() -> impl Strategy<Value = String> {
    prop_oneof![Just("/".to_owned()), "/[a-z0-9?=&-]{1,8}"]
}

fn id() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_u64, 0..1_u64 << 53]
}

fn data() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn an_event_reads_back(
        namespace in namespace(),
        id in proptest::option::of(id()),
        attachments in prop_oneof![0..3_usize, 0..1000_usize],
        name in prop_oneof!["e[a-z\u{e9}]{0,9}".prop_map(Value::from), any::<i64>().prop_map(Value::from)],
        data in data(),
    ) {
        let data = json!([name, data]).to_string();
        let number = id.map(|id| id.to_string()).unwrap_or_default();
        let text = event_head(&namespace, attachments) + &number + &data;
        let (namespace, data) = (&*namespace, &*data);
        prop_assert_eq!(Packet::parse(&text), Ok(Packet::Event { namespace, id, attachments, data }));
    }

    #[test]
    fn an_acknowledgement_reads_back(namespace in namespace(), id in id(), attachments in 0..1000_usize, data in data()) {
        let data = json!([data]).to_string();
        let text = ack_head(&namespace, attachments, id) + &data;
        let (namespace, data) = (&*namespace, &*data);
        prop_assert_eq!(Packet::parse(&text), Ok(Packet::Ack { namespace, id, attachments, data }));
    }

    #[test]
    fn joining_and_leaving_read_back(namespace in namespace(), data in proptest::option::of(data())) {
        let auth = data.map(|data| json!({ "auth": data }).to_string());
        let text = connect(&namespace, auth.as_deref().unwrap_or_default());
        let (namespace, auth) = (&*namespace, auth.as_deref());
        prop_assert_eq!(Packet::parse(&text), Ok(Packet::Connect { namespace, auth }));
        let text = format!("1{namespace},");
        prop_assert_eq!(Packet::parse(&text), Ok(Packet::Disconnect { namespace }));
    }

    #[test]
    fn any_text_is_a_packet_or_malformed(text in any::<String>(), likely in "[0-7][0-9]{0,22}-?(/[a-z]?,?)?[0-9]{0,3}[\\[{\"a,:1\\]}\u{e9}]{0,12}") {
        for text in [text, likely] {
            if let Ok(Packet::Event { data, .. } | Packet::Ack { data, .. }) = Packet::parse(&text) {
                prop_assert!(text.ends_with(data));
            }
        }
    }
}
