use evows_core::testing::FilterHarness;

use super::*;

/// Everything at once.
const ALL: &str = "event_names = true\nsend_message = true\nedits = true\ndeletes = true\narrays = true\nparticipants = true\n\
    addressing = true\nint64 = true\nutc_timestamp = true\n";

/// The name and the data of what comes out.
fn run(keys: &str, name: &str, data: &Value) -> (String, Value) {
    let envelope = json!({"event": name, "instance": "i", "data": data});
    let mut bench = FilterHarness::<Normalize>::from_toml(keys);
    let emitted = bench.send_json(&envelope.to_string()).emitted();
    assert_eq!(emitted.len(), 1, "{envelope}");
    assert_eq!(emitted[0].document()["event"], emitted[0].name());
    (
        emitted[0].name().to_owned(),
        emitted[0].document()["data"].clone(),
    )
}

fn data(keys: &str, name: &str, data: &Value) -> String {
    run(keys, name, data).1.to_string()
}

#[test]
fn names_are_wire_names() {
    for (name, expected) in [
        ("GROUP_UPDATE", "groups.update"),
        ("group.update", "groups.update"),
        ("MESSAGES_UPSERT", "messages.upsert"),
        ("send.message", "send.message"),
        ("Message", "Message"),
    ] {
        assert_eq!(run("event_names = true", name, &json!({})).0, expected);
        assert_eq!(run("", name, &json!({})).0, name);
    }
}

#[test]
fn messages_that_were_sent_are_messages() {
    let message = json!({"key": {"fromMe": true}});
    for (keys, name) in [
        ("", "send.message"),
        ("send_message = true", "messages.upsert"),
    ] {
        let ran = run(keys, "send.message", &message);
        assert_eq!(ran, (name.to_owned(), message.clone()));
    }
    assert_eq!(run(ALL, "SEND_MESSAGE", &message).0, "messages.upsert");
    assert_eq!(
        run(ALL, "send.message.update", &json!({})).0,
        "send.message.update"
    );
}

#[test]
fn only_edits_are_edits() {
    let mut bench = FilterHarness::<Normalize>::from_toml("edits = true");
    for (name, kind, passes) in [
        ("messages.edited", json!("MESSAGE_EDIT"), true),
        ("messages.edited", json!("REVOKE"), false),
        ("send.message.update", json!("EPHEMERAL_SETTING"), false),
        ("messages.edited", json!(14), true),
        ("messages.edited", json!(null), true),
        ("labels.association", json!("add"), true),
    ] {
        let envelope = json!({"event": name, "instance": "i", "data": {"type": kind}});
        bench.send_json(&envelope.to_string());
        assert_eq!(bench.emitted().len(), usize::from(passes), "{envelope}");
        let discarded = bench.discarded();
        assert!(discarded.iter().all(|(_, reason)| *reason == "not_an_edit"));
        assert_eq!(discarded.len(), usize::from(!passes), "{envelope}");
    }
}

#[test]
fn deletes_have_one_shape() {
    let keys = "deletes = true";
    let bare = json!({"remoteJid": "1@g.us", "fromMe": false, "id": "A", "participant": "2@lid"});
    let shaped = r#"{"key":{"remoteJid":"1@g.us","fromMe":false,"id":"A","participant":"2@lid"},"status":"DELETED"}"#;
    assert_eq!(data(keys, "messages.delete", &bare), shaped);
    let mut later = bare.clone();
    later["status"] = "DELETED".into();
    assert_eq!(data(keys, "messages.delete", &later), shaped);
    assert_eq!(data(keys, "messages.update", &bare), bare.to_string());
    let rest = json!({"id": "cuid", "key": {"id": "A"}, "status": "DELETED"});
    assert_eq!(data(keys, "messages.delete", &rest), rest.to_string());
}

#[test]
fn contacts_and_chats_are_arrays() {
    for (name, sent, expected) in [
        ("contacts.update", json!({"a": 1}), json!([{"a": 1}])),
        ("chats.upsert", json!([]), json!([])),
        ("contacts.upsert", json!(null), json!(null)),
        ("messages.upsert", json!({"a": 1}), json!({"a": 1})),
    ] {
        assert_eq!(run("arrays = true", name, &sent).1, expected, "{name}");
    }
}

#[test]
fn participants_are_objects() {
    let sent = json!({"id": "1@g.us", "participants": ["2@lid", {"id": "3@lid"}], "participantsData": [
        {"jid": "2@lid", "phoneNumber": "x"},
        {"jid": {"id": "3@lid"}, "phoneNumber": "[object Object]", "name": "n"},
        {"jid": {"id": "4@lid", "phoneNumber": "5@s.whatsapp.net"}, "phoneNumber": "[object Object]"},
        {"jid": "6@lid", "phoneNumber": "[object Object]"},
        7,
    ]});
    let expected = json!({"id": "1@g.us", "participants": [{"id": "2@lid"}, {"id": "3@lid"}], "participantsData": [
        {"jid": "2@lid", "phoneNumber": "x"},
        {"jid": "3@lid", "name": "n"},
        {"jid": "4@lid", "phoneNumber": "5@s.whatsapp.net"},
        {"jid": "6@lid"},
        7,
    ]});
    let name = "group-participants.update";
    assert_eq!(
        data("participants = true", name, &sent),
        expected.to_string()
    );
}

