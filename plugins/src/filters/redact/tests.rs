use evows_core::testing::FilterHarness;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const SECRET: &str = "secret = 'a-long-random-text'\n";

fn run(keys: &str, envelope: &str) -> Value {
    let mut bench = FilterHarness::<Redact>::from_toml(&format!("{SECRET}{keys}"));
    let emitted = bench.send_json(envelope).emitted();
    assert_eq!(emitted.len(), 1);
    let once = emitted[0].envelope().clone();
    // What is found once is not found again; paths and texts are hidden as often as they are named.
    if !keys.contains("hash") && !keys.contains("paths") {
        let again = bench.send(emitted[0].clone()).emitted();
        assert_eq!(again[0].envelope(), &once, "{keys}");
    }
    serde_json::from_slice(&once).unwrap()
}

fn message() -> String {
    json!({
        "event": "messages.upsert", "instance": "5511999990000",
        "data": {
            "key": {"remoteJid": "5511988887777@s.whatsapp.net", "remoteJidAlt": "118234567890123@lid",
                "fromMe": false, "id": "12345678901", "participant": "5511977776666:3@s.whatsapp.net"},
            "pushName": "Ana Souza",
            "message": {"conversation": "call +55 11 98888-7777", "imageMessage": {"caption": "c", "url": "https://x/5511988887777/y"},
                "contextInfo": {"mentionedJid": ["5511977776666@s.whatsapp.net", "0@s.whatsapp.net"]}},
            "group": "120363012345678901@g.us",
            "messageTimestamp": 1_761_057_639, "phoneNumber": "5511988887777",
        },
        "date_time": "2025-10-21T14:20:39.016Z", "sender": "5511999990000@s.whatsapp.net",
    })
    .to_string()
}

#[test]
fn masks_ids_and_keeps_their_servers() {
    let event = run("jids = true", &message());
    let key = &event["data"]["key"];
    assert_eq!(key["remoteJid"], "*********7777@s.whatsapp.net");
    assert_eq!(key["remoteJidAlt"], "***********0123@lid");
    assert_eq!(key["participant"], "*********6666:3@s.whatsapp.net");
    assert_eq!(event["data"]["group"], "**************8901@g.us");
    assert_eq!(event["sender"], "*********0000@s.whatsapp.net");
    let mentioned = &event["data"]["message"]["contextInfo"]["mentionedJid"];
    assert_eq!(
        mentioned,
        &json!(["*********6666@s.whatsapp.net", "0@s.whatsapp.net"])
    );
    assert_eq!(event["data"]["phoneNumber"], "5511988887777");
    assert_eq!(event["instance"], "5511999990000");
}

#[test]
fn masks_phones_wherever_they_are() {
    let event = run("phones = 'mask'", &message());
    let data = &event["data"];
    assert_eq!(data["key"]["remoteJid"], "*********7777@s.whatsapp.net");
    assert_eq!(data["key"]["remoteJidAlt"], "118234567890123@lid");
    assert_eq!(data["group"], "120363012345678901@g.us");
    assert_eq!(data["phoneNumber"], "*********7777");
    assert_eq!(data["message"]["conversation"], "call +** ** *****-7777");
    for (place, expected) in [
        ("/data/key/id", json!("12345678901")),
        (
            "/data/message/imageMessage/url",
            json!("https://x/5511988887777/y"),
        ),
        ("/data/messageTimestamp", json!(1_761_057_639)),
        ("/date_time", json!("2025-10-21T14:20:39.016Z")),
        ("/instance", json!("5511999990000")),
    ] {
        assert_eq!(event.pointer(place), Some(&expected), "{place}");
    }
    let old = r#"{"event":"e","instance":"i","data":"5511988887777-1600000000@g.us"}"#;
    assert_eq!(
        run("phones = true", old)["data"],
        "*********7777-1600000000@g.us"
    );
}

