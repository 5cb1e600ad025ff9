//! An instance's own webhook over the HTTP API (contract 3.4 and 3.5).

use axum::http::Method;
use evows_core::access::Compat;
use evows_core::names::LISTED;
use evows_core::plugin::{Instances, Lifecycle};
use serde_json::{Value, json as value};

use super::super::UnknownInstances;
use super::rig::{Answer, KEY, Rig, error, json, keys, unauthorized, unknown};

const ROW: [&str; 10] = [
    "id",
    "url",
    "headers",
    "enabled",
    "events",
    "webhookByEvents",
    "webhookBase64",
    "createdAt",
    "updatedAt",
    "instanceId",
];

async fn set(rig: &Rig, name: &str, key: &str, body: &Value) -> Answer {
    let uri = format!("/webhook/set/{name}");
    rig.call(Method::POST, &uri, key, &body.to_string()).await
}

async fn find(rig: &Rig, name: &str) -> Answer {
    rig.get(&format!("/webhook/find/{name}"), KEY).await
}

fn invalid(faults: &[&str]) -> Answer {
    let message = Value::from(vec![Value::from(faults)]).to_string();
    error(400, "Bad Request", &message)
}

#[tokio::test]
async fn set_answers_the_row_and_find_shows_it() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    rig.create(r#"{"instanceName":"ana","token":"T"}"#).await;
    let null = (200, "null".to_owned());
    assert_eq!(find(&rig, "ana").await, null);
    let body = value!({"webhook": {
        "enabled": true,
        "url": "http://h/x",
        "headers": {"b": "1", "a": "2"},
        "byEvents": true,
        "base64": true,
        "events": ["CALL"],
        "extra": 1,
    }});
    let first = set(&rig, "ana", "T", &body).await;
    assert_eq!(first.0, 201);
    let row = json(&first);
    assert_eq!(keys(&row), ROW);
    assert_eq!(keys(&row["headers"]), ["b", "a"]);
    assert_eq!(
        (&row["url"], &row["enabled"], &row["events"]),
        (&value!("http://h/x"), &value!(true), &value!(["CALL"]))
    );
    assert_eq!(
        (&row["webhookByEvents"], &row["webhookBase64"]),
        (&value!(true), &value!(true))
    );
    assert_eq!(find(&rig, "ana").await, (200, first.1));

    // What is left out stays as it was, and so does the list of one that is switched off.
    let body = value!({"webhook": {"enabled": false, "url": "http://h/y"}});
    let second = json(&set(&rig, "ana", KEY, &body).await);
    for key in [
        "id",
        "headers",
        "events",
        "webhookByEvents",
        "webhookBase64",
        "createdAt",
    ] {
        assert_eq!(second[key], row[key], "{key}");
    }
    assert_eq!(second["url"], "http://h/y");
    assert_eq!(second["enabled"], false);
    let body = value!({"webhook": {"enabled": true, "url": "http://h/y", "events": []}});
    let third = json(&set(&rig, "ana", KEY, &body).await);
    assert_eq!(third["events"], value!(LISTED));
    // The two integrations know nothing of each other.
    assert!(!rig.lifecycle.get("ana").unwrap().activated);
    assert_eq!(rig.get("/websocket/find/ana", KEY).await.1, "null");
}

#[tokio::test]
async fn what_is_wrong_with_a_body_is_told_in_the_originals_words() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    rig.create(r#"{"instanceName":"ana"}"#).await;
    let listed = LISTED.join(",");
    let not_listed = format!("webhook.events[1] is not one of enum values: {listed}");
    let empty = "The \"url\" cannot be empty";
    for (body, faults) in [
        (value!({}), &["instance requires property \"webhook\""][..]),
        (
            value!({"enabled": true, "url": "http://h", "events": []}),
            &["instance requires property \"webhook\""],
        ),
        (
            value!({"webhook": null}),
            &["webhook is not of a type(s) object"],
        ),
        (
            value!({"webhook": []}),
            &["webhook is not of a type(s) object"],
        ),
        (
            value!({"webhook": {}}),
            &[
                "webhook requires property \"enabled\"",
                "webhook requires property \"url\"",
            ],
        ),
        (
            value!({"webhook": {"enabled": "true", "url": 1, "headers": "x", "byEvents": 1, "base64": "no", "events": "ALL"}}),
            &[
                "webhook.enabled is not of a type(s) boolean",
                "webhook.enabled is not one of enum values: true,false",
                "webhook.url is not of a type(s) string",
                "webhook.headers is not of a type(s) object",
                "webhook.byEvents is not of a type(s) boolean",
                "webhook.base64 is not of a type(s) boolean",
                "webhook.events is not of a type(s) array",
            ],
        ),
        (
            value!({"webhook": {"enabled": true, "url": "http://h", "events": ["CALL", "FOO"]}}),
            &[&not_listed],
        ),
        (value!({"webhook": {"enabled": true, "url": ""}}), &[empty]),
        (value!({"webhook": {"enabled": false, "url": ""}}), &[empty]),
    ] {
        assert_eq!(
            set(&rig, "ana", KEY, &body).await,
            invalid(faults),
            "{body}"
        );
    }
    assert_eq!(find(&rig, "ana").await.1, "null");
    // The original looks at the URL no further.
    for body in [
        value!({"webhook": {"enabled": true, "url": "", "events": []}}),
        value!({"webhook": {"enabled": true, "url": "nonsense"}}),
    ] {
        assert_eq!(set(&rig, "ana", KEY, &body).await.0, 201, "{body}");
    }
}

