//! What is there after a start, and what keeps a start from happening.

use std::error::Error;
use std::fs;
use std::sync::Arc;

use axum::http::Method;
use evows_core::plugin::{Instance, Instances, Lifecycle, Watcher};
use parking_lot::Mutex;

use super::rig::{KEY, Rig, json, unknown};

/// Keeps what it was told, and what was to be seen at that moment.
struct Log {
    lifecycle: Arc<super::super::Evolution>,
    told: Mutex<Vec<String>>,
}

impl Log {
    fn push(&self, what: &str, instance: &Instance) {
        let visible = self.lifecycle.get(&instance.name).is_some();
        let line = format!(
            "{what} {} activated={} visible={visible}",
            instance.name, instance.activated
        );
        self.told.lock().push(line);
    }
}

impl Watcher for Log {
    fn changed(&self, instance: &Arc<Instance>) {
        self.push("changed", instance);
    }

    fn removed(&self, instance: &Arc<Instance>) {
        self.push("removed", instance);
    }
}

#[tokio::test]
async fn a_restart_brings_everything_back() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    rig.create(r#"{"instanceName":"ana","token":"T"}"#).await;
    rig.set("ana", "T", r#"{"enabled":true,"events":["CALL"]}"#)
        .await;
    rig.set("ana", "T", r#"{"enabled":false}"#).await;
    rig.create(r#"{"instanceName":"gone","token":"G"}"#).await;
    rig.delete("gone", KEY).await;
    let before = rig.get("/instance/fetchInstances", KEY).await;
    rig.lifecycle.stop().await.unwrap();

    let again = Rig::start(folder.path()).await;
    assert_eq!(again.get("/instance/fetchInstances", KEY).await, before);
    let ana = again.lifecycle.owner("T").unwrap();
    assert_eq!(&*ana.name, "ana");
    assert!(ana.activated, "it was enabled once");
    assert!(again.lifecycle.owner("G").is_none());
    assert_eq!(again.lifecycle.all().len(), 1);
}

#[tokio::test]
async fn what_was_answered_survives_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    let set = rig.set("ana", KEY, r#"{"enabled":true}"#).await;
    let crashed = tempfile::tempdir().unwrap();
    let file = "instances.redb";
    fs::copy(folder.path().join(file), crashed.path().join(file)).unwrap();
    let again = Rig::start(crashed.path()).await;
    let found = again.get("/websocket/find/ana", KEY).await;
    assert_eq!(found, (200, set.1));
}

#[tokio::test]
async fn watchers_are_told_before_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    let log = Arc::new(Log {
        lifecycle: Arc::clone(&rig.lifecycle),
        told: Mutex::default(),
    });
    rig.lifecycle.watch(Arc::clone(&log) as Arc<dyn Watcher>);
    let take = || std::mem::take(&mut *log.told.lock());
    rig.create(r#"{"instanceName":"ana","token":"T"}"#).await;
    assert_eq!(take(), ["changed ana activated=false visible=true"]);
    rig.set("ana", "T", r#"{"enabled":true}"#).await;
    assert_eq!(take(), ["changed ana activated=true visible=true"]);
    rig.set("ana", "T", r#"{"enabled":"yes"}"#).await;
    assert!(take().is_empty(), "a refused call changes nothing");
    rig.delete("ana", "T").await;
    assert_eq!(take(), ["removed ana activated=true visible=false"]);
    assert!(rig.lifecycle.owner("T").is_none());
    assert_eq!(rig.delete("ana", KEY).await, unknown("ana"));
}

#[tokio::test]
async fn a_store_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    let file = folder.path().join("instances.redb");
    let name = file.to_str().unwrap();

    let locked = Rig::fails(folder.path()).await;
    assert_eq!(
        locked.to_string(),
        format!(
            "the instance registry {name} is open in another process: \
             stop that one, or give this one another `server.data_dir`"
        )
    );
    // Whoever shows an error with its causes would say it twice.
    assert!(locked.source().is_none());

    rig.lifecycle.stop().await.unwrap();
    fs::write(
        &file,
        "this is no database, and it is long enough to look like one",
    )
    .unwrap();
    let damaged = Rig::fails(folder.path()).await;
    let text = damaged.to_string();
    assert!(
        text.contains(name) && text.contains("move it away"),
        "{text}"
    );
    assert!(damaged.source().is_none());
}

#[tokio::test]
async fn nothing_changes_while_the_store_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    rig.lifecycle.stop().await.unwrap();
    let (status, _) = rig.set("ana", KEY, r#"{"enabled":true}"#).await;
    assert_eq!(status, 503);
    assert!(rig.lifecycle.get("ana").is_none());
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_memory_and_store_alike() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::start(folder.path()).await;
    let mut call = Box::pin(rig.set("ana", KEY, r#"{"enabled":true}"#));
    // Polled once, the change is under way; then the client is gone.
    let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx))).await;
    assert!(polled.is_pending());
    drop(call);
    // The next change waits for the one before it.
    let (status, _) = rig.set("bob", KEY, r#"{"enabled":true}"#).await;
    assert_eq!(status, 201);
    let listed = rig
        .call(Method::GET, "/instance/fetchInstances", KEY, "")
        .await;
    let names: Vec<_> = json(&listed)
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["ana", "bob"]);
    rig.lifecycle.stop().await.unwrap();
    let again = Rig::start(folder.path()).await;
    assert_eq!(again.lifecycle.all().len(), 2);
}
