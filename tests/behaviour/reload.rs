//! Settings of filters that change while everything runs.

use std::collections::BTreeSet;

use futures_util::FutureExt as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::harness::{Connection, Evows, KEY, Listener, Load, Setup, envelope, message, until};

fn setup(filters: &str) -> Setup {
    Setup::pipeline(&format!(
        "[sources.in]\ntype = \"webhook\"\n{filters}\n\
         [sinks.out]\ntype = \"socketio\"\ninputs = [\"last\"]\npolicy = \"global\"\n"
    ))
}

fn listen(evows: &Evows) -> Listener {
    let options = json!({"query": {"apikey": KEY}, "transports": ["websocket"]});
    Listener::node(&json!({"url": evows.url("/"), "options": options}))
}

/// Posts an event that may be answered later; gives the status.
fn post_later(evows: &Evows, event: Value) -> tokio::task::JoinHandle<u16> {
    let address = evows.address();
    tokio::spawn(async move {
        let mut connection = Connection::open(address).await.unwrap();
        let headers = [("content-type", "application/json")];
        let reply = connection
            .request("POST", "/webhook", &headers, &event.to_string())
            .await;
        reply.status
    })
}

/// Three that remember, and one that holds.
fn filters(window: &str, rate: u64, quiet: &str, deny: &str) -> Setup {
    setup(&format!(
        "[filters.once]\ntype = \"dedupe\"\ninputs = [\"in\"]\nkey = [\"data.key.id\"]\nwindow = \"{window}\"\n\
         [filters.limit]\ntype = \"throttle\"\ninputs = [\"once\"]\nrate = {rate}\nexcess = \"delay\"\n\
         [filters.storms]\ntype = \"debounce\"\ninputs = [\"limit\"]\nkey = [\"data.key.id\"]\nquiet = \"{quiet}\"\nmax_wait = \"2h\"\n\
         [filters.last]\ntype = \"events\"\ninputs = [\"storms\"]\ndeny = [\"{deny}\"]\n"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_change_and_clients_stay_and_what_was_remembered_stays() {
    let evows = filters("1h", 100_000, "10ms", "call").start().await;
    let mut client = listen(&evows);
    client.next("connect").await;
    evows.post(&message("a", "1")).await;
    assert_eq!(client.message_ids(1).await, ["1"]);

    let said = evows
        .reload(&filters("2h", 100_000, "10ms", "presence.*"))
        .await;
    assert!(
        said.contains("reloaded: `filters.once` and `filters.last` run with other settings"),
        "{said}"
    );
    // Known from before, and denied before.
    evows.post(&message("a", "1")).await;
    evows
        .post(&envelope("call", "a", &json!({"key": {"id": "2"}})))
        .await;
    evows.post(&message("a", "3")).await;
    assert_eq!(client.event().await.0, "call");
    assert_eq!(client.message_ids(1).await, ["3"]);

    // It is held, or comes when it is not held any more.
    let held = filters("2h", 100_000, "1h", "presence.*");
    evows.reload(&held).await;
    let posted = post_later(&evows, message("a", "4"));
    let quick = filters("2h", 100_000, "10ms", "presence.*");
    evows.reload(&quick).await;
    assert_eq!(client.message_ids(1).await, ["4"]);
    assert_eq!(posted.await.unwrap(), 200);
    let same = evows.reload(&quick).await;
    assert!(same.contains("is the one that runs"), "{same}");
    assert!(!client.has_printed("disconnect"));
    evows.signal(Signal::TERM);
    let ended = evows.ended().await;
    assert!(
        ended
            .stderr
            .contains("filter `once`: 5 received, 4 passed on, 1 filtered (duplicate)"),
        "{}",
        ended.stderr
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_every_event_arrives_once_and_in_order() {
    let evows = filters("1h", 100_000, "1ms", "call").start().await;
    let mut client = listen(&evows);
    client.next("connect").await;
    let load = Load::start(&evows, |id| message("a", &id.to_string()));
    for turn in 0..10 {
        load.go_on(50).await;
        let window = format!("{}h", 1 + turn % 2);
        let said = evows
            .reload(&filters(&window, 50_000 + turn, "1ms", "call"))
            .await;
        assert!(said.contains("run with other settings"), "{said}");
    }
    let count = load.stop().await;
    let ids = client.message_ids(usize::try_from(count).unwrap()).await;
    let ids: Vec<u64> = ids.iter().map(|id| id.parse().unwrap()).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    assert!(!client.has_printed("disconnect"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_or_needs_a_restart_changes_nothing() {
    let evows = filters("1h", 1000, "1ms", "call").start().await;
    let mut client = listen(&evows);
    client.next("connect").await;
    let other_sink = filters("1h", 1000, "1ms", "presence.*").server("drain_timeout = \"1s\"");
    let other_inputs = setup("[filters.last]\ntype = \"events\"\ninputs = [\"in\"]\n");
    for (wrong, why) in [
        (filters("1 parsec", 1000, "1ms", "presence.*"), "has errors"),
        (filters("1h", 0, "1ms", "presence.*"), "has errors"),
        (other_sink, "changes to `[server]` need a restart"),
        (
            other_inputs,
            "changes to `filters.once`, `filters.limit`, `filters.storms` and `filters.last` need",
        ),
    ] {
        let said = evows.reload(&wrong).await;
        assert!(said.contains("everything goes on as before"), "{said}");
        assert!(said.contains(why), "{said}");
        evows
            .post(&envelope("call", "a", &json!({"key": {"id": why}})))
            .await;
    }
    assert!(
        evows.stderr().text().contains("1 parsec"),
        "it is shown what is wrong"
    );
    evows.post(&message("a", "1")).await;
    assert_eq!(client.message_ids(1).await, ["1"]);
}

fn lookup(file: &str) -> Setup {
    setup(&format!(
        "[filters.last]\ntype = \"enrich\"\ninputs = [\"in\"]\nkey = \"instance\"\n\
         target = \"data.shop\"\nfile = \"{file}\"\n"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_cannot_start_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shops.csv");
    std::fs::write(&path, "id,city\na,Recife\n").unwrap();
    let evows = lookup("/nowhere.csv").spawn();
    until("it says so", || {
        evows.stderr().text().contains("cannot start")
    })
    .await;
    let mut client = listen(&evows);
    client.next("connect").await;
    let posted = post_later(&evows, message("a", "1"));
    let said = evows.reload(&lookup(path.to_str().unwrap())).await;
    assert!(said.contains("reloaded: `filters.last`"), "{said}");
    let (_, event) = client.event().await;
    assert_eq!(event["data"]["shop"], json!({"id": "a", "city": "Recife"}));
    assert_eq!(posted.await.unwrap(), 200);

    std::fs::write(folder.path().join("other.csv"), "id,city\na,Olinda\n").unwrap();
    evows
        .reload(&lookup(folder.path().join("other.csv").to_str().unwrap()))
        .await;
    let city = |event: &Value| event["data"]["shop"]["city"].clone();
    // The one that runs works on until the other one has started.
    let moved = async |client: &mut Listener, to: &str| loop {
        evows.post(&message("a", "2")).await;
        if city(&client.event().await.1) == to {
            return;
        }
    };
    moved(&mut client, "Olinda").await;
    evows.reload(&lookup("/nowhere.csv")).await;
    until("it says so", || {
        let said = evows.stderr().text();
        said.contains("cannot start with other settings")
    })
    .await;
    evows.post(&message("a", "3")).await;
    assert_eq!(city(&client.event().await.1), "Olinda", "it works on");
    evows.reload(&lookup(path.to_str().unwrap())).await;
    moved(&mut client, "Recife").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_waits_for_a_full_queue_holds_up_no_stop() {
    // It takes connections, and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let setup = |deny: &str| {
        Setup::pipeline(&format!(
            "[sources.in]\ntype = \"webhook\"\n\
             [filters.last]\ntype = \"events\"\ninputs = [\"in\"]\ndeny = [\"{deny}\"]\n\
             [sinks.out]\ntype = \"webhook\"\ninputs = [\"last\"]\nurl = \"{url}\"\nbuffer = {{ events = 1 }}\n"
        ))
        .server("shutdown_timeout = \"2s\"")
    };
    let evows = setup("call").start().await;
    let posted: Vec<_> = (0..200)
        .map(|id| post_later(&evows, message("a", &id.to_string())))
        .collect();
    until("something is under way", || {
        silent.accept().now_or_never().is_some()
    })
    .await;
    std::fs::write(
        evows.data_dir().with_file_name("evows.toml"),
        setup("presence.*").render(evows.address(), evows.data_dir().parent().unwrap()),
    )
    .unwrap();
    evows.signal(Signal::HUP);
    until("it waits", || {
        evows.stderr().text().contains("the reload waits")
    })
    .await;
    evows.signal(Signal::TERM);
    let ended = evows.ended().await;
    assert!(
        ended.stderr.contains("a reload was not finished"),
        "{}",
        ended.stderr
    );
    drop(posted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_never_ends_holds_up_nothing() {
    let evows = filters("1h", 1000, "1ms", "call").start().await;
    let path = evows.data_dir().with_file_name("evows.toml");
    std::fs::remove_file(&path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    evows.signal(Signal::HUP);
    evows.signal(Signal::HUP);
    evows.post(&message("a", "1")).await;
    evows.signal(Signal::TERM);
    assert!(evows.ended().await.status.success());
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stops_when_its_terminal_is_closed() {
    let evows = filters("1h", 1000, "1ms", "call").start().await;
    let folder = evows.data_dir().parent().unwrap().to_owned();
    let text = std::fs::read_to_string(folder.join("evows.toml")).unwrap();
    let data = evows.data_dir().display().to_string();
    let other = text.replace(&evows.address().to_string(), "127.0.0.1:0");
    let other = other.replace(&data, &format!("{data}2"));
    std::fs::write(folder.join("other.toml"), other).unwrap();
    let binary = env!("CARGO_BIN_EXE_evows");
    let mut script = tokio::process::Command::new("script")
        .args(["-qefc", &format!("exec {binary} run -c other.toml"), "log"])
        .current_dir(&folder)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    until("it listens", || log().contains("listening on")).await;
    let running = || {
        let processes = std::fs::read_dir("/proc").unwrap();
        let lines = processes.filter_map(|it| std::fs::read(it.ok()?.path().join("cmdline")).ok());
        let lines: Vec<_> = lines.collect();
        let is_it =
            |line: &Vec<u8>| line.starts_with(binary.as_bytes()) && line.ends_with(b"other.toml\0");
        lines.iter().any(is_it)
    };
    assert!(running());
    script.kill().await.unwrap();
    until("it has stopped", || !running()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_nobody_reads_breaks_no_stop() {
    let evows = filters("1h", 1000, "1ms", "call").start().await;
    let path = evows.data_dir().with_file_name("evows.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let data = evows.data_dir().display().to_string();
    let other = text.replace(&evows.address().to_string(), "127.0.0.1:0");
    let other = other.replace(&data, &format!("{data}2"));
    std::fs::write(path.with_file_name("other.toml"), other).unwrap();
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_evows"))
        .args(["run", "-c", "other.toml"])
        .current_dir(path.parent().unwrap())
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap()
        && !line.contains("listening on")
    {}
    drop(lines);
    let id = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(id).unwrap(), Signal::TERM).unwrap();
    assert!(child.wait().await.unwrap().success());
}
