//! What the filter does with events.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use evows_core::testing::{self, AsyncFilterHarness};
use serde_json::json;

use super::*;
#[cfg(feature = "s3")]
use crate::client::server::Server;

const JPEG: &[u8] = b"\xff\xd8\xff\xe0 a picture, as far as anybody can tell from how it begins";

fn bench(keys: &str) -> AsyncFilterHarness<Media> {
    AsyncFilterHarness::from_toml(keys)
}

/// An event whose thumbnail is written like this.
fn event(thumbnail: &Value) -> Event {
    testing::event(
        &json!({
            "event": "messages.upsert",
            "instance": "loja1",
            "data": {
                "key": {"id": "A"},
                "message": {
                    "imageMessage": {"mimetype": "image/jpeg", "mediaKey": {"0": 1, "1": 2}, "jpegThumbnail": thumbnail},
                    "base64": STANDARD.encode(JPEG),
                    "mediaUrl": null,
                },
                "qrcode": {"base64": "data:image/png;base64,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
            },
        })
        .to_string(),
    )
}

/// The thumbnail in each of the dialects.
fn dialects() -> Vec<Event> {
    let numbers: Vec<u8> = JPEG.to_vec();
    let indexed = numbers.iter().enumerate();
    let indexed: Map<String, Value> = indexed
        .map(|(index, byte)| (index.to_string(), (*byte).into()))
        .collect();
    let placeholder = json!({"_placeholder": true, "num": 0});
    vec![
        event(&STANDARD.encode(JPEG).into()),
        event(&Value::Object(indexed)),
        event(&json!({"type": "Buffer", "data": numbers})),
        event(&placeholder).with_attachments(vec![Bytes::from_static(JPEG)]),
    ]
}

async fn emitted(bench: &mut AsyncFilterHarness<Media>, event: Event) -> Event {
    let mut emitted = bench.send(event).await.emitted();
    assert_eq!(emitted.len(), 1);
    emitted.remove(0)
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn content_is_taken_out_in_every_dialect_and_keys_stay() {
    for event in dialects() {
        let mut strips = bench("mode = 'cap'\nmax_size = 32");
        let made = emitted(&mut strips, event).await;
        let message = &made.document()["data"]["message"];
        let left = json!({"imageMessage": {"mimetype": "image/jpeg", "mediaKey": {"0": 1, "1": 2}}, "mediaUrl": null});
        assert_eq!(*message, left);
        assert!(made.document()["data"]["qrcode"]["base64"].is_string());
        assert!(made.attachments().is_empty());
    }
}

#[tokio::test]
async fn what_is_small_stays_and_the_bytes_of_the_envelope_with_it() {
    for event in dialects() {
        for keys in ["", "mode = 'cap'\nmax_size = 61"] {
            let made = emitted(&mut bench(keys), event.clone()).await;
            assert_eq!(made.envelope(), event.envelope(), "{keys}");
            assert_eq!(made.attachments(), event.attachments(), "{keys}");
        }
    }
    assert_eq!(JPEG.len(), 61);
    // The size of base64 is told without decoding it.
    for length in 57..=64 {
        let text = STANDARD.encode(vec![0; length]);
        let envelope = format!(
            r#"{{"event":"e", "instance":"i","data":{{"message":{{"base64":"{text}"}}}}}}"#
        );
        let mut caps = bench("mode = 'cap'\nmax_size = 60");
        let made = emitted(&mut caps, testing::event(&envelope)).await;
        assert_eq!(
            made.envelope() == envelope.as_str(),
            length <= 60,
            "{length}"
        );
    }
}

#[tokio::test]
async fn messages_are_found_in_arrays_and_in_quotations() {
    let thumbnail = STANDARD.encode([7; 300]);
    let envelope = json!({"event": "messages.set", "instance": "i", "data": [
        {"message": {"conversation": "a"}},
        {"contextInfo": {"quotedMessage": {"videoMessage": {"jpegThumbnail": thumbnail, "list": [[{"type": "Buffer", "data": vec![1; 300]}]]}}}},
        {"jpegThumbnail": thumbnail, "base64": thumbnail},
        {"message": {"thumbnail": "x".repeat(999) + "!", "base64": "not base64!".repeat(99)}},
    ]});
    let made = emitted(&mut bench(""), testing::event(&envelope.to_string())).await;
    let data = &made.document()["data"];
    let video = &data[1]["contextInfo"]["quotedMessage"]["videoMessage"];
    assert_eq!(*video, json!({"list": [[null]]}));
    assert_eq!(data[2], envelope["data"][2], "no message");
    assert!(data[3]["message"]["thumbnail"].is_string(), "no base64");
    assert!(data[3]["message"].get("base64").is_none());
}

#[tokio::test]
async fn content_is_put_into_a_folder_and_referred_to() {
    // As `sha256sum` has it.
    let sum = "caa2d80951b09f0cbd2da188485e6b2c4ddfc78c98953a326dfe8ba29976ef43";
    for event in dialects() {
        let folder = tempfile::tempdir().unwrap();
        let mut offloads = bench(&format!(
            "mode = 'offload'\nmax_size = 32\nfolder = '{}'\npublic_url = 'https://m.example.com/'",
            folder.path().join("a/b").display()
        ));
        let made = emitted(&mut offloads, event).await;
        let message = &made.document()["data"]["message"];
        let reference = &message["base64"];
        let sha256 = reference["sha256"].as_str().unwrap();
        assert_eq!(sha256, sum);
        let path = format!("loja1/1970-01-01/{sha256}.jpg");
        let url = format!("https://m.example.com/{path}");
        assert_eq!(
            *reference,
            json!({"path": path, "url": url, "size": 61, "sha256": sha256, "mimetype": "image/jpeg"})
        );
        assert_eq!(message["mediaUrl"], url);
        assert_eq!(message["imageMessage"]["jpegThumbnail"], *reference);
        assert!(message["imageMessage"].get("mediaUrl").is_none());
        let written = files(folder.path());
        assert_eq!(written, [folder.path().join("a/b").join(&path)]);
        assert_eq!(std::fs::read(&written[0]).unwrap(), JPEG);
        assert!(made.attachments().is_empty());
    }
}

#[tokio::test]
async fn the_same_content_at_once_is_one_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let keys = format!("mode = 'offload'\nfolder = '{}'", folder.path().display());
    let bench = bench(&keys);
    let text = STANDARD.encode(vec![9; 500_000]);
    let event = testing::event(
        &json!({"event": "e", "instance": "i", "data": {"message": {"base64": text, "mediaUrl": "mine"}}})
            .to_string(),
    );
    let calls = (0..16).map(|_| bench.filter().apply(&event));
    for verdict in futures_util::future::join_all(calls).await {
        let Verdict::Emit(events) = verdict else {
            panic!("{verdict:?}");
        };
        let message = &events[0].1.document()["data"]["message"];
        assert_eq!(message["mediaUrl"], "mine");
        assert!(message["base64"].get("url").is_none());
    }
    let written = files(folder.path());
    assert_eq!(written.len(), 1, "{written:?}");
    assert_eq!(std::fs::read(&written[0]).unwrap(), vec![9; 500_000]);
}

#[tokio::test]
async fn what_cannot_be_stored_ends_as_on_error_says_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let in_the_way = folder.path().join("file");
    std::fs::write(&in_the_way, "").unwrap();
    let event = &dialects()[0];
    let keys = format!(
        "mode = 'offload'\nmax_size = 32\nfolder = '{}'",
        in_the_way.display()
    );
    let mut fails = bench(&keys);
    assert_eq!(
        fails.send(event.clone()).await.failed()[0].1,
        "store_failed"
    );
    let mut discards = bench(&format!("on_error = 'discard'\n{keys}"));
    assert_eq!(
        discards.send(event.clone()).await.discarded()[0].1,
        "store_failed"
    );
    let mut passes = bench(&format!("on_error = 'pass'\n{keys}"));
    let made = emitted(&mut passes, event.clone()).await;
    assert_eq!(made.envelope(), event.envelope());
    assert_eq!(files(folder.path()), [in_the_way]);

    let keys = format!("mode = 'offload'\nfolder = '{}'", folder.path().display());
    let bad =
        json!({"event": "e", "instance": "i", "data": {"message": {"base64": "?".repeat(999)}}});
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let deep = format!(r#"{{"event":"e","instance":"i","data":{deep}}}"#);
    let cases = [(bad.to_string(), "not_base64"), (deep, "unreadable")];
    let keys = format!("on_unreadable = 'fail'\n{keys}");
    for (envelope, reason) in &cases {
        let mut fails = bench(&keys);
        assert_eq!(fails.send_json(envelope).await.failed()[0].1, *reason);
    }
    // Otherwise they pass, whatever becomes of those that the store does not take, and are counted.
    let cx = testing::context("media");
    let keys = keys.replace("'fail'", "'pass'");
    let mut passes = AsyncFilterHarness::<Media>::build_in(&keys, &cx).unwrap();
    for (envelope, reason) in &cases {
        let made = emitted(&mut passes, testing::event(envelope)).await;
        assert_eq!(made.envelope(), envelope.as_str());
        let counted =
            format!(r#"evows_events_unhandled_total{{component="media",reason="{reason}"}} 1"#);
        assert!(cx.metrics().encode().contains(&counted), "{counted}");
    }
}

#[tokio::test]
async fn base64_is_read_as_it_is_met_with() {
    // 64 bytes, whose base64 has padding and both of the digits that alphabets differ in.
    let content: Vec<u8> = (0..64).map(|n| 0xff ^ (n & 3)).collect();
    let standard = STANDARD.encode(&content);
    assert!(standard.contains('+') && standard.contains('/') && standard.ends_with("=="));
    let url_safe = standard.replace('+', "-").replace('/', "_");
    let lines = |text: &str| {
        let (first, second) = text.split_at(40);
        format!("\t{first}\r\n  {second}\n")
    };
    for text in [standard, url_safe] {
        let bare = text.trim_end_matches('=');
        for written in [text.clone(), bare.to_owned(), lines(&text), lines(bare)] {
            for written in [format!("data:image/png;base64,{written}"), written] {
                let folder = tempfile::tempdir().unwrap();
                let mut offloads = bench(&format!(
                    "mode = 'offload'\nmax_size = 63\nfolder = '{}'",
                    folder.path().display()
                ));
                let message = json!({"base64": written, "jpegThumbnail": written});
                let envelope = json!({"event": "e", "instance": "i", "data": {"message": message}});
                let envelope = envelope.to_string();
                let made = emitted(&mut offloads, testing::event(&envelope)).await;
                let message = &made.document()["data"]["message"];
                assert_eq!(message["base64"]["size"], 64, "{written}");
                assert_eq!(message["jpegThumbnail"], message["base64"], "{written}");
                let stored = files(folder.path());
                assert_eq!(std::fs::read(&stored[0]).unwrap(), content, "{written}");
                // Its size is known without decoding it.
                let mut caps = bench("mode = 'cap'\nmax_size = 64");
                let made = emitted(&mut caps, testing::event(&envelope)).await;
                assert_eq!(made.envelope(), envelope.as_str());
            }
        }
    }
}

#[tokio::test]
async fn each_instance_has_a_folder_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let keys = format!("mode = 'offload'\nfolder = '{}'", folder.path().display());
    let mut offloads = bench(&keys);
    let long = "x".repeat(300);
    for instance in [
        "loja 1",
        "loja_1",
        "loja/1",
        "..",
        &long,
        &format!("{long}y"),
    ] {
        let message = json!({"base64": "QUJD".repeat(100), "mediaUrl": null});
        let envelope = json!({"event": "e", "instance": instance, "data": {"message": message}});
        let made = emitted(&mut offloads, testing::event(&envelope.to_string())).await;
        let message = &made.document()["data"]["message"];
        let path = message["base64"]["path"].as_str().unwrap();
        assert!(folder.path().join(path).exists(), "{path}");
    }
    assert_eq!(files(folder.path()).len(), 6);
}

#[cfg(feature = "s3")]
#[tokio::test]
async fn a_store_that_hangs_holds_up_few_events() {
    let server = Server::new(|_| None).await;
    let keys = format!(
        "mode = 'offload'\nmax_size = 32\ntimeout = '50ms'\n\
         s3 = {{ endpoint = '{}', bucket = 'b', access_key = 'a', secret_key = 's' }}",
        server.url("")
    );
    let mut fails = bench(&keys);
    for n in 0..100 {
        let failed = fails.send(dialects().remove(0)).await.failed();
        let reason = if n < 5 { "timeout" } else { "left_alone" };
        assert_eq!(failed[0].1, reason, "{n}");
    }
    let without = json!({"event": "e", "instance": "i", "data": {"text": "x".repeat(99)}});
    let without = testing::event(&without.to_string());
    emitted(&mut fails, without).await;
}

#[test]
fn says_what_is_wrong() {
    for (keys, part) in [
        ("mode = 'offload'", "nothing says where"),
        ("mode = 'strip'\nfolder = 'a'", "takes `mode = \"offload\"`"),
        ("mode = 'cap'", "takes a `max_size`"),
        ("path = '../{sha256}'", "begins with a dot"),
        ("path = '{date}'", "has no `{sha256}`"),
        ("public_url = 'media.example.com'", "in front"),
        ("timeout = '0s'", "no time"),
    ] {
        let problems = AsyncFilterHarness::<Media>::problems(keys);
        assert!(problems.contains(part), "{keys}: {problems}");
    }
}

#[cfg(feature = "s3")]
#[test]
fn says_what_is_wrong_with_a_store() {
    let good = "endpoint = 'http://m:9000'\nbucket = 'b'\naccess_key = 'a'\nsecret_key = 's'\n";
    let check = |keys: &str| {
        AsyncFilterHarness::<Media>::problems(&format!("mode = 'offload'\n[s3]\n{keys}"))
    };
    assert_eq!(check(good), "");
    for (keys, part) in [
        (good.replace("http://m:9000", "minio"), "no URL"),
        (good.replace("http", "ftp"), "in front"),
        (good.replace("m:9000", "u:p@m:9000"), "a user in it"),
        (good.replace("m:9000", "u@m:9000"), "a user in it"),
        (
            good.replace("m:9000", "m:9000/?x=1"),
            "a query or a fragment",
        ),
        (good.replace("m:9000", "m:9000#x"), "a query or a fragment"),
        (good.replace("'b'", "'a/../b'"), "no bucket's name"),
        (good.replace("'b'", "''"), "no bucket's name"),
        (good.replace("'s'", "''"), "`secret_key` is empty"),
        (format!("{good}prefix = '/a'"), "begins with a dot"),
        (format!("{good}prefix = 'a/../b'"), "begins with a dot"),
        (format!("{good}presign = '8d'"), "cannot hold"),
        (format!("{good}style = 'virtual'"), "cannot be `virtual`"),
    ] {
        let problems = check(&keys);
        assert!(problems.contains(part), "{keys}: {problems}");
    }
}
