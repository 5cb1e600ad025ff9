//! Journals whose ends are gone.

use std::path::Path;

use super::super::harness::until;
use super::{Endpoint, Poster, check, history, setup};

/// Cuts the end off the newest journal files, as a crash of the machine may.
fn cut_tails(folder: &Path, bytes: u64) {
    let journals = ["data/history/db", "data/buffers/hooks/db"];
    let mut cut = 0;
    for journal in journals {
        for entry in std::fs::read_dir(folder.join(journal)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|it| it == "jnl") {
                let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                let data = std::fs::read(&path).unwrap();
                // Room that was made in advance is zero.
                let end = data
                    .iter()
                    .rposition(|&byte| byte != 0)
                    .map_or(0, |at| at + 1);
                file.set_len((end as u64).saturating_sub(bytes)).unwrap();
                cut += 1;
            }
        }
    }
    assert!(cut >= 2, "there are journals to cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_costs_the_tail_and_no_more() {
    let endpoint = Endpoint::default();
    let mut evows = setup(&endpoint.serve().await, "").start().await;
    let mut kept = 0;
    for bytes in [1, 100, 3000] {
        let poster = Poster::start_as(&format!("cut{bytes}x"), evows.address(), 2);
        poster.go_on(200).await;
        let answered = poster.stop().await;
        until("everything is delivered", || endpoint.has_all(&answered)).await;
        evows = evows.crash_and(|folder| cut_tails(folder, bytes)).await;
        let ids = history(&evows).await;
        let once: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(once.len(), ids.len(), "each once");
        let count = ids.len();
        assert!(
            count > kept + 100,
            "{count} after {kept}: only the tail is gone"
        );
        kept = count;
    }
    let poster = Poster::start_as("after", evows.address(), 2);
    poster.go_on(150).await;
    let answered = poster.stop().await;
    check(&evows, &endpoint, &answered).await;
}