#[test]
fn hashes_of_one_number_are_the_same_and_depend_on_the_secret() {
    let event = run("phones = 'hash'\njids = 'hash'", &message());
    let data = &event["data"];
    let hash = data["phoneNumber"].as_str().unwrap();
    assert_eq!(hash.len(), 16);
    assert!(hash.bytes().all(|byte| (b'a'..=b'p').contains(&byte)));
    assert_eq!(data["key"]["remoteJid"], format!("{hash}@s.whatsapp.net"));
    assert_eq!(data["message"]["conversation"], format!("call {hash}"));
    let mentioned = data["message"]["contextInfo"]["mentionedJid"][0].as_str();
    let participant = data["key"]["participant"].as_str();
    assert_eq!(participant.unwrap().replace(":3", ""), mentioned.unwrap());

    let keys = "phones = 'hash'\nsecret = 'another-random-text'";
    let mut bench = FilterHarness::<Redact>::from_toml(keys);
    let other = bench.send_json(&message()).emitted();
    assert_ne!(other[0].document()["data"]["phoneNumber"], hash);
}

#[test]
fn the_hash_is_hmac_sha256() {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"a-long-random-text").unwrap();
    mac.update(b"5511988887777");
    let first = mac.finalize().into_bytes()[0];
    let event = run("phones = 'hash'", &message());
    let hash = event["data"]["phoneNumber"].as_str().unwrap().as_bytes();
    assert_eq!(first, (hash[0] - b'a') << 4 | (hash[1] - b'a'));
}

#[test]
fn drops_members_elements_and_parts_of_text() {
    let event = run("jids = 'drop'\nphones = 'drop'", &message());
    let data = &event["data"];
    assert_eq!(data["key"], json!({"fromMe": false, "id": "12345678901"}));
    assert_eq!(event.get("sender"), None);
    assert_eq!(data.get("phoneNumber"), None);
    assert_eq!(data["message"]["conversation"], "call ");
    let mentioned = &data["message"]["contextInfo"]["mentionedJid"];
    assert_eq!(mentioned, &json!(["0@s.whatsapp.net"]));
    let deleted =
        r#"{"event":"chats.delete","instance":"i","data":["5511988887777@s.whatsapp.net"]}"#;
    assert_eq!(run("jids = 'drop'", deleted)["data"], json!([]));
}

#[test]
fn names_of_members_are_hidden_and_none_is_lost() {
    let event = r#"{"event":"presence.update","instance":"i","data":{"presences":{
        "5511988887777@s.whatsapp.net":1,"5521988887777@s.whatsapp.net":2,"z":3}}}"#;
    assert_eq!(
        run("jids = true", event)["data"]["presences"].to_string(),
        r#"{"*********7777@s.whatsapp.net":1,"2**********7777@s.whatsapp.net":2,"z":3}"#
    );
    assert_eq!(
        run("phones = 'drop'", event)["data"]["presences"],
        json!({"z": 3})
    );
}

#[test]
fn hides_what_people_wrote() {
    let set = json!({"event": "messages.set", "instance": "i", "data": [{
        "pushName": "Ana", "title": "no message",
        "message": {"conversation": "Oi", "list": {"sections": [{"title": "t", "rowId": "r"}]}, "base64": "AAAA"},
        "contextInfo": {"quotedMessage": {"extendedTextMessage": {"text": "old", "empty": ""}}},
    }]})
    .to_string();
    let item = &run("message_text = true", &set)["data"][0];
    assert_eq!(item["message"]["conversation"], "***");
    assert_eq!(
        item["message"]["list"]["sections"],
        json!([{"title": "***", "rowId": "***"}])
    );
    assert_eq!(item["message"]["base64"], "AAAA");
    assert_eq!(
        item["contextInfo"]["quotedMessage"]["extendedTextMessage"]["text"],
        "***"
    );
    assert_eq!(
        (&item["pushName"], &item["title"]),
        (&json!("Ana"), &json!("no message"))
    );
    let item = &run("message_text = 'drop'", &set)["data"][0];
    assert_eq!(item["message"].get("conversation"), None);
    let item = &run("message_text = 'hash'", &set)["data"][0];
    assert_eq!(item["message"]["conversation"].as_str().unwrap().len(), 16);
}

