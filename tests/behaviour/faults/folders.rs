//! Folders that cannot be written to, at start or all of a sudden.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use super::super::harness::{Setup, message, until};
use super::{Endpoint, Poster, SmallDisk, check, pipeline, setup};

/// Somebody to whom nothing belongs, and whom modes stop, unlike root.
const SOMEBODY: u32 = 65_534;

/// Whether evows can be run as somebody else, which only root can, and only where they may read it.
fn can_be_somebody() -> bool {
    let mut evows = Command::new(env!("CARGO_BIN_EXE_evows"));
    evows.arg("--version").stdout(Stdio::null());
    let status = evows.uid(SOMEBODY).gid(SOMEBODY).status();
    let can = status.is_ok_and(|it| it.success());
    if !can {
        println!("not run: evows cannot be run as another user");
    }
    can
}

/// Sets the mode of a folder and of those below it, which may go meanwhile.
fn set_modes(folder: &Path, mode: u32) {
    std::fs::set_permissions(folder, Permissions::from_mode(mode)).ok();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|it| it.is_dir()) {
            set_modes(&entry.path(), mode);
        }
    }
}

/// Takes the data folder away and gives it back, twice, under an evows that soon needs a new file there: those that are open
/// can be written to all the same.
async fn come_and_go(endpoint: &Endpoint, pipeline: &str) {
    let evows = Setup::pipeline(pipeline).user(SOMEBODY).start().await;
    let poster = Poster::start(evows.address(), 2);
    poster.go_on(50).await;
    for _ in 0..2 {
        let refused = || poster.refused.load(Ordering::Relaxed);
        let before = refused();
        set_modes(&evows.data_dir(), 0o500);
        until("posts are refused", || refused() > before + 2).await;
        set_modes(&evows.data_dir(), 0o700);
        poster.go_on(50).await;
    }
    let answered = poster.stop().await;
    check(&evows, endpoint, &answered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buffer_that_becomes_unwritable_is_told_to_whoever_posts_and_passes_without_a_restart() {
    if !can_be_somebody() {
        return;
    }
    let endpoint = Endpoint::default();
    let pipeline = pipeline(&endpoint.serve().await, "");
    let small = pipeline.replace("\"disk\"", "\"disk\", max_size = \"1MiB\"");
    assert_ne!(small, pipeline);
    come_and_go(&endpoint, &small).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_becomes_unwritable_is_told_to_whoever_posts_and_passes_without_a_restart() {
    if !can_be_somebody() {
        return;
    }
    let endpoint = Endpoint::default();
    let pipeline = pipeline(&endpoint.serve().await, "");
    let small = pipeline.replace("enabled = true", "enabled = true\nmax_size = \"2MiB\"");
    assert_ne!(small, pipeline);
    come_and_go(&endpoint, &small).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_that_cannot_be_written_are_kept_until_they_can() {
    if !can_be_somebody() {
        return;
    }
    let endpoint = Endpoint::default();
    let more = "dead_letter = \"data/letters/hooks-*.ndjson\"\nnon_retryable = [503]\n";
    let setup = setup(&endpoint.serve().await, more).user(SOMEBODY);
    let evows = setup.start().await;
    let letters = evows.data_dir().join("letters");
    endpoint.0.down.store(true, Ordering::Relaxed);
    set_modes(&evows.data_dir(), 0o500);
    for number in 0..3 {
        evows.post(&message("i", &format!("i-{number}"))).await;
    }
    let warned = |line: &String| line.contains("dead letter");
    until("it says so", || evows.stderr().any(warned)).await;
    set_modes(&evows.data_dir(), 0o700);
    let text = || {
        let files = std::fs::read_dir(&letters).into_iter().flatten().flatten();
        let texts = files.map(|file| std::fs::read_to_string(file.path()).unwrap_or_default());
        texts.collect::<String>()
    };
    until("the letters are there", || {
        let text = text();
        (0..3).all(|number| text.contains(&format!("i-{number}")))
    })
    .await;
    assert_eq!(text().lines().count(), 3, "each once");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_to_is_named_at_start() {
    if !can_be_somebody() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    // Root's own, and readable.
    set_modes(folder.path(), 0o755);
    let hint = "check the folder's permissions";
    refuses_to_start(as_somebody(&data), &data, hint).await;
    let missing = data.join("missing");
    let hint = "create it for the user that evows runs as";
    refuses_to_start(as_somebody(&missing), &missing, hint).await;
}

fn as_somebody(data: &Path) -> Setup {
    let setup = setup("http://127.0.0.1:9/hook", "");
    setup.data_dir(data).user(SOMEBODY)
}

#[tokio::test]
async fn a_disk_that_is_read_only_is_named_at_start() {
    let Some(disk) = SmallDisk::mount() else {
        println!("not run: only root may mount a small disk");
        return;
    };
    let mut mount = Command::new("mount");
    mount.args(["-o", "remount,ro"]).arg(disk.0.path());
    assert!(mount.status().unwrap().success());
    let setup = setup("http://127.0.0.1:9/hook", "").data_dir(disk.0.path());
    refuses_to_start(
        setup,
        disk.0.path(),
        "check the folder's permissions and the disk",
    )
    .await;
}

/// It ends with an error that names the folder and says what to do.
async fn refuses_to_start(setup: Setup, data: &Path, hint: &str) {
    let ended = setup.spawn().ended().await;
    assert!(!ended.status.success());
    let text = &ended.stderr;
    assert!(text.contains(data.to_str().unwrap()), "{text}");
    assert!(text.contains(hint), "{text}");
}
