//! What is posted, byte for byte.

use std::time::{SystemTime, UNIX_EPOCH};

use evows_core::testing;
use flate2::read::GzDecoder;
use hyper::HeaderMap;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::{Value, json};
use standardwebhooks::Webhook as Receiver;

use super::rig::{LOCAL, Rig, event};
use crate::client::server::{Got, Server};

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

const ENVELOPE: &str = r#"{"event":"messages.upsert","instance":"ana","data":{"n":1.10,"text":"é"},"destination":"http://evows/webhook/s3cret","date_time":"2025-10-21T14:40:39.123Z","server_url":"http://e","apikey":null}"#;

fn verifies(got: &Got, secret: &str, body: &[u8]) -> bool {
    let mut headers = HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers.insert(name, got.header(name).unwrap().parse().unwrap());
    }
    Receiver::new(secret)
        .unwrap()
        .verify(body, &headers)
        .is_ok()
}

#[tokio::test]
async fn an_instances_webhook_gets_the_bytes_of_the_original() {
    let mut server = Server::ok().await;
    let rig = Rig::new(LOCAL).await;
    let url = server.url("/hook");
    let headers = json!({"X-Key": "abc", "x-number": 7, "gone": null});
    rig.set(
        "ana",
        json!({"enabled": true, "url": url, "headers": headers, "events": []}),
    )
    .await;
    let event = testing::event(ENVELOPE);
    rig.send("instance/ana", event.clone()).await.unwrap();
    let got = server.next().await;
    let body = ENVELOPE.replace("http://evows/webhook/s3cret", &url);
    assert_eq!(got.body, body.as_bytes());
    let timestamp = got.header("webhook-timestamp").unwrap();
    let address = server.address;
    assert_eq!(
        got.head,
        format!(
            "POST /hook HTTP/1.1\r\n\
             Accept: application/json, text/plain, */*\r\n\
             Content-Type: application/json\r\n\
             X-Key: abc\r\n\
             X-Number: 7\r\n\
             Webhook-Id: msg_{}\r\n\
             Webhook-Timestamp: {timestamp}\r\n\
             User-Agent: axios/1.12.2\r\n\
             Content-Length: {}\r\n\
             Accept-Encoding: gzip, compress, deflate, br\r\n\
             Host: {address}\r\n\
             Connection: keep-alive\r\n\r\n",
            event.id(),
            body.len(),
        )
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert!(now.as_secs() - timestamp.parse::<u64>().unwrap() < 60);
}

#[tokio::test]
async fn the_name_of_the_event_is_put_behind_whatever_the_url_is() {
    let mut server = Server::ok().await;
    let rig = Rig::new(LOCAL).await;
    for (path, target) in [
        ("", "/group-participants-update"),
        ("/", "//group-participants-update"),
        ("/hook", "/hook/group-participants-update"),
        ("/hook/", "/hook//group-participants-update"),
        ("/hook?token=1", "/hook?token=1/group-participants-update"),
        ("?x", "/?x/group-participants-update"),
        ("/a b/é", "/a%20b/%C3%A9/group-participants-update"),
    ] {
        let set = json!({"enabled": true, "url": server.url(path), "byEvents": true});
        rig.set("ana", set).await;
        let event = event("group-participants.update", "ana");
        rig.send("instance/ana", event).await.unwrap();
        let got = server.next().await;
        assert_eq!(got.target(), target);
        assert_eq!(got.json()["destination"], server.url(path));
    }
}

#[tokio::test]
async fn the_global_endpoint_has_no_headers_of_instances() {
    let mut server = Server::ok().await;
    let url = server.url("/all");
    let rig = Rig::new(&format!("{LOCAL}url = \"{url}\"\nby_events = true\n")).await;
    rig.send("global", event("call", "ana")).await.unwrap();
    let got = server.next().await;
    assert_eq!(got.target(), "/all/call");
    assert_eq!(got.json()["destination"], format!("{url}/call"));

    let headers = json!({"x-own": "1", "jwt_key": "k"});
    let own = json!({"enabled": false, "url": "http://own/hook", "headers": headers});
    rig.set("ana", own).await;
    rig.send("global", event("call", "ana")).await.unwrap();
    let got = server.next().await;
    assert_eq!(got.json()["destination"], "http://own/hook");
    assert_eq!(got.header("x-own"), None);
    assert_eq!(got.header("authorization"), None);
    assert_eq!(got.header("webhook-signature"), None);
}

#[tokio::test]
async fn the_global_url_may_have_a_user_and_the_file_may_have_headers() {
    let mut server = Server::ok().await;
    let url = format!("http://me:p%40ss@{}/all", server.address);
    let rig = Rig::new(&format!("url = \"{url}\"\nheaders = {{ X-A = \"1\" }}\n")).await;
    rig.send("global", event("call", "ana")).await.unwrap();
    let got = server.next().await;
    let host = server.address.to_string();
    assert_eq!(got.header("authorization"), Some("Basic bWU6cEBzcw=="));
    assert_eq!(got.header("host"), Some(&*host));
    assert_eq!(got.header("x-a"), Some("1"));
}

#[tokio::test]
async fn a_jwt_key_becomes_a_token_of_the_attempt() {
    let mut server = Server::ok().await;
    let rig = Rig::new(LOCAL).await;
    let headers = json!({"jwt_key": "the key"});
    let set = json!({"enabled": true, "url": server.url(""), "headers": headers});
    rig.set("ana", set).await;
    rig.send("instance/ana", event("call", "ana"))
        .await
        .unwrap();
    let got = server.next().await;
    assert_eq!(got.header("jwt_key"), None);
    let token = got.header("authorization").unwrap();
    let token = token.strip_prefix("Bearer ").unwrap();
    let key = DecodingKey::from_secret(b"the key");
    let claims = decode::<Value>(token, &key, &Validation::new(Algorithm::HS256));
    let claims = claims.unwrap().claims;
    assert_eq!(
        (&claims["app"], &claims["action"]),
        (&json!("evolution"), &json!("webhook"))
    );
    let life = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert_eq!(life, 600);
}

#[tokio::test]
async fn requests_are_signed_with_every_secret() {
    let mut server = Server::ok().await;
    let url = server.url("/all");
    let rig = Rig::new(&format!(
        "{LOCAL}url = \"{url}\"\nsecret = \"{NEW}\"\nsecrets = [\"{OLD}\"]\n"
    ))
    .await;
    rig.send("global", event("call", "ana")).await.unwrap();
    let got = server.next().await;
    for secret in [OLD, NEW] {
        assert!(verifies(&got, secret, &got.body));
    }
    // An instance has its own, and nobody else's.
    rig.enable("ana", &server.url("/own")).await;
    rig.send("instance/ana", event("call", "ana"))
        .await
        .unwrap();
    assert_eq!(server.next().await.header("webhook-signature"), None);
    let headers = json!({"webhook_secret": OLD});
    let set = json!({"enabled": true, "url": server.url("/own"), "headers": headers});
    rig.set("ana", set).await;
    rig.send("instance/ana", event("call", "ana"))
        .await
        .unwrap();
    let got = server.next().await;
    assert!(verifies(&got, OLD, &got.body));
    assert!(!verifies(&got, NEW, &got.body));
    assert_eq!(got.header("webhook_secret"), None);
}

#[tokio::test]
async fn a_compressed_body_is_signed_as_it_reads() {
    use std::io::Read;

    let mut server = Server::ok().await;
    let url = server.url("");
    let rig = Rig::new(&format!(
        "url = \"{url}\"\ngzip = true\nsecret = \"{OLD}\"\n"
    ))
    .await;
    rig.send("global", event("call", "ana")).await.unwrap();
    let got = server.next().await;
    assert_eq!(got.header("content-encoding"), Some("gzip"));
    let mut body = Vec::new();
    GzDecoder::new(&*got.body).read_to_end(&mut body).unwrap();
    assert!(body.starts_with(br#"{"event":"call","#));
    assert!(verifies(&got, OLD, &body));
}

#[tokio::test]
async fn later_versions_have_headers_of_their_own() {
    let mut server = Server::ok().await;
    let rig = Rig::new(&format!("{LOCAL}instance_headers = true\n")).await;
    rig.enable("ana", &server.url("")).await;
    rig.send("instance/ana", event("messages.upsert", "ana"))
        .await
        .unwrap();
    let got = server.next().await;
    let row = rig.find("ana").await;
    assert_eq!(got.header("x-instance-id"), row["instanceId"].as_str());
    assert_eq!(got.header("x-instance-name"), Some("ana"));
    assert_eq!(got.header("x-event-type"), Some("messages.upsert"));
    assert_eq!(got.header("x-timestamp").unwrap().len(), 13);
    let agent = Some("EvolutionAPI-Webhook/2.3.7");
    assert_eq!(got.header("user-agent"), agent);
}