#[test]
fn many_names_that_look_the_same_stay_short() {
    let presences = (0..6000).map(|n| (format!("55{n:05}0007777@s.whatsapp.net"), json!(n)));
    let presences: Map<String, Value> = presences.collect();
    let event = json!({"event": "presence.update", "instance": "i", "data": presences});
    let hidden = run("jids = true", &event.to_string());
    let names = hidden["data"].as_object().unwrap();
    assert_eq!(names.len(), 6000);
    assert!(names.keys().all(|name| name.len() < 40));
}

#[test]
fn hides_numbers_in_addresses_and_names_of_files() {
    let event = json!({"event": "e", "instance": "i", "data": {
        "mediaUrl": "https://minio/b/5511988887777%40s.whatsapp.net/imageMessage/a.jpeg",
        "url": "https://wa.me/5511988887777", "canonicalUrl": "https://api.whatsapp.com/send?phone=5511988887777",
        "fileName": "5511988887777_20251021.pdf", "photo": "IMG_20251021142039.jpg",
        "disconnectionObject": r#"{"a":"\u00e95511988887777"}"#,
    }});
    let data = &run("phones = true", &event.to_string())["data"];
    assert_eq!(
        *data,
        json!({
            "mediaUrl": "https://minio/b/*********7777%40s.whatsapp.net/imageMessage/a.jpeg",
            "url": "https://wa.me/*********7777", "canonicalUrl": "https://api.whatsapp.com/send?phone=*********7777",
            "fileName": "*********7777_20251021.pdf", "photo": "IMG_20251021142039.jpg",
            "disconnectionObject": r#"{"a":"\u00e9*********7777"}"#,
        })
    );
}