#[test]
fn phone_numbers_come_before_lids() {
    let sent = json!({"key": {"remoteJid": "1@lid", "remoteJidAlt": "55:3@s.whatsapp.net", "id": "A", "addressingMode": "lid"}});
    let expected = r#"{"key":{"remoteJid":"55@s.whatsapp.net","remoteJidAlt":"1@lid","id":"A","addressingMode":"pn"}}"#;
    let keys = "addressing = true";
    assert_eq!(data(keys, "messages.upsert", &sent), expected);
    assert_eq!(
        data(keys, "messages.set", &json!([sent, 1])),
        format!("[{expected},1]")
    );
    let group = json!({"key": {"remoteJid": "9@g.us", "participant": "1@lid", "participantAlt": "55@s.whatsapp.net"}});
    assert_eq!(
        data(keys, "messages.upsert", &group),
        r#"{"key":{"remoteJid":"9@g.us","participant":"55@s.whatsapp.net","participantAlt":"1@lid","addressingMode":"pn"}}"#
    );
    for key in [
        json!({"remoteJid": "55_1@s.whatsapp.net", "remoteJidAlt": "1@lid", "addressingMode": "pn"}),
        json!({"remoteJid": "9@g.us", "participant": "1@lid", "addressingMode": "lid"}),
        json!({"remoteJid": "55@s.whatsapp.net"}),
        json!({"remoteJid": "1@lid", "remoteJidAlt": "2@lid"}),
        json!({"remoteJid": "1@lid", "remoteJidAlt": null}),
        json!({"remoteJid": "1@lid"}),
    ] {
        let same = json!({ "key": key });
        assert_eq!(data(keys, "messages.upsert", &same), same.to_string());
    }
}

#[test]
fn phone_numbers_lose_their_device() {
    for (sent, expected) in [
        (
            json!({"remoteJid": "55:3@s.whatsapp.net", "addressingMode": "lid"}),
            json!({"remoteJid": "55@s.whatsapp.net", "addressingMode": "pn"}),
        ),
        (
            json!({"remoteJid": "55_1:4@s.whatsapp.net"}),
            json!({"remoteJid": "55_1@s.whatsapp.net"}),
        ),
        (
            json!({"remoteJid": "9@g.us", "participant": "55:4@s.whatsapp.net", "addressingMode": "lid"}),
            json!({"remoteJid": "9@g.us", "participant": "55@s.whatsapp.net", "addressingMode": "pn"}),
        ),
    ] {
        let (sent, expected) = (json!({ "key": sent }), json!({ "key": expected }));
        assert_eq!(
            data("addressing = true", "messages.upsert", &sent),
            expected.to_string()
        );
    }
}

#[test]
fn longs_are_numbers() {
    let long = |low: i32, high: i32, unsigned: bool| json!({"low": low, "high": high, "unsigned": unsigned});
    let sent = json!({"a": [long(7, 0, true)], "b": {"c": long(-1, -1, false)}, "d": long(-1, -1, true), "e": long(0, 1 << 21, true)});
    assert_eq!(
        data("int64 = true", "messages.upsert", &sent),
        r#"{"a":[7],"b":{"c":-1},"d":"18446744073709551615","e":9007199254740992}"#
    );
}

#[test]
fn the_time_is_added_and_date_time_stays() {
    let mut bench =
        FilterHarness::<Normalize>::from_toml("utc_timestamp = true\ndate_time_tz = '-03:00'");
    bench.send_json(
        r#"{"event":"call","instance":"i","date_time":"2025-10-21T14:20:39.016Z","sender":"s"}"#,
    );
    let emitted = bench.emitted();
    assert_eq!(
        emitted[0].envelope(),
        r#"{"event":"call","instance":"i","date_time":"2025-10-21T14:20:39.016Z","sender":"s","date_time_utc":"2025-10-21T17:20:39.016Z"}"#
    );
    let again = bench.send(emitted[0].clone()).emitted();
    assert_eq!(again[0].envelope(), emitted[0].envelope());
}

#[test]
fn an_event_to_which_nothing_is_done_keeps_its_bytes() {
    for text in [
        r#"{ "event":"messages.upsert", "instance":"i", "data":{"n":1.10} }"#,
        r#"{ "event":"logout.instance", "instance":"i", "data":null }"#,
        r#"{ "event":"chats.delete", "instance":"i", "data":["1@lid"] }"#,
        r#"{ "event":"call", "instance":"i", "date_time":"soon" }"#,
    ] {
        let mut bench = FilterHarness::<Normalize>::from_toml(ALL);
        assert_eq!(bench.send_json(text).emitted()[0].envelope(), text);
        let mut bench = FilterHarness::<Normalize>::from_toml("");
        assert_eq!(bench.send_json(text).emitted()[0].envelope(), text);
    }
}

#[test]
fn says_what_is_wrong() {
    for (keys, part) in [
        (
            "utc_timestamp = true\ndate_time_tz = 'BRT'",
            "not an offset",
        ),
        ("date_time_tz = '-03:00'", "nothing is converted"),
    ] {
        let problems = FilterHarness::<Normalize>::problems(keys);
        assert!(problems.contains(part), "{keys}: {problems}");
    }
}