#[tokio::test]
async fn who_may_set_is_as_with_the_websocket() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    rig.create(r#"{"instanceName":"ana","token":"T"}"#).await;
    let body = value!({"webhook": {"enabled": true, "url": "http://h"}});
    assert_eq!(set(&rig, "ana", "wrong", &body).await, unauthorized());
    assert_eq!(set(&rig, "ana", "", &body).await, unauthorized());
    assert_eq!(set(&rig, "bob", "T", &body).await, unauthorized());
    assert_eq!(find(&rig, "bob").await, unknown("bob"));
    assert_eq!(set(&rig, "bob", KEY, &body).await.0, 201, "it is made");
    assert_eq!(find(&rig, "bob").await.0, 200);

    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start_with(folder.path(), Compat::Strict, UnknownInstances::Reject).await;
    assert_eq!(set(&rig, "bob", KEY, &body).await, unknown("bob"));
}

#[tokio::test]
async fn create_applies_an_embedded_webhook() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    let made = rig
        .create(r#"{"instanceName":"ana","webhook":{"url":"http://h","byEvents":true,"headers":{"a":"b"},"events":["CALL"]}}"#)
        .await;
    assert_eq!(made.0, 201);
    assert_eq!(
        json(&made)["webhook"].to_string(),
        r#"{"webhookUrl":"http://h","webhookHeaders":{"a":"b"},"webhookByEvents":true,"webhookBase64":false}"#
    );
    let row = json(&find(&rig, "ana").await);
    assert_eq!(
        (&row["enabled"], &row["events"]),
        (&value!(true), &value!(["CALL"]))
    );
    let refused = rig
        .create(r#"{"instanceName":"bob","webhook":{"byEvents":true}}"#)
        .await;
    assert_eq!(refused, invalid(&["webhook requires property \"url\""]));
    assert_eq!(find(&rig, "bob").await, unknown("bob"), "nothing was made");

    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start_with(folder.path(), Compat::Evolution, UnknownInstances::Create).await;
    let made = rig
        .create(r#"{"instanceName":"ana","webhook":{"enabled":false,"url":"http://h","events":["FOO"]}}"#)
        .await;
    assert_eq!(made.0, 201);
    let row = json(&find(&rig, "ana").await);
    assert_eq!(
        (&row["enabled"], &row["events"]),
        (&value!(true), &value!(["FOO"]))
    );
}

#[tokio::test]
async fn sinks_see_it_and_can_switch_it_off() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    rig.create(r#"{"instanceName":"ana"}"#).await;
    assert!(
        rig.lifecycle
            .get("ana")
            .unwrap()
            .integration("webhook")
            .is_none()
    );
    let body = value!({"webhook": {"enabled": true, "url": "http://h", "events": ["CALL"]}});
    set(&rig, "ana", KEY, &body).await;
    let ana = rig.lifecycle.get("ana").unwrap();
    let seen = ana.integration("webhook").unwrap();
    assert_eq!(seen.subscription.events, ["CALL"]);
    assert_eq!(
        Value::Object(seen.settings.clone()),
        json(&find(&rig, "ana").await)
    );
    assert!(rig.lifecycle.switch_off("ana", seen).await.unwrap());
    assert!(
        !rig.lifecycle.switch_off("ana", seen).await.unwrap(),
        "it changed"
    );
    assert!(!rig.lifecycle.switch_off("bob", seen).await.unwrap());
    rig.lifecycle.stop().await.unwrap();
    assert!(
        rig.lifecycle
            .switch_off("ana", seen)
            .await
            .is_ok_and(|done| !done)
    );

    let rig = Rig::start(folder.path()).await;
    let row = json(&find(&rig, "ana").await);
    assert_eq!(
        (&row["enabled"], &row["events"]),
        (&value!(false), &value!(["CALL"]))
    );
    let ana = rig.lifecycle.get("ana").unwrap();
    let now = ana.integration("webhook").unwrap();
    assert!(!now.subscription.enabled);
}