#[test]
fn hides_every_text_of_a_message_and_keeps_what_nobody_wrote() {
    let texts = json!({
        "orderMessage": {"message": "t", "orderTitle": "t"}, "groupInviteMessage": {"groupName": "t"},
        "listMessage": {"buttonText": "t"}, "listResponseMessage": {"singleSelectReply": {"selectedRowId": "t"}},
        "templateButtonReplyMessage": {"selectedId": "t"}, "invoiceMessage": {"note": "t"},
        "interactiveResponseMessage": {"nativeFlowResponseMessage": {"paramsJson": "t"}},
        "extendedTextMessage": {"canonicalUrl": "https://t", "matchedText": "t"},
        "locationMessage": {"url": "https://t.whatsapp.net.example/", "degreesLatitude": -23.5, "degreesLongitude": -46.6},
    });
    let kept = json!({
        "imageMessage": {"url": "https://mmg.whatsapp.net/v/t62", "mimetype": "image/jpeg", "fileSha256": "AQID", "fileLength": "48213",
            "mediaKey": "CQg=", "fileEncSha256": "AQ==", "directPath": "/v/t62", "mediaKeyTimestamp": "1761057600", "jpegThumbnail": "/9j/",
            "height": 1280, "contextInfo": {"stanzaId": "3EB0", "participant": "1@lid", "mentionedJid": ["1@lid"]}},
        "mediaUrl": "https://minio/a.jpeg", "base64": "/9j/", "messageContextInfo": {"messageSecret": "AQ=="},
        "protocolMessage": {"type": "MESSAGE_EDIT", "key": {"id": "3EB0", "remoteJid": "1@lid"}},
    });
    let event = |message: &Value| {
        let data = json!({"message": message, "error": {"message": "kept"}});
        json!({"event": "e", "instance": "i", "data": data}).to_string()
    };
    let hidden = run("message_text = true", &event(&texts));
    assert_eq!(hidden["data"]["error"]["message"], "kept");
    let shown = hidden["data"]["message"].to_string();
    let hidden = shown.matches(r#":"***""#).count();
    assert_eq!(hidden, 13, "{shown}");
    assert!(
        !shown.contains(r#""t""#) && !shown.contains("https"),
        "{shown}"
    );
    let same = run("message_text = true", &event(&kept));
    assert_eq!(same["data"]["message"], kept);
}

#[test]
fn hides_what_paths_name() {
    let paths = "paths = ['data.pushName', 'data.key.*', 'data.messageTimestamp', 'data.no']\n";
    let data = &run(paths, &message())["data"];
    assert_eq!(data["pushName"], "*** ***za");
    assert_eq!(data["messageTimestamp"], "********39");
    assert_eq!(data["key"]["remoteJid"], "*********7777@s.whatsapp.net");
    assert_eq!(data["key"]["fromMe"], false);
    let hashed = &run(&format!("{paths}mode = 'hash'\njids = true"), &message());
    let key = &hashed["data"]["key"];
    assert_eq!(
        key["participant"].as_str().unwrap().replace(":3", ""),
        hashed["data"]["message"]["contextInfo"]["mentionedJid"][0]
            .as_str()
            .unwrap()
    );
    let dropped = &run(&format!("{paths}mode = 'drop'"), &message())["data"];
    assert_eq!(dropped.get("pushName"), None);
    assert_eq!(dropped["key"], json!({}));
}

#[test]
fn an_event_with_nothing_to_hide_keeps_its_bytes() {
    let keys = "phones = true\njids = true\nmessage_text = true\npaths = ['data.x']";
    let text = r#"{ "event":"e", "instance":"5511988887777", "n":1.10, "data":{"id":"5511988887777","x":null} }"#;
    let mut bench = FilterHarness::<Redact>::from_toml(keys);
    assert_eq!(bench.send_json(text).emitted()[0].envelope(), text);
}

#[test]
fn what_cannot_be_looked_into_fails() {
    let deep = format!("{}5511988887777{}", "[".repeat(200), "]".repeat(200));
    let envelope = format!(r#"{{"event":"e","instance":"i","data":{deep}}}"#);
    let mut bench = FilterHarness::<Redact>::from_toml("phones = true");
    bench.send_json(&envelope);
    assert_eq!(bench.emitted().len(), 0);
    assert_eq!(bench.failed()[0].1, "unreadable");
    // Half a character hides nothing.
    let mut bench = FilterHarness::<Redact>::from_toml("phones = true");
    bench.send_json(r#"{"event":"e","instance":"i","data":"\ud83d 5511988887777"}"#);
    let text = bench.emitted()[0].document()["data"].to_string();
    assert!(!text.contains("551198888"), "{text}");
}

#[test]
fn says_what_is_wrong() {
    for (keys, part) in [
        ("", "nothing is hidden"),
        ("mode = 'hash'\nphones = false", "nothing is hidden"),
        ("phones = 'hash'", "needs a secret"),
        ("paths = ['a']\nmode = 'hash'", "needs a secret"),
        ("phones = true\nsecret = 'short'", "too short"),
        ("paths = ['instance']", "routing needs"),
        ("paths = ['.data.x']", "no dot stands in front"),
        ("phones = 'hush'", "\"mask\", \"hash\" or \"drop\""),
    ] {
        let problems = FilterHarness::<Redact>::problems(keys);
        assert!(problems.contains(part), "{keys}: {problems}");
    }
}

proptest! {
    #[test]
    fn what_is_masked_once_has_nothing_left(
        text in r"([0-9]{1,16}|[+@_*.:() a%-]|%40|\\u00e9|@(lid|c\.us|g\.us)|\+55 |\\n|\u{e9}){0,10}"
    ) {
        let mut bench = FilterHarness::<Redact>::from_toml("phones = true\njids = true");
        let event = json!({"event": "e", "instance": "i", "data": {"x": text, "y": {text.clone(): 1}}});
        let once = bench.send_json(&event.to_string()).emitted().remove(0);
        let twice = bench.send(once.clone()).emitted().remove(0);
        prop_assert_eq!(twice.envelope(), once.envelope());
        let digits = |text: &str| text.chars().filter(char::is_ascii_digit).count();
        let masked = once.document()["data"]["x"].as_str().unwrap_or_default();
        prop_assert_eq!(masked.chars().count(), text.chars().count());
        prop_assert!(digits(masked) <= digits(&text));
        let runs = masked.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '\\');
        prop_assert!(runs.into_iter().all(|run| {
            !(10..=15).contains(&run.len()) || !run.bytes().all(|byte| byte.is_ascii_digit())
        }), "{}", masked);
    }
}
