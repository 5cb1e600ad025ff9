//! Every route, in the shapes of contract section 3.

use std::time::SystemTime;

use axum::http::Method;
use bytes::Bytes;
use evows_core::Event;
use evows_core::access::Compat;
use evows_core::config::Settings;
use evows_core::names::LISTED;
use evows_core::plugin::{Instances, Lifecycle};
use evows_core::registry::{self, Kind};
use serde_json::json as value;

use super::super::UnknownInstances;
use super::rig::{KEY, Rig, error, json, keys, unauthorized, unknown};

const ON: &str = r#"{"websocket":{"enabled":true,"events":["CALL"]}}"#;

fn bad_request(message: &str) -> (u16, String) {
    error(400, "Bad Request", message)
}

#[tokio::test]
async fn set_answers_the_row() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    let first = rig.set("ana", KEY, ON).await;
    assert_eq!(first.0, 201);
    let row = json(&first);
    let order = [
        "id",
        "enabled",
        "events",
        "createdAt",
        "updatedAt",
        "instanceId",
    ];
    assert_eq!(keys(&row), order);
    assert_eq!(row["id"].as_str().unwrap().len(), 25);
    assert_eq!(row["instanceId"].as_str().unwrap().len(), 36);
    assert_eq!(row["createdAt"].as_str().unwrap().len(), 24);
    assert!(row["createdAt"].as_str().unwrap().ends_with('Z'));
    assert_eq!(rig.get("/websocket/find/ana", KEY).await, (200, first.1));
    let second = json(&rig.set("ana", KEY, r#"{"enabled":false}"#).await);
    for key in ["id", "createdAt", "instanceId", "events"] {
        assert_eq!(second[key], row[key], "{key}");
    }
}

#[tokio::test]
async fn set_accepts_the_bodies_of_every_version() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    let all = value!(LISTED);
    for (body, enabled, events) in [
        (ON, true, value!(["CALL"])),
        (
            r#"{"enabled":true,"events":["CALL","CALL"]}"#,
            true,
            value!(["CALL", "CALL"]),
        ),
        (
            r#"{"websocket":{"enabled":true,"events":[]}}"#,
            true,
            all.clone(),
        ),
        (r#"{"enabled":true,"events":[]}"#, true, all.clone()),
        (r#"{"enabled":true}"#, true, all.clone()),
        (
            r#"{"websocket":{"enabled":false,"events":["CALL"]}}"#,
            false,
            value!(["CALL"]),
        ),
        (
            r#"{"websocket":{"enabled":true,"x":1,"events":["GROUP_UPDATE"]},"y":2}"#,
            true,
            value!(["GROUP_UPDATE"]),
        ),
        (
            r#"{"enabled":true,"events":["GROUPS_UPDATE"]}"#,
            true,
            value!(["GROUPS_UPDATE"]),
        ),
        (
            r#"{"enabled":false,"events":[]}"#,
            false,
            value!(["GROUPS_UPDATE"]),
        ),
        (
            r#"{"websocket":{"enabled":true}}"#,
            true,
            value!(["GROUPS_UPDATE"]),
        ),
    ] {
        let answer = rig.set("ana", KEY, body).await;
        assert_eq!(answer.0, 201, "{body}: {}", answer.1);
        let row = json(&answer);
        assert_eq!(
            (&row["enabled"], &row["events"]),
            (&value!(enabled), &events),
            "{body}"
        );
    }
}

#[tokio::test]
async fn set_says_what_is_wrong_as_the_original_does() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    let listed = LISTED.join(",");
    let enum_fault = |place: &str| format!("{place} is not one of enum values: {listed}");
    let type_fault = r#"[["websocket.enabled is not of a type(s) boolean","websocket.enabled is not one of enum values: true,false"]]"#;
    let object_fault = r#"[["websocket is not of a type(s) object"]]"#;
    for (body, message) in [
        (r#"{"websocket":{"events":[]}}"#, r#"[["websocket requires property \"enabled\""]]"#.to_owned()),
        (r#"{"websocket":{"enabled":"true"}}"#, type_fault.to_owned()),
        (r#"{"websocket":{"enabled":null}}"#, type_fault.to_owned()),
        (
            r#"{"websocket":{"enabled":true,"events":"ALL"}}"#,
            r#"[["websocket.events is not of a type(s) array"]]"#.to_owned(),
        ),
        (
            r#"{"websocket":{"enabled":true,"events":["FOO","CALL","call"]}}"#,
            value!([[enum_fault("websocket.events[0]"), enum_fault("websocket.events[2]")]]).to_string(),
        ),
        (
            r#"{"websocket":{"enabled":true,"events":["ALL"]}}"#,
            value!([[enum_fault("websocket.events[0]")]]).to_string(),
        ),
        (
            r#"{"enabled":true,"events":[5]}"#,
            value!([["events[0] is not of a type(s) string", enum_fault("events[0]")]]).to_string(),
        ),
        (r#"{"websocket":null}"#, object_fault.to_owned()),
        (r#"{"websocket":"x"}"#, object_fault.to_owned()),
        (r#"{"websocket":[]}"#, object_fault.to_owned()),
        ("{}", r#"[["instance requires property \"enabled\""]]"#.to_owned()),
        ("[]", r#"[["instance requires property \"enabled\""]]"#.to_owned()),
        ("", r#"[["instance requires property \"enabled\""]]"#.to_owned()),
        (
            r#"{"enabled":1}"#,
            r#"[["enabled is not of a type(s) boolean","enabled is not one of enum values: true,false"]]"#.to_owned(),
        ),
    ] {
        assert_eq!(rig.set("ana", KEY, body).await, bad_request(&message), "{body}");
    }
    assert!(
        rig.lifecycle.get("ana").is_none(),
        "a refused set makes nothing"
    );
}

#[tokio::test]
async fn malformed_json_has_a_phrase_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    for body in ["{", "nonsense", "5", "\"x\""] {
        let answer = rig.set("ana", KEY, body).await;
        let error = json(&answer);
        assert_eq!(answer.0, 400, "{body}");
        assert_eq!(error["status"], 400);
        assert_eq!(error["error"], "Internal Server Error");
        assert!(error["response"]["message"].is_string());
    }
}

#[tokio::test]
async fn groups_update_is_refused_as_in_the_original_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start_with(folder.path(), Compat::Evolution, UnknownInstances::Create).await;
    let answer = rig
        .set(
            "ana",
            KEY,
            r#"{"websocket":{"enabled":true,"events":["GROUPS_UPDATE"]}}"#,
        )
        .await;
    let fault = format!(
        "websocket.events[0] is not one of enum values: {}",
        LISTED.join(",")
    );
    assert_eq!(answer, bad_request(&value!([[fault]]).to_string()));
}

#[tokio::test]
async fn a_form_is_read_as_strings() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    let form = "application/x-www-form-urlencoded; charset=utf-8";
    let made = rig
        .send(
            Method::POST,
            "/instance/create",
            KEY,
            form,
            "instanceName=my+inst&token=T",
        )
        .await;
    assert_eq!(made.0, 201, "{}", made.1);
    assert_eq!(&*rig.lifecycle.owner("T").unwrap().name, "my inst");
    let set = rig
        .send(
            Method::POST,
            "/websocket/set/my%20inst",
            "T",
            form,
            "websocket[enabled]=true",
        )
        .await;
    assert!(
        set.1
            .contains("websocket.enabled is not of a type(s) boolean")
    );
}

#[tokio::test]
async fn find_answers_null_without_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    rig.create(r#"{"instanceName":"ana"}"#).await;
    let null = (200, "null".to_owned());
    assert_eq!(rig.get("/websocket/find/ana", KEY).await, null);
    assert_eq!(rig.get("/websocket/find/bob", KEY).await, unknown("bob"));
}

#[tokio::test]
async fn create_answers_as_the_original() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    let made = rig.create(r#"{"instanceName":"ana","token":"T","integration":"EVOLUTION","rejectCall":true,"msgCall":"no","qrcode":true,"extra":{}}"#).await;
    assert_eq!(made.0, 201);
    let id = json(&made)["instance"]["instanceId"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(id.len(), 36);
    let body = format!(
        r#"{{"instance":{{"instanceName":"ana","instanceId":"{id}","integration":"EVOLUTION","webhookWaBusiness":null,"accessTokenWaBusiness":"","status":"close"}},"hash":"T","webhook":{{}},"websocket":{{}},"rabbitmq":{{}},"nats":{{}},"sqs":{{}},"settings":{{"rejectCall":true,"msgCall":"no","groupsIgnore":false,"alwaysOnline":false,"readMessages":false,"readStatus":false,"syncFullHistory":false,"wavoipToken":""}}}}"#
    );
    assert_eq!(made.1, body);
    let token = json(&rig.create(r#"{"instanceName":"bob","token":""}"#).await)["hash"].clone();
    let token = token.as_str().unwrap();
    assert_eq!((token.len(), token), (36, &*token.to_uppercase()));
    assert_eq!(&*rig.lifecycle.owner(token).unwrap().name, "bob");
}

#[tokio::test]
async fn create_applies_an_embedded_websocket() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    let made = rig
        .create(r#"{"instanceName":"ana","websocket":{"events":["CALL"]}}"#)
        .await;
    assert_eq!(json(&made)["websocket"], value!({"enabled": true}));
    let ana = rig.lifecycle.get("ana").unwrap();
    assert!(ana.activated);
    assert_eq!(ana.websocket.as_ref().unwrap().events, ["CALL"]);
    rig.create(r#"{"instanceName":"bob","websocket":{"enabled":false}}"#)
        .await;
    assert!(!rig.lifecycle.get("bob").unwrap().activated);
    let (status, _) = rig
        .create(r#"{"instanceName":"eve","websocket":{"events":["FOO"]}}"#)
        .await;
    assert_eq!(status, 400);
    assert!(rig.lifecycle.get("eve").is_none());
}

#[tokio::test]
async fn create_refuses_as_the_original() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    rig.create(r#"{"instanceName":"ana","token":"T"}"#).await;
    let forbidden = |message: &str| error(403, "Forbidden", message);
    let token_taken = forbidden(r#"["This token is already in use."]"#);
    for (body, answer) in [
        (
            r#"{"instanceName":"ana"}"#,
            forbidden(r#"["This name \"ana\" is already in use."]"#),
        ),
        (r#"{"instanceName":"bob","token":"T"}"#, token_taken.clone()),
        (r#"{"instanceName":"bob","token":"GLOBAL"}"#, token_taken),
        (
            r#"{"instanceName":"bob","integration":"X"}"#,
            bad_request(r#"["Invalid integration"]"#),
        ),
        (
            "{}",
            bad_request(r#"[["instance requires property \"instanceName\""]]"#),
        ),
        (
            r#"{"instanceName":5}"#,
            bad_request(r#"[["instanceName is not of a type(s) string"]]"#),
        ),
    ] {
        assert_eq!(rig.create(body).await, answer, "{body}");
    }
    assert_eq!(rig.lifecycle.all().len(), 1);
}

#[tokio::test]
async fn names_that_no_channel_can_have_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    for (path, name, said) in [
        ("a%2Cb", "a,b", "','"),
        ("a%2Fb", "a/b", "'/'"),
        ("a%3Fb", "a?b", "'?'"),
        ("a%0Ab", "a\nb", "'\\\\n'"),
    ] {
        let set = rig.set(path, KEY, ON).await;
        assert_eq!(set.0, 400, "{path}: {}", set.1);
        assert!(set.1.contains(said), "{path}: {}", set.1);
        let created = rig
            .create(&value!({ "instanceName": name }).to_string())
            .await;
        assert_eq!(created, set);
    }
    assert_eq!(rig.create(r#"{"instanceName":""}"#).await.0, 400);
    assert!(rig.lifecycle.all().is_empty());
}

#[tokio::test]
async fn names_with_spaces_and_letters_of_any_script_work() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    for (path, name) in [
        ("my%20inst", "my inst"),
        ("jo%C3%A3o", "joão"),
        ("a%2525", "a%25"),
    ] {
        assert_eq!(rig.set(path, KEY, ON).await.0, 201);
        let instance = rig.lifecycle.get(name).unwrap();
        assert_eq!(instance.channel.as_str(), format!("/{name}"));
        assert_eq!(
            rig.get(&format!("/websocket/find/{path}"), KEY).await.0,
            200
        );
    }
    assert_eq!(rig.set("%FF", KEY, ON).await.0, 400);
}

#[tokio::test]
async fn unknown_instances_are_made_for_the_global_key_alone() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    rig.create(r#"{"instanceName":"ana","token":"T"}"#).await;
    assert_eq!(rig.set("new", "T", ON).await, unauthorized());
    assert_eq!(rig.set("new", KEY, ON).await.0, 201);
    assert!(rig.lifecycle.get("new").unwrap().token.is_some());

    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start_with(folder.path(), Compat::Strict, UnknownInstances::Reject).await;
    assert_eq!(rig.set("new", KEY, ON).await, unknown("new"));
}

#[tokio::test]
async fn a_key_opens_what_it_should_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    rig.create(r#"{"instanceName":"ana","token":"A"}"#).await;
    rig.create(r#"{"instanceName":"bob","token":"B"}"#).await;
    for (method, uri) in [
        (Method::POST, "/websocket/set/ana"),
        (Method::GET, "/websocket/find/ana"),
        (Method::GET, "/instance/connectionState/ana"),
    ] {
        for (key, allowed) in [
            (KEY, true),
            ("A", true),
            ("B", false),
            ("bad", false),
            ("", false),
        ] {
            let answer = rig.call(method.clone(), uri, key, ON).await;
            assert_eq!(answer.0 < 300, allowed, "{uri} with {key:?}");
            assert!(allowed || answer == unauthorized());
        }
    }
    // The query neither carries a key nor names another instance.
    assert_eq!(
        rig.get("/websocket/find/ana?apikey=A", "").await,
        unauthorized()
    );
    assert_eq!(
        rig.get("/websocket/find/ana?instanceName=bob", "B").await,
        unauthorized()
    );
    for key in ["A", "bad", ""] {
        let body = r#"{"instanceName":"eve"}"#;
        let answer = rig.call(Method::POST, "/instance/create", key, body).await;
        assert_eq!(answer, unauthorized());
        assert_eq!(rig.delete("bob", key).await, unauthorized());
    }
    assert_eq!(rig.lifecycle.all().len(), 2);
}

#[tokio::test]
async fn strangers_learn_which_instances_exist_only_where_they_always_did() {
    let strict = tempfile::tempdir().unwrap();
    let rig = Rig::start(strict.path()).await;
    rig.create(r#"{"instanceName":"ana"}"#).await;
    for name in ["ana", "bob"] {
        assert_eq!(
            rig.get(&format!("/websocket/find/{name}"), "").await,
            unauthorized()
        );
    }
    let taken = r#"{"instanceName":"ana"}"#;
    let create =
        |rig: Rig| async move { rig.call(Method::POST, "/instance/create", "", taken).await };
    assert_eq!(create(rig).await, unauthorized());

    let original = tempfile::tempdir().unwrap();
    let rig = Rig::start_with(original.path(), Compat::Evolution, UnknownInstances::Create).await;
    rig.create(r#"{"instanceName":"ana"}"#).await;
    assert_eq!(rig.get("/websocket/find/ana", "").await, unauthorized());
    assert_eq!(rig.get("/websocket/find/bob", "").await, unknown("bob"));
    assert_eq!(rig.set("bob", "bad", ON).await, unknown("bob"));
    assert_eq!(rig.set("bob", KEY, ON).await.0, 201);
    assert_eq!(create(rig).await.0, 403);
}

#[tokio::test]
async fn delete_forgets_the_instance() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    rig.create(r#"{"instanceName":"ana","token":"T"}"#).await;
    let done = r#"{"status":"SUCCESS","error":false,"response":{"message":"Instance deleted"}}"#;
    assert_eq!(rig.delete("ana", "T").await, (200, done.to_owned()));
    assert_eq!(rig.delete("ana", "T").await, unauthorized());
    assert_eq!(rig.delete("ana", KEY).await, unknown("ana"));
    assert_eq!(
        rig.create(r#"{"instanceName":"ana","token":"T"}"#).await.0,
        201
    );
}

#[tokio::test]
async fn fetch_lists_what_the_key_may_see() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    rig.create(r#"{"instanceName":"bob","token":"B","number":"5511"}"#)
        .await;
    rig.create(r#"{"instanceName":"ana","token":"A","websocket":{}}"#)
        .await;
    let fetch = async |query: &str, key: &str| {
        let answer = rig
            .get(&format!("/instance/fetchInstances{query}"), key)
            .await;
        assert_eq!(answer.0, 200, "{}", answer.1);
        let rows = json(&answer);
        let names = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(fetch("", KEY).await, ["ana", "bob"]);
    assert_eq!(fetch("", "B").await, ["bob"]);
    assert_eq!(fetch("?instanceName=bob", KEY).await, ["bob"]);
    assert_eq!(fetch("?instanceName=bob", "B").await, ["bob"]);
    let rows = json(&rig.get("/instance/fetchInstances", KEY).await);
    let id = rows[0]["id"].as_str().unwrap();
    assert_eq!(fetch(&format!("?instanceId={id}"), KEY).await, ["ana"]);
    assert_eq!(rows[0]["Websocket"]["instanceId"], rows[0]["id"]);
    assert_eq!(rows[1]["Websocket"], value!(null));
    assert_eq!(
        (&rows[1]["token"], &rows[1]["number"]),
        (&value!("B"), &value!("5511"))
    );
    assert_eq!(
        rig.get("/instance/fetchInstances", "").await,
        unauthorized()
    );
    assert_eq!(
        rig.get("/instance/fetchInstances?instanceName=ana", "B")
            .await,
        unauthorized()
    );
    let missing = rig
        .get("/instance/fetchInstances?instanceName=eve", KEY)
        .await;
    assert_eq!(
        missing,
        error(404, "Not Found", r#"["Instance \"eve\" not found"]"#)
    );
}

#[tokio::test]
async fn the_state_is_what_the_last_event_told() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    rig.create(r#"{"instanceName":"ana"}"#).await;
    let observe = |name: &str, instance: &str, data: &str| {
        let envelope = format!(r#"{{"event":"{name}","instance":"{instance}","data":{data}}}"#);
        let event = Event::parse(Bytes::from(envelope), SystemTime::now()).unwrap();
        rig.lifecycle.observe(&event);
    };
    let state = async || rig.get("/instance/connectionState/ana", KEY).await.1;
    assert_eq!(state().await, r#"{"instance":{"instanceName":"ana"}}"#);
    for told in ["connecting", "open", "close"] {
        observe(
            "connection.update",
            "ana",
            &format!(r#"{{"state":"{told}","statusReason":200}}"#),
        );
        let body = format!(r#"{{"instance":{{"instanceName":"ana","state":"{told}"}}}}"#);
        assert_eq!(state().await, body);
    }
    observe("connection.update", "ana", r#"{"state":"odd"}"#);
    observe("connection.update", "ana", "null");
    observe("connection.update", "unknown", r#"{"state":"open"}"#);
    observe("messages.upsert", "ana", r#"{"state":"open"}"#);
    observe("remove.instance", "ana", "null");
    observe("instance.delete", "ana", "{}");
    assert!(state().await.contains("close"));
    rig.set("ana", KEY, ON).await;
    assert!(
        state().await.contains("close"),
        "a set does not forget the state"
    );
    assert!(rig.lifecycle.get("unknown").is_none());
}

#[tokio::test]
async fn what_is_no_route_is_answered_as_express_does() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    for uri in ["/websocket/nope?x=1", "/websocket/set/ana", "/instance/"] {
        let message = format!(r#"["Cannot GET {uri}"]"#);
        assert_eq!(rig.get(uri, KEY).await, error(404, "Not Found", &message));
    }
}

#[tokio::test]
async fn a_body_without_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    let body = format!(
        r#"{{"enabled":true,"x":"{}"}}"#,
        "x".repeat(9 * 1024 * 1024)
    );
    assert_eq!(rig.set("ana", KEY, &body).await.0, 413);
    assert_eq!(rig.set("ana", "", &body).await, unauthorized());
}

#[test]
fn the_example_of_every_plugin_here_passes_its_check() {
    let names = ["evolution", "global", "traditional", "both", "env"];
    let plugins = registry::all()
        .into_iter()
        .filter(|plugin| matches!(plugin.kind, Kind::Lifecycle | Kind::Policy));
    let mut found = 0;
    for plugin in plugins.filter(|plugin| names.contains(&plugin.name)) {
        let problems = plugin.check(&Settings::from_text(plugin.example));
        assert_eq!(problems, [], "{plugin:?}");
        found += 1;
    }
    assert_eq!(found, names.len());
}
