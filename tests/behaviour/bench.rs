//! `evows bench` against an evows of its own.

use serde_json::Value;
use tokio::process::Command;

use super::harness::PATIENCE;

/// Runs `evows bench` against an evows with that engine and returns its report.
async fn bench(arguments: &str) -> Value {
    report(&format!("{arguments} --engine socketioxide")).await
}

/// Runs `evows bench` and returns its report.
async fn report(arguments: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_evows"));
    command
        .arg("bench")
        .args(arguments.split(' '))
        .args(["--format", "json"])
        .current_dir(folder.path())
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE * 3, command.output()).await;
    let output = output.expect("it ends").unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn fanout_loses_nothing() {
    let report = bench("fanout --clients 20 --rate 50 --seconds 2 --settle 0").await;
    assert_eq!(report["lost"], 0, "{report}");
    assert_eq!(report["surplus"], 0, "{report}");
    assert_eq!(report["closed"], 0, "{report}");
    assert!(report["deliveries"].as_u64().unwrap() > 0, "{report}");
    assert!(
        report["latency_ms"]["p50"].as_f64().unwrap() > 0.0,
        "{report}"
    );
}

#[tokio::test]
async fn fanout_over_channels_loses_nothing() {
    let report = bench("fanout --clients 6 --channels 3 --rate 60 --seconds 1 --settle 0").await;
    assert_eq!(report["lost"], 0, "{report}");
    assert_eq!(report["surplus"], 0, "{report}");
    assert_eq!(report["channels"], 3, "{report}");
}

#[tokio::test]
async fn restart_brings_every_client_back() {
    let report = bench("restart --clients 10 --settle 1 --seconds 30").await;
    assert_eq!(report["back_percent"], 100.0, "{report}");
    assert!(
        report["back_seconds"]["max"].as_f64().unwrap() > 0.0,
        "{report}"
    );
}

#[tokio::test]
async fn an_outage_loses_nothing() {
    let report =
        report("delivery --outage 1 --seconds 1 --rate 100 --instances 5 --clients 2").await;
    for who in ["down", "other", "clients"] {
        assert_eq!(report[who]["missing"], 0, "{report}");
        assert_eq!(report[who]["out_of_order"], 0, "{report}");
    }
    assert_eq!(report["posted"], report["accepted"], "{report}");
    assert!(report["backlog"].as_u64().unwrap() > 0, "{report}");
    assert!(report["caught_up_seconds"].is_number(), "{report}");
}

#[tokio::test]
async fn a_dead_endpoint_among_others_loses_nothing() {
    let arguments =
        "delivery --endpoints 5 --dead 1 --failure error --seconds 1 --turns 1 --rate 50";
    let report = report(arguments).await;
    assert_eq!(report["missing"], 0, "{report}");
    assert_eq!(report["out_of_order"], 0, "{report}");
    assert_eq!(report["dead_came_back"], true, "{report}");
    assert!(report["with_dead_to_all_alive_p99"].is_number(), "{report}");
}

#[tokio::test]
async fn acknowledged_posts_are_compared_with_others() {
    let report = report("delivery --acknowledged --seconds 1 --turns 1 --instances 8").await;
    for side in ["acknowledged", "fire_and_forget"] {
        assert_eq!(report[side]["missing"], 0, "{report}");
        assert!(
            report[side]["per_second"].as_f64().unwrap() > 0.0,
            "{report}"
        );
    }
}

#[tokio::test]
async fn only_this_machine_can_be_loaded() {
    let output = Command::new(env!("CARGO_BIN_EXE_evows"))
        .args(["bench", "fanout", "--url", "http://192.0.2.1:80"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("192.0.2.1 is another machine"), "{stderr}");
}
