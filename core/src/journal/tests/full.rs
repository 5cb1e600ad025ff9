//! A disk that is full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::super::{Disk, Durability, Journal, Options, Retention};
use super::{all, random};

const RECORD: usize = 60_000;

/// A small file system of its own.
struct Mount(PathBuf);

impl Mount {
    fn new(path: &Path, megabytes: u32) -> Option<Self> {
        let size = format!("size={megabytes}m");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &size, "evows-test"])
            .arg(path);
        let mounted = mount.output().is_ok_and(|done| done.status.success());
        mounted.then(|| Self(path.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

async fn filled(durability: Durability, trims: bool) {
    let folder = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::new(folder.path(), 64) else {
        println!("skipped: only root may mount a file system");
        return;
    };
    let filler = folder.path().join("filler");
    fs::write(&filler, vec![1; 20 << 20]).unwrap();
    let retention = Retention {
        bytes: 64 << 20,
        ..Retention::default()
    };
    let options = Options {
        durability,
        retention,
    };
    let path = folder.path().join("journal");
    let journal = Disk::open(&path, options).unwrap();
    let (mut stored, mut failed) = (Vec::new(), 0);
    let mut id = 0;
    while failed < 20 {
        id += 1;
        match journal.append(vec![random(id, RECORD)]).await {
            Ok(offset) => stored.push((offset, id)),
            Err(error) => {
                assert!(error.passes(), "{error}");
                failed += 1;
            }
        }
        assert!(id < 20_000, "the disk is not full");
    }
    if !trims {
        fs::remove_file(&filler).unwrap();
    }
    let recovered = async {
        loop {
            if trims {
                journal.trim(stored.len() as u64 / 2).await.ok();
            }
            id += 1;
            match journal.append(vec![random(id, RECORD)]).await {
                Ok(offset) => {
                    stored.push((offset, id));
                    return;
                }
                Err(error) => assert!(error.passes(), "{error}"),
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), recovered)
        .await
        .unwrap();
    let check = async |journal: &Disk| {
        let oldest = journal.bounds().oldest;
        let kept: Vec<_> = stored
            .iter()
            .filter(|(offset, _)| *offset >= oldest)
            .collect();
        let records = all(journal).await;
        assert_eq!(records.len(), kept.len());
        for (record, (offset, id)) in records.iter().zip(kept) {
            assert_eq!(record.offset, *offset);
            assert!(record.bytes == random(*id, RECORD), "{offset}");
        }
    };
    check(&journal).await;
    journal.close().await.unwrap();
    drop(journal);
    check(&Disk::open(&path, options).unwrap()).await;
}

#[tokio::test]
async fn appends_fail_while_the_disk_is_full_and_go_on_when_it_has_room() {
    filled(Durability::default(), false).await;
    filled(Durability::Always, false).await;
}

#[tokio::test]
async fn trimming_makes_room_on_a_full_disk() {
    filled(Durability::default(), true).await;
}
